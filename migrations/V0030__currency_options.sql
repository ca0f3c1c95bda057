-- What a price costs in its other currencies: a subscription may be in one of those, and no event carries them.

ALTER TABLE prices
    ADD COLUMN currency_options JSONB;                          -- {"EUR": {unit_amount_decimal, tiers}}, NULL until known
