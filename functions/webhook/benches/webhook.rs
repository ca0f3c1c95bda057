//! One event through the whole function, warm, next to a bare transaction of the same statements.
//!
//! `cargo bench -p webhook --bench webhook`; `-- --subscribers 500` for another number of renewals.
//!
//! A first pass records what the function sends to Postgres, byte by byte. Then every event is
//! handled on one database, and what was recorded of it is sent again on another one that stands
//! at the same point: flight by flight, over a bare socket, its answers read and thrown away. The
//! pool's check of its connection is not sent again, so it counts against the function.

mod setting;

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_types::SdkConfig;
use fake_stripe::Shape;
use jiff::Timestamp;
use lambda_http::Context;
use lambda_http::lambda_runtime::LambdaEvent;
use runtime::aws::event_bus::{self, EventBus};
use runtime::config::Environment;
use serde_json::Value;
use serde_json::value::RawValue;
use setting::{Delivery, SECRET};
use testing::bench::{self, median, number, ratio};
use testing::roles::as_function;
use testing::{TestDatabase, aws};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::NoTls;
use webhook::App;

const SUBSCRIBERS: i32 = 200;

fn main() {
    bench::run(async {
        // Logs are made as in production; only writing them is left out.
        tracing_subscriber::fmt()
            .json()
            .with_current_span(false)
            .with_writer(std::io::sink)
            .init();
        let subscribers = number("--subscribers").unwrap_or(SUBSCRIBERS);
        for shape in [Shape::V2020_08_27, Shape::Basil] {
            compare(shape, subscribers).await;
        }
    });
}

