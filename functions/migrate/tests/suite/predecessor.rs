//! The database as the predecessor left it: its tables, and rows that use them fully.

use tokio_postgres::Client;

/// A table of the predecessor or of the host application.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    create: &'static str,
    rows: &'static str,
}

/// All of them, in the order they can be made.
pub(crate) const TABLES: &[Table] = &[
    Table {
        name: "users",
        create: "CREATE TABLE users (
            id SERIAL PRIMARY KEY, email VARCHAR(255) UNIQUE NOT NULL, full_name VARCHAR(255),
            plan VARCHAR(50) DEFAULT 'free', stripe_customer_id VARCHAR(255),
            created_at TIMESTAMP DEFAULT now(), updated_at TIMESTAMP DEFAULT now())",
        rows: "INSERT INTO users (email, full_name, plan, stripe_customer_id, created_at, updated_at) VALUES
            ('one@example.test', 'One', 'professional', 'cus_one', '2024-12-31 23:59:59.5', '2025-01-02'),
            ('two@example.test', NULL, 'free', NULL, '2025-02-01', NULL),
            ('three@example.test', 'Three', 'enterprise', 'cus_three', '2025-02-02', '2025-02-02')",
    },
    Table {
        name: "subscriptions",
        create: "CREATE TABLE subscriptions (
            id SERIAL PRIMARY KEY, user_id INT NOT NULL, stripe_subscription_id VARCHAR(255) UNIQUE,
            status VARCHAR(50) NOT NULL CHECK (status IN ('trialing', 'active', 'past_due', 'canceled')),
            current_period_start TIMESTAMP NOT NULL, current_period_end TIMESTAMP NOT NULL,
            plan_name VARCHAR(50) NOT NULL, current_plan_price_cents INT NOT NULL,
            billing_cycle VARCHAR(20) NOT NULL DEFAULT 'monthly', auto_renew BOOLEAN DEFAULT true,
            cancel_at_period_end BOOLEAN DEFAULT false, cancellation_reason TEXT, mrr_cents INT,
            trial_end TIMESTAMP, created_at TIMESTAMP DEFAULT now(), updated_at TIMESTAMP DEFAULT now())",
        rows: "INSERT INTO subscriptions (user_id, stripe_subscription_id, status, current_period_start,
                current_period_end, plan_name, current_plan_price_cents, billing_cycle, auto_renew,
                cancel_at_period_end, cancellation_reason, mrr_cents, trial_end, created_at, updated_at) VALUES
            (1, 'sub_one', 'active', '2025-10-01 10:20:30', '2025-11-01 10:20:30', 'professional', 2999,
             'monthly', true, false, NULL, 2999, NULL, '2025-03-01 10:20:30', '2025-10-01 10:20:31'),
            (1, 'sub_more', 'past_due', '2025-10-05', '2025-11-05', 'professional', 12000,
             'annual', true, true, 'too_expensive', 1000, NULL, '2025-04-05', '2025-10-05'),
            (2, 'sub_two', 'trialing', '2025-10-20', '2025-11-03', 'professional', 2999,
             'monthly', true, false, NULL, 2999, '2025-11-03 00:00:00', '2025-10-20', '2025-10-20'),
            (3, 'sub_three', 'canceled', '2025-05-01', '2025-06-01', 'enterprise', 9999,
             'monthly', false, false, 'unused', 0, NULL, '2025-05-01', '2025-06-01'),
            (2, 'sub_nobody', 'active', '2025-05-01', '2025-06-01', 'professional', 2147483647,
             'monthly', true, false, NULL, 2147483647, NULL, '2025-05-01 23:30:00', NULL)",
    },
    Table {
        name: "api_usage",
        create: "CREATE TABLE api_usage (
            id BIGSERIAL PRIMARY KEY, api_key_prefix VARCHAR(20) NOT NULL, endpoint VARCHAR(255),
            status_code INT, request_id VARCHAR(100), latency_ms INT, cost_units INT DEFAULT 1,
            created_at TIMESTAMP DEFAULT now())",
        rows: "INSERT INTO api_usage (api_key_prefix, endpoint, status_code, request_id, latency_ms, cost_units,
                created_at) VALUES
            ('dp_pk_alpha', '/deeds', 200, 'r1', 12, 1, '2025-10-31 23:59:59.999'),
            ('dp_pk_alpha', '/deeds', 500, 'r2', NULL, 3, '2025-11-01')",
    },
    Table {
        name: "invoices",
        create: "CREATE TABLE invoices (
            id SERIAL PRIMARY KEY, user_id INT, api_key_prefix VARCHAR(20),
            invoice_number VARCHAR(50) UNIQUE NOT NULL, stripe_invoice_id VARCHAR(255) UNIQUE,
            subtotal_cents INT NOT NULL, tax_cents INT DEFAULT 0, discount_cents INT DEFAULT 0,
            total_cents INT NOT NULL, amount_paid_cents INT DEFAULT 0, amount_due_cents INT NOT NULL,
            currency VARCHAR(3) DEFAULT 'USD', status VARCHAR(20) NOT NULL
                CONSTRAINT invoices_status_check CHECK (status IN ('draft', 'open', 'paid', 'void')),
            billing_period_start DATE NOT NULL, billing_period_end DATE NOT NULL, due_date TIMESTAMP NOT NULL,
            paid_at TIMESTAMP, voided_at TIMESTAMP, line_items JSONB NOT NULL, notes TEXT,
            invoice_pdf_url TEXT, metadata JSON, created_at TIMESTAMP DEFAULT (now() AT TIME ZONE 'utc'),
            updated_at TIMESTAMP DEFAULT now())",
        rows: r#"INSERT INTO invoices (user_id, api_key_prefix, invoice_number, stripe_invoice_id, subtotal_cents,
                tax_cents, discount_cents, total_cents, amount_paid_cents, amount_due_cents, currency, status,
                billing_period_start, billing_period_end, due_date, paid_at, voided_at, line_items, notes,
                invoice_pdf_url, metadata, created_at, updated_at) VALUES
            (1, NULL, 'INV-0001', 'in_one', 2999, 240, 0, 3239, 3239, 0, 'usd', 'paid', '2025-10-01', '2025-11-01',
             '2025-10-15 12:00:00', '2025-10-01 10:21:00.123456', NULL,
             '{"items": [{"description": "Professional", "quantity": 1, "unit_price_cents": 2999, "total_cents": 2999}]}',
             'Thank you', 'https://example.test/in_one.pdf', '{"a": [1, "ü"]}', '2025-10-01 10:20:30', NULL),
            (NULL, 'dp_pk_alpha', 'API-202510-dp_pk_alpha', NULL, 2147483647, NULL, NULL, 2147483647, NULL,
             2147483647, 'USD', 'open', '2025-10-01', '2025-10-31', '2025-11-30', NULL, NULL,
             '{"items": []}', NULL, NULL, NULL, '2025-11-01 00:05:00', '2025-11-01 00:05:00'),
            (2, NULL, 'INV-0002', NULL, 100, 0, 0, 100, 0, 0, 'EUR', 'void', '2025-09-01', '2025-10-01',
             '2025-09-01', NULL, '2025-09-02 03:04:05', '{"items": []}', NULL, NULL, NULL, '2025-09-01', '2025-09-02')"#,
    },
    Table {
        name: "payment_history",
        create: "CREATE TABLE payment_history (
            id SERIAL PRIMARY KEY, invoice_id INT NOT NULL, user_id INT NOT NULL,
            stripe_payment_intent_id VARCHAR(255) UNIQUE, stripe_charge_id VARCHAR(255),
            amount_cents INT NOT NULL CHECK (amount_cents > 0), currency VARCHAR(3) DEFAULT 'USD',
            status VARCHAR(20) NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed', 'refunded',
                'partially_refunded', 'disputed')),
            payment_method VARCHAR(50), stripe_fee_cents INT, net_amount_cents INT, failure_code VARCHAR(100),
            failure_message TEXT, refunded_at TIMESTAMP, refund_reason VARCHAR(255),
            refund_amount_cents INT DEFAULT 0, created_at TIMESTAMP DEFAULT now())",
        rows: "INSERT INTO payment_history (invoice_id, user_id, stripe_payment_intent_id, stripe_charge_id,
                amount_cents, currency, status, payment_method, stripe_fee_cents, net_amount_cents, failure_code,
                failure_message, refunded_at, refund_reason, refund_amount_cents, created_at) VALUES
            (1, 1, 'pi_one', 'ch_one', 3239, 'usd', 'succeeded', 'card', 124, 3115, NULL, NULL, NULL, NULL, 0,
             '2025-10-31 23:30:00'),
            (1, 1, 'pi_part', 'ch_part', 10000, 'USD', 'partially_refunded', 'card', 320, 7180, NULL, NULL,
             '2025-11-01 00:30:00.75', 'requested_by_customer', 2500, '2025-10-31 23:45:00'),
            (1, 2, 'pi_full', NULL, 5000, 'EUR', 'refunded', 'sepa_debit', NULL, NULL, NULL, NULL,
             '2025-10-02 00:00:00', NULL, 5000, '2025-10-01 00:00:00'),
            (1, 2, 'pi_failed', 'ch_failed', 700, 'USD', 'failed', 'card', NULL, NULL, 'card_declined',
             'Your card was declined.', NULL, NULL, 0, '2025-10-01 08:00:00'),
            (1, 3, NULL, 'ch_alone', 800, 'USD', 'succeeded', 'card', 53, 747, NULL, NULL, NULL, NULL, NULL,
             '2025-10-01 09:00:00'),
            (1, 3, NULL, NULL, 2147483647, 'JPY', 'succeeded', 'wire', 0, 2147483647, NULL, NULL, NULL, NULL, 0,
             '2025-10-01 10:00:00'),
            (1, 3, 'pi_disputed', 'ch_disputed', 900, 'USD', 'disputed', 'card', 56, 844, NULL, NULL, NULL, NULL,
             0, '2025-10-01 11:00:00'),
            (1, 3, 'pi_pending', NULL, 1000, 'USD', 'pending', 'us_bank_account', NULL, NULL, NULL, NULL, NULL,
             NULL, 0, '2025-10-01 12:00:00')",
    },
    Table {
        name: "usage_events",
        create: "CREATE TABLE usage_events (
            id BIGSERIAL PRIMARY KEY, user_id INT, api_key_prefix VARCHAR(20), event_type VARCHAR(50) NOT NULL,
            resource_id VARCHAR(255), billable BOOLEAN DEFAULT true, cost_units INT DEFAULT 1,
            unit_price_cents INT, metadata JSONB, created_at TIMESTAMP DEFAULT now())",
        rows: r#"INSERT INTO usage_events (user_id, api_key_prefix, event_type, resource_id, billable, cost_units,
                unit_price_cents, metadata, created_at) VALUES
            (1, NULL, 'deed.created', 'deed_1', true, 2, 500, '{"county": "Kern"}', '2025-10-31 23:59:59'),
            (1, NULL, 'deed.created', 'deed_2', true, 1, 500, NULL, '2025-10-31 22:00:00'),
            (1, NULL, 'deed.created', 'deed_3', false, 1, 500, NULL, '2025-10-31 22:00:00'),
            (NULL, 'dp_pk_alpha', 'deed.created', NULL, true, 4, NULL, NULL, '2025-11-01 00:00:00')"#,
    },
    Table {
        name: "credits",
        create: "CREATE TABLE credits (
            id SERIAL PRIMARY KEY, user_id INT NOT NULL, invoice_id INT, amount_cents INT NOT NULL,
            currency VARCHAR(3) DEFAULT 'USD', reason VARCHAR(50) NOT NULL, description TEXT,
            applied_to_invoice_id INT, expires_at TIMESTAMP, created_at TIMESTAMP DEFAULT now())",
        rows: "INSERT INTO credits (user_id, invoice_id, amount_cents, currency, reason, description,
                applied_to_invoice_id, expires_at, created_at) VALUES
            (1, NULL, 1500, 'USD', 'goodwill', 'Sorry', NULL, '2026-01-01 00:00:00', '2025-10-10'),
            (1, 1, 700, 'USD', 'refund', NULL, 1, NULL, '2025-10-11'),
            (2, NULL, 300, 'usd', 'custom', NULL, NULL, NULL, '2025-10-12')",
    },
    Table {
        name: "api_partner_contracts",
        create: "CREATE TABLE api_partner_contracts (
            id SERIAL PRIMARY KEY, api_key_prefix VARCHAR(20) UNIQUE NOT NULL, company VARCHAR(255) NOT NULL,
            pricing_model VARCHAR(20) NOT NULL, monthly_flat_fee_cents INT DEFAULT 0,
            per_deed_price_cents INT DEFAULT 0, per_1000_requests_cents INT DEFAULT 0,
            billing_cycle VARCHAR(20) DEFAULT 'monthly', payment_terms VARCHAR(20) DEFAULT 'net_30',
            payment_method VARCHAR(20) DEFAULT 'stripe', monthly_request_limit INT DEFAULT -1,
            rate_limit_per_minute INT DEFAULT 60, status VARCHAR(20) DEFAULT 'active',
            contract_start_date DATE NOT NULL, contract_end_date DATE, notes TEXT,
            created_at TIMESTAMP DEFAULT now(), updated_at TIMESTAMP DEFAULT now())",
        rows: "INSERT INTO api_partner_contracts (api_key_prefix, company, pricing_model, monthly_flat_fee_cents,
                per_deed_price_cents, per_1000_requests_cents, billing_cycle, payment_terms, payment_method,
                monthly_request_limit, rate_limit_per_minute, status, contract_start_date, contract_end_date,
                notes, created_at, updated_at) VALUES
            ('dp_pk_alpha', 'Alpha Títle', 'hybrid', 50000, 250, 0, 'monthly', 'net_30', 'wire', -1, 60, 'active',
             '2025-01-15', NULL, 'first', '2025-01-10 01:02:03', '2025-01-10 01:02:03'),
            ('dp_pk_beta', 'Beta', 'per_request', 0, 0, 900, 'quarterly', 'net_90', 'ach', 100000, 600, 'suspended',
             '2024-06-01', '2025-12-31', NULL, '2024-05-01', NULL)",
    },
];

