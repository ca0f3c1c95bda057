//! The whole life of an event that cannot be applied: parked by the webhook, tried, poisoned,
//! shown, replayed after the fix.

use jiff::{SignedDuration, Timestamp};
use local::bundle::Bundle;
use local::token;
use serde_json::{Value, json};
use stripe::signature;
use testing::{Surroundings, sample};

const WEBHOOK_SECRET: &str = "whsec_test_of_the_whole_life";
const ADMIN_SECRET: &str = "a test's key of the admin tokens, long enough";

/// Every function of the bundle on the test's own database.
struct Whole {
    surroundings: Surroundings,
    bundle: Bundle,
}

impl Whole {
    async fn new() -> Whole {
        let surroundings = Surroundings::new([
            ("DATABASE_SSLMODE", "disable".to_owned()),
            ("STRIPE_WEBHOOK_SECRETS", WEBHOOK_SECRET.to_owned()),
            ("ADMIN_JWT_SECRET", ADMIN_SECRET.to_owned()),
            ("SERVICE_TOKENS", "a service token".to_owned()),
        ])
        .await;
        let bundle = Bundle::new(&surroundings.environment(&[]), &surroundings.aws).unwrap();
        Whole {
            surroundings,
            bundle,
        }
    }

    /// One delivery of Stripe's; answers the outcome.
    async fn deliver(&self, body: &str, now: Timestamp) -> Value {
        let mut request = sample("apigw_webhook_payments_webhook").json();
        request["headers"]["stripe-signature"] =
            signature::sign(body.as_bytes(), &WEBHOOK_SECRET.into(), now).into();
        request["body"] = body.into();
        self.answer("webhook", request, now).await["outcome"].clone()
    }

    async fn admin(&self, method: &str, path: &str, now: Timestamp) -> Value {
        let mut request = sample("apigw_admin_revenue_revenue").json();
        let token = token::admin(ADMIN_SECRET, now).unwrap();
        request["headers"]["authorization"] = format!("Bearer {token}").into();
        request["rawPath"] = path.into();
        request["rawQueryString"] = "".into();
        request["queryStringParameters"] = json!({});
        request["requestContext"]["http"]["method"] = method.into();
        request["requestContext"]["http"]["path"] = path.into();
        self.answer("admin-revenue", request, now).await
    }

    /// The JSON body of an answer that is a 200.
    async fn answer(&self, function: &str, request: Value, now: Timestamp) -> Value {
        // Boxed: the futures of a debug build are too large for the stack of a test's thread.
        let response = Box::pin(self.bundle.invoke(function, request, now)).await;
        let response = response.unwrap();
        assert_eq!(response["statusCode"], 200, "{response}");
        serde_json::from_str(response["body"].as_str().unwrap()).unwrap()
    }

    async fn redrive(&self, now: Timestamp) -> Value {
        let mut event = sample("schedule_reconciliation_redrive").json();
        event["time"] = now.to_string().into();
        let answer = Box::pin(self.bundle.invoke("reconciliation", event, now)).await;
        answer.unwrap()
    }

    async fn run(&self, statement: &str) {
        let client = self.surroundings.database.client().await;
        client.batch_execute(statement).await.unwrap();
    }
}

#[tokio::test]
async fn an_event_that_fails_is_parked_poisoned_and_applied_after_the_fix() {
    let whole = Whole::new().await;
    let bad = sample("stripe_charge_succeeded_2022_11_15");
    let bad_id = bad.json()["id"].as_str().unwrap().to_owned();
    let good = sample("stripe_customer_created_2022_11_15");
    // A mistake of ours: a rule of the database that every charge breaks.
    whole
        .run("ALTER TABLE payment_attempts ADD CONSTRAINT mistake CHECK (amount_cents < 0)")
        .await;
    let mut now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    assert_eq!(whole.deliver(&bad.body, now).await, "parked");
    // Stripe delivers it once more; it holds up nobody.
    assert_eq!(whole.deliver(&bad.body, now).await, "parked");
    assert_eq!(whole.deliver(&good.body, now).await, "applied");
    for attempt in 1..=8 {
        let summary = whole.redrive(now).await;
        let verdict = if attempt == 8 { "poisoned" } else { "failed" };
        assert_eq!(summary[verdict], 1, "attempt {attempt}: {summary}");
        let state = &whole.admin("GET", "/admin/events/parked", now).await["data"][0];
        assert_eq!(state["event_id"], *bad_id, "{state}");
        assert_eq!(state["attempts"], attempt, "{state}");
        now += SignedDuration::from_hours(6);
    }
    // Nobody tries it any more, and somebody has been told.
    let summary = whole.redrive(now).await;
    assert_eq!(
        (&summary["failed"], &summary["poisoned"]),
        (&json!(0), &json!(0))
    );
    let client = whole.surroundings.database.client().await;
    let told = "SELECT detail->>'subject' FROM outbox WHERE detail_type = 'event.poisoned'";
    let subject: String = client.query_one(told, &[]).await.unwrap().get(0);
    assert_eq!(subject, bad_id);
    // Replayed before the fix it fails again, and says why.
    let replay = format!("/admin/events/{bad_id}/replay");
    let answer = whole.admin("POST", &replay, now).await;
    assert_eq!(answer["outcome"], "parked", "{answer}");
    assert!(answer["reason"].as_str().unwrap().contains("mistake"));
    let payments = "SELECT count(*) FROM payment_history";
    let count: i64 = client.query_one(payments, &[]).await.unwrap().get(0);
    assert_eq!(count, 0);
    whole
        .run("ALTER TABLE payment_attempts DROP CONSTRAINT mistake")
        .await;
    let answer = whole.admin("POST", &replay, now).await;
    assert_eq!(answer["outcome"], "applied", "{answer}");
    let count: i64 = client.query_one(payments, &[]).await.unwrap().get(0);
    assert_eq!(count, 1);
    let parked = whole.admin("GET", "/admin/events/parked", now).await;
    assert_eq!(parked["data"], json!([]));
    // It is in the ledger once, whoever brings it again.
    assert_eq!(whole.deliver(&bad.body, now).await, "duplicate");
    assert_eq!(
        whole.admin("POST", &replay, now).await["outcome"],
        "duplicate"
    );
    assert_eq!(whole.redrive(now).await["applied"], 0);
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'event.replay'";
    let count: i64 = client.query_one(audited, &[]).await.unwrap().get(0);
    assert_eq!(count, 3);
}
