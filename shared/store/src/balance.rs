//! `balance_transactions`, `payouts` and `tax_rates`, as Stripe shows them.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;
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

/// These tax rates as Stripe shows them, by their ids; those that are known.
///
/// # Errors
/// When the statement fails.
pub(crate) async fn tax_rates(
    db: &impl GenericClient,
    ids: &[String],
) -> Result<BTreeMap<String, Value>, Error> {
    let rows = db
        .query_typed(
            "-- balance::tax_rates
             SELECT stripe_tax_rate_id,
                    jsonb_build_object('id', stripe_tax_rate_id, 'display_name', display_name,
                        'percentage', CAST(percentage AS numeric), 'country', country, 'state', state,
                        'jurisdiction', jurisdiction, 'tax_type', tax_type, 'inclusive', inclusive) AS rate
             FROM tax_rates WHERE stripe_tax_rate_id = ANY($1)",
            &[(&ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("stripe_tax_rate_id")?, row.try_get("rate")?)))
        .collect()
}
