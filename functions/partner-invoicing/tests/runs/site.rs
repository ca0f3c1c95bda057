//! A database, a bucket and a bus of one test's own, with contracts and usage.

use std::collections::BTreeMap;

use aws_types::SdkConfig;
use domain::partner::contract::Contract;
use jiff::Timestamp;
use partner_invoicing::{App, Error, handle};
use serde_json::{Value, json};
use store::contracts;
use testing::roles::as_function;
use testing::{Surroundings, aws, sample};
use tokio_postgres::Client;

/// Everything the function uses.
pub(crate) struct Site {
    pub(crate) surroundings: Surroundings,
}

impl Site {
    pub(crate) async fn new() -> Site {
        let surroundings = Surroundings::new([
            ("DATABASE_POOL_SIZE", "4".to_owned()),
            ("INVOICE_ISSUER", r#"{"name": "DeedPro"}"#.to_owned()),
            ("STRIPE_API_BASE", "http://127.0.0.1:1".to_owned()),
            ("STRIPE_API_KEY", "sk_test_nobody_listens".to_owned()),
        ])
        .await;
        Site { surroundings }
    }

    /// The bucket that invoices are stored in.
    pub(crate) fn bucket(&self) -> &str {
        self.surroundings.value("DOCUMENT_BUCKET")
    }

    pub(crate) fn app(&self) -> App {
        self.app_with(&[])
    }

    /// With other values of some variables.
    pub(crate) fn app_with(&self, others: &[(&'static str, &str)]) -> App {
        self.app_on(others, &self.surroundings.aws)
    }

    /// With an AWS where nobody listens.
    pub(crate) fn app_without_aws(&self) -> App {
        self.app_with_aws("http://127.0.0.1:1")
    }

    /// With the AWS at this address.
    pub(crate) fn app_with_aws(&self, endpoint_url: &str) -> App {
        self.app_on(&[], &aws::sdk_config(endpoint_url))
    }

    /// Its bucket and its bus, of the same names, are made in the AWS at this address, and used from now on.
    pub(crate) async fn move_to(&mut self, endpoint_url: &str) {
        self.surroundings.aws = aws::sdk_config(endpoint_url);
        let s3 = aws_sdk_s3::Client::new(&self.surroundings.aws);
        aws::create_bucket(&s3, self.bucket()).await.unwrap();
        let eventbridge = aws_sdk_eventbridge::Client::new(&self.surroundings.aws);
        let bus = self.surroundings.value("EVENT_BUS_NAME");
        aws::create_event_bus(&eventbridge, bus).await.unwrap();
    }

    pub(crate) fn app_on(&self, others: &[(&'static str, &str)], aws: &SdkConfig) -> App {
        App::from_env(
            &as_function("partner-invoicing", &self.surroundings.environment(others)),
            aws,
        )
        .unwrap()
    }

    /// The variables of a process that uses it.
    pub(crate) fn pairs(&self) -> &[(&'static str, String)] {
        self.surroundings.pairs()
    }

    pub(crate) async fn client(&self) -> Client {
        self.surroundings.database.client().await
    }

    /// Enters a contract, paid by wire, with these members over those of a hybrid one from November 2025 on.
    pub(crate) async fn contract(&self, prefix: &str, changes: Value) -> i64 {
        let mut members = json!({
            "api_key_prefix": prefix, "company": "Alpha Title", "pricing_model": "hybrid",
            "monthly_flat_fee_cents": 50_000, "per_deed_price_cents": 250, "payment_method": "wire",
            "contract_start_date": "2025-11-01",
        });
        for (name, value) in changes.as_object().unwrap() {
            members[name] = value.clone();
        }
        let contract = Contract::parse(members.as_object().unwrap()).unwrap();
        let client = self.client().await;
        let entered_at = at("2025-11-01T00:00:00Z");
        contracts::insert(&client, &contract, entered_at)
            .await
            .unwrap()
    }

    /// Rows in `api_usage`, one unit each.
    pub(crate) async fn served(&self, prefix: &str, times: i32, when: &str) {
        let client = self.client().await;
        let insert = "INSERT INTO api_usage (api_key_prefix, endpoint, cost_units, created_at)
             SELECT $1, '/v1/deeds', 1, $3 FROM generate_series(1, $2)";
        client
            .execute(insert, &[&prefix, &times, &at(when)])
            .await
            .unwrap();
    }

    /// A number the statement selects.
    pub(crate) async fn number(&self, select: &str) -> i64 {
        let client = self.client().await;
        client
            .query_one(&format!("SELECT CAST(({select}) AS bigint)"), &[])
            .await
            .unwrap()
            .get(0)
    }

    /// Changes some rows.
    pub(crate) async fn execute(&self, statement: &str) {
        self.client().await.batch_execute(statement).await.unwrap();
    }

    /// `number status total` of every invoice, in the order in which they were issued.
    pub(crate) async fn invoices(&self) -> Vec<String> {
        let client = self.client().await;
        let select = "SELECT invoice_number, status, total_cents FROM invoices ORDER BY id";
        let rows = client.query(select, &[]).await.unwrap();
        let told = rows.iter().map(|row| {
            let (number, status, total): (String, String, i64) =
                (row.get(0), row.get(1), row.get(2));
            format!("{number} {status} {total}")
        });
        told.collect()
    }

    /// Every invoice with its lines, credits and messages, but for surrogate ids and links to Stripe.
    pub(crate) async fn state(&self) -> Vec<String> {
        let client = self.client().await;
        let mut state = Vec::new();
        for select in [
            "SELECT jsonb_build_array(invoice_number, api_key_prefix, status, total_cents, amount_due_cents,
                 credit_applied_cents, billing_period_start, billing_period_end, due_date, line_items, metadata,
                 pdf_key, pdf_sha256)::text FROM invoices ORDER BY invoice_number",
            "SELECT jsonb_build_array(series, next_value)::text FROM invoice_number_counters ORDER BY series",
            "SELECT jsonb_build_array(credit_id, amount_cents, applied_at)::text FROM credit_applications ORDER BY 1",
            "SELECT jsonb_build_array(id, remaining_cents)::text FROM credits ORDER BY id",
            "SELECT jsonb_build_array(invoices.invoice_number, period_start, units, requests, amount_cents)::text
             FROM invoiced_usage JOIN invoices ON invoices.id = invoice_id ORDER BY invoices.invoice_number, 1",
            "SELECT jsonb_build_array(detail_type, detail -> 'data' ->> 'invoice_number', published_at IS NOT NULL)::text
             FROM outbox ORDER BY 1",
        ] {
            for row in client.query(select, &[]).await.unwrap() {
                state.push(row.get(0));
            }
        }
        state
    }

    /// Every object under `invoices/` with its bytes.
    pub(crate) async fn documents(&self) -> BTreeMap<String, Vec<u8>> {
        let s3 = aws_sdk_s3::Client::new(&self.surroundings.aws);
        let mut documents = BTreeMap::new();
        let mut pages = s3
            .list_objects_v2()
            .bucket(self.bucket())
            .prefix("invoices/")
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            for object in page.unwrap().contents() {
                let key = object.key().unwrap();
                let object = s3.get_object().bucket(self.bucket()).key(key);
                let body = object.send().await.unwrap().body.collect().await.unwrap();
                documents.insert(key.to_owned(), body.to_vec());
            }
        }
        documents
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The schedule's event at this time, with this detail.
pub(crate) fn event(time: &str, detail: Value) -> Value {
    let mut event = sample("schedule_partner_invoicing_monthly").json();
    event["time"] = json!(time);
    if !detail.is_null() {
        event["detail"] = detail;
    }
    event
}

/// A run that has to succeed, and its summary.
pub(crate) async fn run(app: &App, time: &str) -> Value {
    run_with(app, time, Value::Null).await
}

pub(crate) async fn run_with(app: &App, time: &str, detail: Value) -> Value {
    handle(app, event(time, detail), at(time)).await.unwrap()
}

/// A run that has to fail in part, and its summary.
pub(crate) async fn run_in_part(app: &App, time: &str) -> Value {
    match handle(app, event(time, Value::Null), at(time)).await {
        Err(Error::Partial { summary }) => json!(*summary),
        other => panic!("it was expected to fail in part: {other:?}"),
    }
}
