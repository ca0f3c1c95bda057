//! The binary as it is deployed, under a Runtime API of our own: its size, its start, its memory.
//!
//! `cargo build --release -p webhook && cargo bench -p webhook --bench binary -- target/release/webhook`
//! copies nothing: `cargo bench` puts its own build, linked with the features of the tests, in the
//! same place, so give a copy. Without a path that own build is measured.

mod setting;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fake_stripe::Shape;
use jiff::Timestamp;
use setting::SECRET;
use testing::Function;
use testing::bench;
use tokio::runtime::Runtime;

const EVENTS: usize = 10_000;
const STARTS: usize = 20;
/// A subscriber and their first renewal make about fifteen events.
const EVENTS_PER_SUBSCRIBER: usize = 12;

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
fn main() {
    // `cargo test --all-targets` runs a bench without arguments, only to see that it starts.
    if std::env::args().count() == 1 {
        return;
    }
    let binary = binary();
    let size = std::fs::metadata(&binary).expect("the binary").len();
    println!("{}", binary.display());
    println!(
        "size: {}.{:02} MB",
        size / 1_000_000,
        size % 1_000_000 / 10_000
    );
    let runtime = bench::runtime();
    let subscribers = EVENTS / EVENTS_PER_SUBSCRIBER;
    let subscribers = i32::try_from(subscribers).expect("a number of subscribers");
    let database = runtime.block_on(setting::database(subscribers));
    // Accepts and never says a word: the worst a database can do to a start.
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let silent = format!(
        "postgres://nobody@{}/none",
        silent.local_addr().expect("an address")
    );
    for (what, url) in [
        ("refuses", "postgres://nobody@127.0.0.1:1/none"),
        ("is silent", &silent),
        ("answers", &database.url),
    ] {
        let start_time = || async { spawn(&binary, url, "http://127.0.0.1:1").start_time().await };
        let mut times: Vec<Duration> = (0..STARTS)
            .map(|_| runtime.block_on(start_time()))
            .collect();
        times.sort();
        println!(
            "spawn to first poll, Postgres {what}: median {} ms, longest {} ms",
            in_ms(times[STARTS / 2]),
            in_ms(times[STARTS - 1]),
        );
    }
    serve(&runtime, &binary, &database.url, subscribers);
}

/// The path given, else the binary cargo built along with this bench.
fn binary() -> PathBuf {
    let mut arguments = std::env::args().skip(1);
    let given = arguments.find(|argument| !argument.starts_with("--"));
    given
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_webhook").to_owned())
        .into()
}

fn in_ms(time: Duration) -> String {
    format!("{}.{:02}", time.as_millis(), time.as_micros() % 1_000 / 10)
}

fn spawn(binary: &Path, database_url: &str, aws: &str) -> Function {
    let variables = [
        ("AWS_ENDPOINT_URL", aws),
        ("DATABASE_URL", database_url),
        ("DATABASE_SSLMODE", "disable"),
        ("STRIPE_WEBHOOK_SECRETS", SECRET),
        ("STRIPE_LIVEMODE", "any"),
        ("PARKED_EVENTS_TABLE", "never-needed"),
        ("DOCUMENT_BUCKET", "never-needed"),
        ("EVENT_BUS_NAME", "billing"),
    ];
    Function::spawn(binary, "webhook", variables)
}

fn in_mb(kib: Option<u64>) -> String {
    let kib = kib.expect("Linux");
    format!("{}.{} MB", kib / 1_024, kib % 1_024 * 10 / 1_024)
}

/// Feeds the binary with events, one at a time as Lambda does.
#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
fn serve(runtime: &Runtime, binary: &Path, database_url: &str, subscribers: i32) {
    let (subscribed, renewed) = setting::story(Shape::Basil, subscribers);
    let deliveries: Vec<_> = subscribed.into_iter().chain(renewed).take(EVENTS).collect();
    let bus = bench::start_aws();
    let mut function = spawn(binary, database_url, &bus);
    let mut memory = Vec::new();
    let mut processor_ms = 0;
    let start = Instant::now();
    for (number, delivery) in deliveries.iter().enumerate() {
        function.hand(delivery.invocation(now()));
        let answer = runtime.block_on(function.answer()).body;
        let is_kept = answer.contains("received") && !answer.contains("parked");
        assert!(is_kept, "{}: {answer}", delivery.event_type);
        if matches!(number, 0 | 99 | 999) || number + 1 == deliveries.len() {
            memory.push(format!(
                "{} after {}",
                in_mb(function.memory_kib()),
                number + 1
            ));
        }
        if number == 99 {
            processor_ms = function.processor_ms().expect("Linux");
        }
    }
    let after = u64::try_from(deliveries.len() - 100).expect("more than a hundred events");
    println!("resident memory: {}", memory.join(", "));
    println!(
        "most resident memory: {}",
        in_mb(function.most_memory_kib())
    );
    println!(
        "processor time per event, Runtime API, bus and logs included: {} µs",
        (function.processor_ms().expect("Linux") - processor_ms) * 1_000 / after
    );
    println!(
        "{} events in {} s",
        deliveries.len(),
        start.elapsed().as_secs()
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "the binary compares signatures with its own clock"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