/// What was measured of one type of event.
#[derive(Default)]
struct Figures {
    handler: Vec<Duration>,
    bus: Vec<Duration>,
    floor: Vec<Duration>,
    flights: usize,
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn compare(shape: Shape, subscribers: i32) {
    let (subscribed, renewed) = setting::story(shape, subscribers);
    let bus = bench::start_aws();
    let recording = Recorder::start();
    let recorded = Sandbox::start(subscribers, &bus, Some(&recording)).await;
    recorded.handle_all(&subscribed).await;
    let mut flights: Vec<Vec<Vec<u8>>> = Vec::new();
    for delivery in &renewed {
        recording.take();
        recorded.handle(delivery).await;
        flights.push(recording.take());
    }
    let handling = Sandbox::start(subscribers, &bus, None).await;
    handling.handle_all(&subscribed).await;
    let replaying = Sandbox::start(subscribers, &bus, None).await;
    replaying.handle_all(&subscribed).await;
    let mut bare = Bare::connect(&replaying.database.url).await;
    let mut outbox = handling.outbox().await;
    let mut by_type: BTreeMap<&str, Figures> = BTreeMap::new();
    outbox.new_messages().await;
    for (delivery, flights) in renewed.iter().zip(&flights) {
        let figures = by_type.entry(&delivery.event_type).or_default();
        figures.flights = figures.flights.max(flights.len());
        figures.handler.push(handling.handle(delivery).await);
        figures.floor.push(bare.replay(flights));
        let messages = outbox.new_messages().await;
        figures.bus.push(handling.publish(&messages).await);
    }
    println!(
        "\n{} events of {subscribers} renewals, {}",
        renewed.len(),
        shape.api_version()
    );
    println!(
        "median, µs                       handler    bus  floor  ratio  without the bus  flights"
    );
    let mut all = [Duration::ZERO; 3];
    for (event_type, figures) in by_type {
        for (sum, times) in all
            .iter_mut()
            .zip([&figures.handler, &figures.bus, &figures.floor])
        {
            *sum += times.iter().sum::<Duration>();
        }
        let flights = figures.flights;
        let medians = [figures.handler, figures.bus, figures.floor].map(median);
        println!("  {event_type:<30} {}  {flights:>7}", row(medians));
    }
    let number = u32::try_from(renewed.len()).expect("a number of events");
    println!(
        "  {:<30} {}",
        "all (mean)",
        row(all.map(|sum| sum / number))
    );
    println!("what an invoice.paid sends:");
    let paid = renewed
        .iter()
        .position(|delivery| delivery.event_type == "invoice.paid");
    for (number, flight) in paid.iter().flat_map(|place| &flights[*place]).enumerate() {
        println!("  {}. {}", number + 1, statements(flight).join(", "));
    }
    processor_time(&subscribed, &renewed, subscribers, &bus).await;
}

/// The times in µs, handler by floor, and the same without the bus.
fn row([handler, bus, floor]: [Duration; 3]) -> String {
    format!(
        "{:>9} {:>6} {:>6}  {:>5}  {:>15}",
        handler.as_micros(),
        bus.as_micros(),
        floor.as_micros(),
        ratio(handler, floor),
        ratio(handler.saturating_sub(bus), floor),
    )
}

/// What the handler's thread takes of the processor: Postgres is another process, the bus another
/// thread. The kernel's share of sending and receiving is in it.
#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
async fn processor_time(
    subscribed: &[Delivery],
    renewed: &[Delivery],
    subscribers: i32,
    bus: &str,
) {
    let sandbox = Sandbox::start(subscribers, bus, None).await;
    sandbox.handle_all(subscribed).await;
    let mut outbox = sandbox.outbox().await;
    outbox.new_messages().await;
    let number = u64::try_from(renewed.len()).expect("a number of events");
    let invocations: Vec<_> = renewed.iter().map(Sandbox::invocation).collect();
    let before = Processor::read();
    for invocation in invocations {
        sandbox.invoke(invocation).await;
    }
    let all = Processor::read().since(before);
    // The same messages in the same portions; an event makes one call or none.
    let messages = outbox.new_messages().await;
    let portion = messages.len().div_ceil(renewed.len()).max(1);
    let before = Processor::read();
    let mut calls = 0;
    for messages in messages.chunks(portion) {
        sandbox.publish(messages).await;
        calls += 1;
    }
    let publishing = Processor::read().since(before);
    println!(
        "processor time per event: {} µs ({} µs user, {} µs system); without the bus about {} µs \
         ({calls} calls of {portion} messages for {number} events)",
        all.nanoseconds / number / 1_000,
        all.user_ms * 1_000 / number,
        all.system_ms * 1_000 / number,
        all.nanoseconds.saturating_sub(publishing.nanoseconds) / number / 1_000,
    );
}

/// What this thread has taken of the processor so far.
#[derive(Clone, Copy)]
struct Processor {
    nanoseconds: u64,
    user_ms: u64,
    system_ms: u64,
}

impl Processor {
    fn read() -> Processor {
        let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        let nanoseconds = schedule
            .split(' ')
            .next()
            .and_then(|word| word.parse().ok());
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
        // The name in parentheses may hold blanks; `utime` is the 14th field, in ticks of 10 ms.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let mut ticks = fields.split(' ').skip(12).map(|word| word.parse::<u64>());
        let mut next_ms = || ticks.next().and_then(Result::ok).expect("a number") * 10;
        Processor {
            nanoseconds: nanoseconds.expect("a number"),
            user_ms: next_ms(),
            system_ms: next_ms(),
        }
    }

    fn since(self, before: Processor) -> Processor {
        Processor {
            nanoseconds: self.nanoseconds - before.nanoseconds,
            user_ms: self.user_ms - before.user_ms,
            system_ms: self.system_ms - before.system_ms,
        }
    }
}

/// A function on a separate database.
struct Sandbox {
    app: App,
    bus: EventBus,
    database: TestDatabase,
}

impl Sandbox {
    async fn start(subscribers: i32, bus: &str, recorder: Option<&Recorder>) -> Sandbox {
        let database = setting::database(subscribers).await;
        let mut url = database.url.clone();
        if let Some(recorder) = recorder {
            let config: tokio_postgres::Config = url.parse().expect("a URL");
            let port = config.get_ports()[0];
            recorder.forward_to(([127, 0, 0, 1], port).into());
            url = url.replace(
                &format!(":{port}/"),
                &format!(":{}/", recorder.address.port()),
            );
        }
        let environment = Environment::from_pairs([
            ("DATABASE_URL", url.as_str()),
            ("DATABASE_SSLMODE", "disable"),
            ("STRIPE_WEBHOOK_SECRETS", SECRET),
            ("STRIPE_LIVEMODE", "any"),
            ("PARKED_EVENTS_TABLE", "never-needed"),
            ("DOCUMENT_BUCKET", "never-needed"),
            ("EVENT_BUS_NAME", "billing"),
        ]);
        let sdk: SdkConfig = aws::sdk_config(bus);
        Sandbox {
            app: App::from_env(&as_function("webhook", &environment), &sdk).expect("an app"),
            bus: EventBus::from_env(&environment, &sdk).expect("a bus"),
            database,
        }
    }

