//! Parked events, the bus, the bucket and secrets against moto, and with nothing listening.

use aws_types::SdkConfig;
use jiff::{SignedDuration, Timestamp};
use runtime::aws::document_bucket::DocumentBucket;
use runtime::aws::event_bus::{BusEntry, EventBus, Outcome};
use runtime::aws::parked_events::ParkedEvents;
use runtime::aws::secrets::{Error, Form, Secret};
use runtime::config::{DatabaseConfig, Environment};
use secrecy::ExposeSecret;
use serde_json::json;
use store::Database;
use testing::{Aws, TestDatabase, unique};

fn now() -> Timestamp {
    Timestamp::from_second(1_760_000_000).expect("an instant")
}

fn minutes(count: i64) -> SignedDuration {
    SignedDuration::from_mins(count)
}

async fn parked_events() -> ParkedEvents {
    let aws = Aws::shared().await;
    let (bucket, table) = tokio::join!(aws.bucket(), aws.parked_events_table());
    let pairs = [("DOCUMENT_BUCKET", bucket), ("PARKED_EVENTS_TABLE", table)];
    let environment = Environment::from_pairs(pairs);
    ParkedEvents::from_env(&environment, &aws.sdk_config()).expect("a table")
}

async fn nowhere() -> SdkConfig {
    testing::aws::sdk_config("http://127.0.0.1:1")
}

#[tokio::test]
async fn parking_again_changes_nothing() {
    let parked = parked_events().await;
    parked.park("evt_1", "first", "away", now()).await.unwrap();
    parked
        .record_failure("evt_1", 0, "still away", now())
        .await
        .unwrap();
    parked
        .park("evt_1", "second", "again", now() + minutes(1))
        .await
        .unwrap();
    let event = parked.get("evt_1").await.unwrap().unwrap();
    assert_eq!(event.body, "first");
    assert_eq!(event.state.attempts, 1);
    assert_eq!(event.state.reason, "still away");
    assert_eq!(event.state.received_at, now());
    assert_eq!(parked.get("evt_2").await.unwrap(), None);
}

#[tokio::test]
async fn a_body_that_is_too_large_for_an_item_lies_in_the_bucket() {
    let parked = parked_events().await;
    let body = "x".repeat(900 * 1024);
    parked
        .park("evt_large", &body, "away", now())
        .await
        .unwrap();
    parked
        .park("evt_large", "another", "away", now())
        .await
        .unwrap();
    let due = parked.due(now(), 10).await.unwrap();
    assert_eq!(due.len(), 1);
    let kept = parked.get(&due[0].event_id).await.unwrap().unwrap();
    assert!(kept.body == body, "the first body, byte for byte");
    parked.remove("evt_large").await.unwrap();
    assert_eq!(parked.get("evt_large").await.unwrap(), None);
    parked
        .remove("evt_large")
        .await
        .expect("no matter whether it was there");
    // The body was removed with its item: the next one may have the same key.
    parked
        .park("evt_large", &"y".repeat(900 * 1024), "away", now())
        .await
        .unwrap();
    assert!(
        parked
            .get("evt_large")
            .await
            .unwrap()
            .unwrap()
            .body
            .starts_with('y')
    );
}

#[tokio::test]
async fn due_events_come_oldest_first_and_only_when_they_are_due() {
    let parked = parked_events().await;
    parked
        .park("evt_b", "b", "away", now() - minutes(1))
        .await
        .unwrap();
    parked
        .park("evt_a", "a", "away", now() - minutes(2))
        .await
        .unwrap();
    parked
        .park("evt_c", "c", "away", now() + minutes(1))
        .await
        .unwrap();
    let ids = async |at| -> Vec<String> {
        let events = parked.due(at, 10).await.expect("a list");
        events.into_iter().map(|event| event.event_id).collect()
    };
    assert_eq!(ids(now()).await, ["evt_a", "evt_b"]);
    parked
        .record_failure("evt_a", 0, "a bug", now())
        .await
        .unwrap();
    assert_eq!(ids(now()).await, ["evt_b"]);
    assert_eq!(ids(now() + minutes(5)).await, ["evt_a", "evt_b", "evt_c"]);
    assert_eq!(parked.due(now() + minutes(5), 2).await.unwrap().len(), 2);
    let listed: Vec<String> = parked
        .list(10)
        .await
        .unwrap()
        .into_iter()
        .map(|state| state.event_id)
        .collect();
    assert_eq!(listed, ["evt_a", "evt_b", "evt_c"]);
}

