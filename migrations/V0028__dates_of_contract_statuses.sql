-- A contract that is suspended or canceled says since when: it is billed up to that day. The
-- predecessor has no such dates. Its rows, and those it writes while traffic moves over, get them.

-- What was suspended or canceled before we bill anything is not billed at all. ALTER … USING, so
-- that no trigger of the host fires.
ALTER TABLE api_partner_contracts
    ALTER COLUMN suspended_at TYPE TIMESTAMPTZ USING CASE
        WHEN status = 'suspended' AND suspended_at IS NULL
        THEN LEAST(updated_at, (billed_from - 1)::timestamp AT TIME ZONE 'UTC') ELSE suspended_at END,
    ALTER COLUMN canceled_at TYPE TIMESTAMPTZ USING CASE
        WHEN status = 'canceled' AND canceled_at IS NULL
        THEN LEAST(updated_at, (billed_from - 1)::timestamp AT TIME ZONE 'UTC') ELSE canceled_at END;

CREATE FUNCTION billing_date_contract_status() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    since TIMESTAMPTZ := now();
BEGIN
    IF TG_OP = 'INSERT' THEN
        since := LEAST(since, (NEW.billed_from - 1)::timestamp AT TIME ZONE 'UTC');
    END IF;
    IF NEW.status = 'suspended' THEN
        NEW.suspended_at := COALESCE(NEW.suspended_at, since);
    ELSIF NEW.status = 'canceled' THEN
        NEW.canceled_at := COALESCE(NEW.canceled_at, since);
    ELSIF NEW.status = 'active' AND COALESCE(NEW.suspended_at, NEW.canceled_at) IS NOT NULL THEN
        NEW.suspensions := NEW.suspensions || jsonb_build_object(
            'suspended_at', LEAST(NEW.suspended_at, NEW.canceled_at), 'resumed_at', since);
        NEW.suspended_at := NULL;
        NEW.canceled_at := NULL;
    END IF;
    RETURN NEW;
END
$$;
-- Our own changes write the dates with the status, and are left as they are.
CREATE TRIGGER api_partner_contracts_date_status BEFORE INSERT ON api_partner_contracts
    FOR EACH ROW EXECUTE FUNCTION billing_date_contract_status();
CREATE TRIGGER api_partner_contracts_date_status_change BEFORE UPDATE ON api_partner_contracts
    FOR EACH ROW WHEN (NEW.status IS DISTINCT FROM OLD.status)
    EXECUTE FUNCTION billing_date_contract_status();