    fn invocation(delivery: &Delivery) -> LambdaEvent<Box<RawValue>> {
        let text = delivery.invocation(now());
        LambdaEvent::new(
            RawValue::from_string(text).expect("JSON"),
            Context::default(),
        )
    }

    async fn invoke(&self, invocation: LambdaEvent<Box<RawValue>>) -> Value {
        // Boxed, as the Lambda runtime does: the compiler gives up on the nesting of the types.
        let answer = Box::pin(webhook::handle_invocation(&self.app, invocation, now())).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer["statusCode"], 200);
        answer
    }

    /// How long the function took.
    async fn handle(&self, delivery: &Delivery) -> Duration {
        let invocation = Sandbox::invocation(delivery);
        let start = Instant::now();
        let answer = self.invoke(invocation).await;
        let elapsed = start.elapsed();
        let body = answer["body"].as_str().unwrap_or_default();
        assert!(!body.contains("parked"), "{}: {body}", delivery.event_type);
        elapsed
    }

    async fn handle_all(&self, deliveries: &[Delivery]) {
        for delivery in deliveries {
            self.handle(delivery).await;
        }
    }

    /// How long the bus takes for the messages.
    async fn publish(&self, messages: &[(String, Value)]) -> Duration {
        if messages.is_empty() {
            return Duration::ZERO;
        }
        let start = Instant::now();
        let entries: Vec<event_bus::BusEntry<'_>> = messages
            .iter()
            .map(|(detail_type, detail)| event_bus::BusEntry {
                detail_type,
                detail,
            })
            .collect();
        let outcomes = self.bus.publish(&entries).await;
        let elapsed = start.elapsed();
        assert_eq!(outcomes[0], event_bus::Outcome::Published);
        elapsed
    }

    async fn outbox(&self) -> Outbox {
        Outbox {
            client: self.database.client().await,
            last: 0,
        }
    }
}

/// The time every event is handled at.
fn now() -> Timestamp {
    Timestamp::from_second(1_780_000_000).expect("an instant")
}

/// The messages of a database, read from beside.
struct Outbox {
    client: tokio_postgres::Client,
    last: i64,
}

impl Outbox {
    /// What was written since the last call.
    async fn new_messages(&mut self) -> Vec<(String, Value)> {
        let select = "SELECT id, detail_type, detail FROM outbox WHERE id > $1 ORDER BY id";
        let rows = self
            .client
            .query(select, &[&self.last])
            .await
            .expect("rows");
        if let Some(row) = rows.last() {
            self.last = row.get("id");
        }
        rows.iter()
            .map(|row| (row.get("detail_type"), row.get("detail")))
            .collect()
    }
}