/// What ties the tables together: (table, the table it needs, statement).
const LINKS: &[(&str, &str, &str)] = &[
    ("subscriptions", "users", "ALTER TABLE subscriptions ADD FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE"),
    ("payment_history", "users", "ALTER TABLE payment_history ADD FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE"),
    ("payment_history", "invoices", "ALTER TABLE payment_history ADD FOREIGN KEY (invoice_id) REFERENCES invoices (id)"),
    ("credits", "invoices", "ALTER TABLE credits ADD FOREIGN KEY (applied_to_invoice_id) REFERENCES invoices (id)"),
    (
        "subscriptions",
        "subscriptions",
        "CREATE FUNCTION touch() RETURNS TRIGGER LANGUAGE plpgsql AS
            'BEGIN NEW.updated_at := now(); RETURN NEW; END';
         CREATE TRIGGER subscriptions_touch BEFORE UPDATE ON subscriptions FOR EACH ROW EXECUTE FUNCTION touch()",
    ),
];

/// Makes every table of the predecessor but `absent`, with its rows.
pub(crate) async fn create(client: &Client, absent: &[&str]) {
    let present: Vec<&Table> = TABLES
        .iter()
        .filter(|table| !absent.contains(&table.name))
        .collect();
    for table in &present {
        client.batch_execute(table.create).await.unwrap();
        client.batch_execute(table.rows).await.unwrap();
    }
    for (table, needed, statement) in LINKS {
        if !absent.contains(table) && !absent.contains(needed) {
            client.batch_execute(statement).await.unwrap();
        }
    }
}
