-- The suspensions of a contract that are over: their days are not billed, also when the contract
-- was suspended and went on within one cycle.

ALTER TABLE api_partner_contracts
    ADD COLUMN suspensions JSONB NOT NULL DEFAULT '[]';         -- [{suspended_at, resumed_at}], oldest first
