-- Counts a partner's billable requests from the index alone, each request once, whatever the gateway wrote of it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS api_usage_billing_idx
    ON api_usage (api_key_prefix, created_at) INCLUDE (cost_units, status_code, request_id, id);
