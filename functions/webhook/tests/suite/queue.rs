//! Events of Stripe's partner bus in batches of SQS: applied together, parked alone, given back only when stored nowhere.

use jiff::Timestamp;
use lambda_http::Context;
use lambda_http::lambda_runtime::LambdaEvent;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use testing::{logs, sample};
use webhook::App;

use crate::failures::{Site, charge, deliver, kept, no_aws, noon};

/// The message of SQS around EventBridge's envelope around the event.
fn message(id: usize, event: &str) -> Value {
    let mut record = sample("sqs_stripe_partner").json()["Records"][0].take();
    let body = record["body"].as_str().unwrap();
    let mut envelope: Value = serde_json::from_str(body).unwrap();
    envelope["detail"] = serde_json::from_str(event).unwrap();
    record["body"] = envelope.to_string().into();
    record["messageId"] = message_id(id).into();
    record
}

fn message_id(id: usize) -> String {
    format!("message-{id}")
}

fn batch(events: &[String]) -> Vec<Value> {
    let messages = events.iter().enumerate();
    messages.map(|(id, event)| message(id, event)).collect()
}

/// The messages that are to be given again.
async fn invoke(app: &App, records: Vec<Value>, now: Timestamp) -> Vec<String> {
    let batch = json!({"Records": records}).to_string();
    let payload = RawValue::from_string(batch).unwrap();
    let invocation = LambdaEvent::new(payload, Context::default());
    let answer = Box::pin(webhook::handle_invocation(app, invocation, now)).await;
    let mut answer = answer.unwrap();
    let failures = answer["batchItemFailures"].take();
    assert_eq!(answer, json!({"batchItemFailures": null}));
    let failures = failures.as_array().unwrap().iter();
    failures
        .map(|failure| failure["itemIdentifier"].as_str().unwrap().to_owned())
        .collect()
}

fn events(name: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| charge(&format!("{name}{number:03}")))
        .collect()
}

#[tokio::test]
async fn one_poison_event_of_a_hundred_costs_the_others_fifteen_transactions_and_nothing_else() {
    let site = Site::new().await;
    let (app, proxy) = site.app_behind_proxy();
    // The one that halving finds last.
    let events = events("Ash", 100);
    let poison: Value = serde_json::from_str(&events[99]).unwrap();
    let charge_id = poison["data"]["object"]["id"].as_str().unwrap();
    let client = site.surroundings.database.client().await;
    let refuse = format!(
        "ALTER TABLE payment_attempts ADD CONSTRAINT poison CHECK (stripe_charge_id <> '{charge_id}')"
    );
    client.batch_execute(&refuse).await.unwrap();
    proxy.count_round_trips();
    assert_eq!(invoke(&app, batch(&events), noon()).await, [""; 0]);
    let flights = proxy.round_trips();
    assert_eq!(proxy.connections(), 1);

    let parked = site.parked().await;
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].event_id, poison["id"].as_str().unwrap());
    assert!(parked[0].reason.contains("poison"), "{}", parked[0].reason);
    assert_eq!(site.count("stripe_events").await, 99);
    let counted = "payment_history WHERE amount_cents = 3246";
    assert_eq!(site.count(counted).await, 99);
    let day = format!(
        "revenue_daily WHERE payments = 99 AND gross_cents = {}",
        99 * 3_246
    );
    assert_eq!(site.count(&day).await, 1);
    // Seven commit, and eight are undone: a hundred, fifty, …, one. Each opens and closes; one that is undone has to be
    // rolled back as well.
    let committed = "(SELECT DISTINCT xmin::text FROM stripe_events) AS transactions";
    assert_eq!(site.count(committed).await, 7);
    assert!(flights <= 7 * 2 + 8 * 3 + 1, "{flights} flights");

    // The queue may give everything again.
    assert_eq!(invoke(&app, batch(&events[..99]), noon()).await, [""; 0]);
    assert_eq!(site.count(counted).await, 99);
    client
        .batch_execute("ALTER TABLE payment_attempts DROP CONSTRAINT poison")
        .await
        .unwrap();
    assert_eq!(site.redrive(noon()).await["applied"], 1);
    assert_eq!(site.count(counted).await, 100);
}

