//! The process killed (SIGKILL) at every exchange of a run with Postgres, S3 and the bus, and Stripe. The next run ends
//! in the state, and with the documents and what is at Stripe, of one that nothing happened to.

use std::collections::BTreeMap;
use std::path::Path;

use fake_stripe::account::Account;
use fake_stripe::delivery::http_client;
use fake_stripe::{FakeStripe, Options};
use partner_invoicing::{App, Error, handle};
use serde_json::{Value, json};
use testing::{Aws, FaultProxy, Function};
use tokio::net::TcpListener;

use crate::failures::story;
use crate::site::{Site, at, event, run, run_in_part};

const TIME: &str = "2025-12-01T00:05:00Z";
/// When the messages are due again that were claimed by a run that was killed.
const LATER: &str = "2025-12-01T00:10:00Z";
/// Sites at once, each of which takes every n-th exchange.
const AT_ONCE: usize = 4;

/// The ledger, the documents, and what is at Stripe.
#[derive(PartialEq)]
struct Outcome {
    state: Vec<String>,
    documents: BTreeMap<String, Vec<u8>>,
    at_stripe: Value,
}

#[derive(Clone, Copy)]
enum Behind {
    Database,
    Aws,
    Stripe,
}

/// The story of the other failures, a contract whose credit pays it all, and one that Stripe collects.
struct Stage {
    site: Site,
    stripe: FakeStripe,
}

impl Stage {
    async fn new() -> Stage {
        let site = Site::new().await;
        story(&site).await;
        site.contract(
            "dp_pk_gamma",
            json!({"pricing_model": "flat", "currency": "EUR"}),
        )
        .await;
        let collected = json!({"payment_method": "stripe", "tax_rate_bps": 1_900, "billing_email": "ap@example.com"});
        site.contract("dp_pk_delta", collected).await;
        site.served("dp_pk_delta", 4, "2025-11-10T00:00:00Z").await;
        site.execute(
            "INSERT INTO credits (api_key_prefix, amount_cents, remaining_cents, currency, reason)
             VALUES ('dp_pk_gamma', 60000, 60000, 'EUR', 'goodwill'), ('dp_pk_delta', 300, 300, 'USD', 'goodwill')",
        )
        .await;
        let clock = || at(TIME);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = Options::new(Account::new("Partners", clock()), clock);
        let stripe = FakeStripe::start(listener, options).unwrap();
        Stage { site, stripe }
    }

    fn app(&self) -> App {
        let stripe = self.stripe.base_url();
        self.site.app_with(&[("STRIPE_API_BASE", &stripe)])
    }

    async fn outcome(&self) -> Outcome {
        Outcome {
            state: self.site.state().await,
            documents: self.site.documents().await,
            at_stripe: self.at_stripe().await,
        }
    }

    /// The customers, each invoice with its items, and what our invoices are linked to; by our names of things.
    async fn at_stripe(&self) -> Value {
        let (customers, invoices) = (self.list("customers").await, self.list("invoices").await);
        let items = self.list("invoiceitems").await;
        let invoices: Vec<Value> = invoices
            .iter()
            .map(|invoice| {
                let items = items.iter().filter(|item| item["invoice"] == invoice["id"]);
                let mut items: Vec<Value> = items
                    .map(|item| json!([item["description"], item["amount"], item["currency"]]))
                    .collect();
                items.sort_by_key(Value::to_string);
                json!({
                    "number": invoice["metadata"]["invoice_number"],
                    "status": invoice["status"],
                    "amount_due": invoice["amount_due"],
                    "collection_method": invoice["collection_method"],
                    "items": items,
                })
            })
            .collect();
        let customers: Vec<Value> = customers
            .iter()
            .map(|customer| json!([customer["name"], customer["email"], customer["metadata"]]))
            .collect();
        json!({"customers": customers, "invoices": invoices, "all_items": items.len(), "linked": self.linked().await})
    }

