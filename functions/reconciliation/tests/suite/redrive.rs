//! The redrive on real Postgres and DynamoDB: nothing lost, nothing twice, nobody held up.

use std::time::Duration;

use aws_types::SdkConfig;
use jiff::{SignedDuration, Timestamp};
use reconciliation::{App, Away, Deadline, Error, handle, handle_until};
use runtime::aws::parked_events::{ParkedEvents, ParkedState};
use serde_json::{Value, json};
use store::outbox::{self, NewMessage};
use testing::roles::as_function;
use testing::{Aws, FaultProxy, Surroundings, aws, logs, sample, samples};

/// Everything the function uses, of one test's own.
struct Site {
    surroundings: Surroundings,
}

impl Site {
    async fn new() -> Site {
        Site {
            surroundings: Surroundings::new([]).await,
        }
    }

    fn app(&self) -> App {
        self.app_with(&[], &self.surroundings.aws)
    }

    fn app_with(&self, pairs: &[(&'static str, &str)], aws: &SdkConfig) -> App {
        App::from_env(
            &as_function("reconciliation", &self.surroundings.environment(pairs)),
            aws,
        )
        .unwrap()
    }

    fn parked_events(&self) -> ParkedEvents {
        ParkedEvents::from_env(&self.surroundings.environment(&[]), &self.surroundings.aws).unwrap()
    }

    async fn park(&self, body: &str, now: Timestamp) -> String {
        let event_id = serde_json::from_str::<Value>(body).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let parked_events = self.parked_events();
        let parked = parked_events.park(&event_id, body, "a test", now);
        parked.await.unwrap();
        event_id
    }

    async fn state(&self, event_id: &str) -> Option<ParkedState> {
        let parked = self.parked_events().get(event_id).await.unwrap();
        parked.map(|parked| parked.state)
    }

    async fn add_message(&self, detail_type: &'static str, dedupe_key: &str) {
        let message = NewMessage {
            detail_type,
            dedupe_key: dedupe_key.to_owned(),
            detail: json!({"event_id": dedupe_key}),
        };
        let client = self.surroundings.database.client().await;
        outbox::insert_all(&client, &[message], noon())
            .await
            .unwrap();
    }

    async fn count(&self, from: &str) -> i64 {
        let client = self.surroundings.database.client().await;
        let statement = format!("SELECT count(*) FROM {from}");
        client.query_one(&statement, &[]).await.unwrap().get(0)
    }
}

fn noon() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn redrive_at(now: Timestamp) -> Value {
    let mut event = sample("schedule_reconciliation_redrive").json();
    event["time"] = now.to_string().into();
    event
}

async fn redrive(app: &App, now: Timestamp) -> Value {
    handle(app, redrive_at(now), now).await.unwrap()
}

/// The renewal of the customer `name`: two events of one payment.
fn charge(name: &str) -> String {
    sample("stripe_charge_succeeded_2022_11_15")
        .body
        .replace("Meridian", name)
}

fn intent(name: &str) -> String {
    sample("stripe_payment_intent_succeeded_2022_11_15")
        .body
        .replace("Meridian", name)
}

/// A charge whose currency no path has.
fn poison(name: &str) -> String {
    charge(name).replace("\"currency\"", "\"no_currency\"")
}

#[tokio::test]
async fn parked_events_are_applied_once_and_leave_the_table() {
    let site = Site::new().await;
    let app = site.app();
    let charge_id = site.park(&charge("Ash"), noon()).await;
    site.park(&intent("Ash"), noon()).await;
    site.park(
        &sample("stripe_v1_billing_meter_error_report_triggered_endive").body,
        noon(),
    )
    .await;
    let summary = redrive(&app, noon()).await;
    assert_eq!(
        summary,
        json!({"applied": 2, "duplicate": 0, "ignored": 1, "failed": 0, "poisoned": 0,
               "oldest_parked_seconds": 0, "published": 1, "publish_failed": 0, "lookups_done": 0, "lookups_failed": 0,
               "lookups_not_found": 0, "lookups_remaining": 1,
               "lookups_stopped": "STRIPE_API_KEY is not configured"})
    );
    assert_eq!(site.state(&charge_id).await, None);
    // Parked once more, as by a delivery whose commit was cut off on its way back.
    site.park(&charge("Ash"), noon()).await;
    let summary = redrive(&app, noon()).await;
    assert_eq!(
        (&summary["applied"], &summary["duplicate"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(site.state(&charge_id).await, None);
    assert_eq!(site.count("stripe_events").await, 3);
    assert_eq!(
        site.count("payment_history WHERE amount_cents = 3246")
            .await,
        1
    );
    assert_eq!(site.count("outbox WHERE published_at IS NULL").await, 0);
}

#[tokio::test]
async fn a_poison_event_is_given_up_after_eight_attempts_and_holds_up_nobody() {
    let site = Site::new().await;
    let app = site.app();
    let poison_id = site.park(&poison("Birch"), noon()).await;
    let mut now = noon();
    for attempt in 1..=8_u32 {
        let good_id = site.park(&charge(&format!("Birch{attempt}")), now).await;
        let summary = redrive(&app, now).await;
        assert_eq!(summary["applied"], 1, "attempt {attempt}");
        assert_eq!(site.state(&good_id).await, None);
        let verdict = if attempt == 8 { "poisoned" } else { "failed" };
        assert_eq!(summary[verdict], 1, "attempt {attempt}");
        let state = site.state(&poison_id).await.unwrap();
        assert_eq!(
            (state.attempts, state.is_poisoned()),
            (attempt, attempt == 8)
        );
        assert!(state.reason.contains("currency"), "{}", state.reason);
        // Not before its pause is over, which the next run finds over.
        let early = redrive(&app, now + SignedDuration::from_mins(4)).await;
        assert_eq!(
            (&early["failed"], &early["poisoned"]),
            (&json!(0), &json!(0))
        );
        // What the alarm sees; a poisoned event has another alarm.
        let waited = if attempt == 8 {
            0
        } else {
            (attempt - 1) * 6 * 3_600 + 240
        };
        assert_eq!(early["oldest_parked_seconds"], waited, "attempt {attempt}");
        now += SignedDuration::from_hours(6);
    }
    let summary = redrive(&app, now).await;
    assert_eq!(
        (&summary["failed"], &summary["poisoned"]),
        (&json!(0), &json!(0))
    );

    let client = site.surroundings.database.client().await;
    let message = client
        .query_one(
            "SELECT detail, published_at FROM outbox WHERE detail_type = 'event.poisoned'",
            &[],
        )
        .await
        .unwrap();
    let detail: Value = message.get("detail");
    assert_eq!(detail["event_id"], format!("event.poisoned:{poison_id}"));
    assert_eq!(detail["subject"], poison_id);
    assert_eq!(detail["data"]["attempts"], 8);
    assert!(
        message
            .get::<_, Option<Timestamp>>("published_at")
            .is_some()
    );

    // It has no row, so that it is new when somebody replays it after the fix.
    assert_eq!(
        site.count(&format!("stripe_events WHERE event_id = '{poison_id}'"))
            .await,
        0
    );
}

#[tokio::test]
async fn a_database_that_is_away_costs_no_event_an_attempt() {
    let site = Site::new().await;
    let (proxy, url) = site.surroundings.database.behind_proxy();
    let app = site.app_with(&[("DATABASE_URL", &url)], &site.surroundings.aws);
    let event_ids = [
        site.park(&charge("Cedar"), noon()).await,
        site.park(&poison("Cedar2"), noon()).await,
    ];
    proxy.refuse();
    let error = handle(&app, redrive_at(noon()), noon()).await.unwrap_err();
    let Error::Redrive {
        summary,
        away: Away::Database(_),
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((summary.failed, summary.remaining), (0, Some(2)));
    for event_id in &event_ids {
        assert_eq!(site.state(event_id).await.unwrap().attempts, 0);
    }
    // The repeated invocation has the same time, and finds them.
    proxy.pass();
    let summary = redrive(&app, noon()).await;
    assert_eq!(
        (&summary["applied"], &summary["failed"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn a_connection_that_dies_within_an_event_is_replaced_and_the_event_applied_once() {
    let site = Site::new().await;
    let (proxy, url) = site.surroundings.database.behind_proxy();
    let app = site.app_with(&[("DATABASE_URL", &url)], &site.surroundings.aws);
    let event_id = site.park(&charge("Dogwood"), noon()).await;
    // The commit is carried out and its answer lost: found in the ledger at the second try.
    proxy.cut_on_commit();
    let summary = redrive(&app, noon()).await;
    assert_eq!(summary["duplicate"], 1);
    assert_eq!(site.state(&event_id).await, None);
    assert_eq!(site.count("payment_history").await, 1);
    assert!(proxy.cuts() >= 1);
}

#[tokio::test]
async fn an_event_that_kills_its_connection_again_and_again_counts_as_failed() {
    let site = Site::new().await;
    let (proxy, url) = site.surroundings.database.behind_proxy();
    let app = site.app_with(&[("DATABASE_URL", &url)], &site.surroundings.aws);
    let bad = site.park(&charge("Elder"), noon()).await;
    let later = noon() + SignedDuration::from_secs(1);
    let good = site
        .park(
            &sample("stripe_v1_billing_meter_error_report_triggered_endive").body,
            later,
        )
        .await;
    proxy.cut_before("-- ledger::close");
    let summary = redrive(&app, later).await;
    assert_eq!(
        (&summary["failed"], &summary["ignored"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(site.state(&bad).await.unwrap().attempts, 1);
    assert_eq!(site.state(&good).await, None);
    assert_eq!(site.count("payment_history").await, 0);
}

#[tokio::test]
async fn parked_events_that_are_away_fail_the_run_after_the_outbox_is_swept() {
    let site = Site::new().await;
    site.add_message("payment.succeeded", "payment.succeeded:pi_Fir")
        .await;
    // A table that is not there, on a bus that is.
    let app = site.app_with(
        &[("PARKED_EVENTS_TABLE", "no-such-table")],
        &site.surroundings.aws,
    );
    let error = handle(&app, redrive_at(noon()), noon()).await.unwrap_err();
    let Error::Redrive {
        summary,
        away: Away::ParkedEvents(_),
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((summary.published, summary.remaining), (1, None));
}

#[tokio::test]
async fn what_the_bus_refuses_stays_and_the_rest_is_published() {
    let site = Site::new().await;
    for number in 0..12 {
        site.add_message("payment.succeeded", &format!("payment.succeeded:{number}"))
            .await;
    }
    // The bus answers 200 with this entry failed: an event has to have a type.
    site.add_message("", "nameless").await;
    let summary = redrive(&site.app(), noon()).await;
    assert_eq!(
        (&summary["published"], &summary["publish_failed"]),
        (&json!(12), &json!(1))
    );
    let unpublished = "outbox WHERE published_at IS NULL";
    assert_eq!(site.count(unpublished).await, 1);
    let refused =
        "outbox WHERE dedupe_key = 'nameless' AND attempts = 1 AND last_error LIKE '%DetailType%'";
    assert_eq!(site.count(refused).await, 1);
    // It is not tried again at once, and then again.
    let summary = redrive(&site.app(), noon()).await;
    assert_eq!(summary["publish_failed"], 0);
    let summary = redrive(&site.app(), noon() + SignedDuration::from_mins(1)).await;
    assert_eq!(summary["publish_failed"], 1);
}

#[tokio::test]
async fn a_bus_that_is_away_keeps_everything_for_later() {
    let site = Site::new().await;
    for number in 0..250 {
        site.add_message("payment.succeeded", &format!("payment.succeeded:{number}"))
            .await;
    }
    let moto = FaultProxy::start(moto_address().await);
    let app = site.app_with(&[], &aws::sdk_config(&format!("http://{}", moto.address())));
    // Parked events and bus are behind one address; the sweep is tried all the same, once.
    moto.refuse();
    let error = handle(&app, redrive_at(noon()), noon()).await.unwrap_err();
    let Error::Redrive { summary, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!((summary.published, summary.publish_failed), (0, 100));
    moto.pass();
    let summary = redrive(&app, noon() + SignedDuration::from_mins(5)).await;
    assert_eq!(
        (&summary["published"], &summary["publish_failed"]),
        (&json!(250), &json!(0))
    );
}

async fn moto_address() -> std::net::SocketAddr {
    let url = Aws::shared().await.endpoint_url();
    url.trim_start_matches("http://").parse().unwrap()
}

#[tokio::test]
async fn a_body_that_got_lost_fails_alone() {
    let site = Site::new().await;
    // Larger than an item: its body is in the bucket.
    let large = charge("Gum").replace("Payment complete.", &"x".repeat(400 * 1024));
    let large_id = site.park(&large, noon()).await;
    let lost_id = site.park(&large.replace("Gum", "Hazel"), noon()).await;
    let good_id = site.park(&charge("Ivy"), noon()).await;
    let bucket = site.surroundings.value("DOCUMENT_BUCKET");
    let s3 = aws_sdk_s3::Client::from_conf(
        aws_sdk_s3::config::Builder::from(&site.surroundings.aws)
            .force_path_style(true)
            .build(),
    );
    let key = |event_id: &str| format!("parked/{event_id}.json");
    s3.delete_object()
        .bucket(bucket)
        .key(key(&lost_id))
        .send()
        .await
        .unwrap();
    let summary = redrive(&site.app(), noon()).await;
    assert_eq!(
        (&summary["applied"], &summary["failed"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(site.state(&good_id).await, None);
    assert_eq!(site.state(&large_id).await, None);
    let listed = s3.list_objects_v2().bucket(bucket).send().await.unwrap();
    assert_eq!(listed.key_count(), Some(0), "the body goes with its item");
    let states = site.parked_events().list(10).await.unwrap();
    assert_eq!(states.len(), 1);
    assert_eq!(
        (states[0].event_id.as_str(), states[0].attempts),
        (lost_id.as_str(), 1)
    );
}

#[tokio::test]
async fn a_bucket_that_is_away_costs_no_event_an_attempt_and_holds_up_nobody() {
    let site = Site::new().await;
    let large = charge("Gale").replace("Payment complete.", &"x".repeat(400 * 1024));
    let large_id = site.park(&large, noon()).await;
    // More than one batch behind it.
    for number in 0..30 {
        let parked_at = noon() + SignedDuration::from_secs(1);
        site.park(&charge(&format!("Gale{number}")), parked_at)
            .await;
    }
    site.add_message("payment.succeeded", "payment.succeeded:pi_Gale")
        .await;
    let now = noon() + SignedDuration::from_mins(1);
    let moto = FaultProxy::start(moto_address().await);
    let app = site.app_with(&[], &aws::sdk_config(&format!("http://{}", moto.address())));
    moto.cut_before("/parked/evt_");
    let error = handle(&app, redrive_at(now), now).await.unwrap_err();
    let Error::Redrive {
        summary,
        away: Away::ParkedEvents(away),
    } = error
    else {
        panic!("{error:?}");
    };
    assert!(away.to_string().contains("S3"), "{away}");
    assert_eq!(
        (summary.applied, summary.failed, summary.remaining),
        (30, 0, Some(1))
    );
    assert!(summary.published > 0, "the outbox is swept all the same");
    assert_eq!(site.state(&large_id).await.unwrap().attempts, 0);
    // The repeated invocation finds it where it was.
    moto.pass();
    assert_eq!(redrive(&app, now).await["applied"], 1);
    assert_eq!(site.state(&large_id).await, None);
}

#[tokio::test]
async fn the_logs_of_a_redrive_tell_ids_and_nothing_personal() {
    let site = Site::new().await;
    let (proxy, url) = site.surroundings.database.behind_proxy();
    let app = site.app_with(&[("DATABASE_URL", &url)], &site.surroundings.aws);
    let mut people = Vec::new();
    for sample in samples() {
        if sample.name.starts_with("stripe_") {
            people.extend(logs::personal_texts(&sample.json()));
            site.park(&sample.body, noon()).await;
            let lacking = sample.body.replace("\"currency\"", "\"no_currency\"");
            site.park(&lacking.replace("\"evt_", "\"evt_lacking_"), noon())
                .await;
        }
    }
    assert!(people.len() > 50, "the samples hold people");
    proxy.refuse();
    assert!(handle(&app, redrive_at(noon()), noon()).await.is_err());
    proxy.pass();
    let summary = redrive(&app, noon()).await;
    assert!(summary["failed"].as_u64() > Some(0), "{summary}");
    assert!(logs::captured().contains("evt_lacking_"));
    logs::assert_free_of(people);
}

#[test]
fn without_its_configuration_the_program_says_which_variable_is_missing() {
    let line = logs::of_a_start_without_configuration(env!("CARGO_BIN_EXE_reconciliation"));
    assert_eq!(line["level"], "ERROR");
    let cause = line["fields"]["cause"].as_str().unwrap();
    assert!(cause.contains("DATABASE_URL"), "{line}");
}

#[tokio::test]
async fn a_deadline_leaves_the_rest_for_the_next_run() {
    let site = Site::new().await;
    let app = site.app();
    for number in 0..30 {
        let parked_at = noon() + SignedDuration::from_secs(number);
        site.park(&charge(&format!("Juniper{number}")), parked_at)
            .await;
    }
    site.add_message("payment.succeeded", "payment.succeeded:pi_Juniper")
        .await;
    let now = noon() + SignedDuration::from_mins(1);
    let reached = Deadline::after(Duration::ZERO);
    let summary = handle_until(&app, redrive_at(now), now, reached)
        .await
        .unwrap();
    assert_eq!(
        (&summary["applied"], &summary["remaining"]),
        (&json!(0), &json!(30))
    );
    assert_eq!(summary["published"], 1, "messages are not starved");
    let summary = redrive(&app, now).await;
    assert_eq!(summary["applied"], 30);
    assert_eq!(summary.get("remaining"), None);
    // In one transaction.
    let transactions = "(SELECT DISTINCT xmin::text FROM stripe_events) AS transactions";
    assert_eq!(site.count(transactions).await, 1);
}

#[tokio::test]
async fn two_runs_at_once_apply_each_event_once() {
    let site = Site::new().await;
    for number in 0..20 {
        site.park(&charge(&format!("Kapok{number}")), noon()).await;
    }
    let poison_id = site.park(&poison("Kapok"), noon()).await;
    let (one, other) = (site.app(), site.app());
    let (one, other) = tokio::join!(redrive(&one, noon()), redrive(&other, noon()));
    let sum = |key: &str| one[key].as_u64().unwrap() + other[key].as_u64().unwrap();
    assert_eq!(sum("applied"), 20, "{one} {other}");
    assert_eq!(site.count("payment_history").await, 20);
    assert_eq!(sum("published"), 20, "{one} {other}");
    assert_eq!(site.state(&poison_id).await.unwrap().attempts, 1);
}

#[tokio::test]
async fn the_time_is_the_events_own() {
    let site = Site::new().await;
    let app = site.app();
    site.park(&charge("Larch"), noon()).await;
    // The clock says noon, the event is yesterday's: nothing was due then.
    let yesterday = redrive_at(noon() - SignedDuration::from_hours(24));
    let summary = handle(&app, yesterday, noon()).await.unwrap();
    assert_eq!(summary["applied"], 0);
    let summary = handle(
        &app,
        json!({"detail-type": "reconciliation.redrive"}),
        noon(),
    )
    .await;
    assert_eq!(summary.unwrap()["applied"], 1);
    let event = json!({"detail-type": "reconciliation.redrive", "time": "noon"});
    let error = handle(&app, event, noon()).await.unwrap_err();
    assert!(matches!(error, Error::Time(_)), "{error:?}");
}

#[tokio::test]
async fn an_event_of_another_kind_is_refused_by_name() {
    let site = Site::new().await;
    for (event, told) in [
        (
            json!({"detail-type": "partner-invoicing.monthly"}),
            "\"partner-invoicing.monthly\"",
        ),
        (json!({}), "\"\""),
        (json!(null), "\"\""),
    ] {
        let error = handle(&site.app(), event, noon())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(told), "{error}");
        assert!(error.contains("reconciliation.redrive"), "{error}");
    }
    let logged = logs::captured();
    let told = "is nothing this function does";
    assert_eq!(logged.matches(told).count(), 3, "each once");
}

/// They were parked before somebody said which mode is ours.
#[tokio::test]
async fn parked_events_of_the_other_mode_leave_the_table_without_an_effect() {
    let site = Site::new().await;
    let charge_id = site.park(&charge("Elder"), noon()).await;
    let broken_id = site.park(&poison("Elderberry"), noon()).await;
    let app = site.app_with(&[("STRIPE_LIVEMODE", "true")], &site.surroundings.aws);
    let summary = redrive(&app, noon()).await;
    assert_eq!(
        (&summary["applied"], &summary["ignored"]),
        (&json!(0), &json!(2))
    );
    assert_eq!(summary["failed"], 0);
    for id in [&charge_id, &broken_id] {
        assert_eq!(site.state(id).await, None);
    }
    assert_eq!(
        site.count("stripe_events WHERE outcome = 'foreign'").await,
        2
    );
    assert_eq!(site.count("payment_history").await, 0);
    assert_eq!(site.count("outbox").await, 0);
}
