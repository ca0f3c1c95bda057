//! The binary as it is deployed, under a Runtime API of our own: its size, its start, its memory.
//!
//! `cargo build --release -p webhook && cargo bench -p webhook --bench binary -- target/release/webhook`
//! copies nothing: `cargo bench` puts its own build, linked with the features of the tests, in the
//! same place, so give a copy. Without a path that own build is measured.

mod setting;

use std::io::BufReader;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use local::fake_stripe::Shape;
use setting::{SECRET, read_request, write_answer};

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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
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
        let mut times: Vec<Duration> = (0..STARTS).map(|_| start_time(&binary, url)).collect();
        times.sort();
        println!(
            "spawn to first poll, Postgres {what}: median {} ms, longest {} ms",
            in_ms(times[STARTS / 2]),
            in_ms(times[STARTS - 1]),
        );
    }
    serve(&binary, &database.url, subscribers);
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

fn start_time(binary: &Path, database_url: &str) -> Duration {
    let runtime_api = RuntimeApi::start();
    let start = Instant::now();
    let _function = Function::spawn(binary, &runtime_api, database_url, "http://127.0.0.1:1");
    runtime_api.polls.recv().expect("a poll") - start
}

/// Feeds the binary with events, one at a time as Lambda does.
#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
fn serve(binary: &Path, database_url: &str, subscribers: i32) {
    let (subscribed, renewed) = setting::story(Shape::Basil, subscribers);
    let deliveries: Vec<_> = subscribed.into_iter().chain(renewed).take(EVENTS).collect();
    let runtime_api = RuntimeApi::start();
    let bus = setting::start_bus();
    let function = Function::spawn(binary, &runtime_api, database_url, &bus);
    let mut memory = Vec::new();
    let mut processor_ms = 0;
    let start = Instant::now();
    for (number, delivery) in deliveries.iter().enumerate() {
        let invocation = delivery.invocation(now());
        runtime_api
            .invocations
            .send(invocation)
            .expect("a function");
        let answer = runtime_api.answers.recv().expect("an answer");
        let is_kept = answer.contains("received") && !answer.contains("parked");
        assert!(is_kept, "{}: {answer}", delivery.event_type);
        if matches!(number, 0 | 99 | 999) || number + 1 == deliveries.len() {
            memory.push(format!("{} after {}", function.memory(), number + 1));
        }
        if number == 99 {
            processor_ms = function.processor_ms();
        }
    }
    let after = u64::try_from(deliveries.len() - 100).expect("more than a hundred events");
    println!("resident memory: {}", memory.join(", "));
    println!("most resident memory: {}", function.most_memory());
    println!(
        "processor time per event, Runtime API, bus and logs included: {} µs",
        (function.processor_ms() - processor_ms) * 1_000 / after
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

/// The process, ended with this value.
struct Function(Child);

impl Function {
    fn spawn(binary: &Path, runtime_api: &RuntimeApi, database_url: &str, aws: &str) -> Function {
        let child = Command::new(binary)
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", runtime_api.address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "webhook")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/webhook")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "bench")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .env("AWS_ENDPOINT_URL", aws)
            .env("DATABASE_URL", database_url)
            .env("DATABASE_SSLMODE", "disable")
            .env("STRIPE_WEBHOOK_SECRETS", SECRET)
            .env("PARKED_EVENTS_TABLE", "never-needed")
            .env("DOCUMENT_BUCKET", "never-needed")
            .env("EVENT_BUS_NAME", "billing")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Function(child.expect("the binary runs"))
    }

    fn memory(&self) -> String {
        self.status("VmRSS:")
    }

    fn most_memory(&self) -> String {
        self.status("VmHWM:")
    }

    /// A line of the process's status, in MB.
    fn status(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        let status = status.expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kb = line.unwrap_or_default().trim().trim_end_matches(" kB");
        let kb: u64 = kb.parse().expect("a number");
        format!("{}.{} MB", kb / 1_024, kb % 1_024 * 10 / 1_024)
    }

    /// User and system time of all its threads.
    fn processor_ms(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()));
        let stat = stat.expect("Linux");
        // The name in parentheses may hold blanks; `utime` is the 14th field, in ticks of 10 ms.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split(' ').skip(12).take(2);
        ticks
            .map(|word| word.parse::<u64>().expect("a number") * 10)
            .sum()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.0.kill().expect("the function is ours to stop");
        self.0.wait().expect("the function has ended");
    }
}

/// Lambda's side: <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.
struct RuntimeApi {
    address: SocketAddr,
    /// When the function asked for work.
    polls: Receiver<Instant>,
    invocations: Sender<String>,
    answers: Receiver<String>,
}

/// The server's ends of the channels.
struct Desk {
    polls: Sender<Instant>,
    invocations: Mutex<Receiver<String>>,
    answers: Sender<String>,
}

impl RuntimeApi {
    fn start() -> RuntimeApi {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (polled, polls) = channel();
        let (invocations, invoked) = channel();
        let (answered, answers) = channel();
        let desk = Arc::new(Desk {
            polls: polled,
            invocations: Mutex::new(invoked),
            answers: answered,
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let desk = Arc::clone(&desk);
                std::thread::spawn(move || desk.serve(stream));
            }
        });
        RuntimeApi {
            address,
            polls,
            invocations,
            answers,
        }
    }
}

impl Desk {
    /// Answers one connection until it, or the bench, ends.
    fn serve(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let (request_line, body) = read_request(&mut reader)?;
            if request_line.starts_with("GET ") {
                // Nobody listens to the later ones.
                self.polls.send(Instant::now()).ok();
                let invocations = self.invocations.lock();
                let next = invocations
                    .unwrap_or_else(PoisonError::into_inner)
                    .recv()
                    .ok()?;
                let headers = [
                    (
                        "lambda-runtime-aws-request-id",
                        "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
                    ),
                    ("lambda-runtime-deadline-ms", "4102444800000"),
                    (
                        "lambda-runtime-invoked-function-arn",
                        "arn:aws:lambda:us-east-1:123456789012:function:webhook",
                    ),
                    ("content-type", "application/json"),
                ];
                write_answer(reader.get_mut(), "200 OK", &headers, &next)?;
            } else {
                write_answer(reader.get_mut(), "202 Accepted", &[], "")?;
                self.answers.send(String::from_utf8(body).ok()?).ok()?;
            }
        }
    }
}