#[tokio::test]
async fn the_eighth_failure_poisons_and_keeps_the_event() {
    let parked = parked_events().await;
    parked.park("evt_p", "body", "a bug", now()).await.unwrap();
    for attempt in 1..=8 {
        let state = parked
            .record_failure("evt_p", attempt - 1, "a bug", now())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (state.attempts, state.is_poisoned()),
            (attempt, attempt == 8)
        );
        // Another run that tried it at the same time records the same failure.
        let late = parked.record_failure("evt_p", attempt - 1, "a bug", now());
        assert_eq!(late.await.unwrap().unwrap().attempts, attempt);
    }
    let later = now() + SignedDuration::from_hours(24 * 30);
    assert!(
        parked.due(later, 10).await.unwrap().is_empty(),
        "no longer retried"
    );
    let again = parked
        .record_failure("evt_p", 8, "a bug", now())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again.attempts, 8);
    parked
        .park("evt_p", "other", "sent again", later)
        .await
        .unwrap();
    let event = parked.get("evt_p").await.unwrap().unwrap();
    assert_eq!(
        (event.body.as_str(), event.state.poisoned_at),
        ("body", Some(now()))
    );
    assert!(parked.list(10).await.unwrap()[0].is_poisoned());
    assert_eq!(
        parked
            .record_failure("evt_gone", 0, "x", now())
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn parking_with_dynamodb_away_fails_within_two_seconds() {
    let environment =
        Environment::from_pairs([("DOCUMENT_BUCKET", "b"), ("PARKED_EVENTS_TABLE", "t")]);
    let parked = ParkedEvents::from_env(&environment, &nowhere().await).unwrap();
    let within = std::time::Duration::from_secs(2);
    let answer = tokio::time::timeout(within, parked.park("evt", "{}", "away", now())).await;
    answer.expect("in time").unwrap_err();
}

#[tokio::test]
async fn each_entry_is_told_its_own_fate_and_an_absent_bus_publishes_nothing() {
    let aws = Aws::shared().await;
    let bus_name = aws.event_bus().await;
    let client = aws_sdk_eventbridge::Client::new(&aws.sdk_config());
    let bus = EventBus::new(client, &bus_name);
    bus.check().await.unwrap();
    let details: Vec<_> = (0..23).map(|n| json!({"event_id": n})).collect();
    let entries: Vec<BusEntry> = details
        .iter()
        .map(|detail| BusEntry {
            detail_type: "payment.succeeded",
            detail,
        })
        .collect();
    assert_eq!(bus.publish(&entries).await, vec![Outcome::Published; 23]);
    assert!(bus.publish(&[]).await.is_empty());
    // EventBridge answers 200 with failed entries: here one that says nothing.
    let blank = json!({"event_id": "x"});
    let mixed = [
        BusEntry {
            detail_type: "payment.succeeded",
            detail: &blank,
        },
        BusEntry {
            detail_type: "",
            detail: &blank,
        },
        BusEntry {
            detail_type: "payment.failed",
            detail: &blank,
        },
    ];
    let outcomes = bus.publish(&mixed).await;
    assert_eq!(outcomes[0], Outcome::Published);
    assert!(
        matches!(outcomes[1], Outcome::Failed { .. }),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[2], Outcome::Published);
    let environment = Environment::from_pairs([("EVENT_BUS_NAME", "billing")]);
    let away = EventBus::from_env(&environment, &nowhere().await).unwrap();
    let outcomes = away.publish(&entries).await;
    assert_eq!(outcomes.len(), 23);
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Failed { .. }))
    );
    away.check().await.unwrap_err();
}

#[tokio::test]
async fn a_document_comes_back_as_it_was_stored() {
    let aws = Aws::shared().await;
    let environment = Environment::from_pairs([("DOCUMENT_BUCKET", aws.bucket().await)]);
    let bucket = DocumentBucket::from_env(&environment, &aws.sdk_config()).unwrap();
    bucket.check().await.unwrap();
    assert_eq!(bucket.get("invoices/1.pdf").await.unwrap(), None);
    let body = b"%PDF-1.7".to_vec();
    bucket
        .put("invoices/1.pdf", "application/pdf", body.clone())
        .await
        .unwrap();
    assert_eq!(bucket.get("invoices/1.pdf").await.unwrap(), Some(body));
}

/// A secret in Secrets Manager, and the means to rotate it.
struct Stored {
    client: aws_sdk_secretsmanager::Client,
    arn: String,
}

