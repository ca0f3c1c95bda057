-- Store credit: a refund that was issued as credit makes one credit, whatever is delivered twice.

ALTER TABLE credits ADD COLUMN stripe_refund_id TEXT; -- the refund it was issued for; NULL = granted by hand
CREATE UNIQUE INDEX credits_stripe_refund_id_key ON credits (stripe_refund_id);
