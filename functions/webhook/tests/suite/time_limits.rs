//! A table that somebody has locked, a bus that never answers, and a database without a free connection: nothing of it
//! takes the database from others, and no event is lost or counted twice.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use jiff::SignedDuration;
use serde_json::Value;
use testing::{FaultProxy, TestDatabase, aws};
use tokio_postgres::NoTls;
use webhook::App;

use crate::failures::{PATIENCE, Site, charge, deliver, kept, moto_address, noon};

const SANDBOXES: usize = 6;
const EVENTS: usize = 120;

/// Delivers the events, a sandbox one at a time; what each delivery was answered and how long it took.
async fn deliver_all(apps: &[App], events: &[String]) -> Vec<((u16, Value), Duration)> {
    let share = events.len().div_ceil(apps.len());
    let of_sandbox = apps
        .iter()
        .zip(events.chunks(share))
        .map(|(app, events)| async move {
            let mut answers = Vec::new();
            for event in events {
                let started = Instant::now();
                answers.push((deliver(app, event).await, started.elapsed()));
            }
            answers
        });
    join_all(of_sandbox).await.into_iter().flatten().collect()
}

fn events(name: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| charge(&format!("{name}{number:03}")))
        .collect()
}

/// The most connections that the functions had at once while `work` ran, counted every 20 ms from a new connection:
/// others can connect meanwhile.
async fn most_backends<T>(database: &TestDatabase, work: impl Future<Output = T>) -> (T, i64) {
    let mut most = 0;
    let watching = async {
        loop {
            let now = database.backends("true").await;
            most = most.max(now);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = watching => unreachable!("it watches for ever"),
    };
    (done, most)
}

async fn assert_counted_once(site: &Site, events: i64) {
    assert_eq!(site.parked().await, []);
    for from in [
        "stripe_events",
        "payment_history WHERE amount_cents = 3246",
        "revenue_entries WHERE kind = 'gross' AND amount_cents = 3246",
        "outbox WHERE detail_type = 'payment.succeeded'",
    ] {
        assert_eq!(site.count(from).await, events, "{from}");
    }
    let day = format!(
        "revenue_daily WHERE payments = {events} AND gross_cents = {}",
        events * 3_246
    );
    assert_eq!(site.count(&day).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_takes_nobodys_database_and_no_event_is_lost_or_counted_twice() {
    let site = Site::new().await;
    let database = &site.surroundings.database;
    let apps: Vec<App> = (0..SANDBOXES).map(|_| site.app()).collect();
    let lock = database.lock_table("payment_history").await;
    let events = events("Locked", EVENTS);
    let (answers, most) = most_backends(database, deliver_all(&apps, &events)).await;
    for (answer, elapsed) in &answers {
        assert_eq!(*answer, kept("parked"));
        assert!(*elapsed < PATIENCE, "{elapsed:?}");
    }
    println!("at most {most} connections of {SANDBOXES} sandboxes");
    assert!(most <= i64::try_from(SANDBOXES).unwrap() + 2, "{most}");
    assert_eq!(database.backends("state <> 'idle'").await, 0);
    // Most were parked at once: a sandbox remembers that it has waited in vain.
    let quick = answers
        .iter()
        .filter(|(_, elapsed)| *elapsed < Duration::from_secs(2));
    assert!(quick.count() > EVENTS / 2);
    lock.release().await;

    // Some of them come again; then the redrive finds the rest.
    let again = events.iter().take(5);
    for answer in join_all(again.map(|event| deliver(&apps[0], event))).await {
        assert_eq!(answer.0, 200);
    }
    let summary = site.redrive(noon()).await;
    println!("{summary}");
    assert_counted_once(&site, i64::try_from(EVENTS).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_parks_at_once_tries_again_after_five_seconds() {
    let site = Site::new().await;
    // The first runs into its role's limit, the second, as a role without limits, into the function's own.
    let database = &site.surroundings.database;
    let url = database.limited_to(5).await;
    let without_limits = site.app_with(&[("DATABASE_URL", &url)], &site.surroundings.aws);
    let app = site.app();
    let lock = database.lock_table("payment_history").await;
    for (app, name) in [(&app, "Zero"), (&app, "One"), (&without_limits, "Two")] {
        assert_eq!(deliver(app, charge(name)).await, kept("parked"));
    }
    lock.release().await;
    assert_eq!(deliver(&app, charge("Three")).await, kept("parked"));
    let parked = site.parked().await;
    let reason = |name: &str| {
        let id = format!("evt_{name}ChargeSucceeded");
        let one = parked.iter().find(|one| one.event_id == id);
        one.map(|one| one.reason.clone()).unwrap_or_default()
    };
    assert!(reason("One").contains("(55P03)"), "{}", reason("One"));
    assert!(reason("Two").contains("within 2.5s"), "{}", reason("Two"));
    assert!(reason("Three").contains("in a row"), "{}", reason("Three"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    for name in ["Four", "Five"] {
        assert_eq!(deliver(&app, charge(name)).await, kept("applied"));
    }
}

fn p50(answers: &[((u16, Value), Duration)]) -> Duration {
    let mut times: Vec<Duration> = answers.iter().map(|(_, elapsed)| *elapsed).collect();
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_never_answers_slows_no_delivery_and_gets_everything_later() {
    let site = Site::new().await;
    let moto = FaultProxy::start(moto_address().await);
    let through = aws::sdk_config(&format!("http://{}", moto.address()));
    let apps: Vec<App> = (0..2).map(|_| site.app_with(&[], &through)).collect();
    let calm = deliver_all(&apps, &events("Calm", 30)).await;
    moto.hang();
    let started = Instant::now();
    let frozen = deliver_all(&apps, &events("Frozen", 30)).await;
    let all = started.elapsed();
    for (answer, _) in calm.iter().chain(&frozen) {
        assert_eq!(*answer, kept("applied"));
    }
    let (calm, frozen) = (p50(&calm), p50(&frozen));
    println!("p50 {calm:?}, with a frozen bus {frozen:?}; all in {all:?}");
    assert!(frozen.as_secs_f64() <= 1.2 * calm.as_secs_f64());
    // Of thirty, each sandbox has waited for the bus once.
    assert!(all < Duration::from_secs(5), "{all:?}");
    let waiting = "outbox WHERE published_at IS NULL";
    assert_eq!(site.count(waiting).await, 30);
    // What is younger than half a minute may be on its way.
    let summary = site.redrive(noon() + SignedDuration::from_secs(29)).await;
    assert_eq!(summary["published"], 0, "{summary}");
    let summary = site.redrive(noon() + SignedDuration::from_secs(31)).await;
    assert_eq!(summary["published"], 30, "{summary}");
    assert_eq!(site.count(waiting).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_connection_a_delivery_tries_again_and_then_parks() {
    let site = Site::new().await;
    let database = &site.surroundings.database;
    let url = database.limited_to(1).await;
    let (other, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let app = site.app_with(&[("DATABASE_URL", &url)], &site.surroundings.aws);

    let started = Instant::now();
    assert_eq!(deliver(&app, charge("Full")).await, kept("parked"));
    assert!(started.elapsed() < PATIENCE);
    let reason = &site.parked().await[0].reason;
    assert!(reason.contains("53300"), "{reason}");

    // A connection becomes free while it tries.
    let free = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        drop(other);
        connection.await.unwrap().unwrap();
    };
    let (answer, ()) = join(deliver(&app, charge("Free")), free).await;
    assert_eq!(answer, kept("applied"));
    site.redrive(noon()).await;
    assert_counted_once(&site, 2).await;
}