#[tokio::test]
async fn a_batch_is_the_same_as_its_deliveries_and_is_announced() {
    let site = Site::new().await;
    let app = site.app();
    let events = events("Beech", 5);
    let twice = [events.clone(), events.clone()].concat();
    assert_eq!(invoke(&app, batch(&twice), noon()).await, [""; 0]);
    for event in &events {
        assert_eq!(deliver(&app, event).await, kept("duplicate"));
    }
    assert_eq!(site.count("stripe_events").await, 5);
    let announced = "outbox WHERE detail_type = 'payment.succeeded' AND published_at IS NOT NULL";
    assert_eq!(site.count(announced).await, 5);
    assert_eq!(site.count("outbox WHERE published_at IS NULL").await, 0);
}

#[tokio::test]
async fn a_batch_is_parked_while_the_database_is_away() {
    let site = Site::new().await;
    let (app, proxy) = site.app_behind_proxy();
    let events = events("Cedar", 100);
    proxy.refuse();
    assert_eq!(invoke(&app, batch(&events), noon()).await, [""; 0]);
    assert_eq!(site.parked().await.len(), 100);
    assert_eq!(site.count("stripe_events").await, 0);
    proxy.pass();
    assert_eq!(site.redrive(noon()).await["applied"], 100);
    assert_eq!(site.parked().await, []);
    let counted = "payment_history WHERE amount_cents = 3246";
    assert_eq!(site.count(counted).await, 100);
}

#[tokio::test]
async fn what_can_be_stored_nowhere_is_given_again() {
    let site = Site::new().await;
    let (proxy, url) = site.surroundings.database.behind_proxy();
    let app = site.app_with(&[("DATABASE_URL", &url)], &no_aws().await);
    let events = events("Dogwood", 3);
    proxy.refuse();
    let failed = invoke(&app, batch(&events), noon()).await;
    assert_eq!(failed, [0, 1, 2].map(message_id));
    assert_eq!(site.parked().await, []);
    // Without DynamoDB an event that can be applied needs nothing else.
    proxy.pass();
    assert_eq!(invoke(&app, batch(&events), noon()).await, [""; 0]);
    assert_eq!(site.count("stripe_events").await, 3);
}

#[tokio::test]
async fn a_message_that_is_no_event_is_given_again_and_holds_up_nobody() {
    let site = Site::new().await;
    let mut records = batch(&events("Elm", 6));
    let other = |record: &mut Value, change: &dyn Fn(&mut Value)| {
        let mut envelope: Value = serde_json::from_str(record["body"].as_str().unwrap()).unwrap();
        change(&mut envelope);
        record["body"] = envelope.to_string().into();
    };
    records[0]["body"] = "nonsense".into();
    records[1]["body"] = "".into();
    other(&mut records[2], &|envelope| {
        envelope["source"] = "aws.s3".into();
    });
    other(&mut records[3], &|envelope| {
        envelope["detail"] = json!({"id": 7})
    });
    other(&mut records[4], &|envelope| {
        envelope["detail"] = "Lakeshore".into();
    });
    let failed = invoke(&site.app(), records, noon()).await;
    assert_eq!(failed, [0, 1, 2, 3, 4].map(message_id));
    assert_eq!(site.count("stripe_events").await, 1);
    assert_eq!(site.parked().await, []);
    let logged = logs::captured();
    let lines = logged.lines();
    let lines = lines.filter(|line| line.contains("a message of the queue was not kept"));
    assert!(lines.clone().count() >= 5);
    assert!(!lines.collect::<String>().contains("Lakeshore"));
}

#[tokio::test]
async fn a_request_that_quotes_a_queue_is_none() {
    let site = Site::new().await;
    let body = json!({"Records": [message(0, &charge("Fir"))]}).to_string();
    let mut http = sample("apigw_webhook_payments_webhook").json();
    http["body"] = body.into();
    let payload = RawValue::from_string(http.to_string()).unwrap();
    let invocation = LambdaEvent::new(payload, Context::default());
    let app = site.app();
    let answer = Box::pin(webhook::handle_invocation(&app, invocation, noon())).await;
    assert_eq!(answer.unwrap()["statusCode"], 400);
    assert_eq!(site.count("stripe_events").await, 0);
}