    /// Numbers of our invoices that are linked to the one at Stripe that names them, to its customer, and sent.
    async fn linked(&self) -> Vec<String> {
        let client = self.site.client().await;
        let mut linked = Vec::new();
        for invoice in self.list("invoices").await {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let (id, customer) = (text(&invoice["id"]), text(&invoice["customer"]));
            let ours: i64 = text(&invoice["metadata"]["partner_invoice_id"])
                .parse()
                .unwrap();
            let select = "SELECT invoice_number FROM invoices
                          JOIN api_partner_contracts AS contracts ON contracts.id = invoices.contract_id
                          WHERE invoices.id = $1 AND stripe_invoice_id = $2 AND invoices.stripe_customer_id = $3
                            AND contracts.stripe_customer_id = $3 AND sent_at IS NOT NULL";
            let rows = client
                .query(select, &[&ours, &id, &customer])
                .await
                .unwrap();
            linked.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
        linked
    }

    async fn list(&self, kind: &str) -> Vec<Value> {
        let url = format!("{}/v1/{kind}?limit=100", self.stripe.base_url());
        let request = http_client().unwrap().get(url).bearer_auth("sk_test_any");
        let list: Value = request.send().await.unwrap().json().await.unwrap();
        list["data"].as_array().unwrap().clone()
    }
}

async fn undisturbed() -> Outcome {
    let stage = Stage::new().await;
    run(&stage.app(), TIME).await;
    let outcome = stage.outcome().await;
    // A PDF of each invoice, that of October among them: the comparison compares something.
    assert_eq!(outcome.documents.len(), 5);
    assert_eq!(
        outcome.at_stripe,
        json!({
            "customers": [["Alpha Title", "ap@example.com", {"contract_id": "4"}]],
            "invoices": [{
                "number": "API-202511-dp_pk_delta", "status": "open", "amount_due": 60_390,
                "collection_method": "send_invoice",
                "items": [
                    ["Credit", -300, "usd"],
                    ["Flat fee, 2025-11-01 to 2025-11-30", 50_000, "usd"],
                    ["Tax", 9_690, "usd"],
                    ["Usage, 2025-11-01 to 2025-11-30: 4 units", 1_000, "usd"],
                ],
            }],
            "all_items": 4,
            "linked": ["API-202511-dp_pk_delta"],
        })
    );
    outcome
}

/// Runs the process on its own stage and kills it when it is about to begin this exchange; whether there was one.
async fn is_killed_at(behind: Behind, exchange: u64, stage: &Stage) -> bool {
    let site = &stage.site;
    let to = |url: &str| {
        let proxy = FaultProxy::start(url.trim_start_matches("http://").parse().unwrap());
        let url = format!("http://{}", proxy.address());
        (proxy, url)
    };
    let stripe = stage.stripe.base_url();
    let (name, (proxy, url)) = match behind {
        Behind::Database => ("DATABASE_URL", site.surroundings.database.behind_proxy()),
        Behind::Aws => ("AWS_ENDPOINT_URL", to(Aws::shared().await.endpoint_url())),
        Behind::Stripe => ("STRIPE_API_BASE", to(&stripe)),
    };
    proxy.hold_flight(exchange);
    // One connection: one thing after the other, so that the exchanges happen one at a time.
    let others = [
        ("AWS_ENDPOINT_URL", Aws::shared().await.endpoint_url()),
        ("STRIPE_API_BASE", &stripe),
        ("DATABASE_SSLMODE", "disable"),
        ("DATABASE_POOL_SIZE", "1"),
        (name, url.as_str()),
    ];
    let event = event(TIME, Value::Null).to_string();
    let ours = site.pairs().iter();
    let ours = ours.map(|(name, value)| (*name, value.as_str()));
    let binary = Path::new(env!("CARGO_BIN_EXE_partner-invoicing"));
    let mut function = Function::spawn(binary, "partner-invoicing", ours.chain(others));
    function.hand(event);
    let is_held = tokio::select! {
        () = proxy.held() => true,
        answer = function.answer() => {
            assert_eq!(answer.kind, "response", "exchange {exchange}: {}", answer.body);
            false
        }
    };
    function.kill();
    // What was held is lost with it: the server never gets it.
    drop(proxy);
    is_held
}

/// The next run, tried three times as the platform does: on a busy machine connecting alone may take too long.
async fn run_again(stage: &Stage, time: &str) {
    for _ in 0..2 {
        let tried = handle(&stage.app(), event(time, Value::Null), at(time)).await;
        match tried {
            Err(Error::Database { .. }) => {}
            tried => {
                tried.unwrap();
                return;
            }
        }
    }
    run(&stage.app(), time).await;
}

/// Kills it at this exchange and at every `AT_ONCE`-th after it, until there is none; at how many it did.
async fn kill_from(behind: Behind, first: usize, expected: &Outcome) -> usize {
    for (kills, exchange) in (first..).step_by(AT_ONCE).enumerate() {
        let stage = Stage::new().await;
        let is_killed = is_killed_at(behind, u64::try_from(exchange).unwrap(), &stage).await;
        run_again(&stage, TIME).await;
        run_again(&stage, LATER).await;
        let outcome = stage.outcome().await;
        let when = format!("killed at exchange {exchange}");
        assert_eq!(outcome.state, expected.state, "{when}");
        assert_eq!(outcome.at_stripe, expected.at_stripe, "{when}");
        assert!(
            outcome.documents == expected.documents,
            "other bytes in S3, {when}"
        );
        if !is_killed {
            return kills;
        }
    }
    unreachable!("a run ends")
}

async fn kill_everywhere(behind: Behind) -> usize {
    let expected = undisturbed().await;
    let from = (1..=AT_ONCE).map(|first| kill_from(behind, first, &expected));
    let kills = futures_util::future::join_all(from).await;
    kills.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_exchange_with_the_database_leaves_what_the_next_run_completes() {
    let kills = kill_everywhere(Behind::Database).await;
    // At the least: the start of a connection, begin, five to plan, six to issue, four of the PDFs, six of what Stripe
    // collects, the outbox and the end.
    assert!(kills >= 30, "killed at {kills} exchanges");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_exchange_with_s3_and_the_bus_leaves_what_the_next_run_completes() {
    let kills = kill_everywhere(Behind::Aws).await;
    // A PDF of each of four invoices, and the messages.
    assert!(kills >= 5, "killed at {kills} exchanges");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_exchange_with_stripe_leaves_what_the_next_run_completes() {
    let kills = kill_everywhere(Behind::Stripe).await;
    // The customer, the invoice, its items asked for, the four of them, finalised, sent.
    assert!(kills >= 9, "killed at {kills} exchanges");
}

#[tokio::test]
async fn an_invoice_that_is_voided_while_it_is_handed_over_is_not_sent() {
    let stage = Stage::new().await;
    // The admin is quicker than Stripe: the invoice is void when its customer has just been made.
    stage
        .site
        .execute(
            "CREATE FUNCTION void_it() RETURNS TRIGGER LANGUAGE plpgsql AS $$
             BEGIN
                 UPDATE invoices SET status = 'void', voided_at = now(), amount_due_cents = 0
                 WHERE contract_id = NEW.id;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER void_it AFTER UPDATE OF stripe_customer_id ON api_partner_contracts
             FOR EACH ROW EXECUTE FUNCTION void_it()",
        )
        .await;
    let summary = run_in_part(&stage.app(), TIME).await;
    let failed = &summary["failed"][0];
    assert_eq!(failed["step"], "stripe");
    let told = failed["error"].as_str().unwrap();
    assert!(told.contains("voided or paid meanwhile"), "{told}");
    let at_stripe = stage.at_stripe().await;
    assert_eq!(at_stripe["invoices"][0]["status"], "draft");
    assert_eq!(at_stripe["all_items"], 0);
    assert_eq!(at_stripe["linked"], json!([]));
}
