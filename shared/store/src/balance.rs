//! `balance_transactions`, `payouts` and `tax_rates`, as Stripe shows them.

use super::mirror::mirrored;
use domain::stripe_objects::balance::{BalanceTransaction, Payout, TaxRate};
use domain::stripe_objects::snapshot::Version;

mirrored!(BalanceTransaction => "balance_transactions" by "(stripe_balance_transaction_id)" {
    stripe_balance_transaction_id,
    kind = "type",
    reporting_category,
    balance_type,
    currency,
    amount_cents,
    fee_cents,
    net_cents,
    fee_details or default,
    exchange_rate,
    source_id,
    source_kind,
    payment_key,
    description,
    created_at,
    available_at,
    stripe_payout_id,
    ..version: Version,
});

mirrored!(Payout => "payouts" by "(stripe_payout_id)" {
    stripe_payout_id,
    amount_cents,
    currency,
    status,
    automatic,
    method,
    arrival_on,
    trace_id,
    reconciliation_status,
    stripe_balance_transaction_id,
    failure_balance_transaction_id,
    failure_code,
    created_at,
    transactions_listed_at,
    ..version: Version,
});

mirrored!(TaxRate => "tax_rates" by "(stripe_tax_rate_id)" {
    stripe_tax_rate_id,
    display_name,
    percentage,
    country,
    state,
    jurisdiction,
    tax_type,
    inclusive,
    created_at,
    ..version: Version,
});