/// A proxy that keeps what the client sends, one flight each: what leaves before the next answer.
struct Recorder {
    address: SocketAddr,
    upstream: tokio::sync::watch::Sender<Option<SocketAddr>>,
    flights: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    fn start() -> Recorder {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (upstream, told) = tokio::sync::watch::channel(None);
        let flights = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&flights);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((client, _)) = listener.accept().await {
                    let server: Option<SocketAddr> = *told.borrow();
                    tokio::spawn(forward(
                        client,
                        server.expect("a server"),
                        Arc::clone(&kept),
                    ));
                }
            });
        });
        Recorder {
            address,
            upstream,
            flights,
        }
    }

    fn forward_to(&self, server: SocketAddr) {
        self.upstream.send_replace(Some(server));
    }

    /// What was sent since the last call.
    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *locked(&self.flights))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn forward(
    mut client: tokio::net::TcpStream,
    server: SocketAddr,
    flights: Arc<Mutex<Vec<Vec<u8>>>>,
) -> Option<()> {
    let mut server = tokio::net::TcpStream::connect(server).await.ok()?;
    client.set_nodelay(true).ok()?;
    server.set_nodelay(true).ok()?;
    let (mut sent, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut is_answered = true;
    loop {
        tokio::select! {
            read = client.read(&mut sent) => {
                let bytes = &sent[..read.ok().filter(|length| *length > 0)?];
                {
                    let mut flights = locked(&flights);
                    match flights.last_mut() {
                        Some(flight) if !is_answered => flight.extend_from_slice(bytes),
                        _ => flights.push(bytes.to_vec()),
                    }
                }
                is_answered = false;
                server.write_all(bytes).await.ok()?;
            }
            read = server.read(&mut answered) => {
                let length = read.ok().filter(|length| *length > 0)?;
                is_answered = true;
                client.write_all(&answered[..length]).await.ok()?;
            }
        }
    }
}

/// A connection that sends bytes and throws the answers away.
struct Bare {
    socket: BufReader<TcpStream>,
    // Never polled again: they only logged in.
    _client: tokio_postgres::Client,
    _connection:
        tokio_postgres::Connection<tokio::net::TcpStream, tokio_postgres::tls::NoTlsStream>,
}

impl Bare {
    async fn connect(url: &str) -> Bare {
        let config: tokio_postgres::Config = url.parse().expect("a URL");
        let socket = TcpStream::connect(("127.0.0.1", config.get_ports()[0])).expect("a socket");
        socket.set_nodelay(true).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let shared = socket.try_clone().expect("a socket");
        let shared = tokio::net::TcpStream::from_std(shared).expect("a socket");
        let (client, connection) = config.connect_raw(shared, NoTls).await.expect("a login");
        socket.set_nonblocking(false).expect("a socket");
        Bare {
            socket: BufReader::with_capacity(1 << 16, socket),
            _client: client,
            _connection: connection,
        }
    }

    /// How long the flights took.
    fn replay(&mut self, flights: &[Vec<u8>]) -> Duration {
        let flights: Vec<(&[u8], usize)> = flights
            .iter()
            .filter(|flight| flight.as_slice() != POOL_CHECK)
            .map(|flight| (flight.as_slice(), answers(flight)))
            .collect();
        let start = Instant::now();
        for (flight, answers) in flights {
            self.socket.get_mut().write_all(flight).expect("a write");
            for _ in 0..answers {
                self.read_answer();
            }
        }
        start.elapsed()
    }

    /// Reads up to and with the next `ReadyForQuery`.
    fn read_answer(&mut self) {
        let mut content = Vec::new();
        loop {
            let mut header = [0; 5];
            self.socket.read_exact(&mut header).expect("an answer");
            let [kind, length @ ..] = header;
            let length = u64::from(u32::from_be_bytes(length).saturating_sub(4));
            content.clear();
            let read = (&mut self.socket).take(length).read_to_end(&mut content);
            read.expect("an answer");
            assert_ne!(kind, b'E', "{}", String::from_utf8_lossy(&content));
            if kind == b'Z' {
                return;
            }
        }
    }
}

/// The empty query the pool asks a connection with whether it is alive.
const POOL_CHECK: &[u8] = b"Q\0\0\0\x05\0";

/// The messages of a flight: kind and content.
fn messages(mut flight: &[u8]) -> Vec<(u8, &[u8])> {
    let mut messages = Vec::new();
    while let [kind, a, b, c, d, rest @ ..] = flight {
        let length = u32::from_be_bytes([*a, *b, *c, *d]).saturating_sub(4);
        let length = usize::try_from(length).expect("a length");
        let (content, after) = rest.split_at(length);
        messages.push((*kind, content));
        flight = after;
    }
    messages
}

/// How often the server says that it is ready: after each simple query and each `Sync`.
fn answers(flight: &[u8]) -> usize {
    let messages = messages(flight);
    messages
        .iter()
        .filter(|(kind, _)| matches!(kind, b'Q' | b'S'))
        .count()
}

/// The names of a flight's statements, from their first lines.
fn statements(flight: &[u8]) -> Vec<String> {
    if flight == POOL_CHECK {
        return vec!["(the pool's check)".to_owned()];
    }
    let queries = messages(flight)
        .into_iter()
        .filter(|(kind, _)| matches!(kind, b'Q' | b'P'));
    queries
        .map(|(_, content)| {
            let text = String::from_utf8_lossy(content);
            let line = text
                .trim_start_matches('\0')
                .lines()
                .next()
                .unwrap_or_default();
            line.trim_start_matches("-- ")
                .trim_end_matches('\0')
                .to_owned()
        })
        .collect()
}