impl Stored {
    async fn create(value: &str) -> Stored {
        let client = aws_sdk_secretsmanager::Client::new(&Aws::shared().await.sdk_config());
        let created = client
            .create_secret()
            .name(unique("secret"))
            .secret_string(value)
            .send();
        let arn = created.await.expect("a secret").arn.expect("its name");
        Stored { client, arn }
    }

    async fn rotate(&self, value: &str) {
        let put = self
            .client
            .put_secret_value()
            .secret_id(&self.arn)
            .secret_string(value)
            .send();
        put.await.expect("a new version");
    }

    async fn secret(&self) -> Secret {
        let environment = Environment::from_pairs([("TOKENS_ARN", &self.arn)]);
        let sdk = Aws::shared().await.sdk_config();
        Secret::from_env(&environment, &sdk, "TOKENS", "TOKENS_ARN", Form::List)
    }
}

async fn texts(secret: &Secret, at: Timestamp) -> Vec<String> {
    let values = secret.values(at).await.expect("values");
    values
        .iter()
        .map(|value| value.expose_secret().to_owned())
        .collect()
}

#[tokio::test]
async fn a_secret_is_cached_for_five_minutes_and_refreshed_once_on_a_failed_check() {
    let stored = Stored::create("one").await;
    let secret = stored.secret().await;
    assert_eq!(texts(&secret, now()).await, ["one"]);
    stored.rotate(r#"["two","one"]"#).await;
    assert_eq!(texts(&secret, now() + minutes(4)).await, ["one"], "cached");
    assert_eq!(
        texts(&secret, now() + minutes(5)).await,
        ["two", "one"],
        "expired"
    );
    stored.rotate("three").await;
    let at = now() + minutes(6);
    assert!(secret.refresh(at).await.unwrap(), "a failed check");
    assert_eq!(texts(&secret, at).await, ["three"]);
    stored.rotate("four").await;
    // A flood of bad signatures: no second call within seconds.
    let soon = at + SignedDuration::from_secs(4);
    assert!(!secret.refresh(soon).await.unwrap());
    assert_eq!(texts(&secret, soon).await, ["three"]);
    let later = at + SignedDuration::from_secs(5);
    assert!(secret.refresh(later).await.unwrap());
    assert!(
        !secret.refresh(later + minutes(1)).await.unwrap(),
        "nothing new"
    );
}

#[tokio::test]
async fn a_cached_secret_outlives_secrets_manager() {
    let stored = Stored::create("one").await;
    let secret = stored.secret().await;
    assert_eq!(texts(&secret, now()).await, ["one"]);
    let delete = stored.client.delete_secret().secret_id(&stored.arn);
    delete
        .force_delete_without_recovery(true)
        .send()
        .await
        .unwrap();
    assert_eq!(texts(&secret, now() + minutes(30)).await, ["one"]);
    let fresh = stored.secret().await;
    assert!(matches!(
        fresh.values(now()).await,
        Err(Error::Unavailable(_))
    ));
}

#[tokio::test]
async fn a_rotated_database_password_costs_one_look_up_and_no_failure() {
    let database = TestDatabase::create().await;
    let owner = database.client().await;
    let role = unique("app").replace('-', "_");
    owner
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'first'; GRANT CONNECT ON DATABASE {} TO {role}",
            database.name
        ))
        .await
        .unwrap();
    let url_of = |role: &str| -> String {
        let (scheme, rest) = database.url.split_once("://").expect("a URL");
        let (_, host) = rest.rsplit_once('@').expect("a user");
        format!("{scheme}://{role}:secret@{host}")
    };
    // A role that does not exist is refused whatever the server's method of authentication.
    let stored = Stored::create(&url_of("nobody_of_this_name")).await;
    let environment = Environment::from_pairs([("DATABASE_SECRET_ARN", &stored.arn)]);
    let sdk = Aws::shared().await.sdk_config();
    let config = DatabaseConfig::from_env(&environment, &sdk).unwrap();
    let pool = Database::connect_lazily(&config);
    assert!(pool.client().await.unwrap_err().is_unavailable());
    owner
        .batch_execute(&format!("ALTER ROLE {role} PASSWORD 'secret'"))
        .await
        .unwrap();
    stored.rotate(&url_of(&role)).await;
    let client = pool.client().await.expect("the new secret");
    let user = client
        .query_typed_one("SELECT current_user::text AS name", &[])
        .await
        .unwrap();
    assert_eq!(user.get::<_, String>("name"), role);
}
