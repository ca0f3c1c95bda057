//! What an event costs: next to the floor, which is written by hand (`floor.sql`), in sets, in a crowded second, and when
//! sixteen write one day.
//!
//! `cargo bench -p webhook --bench webhook`; `-- --subscribers 500` for another number of renewals.
//!
//! Three databases stand at the same point: every renewal has its invoice and nothing paid. On one the whole handler
//! applies each `invoice.paid`; on the second the statements of the floor write the rows that this has left, on the third
//! the bare writes. In the end all three have the same ledger, or the bench fails.

mod setting;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use aws_types::SdkConfig;
use fake_stripe::Shape;
use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use lambda_http::Context;
use lambda_http::lambda_runtime::LambdaEvent;
use runtime::aws::event_bus::{self, EventBus};
use runtime::config::Environment;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use setting::{Delivery, SECRET};
use testing::bench::{self, median, number, ratio};
use testing::roles::as_function;
use testing::{TestDatabase, aws, ledger_rows, sample};
use tokio_postgres::types::{Format, IsNull, ToSql, Type, private::BytesMut};
use tokio_postgres::{Client, Statement};
use webhook::App;

const SUBSCRIBERS: i32 = 300;
/// Not measured: connections, plans and caches.
const WARM_UP: usize = 50;
/// Events of a set, as many as a batch of SQS has.
const SET: usize = 100;
const CLIENTS: usize = 16;
const PAYMENTS_PER_CLIENT: usize = 100;
/// Other events of the same object in the same second.
const CROWD: usize = 400;
const FLOOR: &str = include_str!("floor.sql");

fn main() {
    bench::run(async {
        // Logs are made as in production; only writing them is left out.
        tracing_subscriber::fmt()
            .json()
            .with_current_span(false)
            .with_writer(std::io::sink)
            .init();
        let subscribers = number("--subscribers").unwrap_or(SUBSCRIBERS);
        // The oldest shape: its invoices name their payment, so that one event writes all there is.
        let (mut before, renewed) = setting::story(Shape::V2020_08_27, subscribers);
        let known = [
            "invoice.created",
            "invoice.finalized",
            "payment_intent.created",
            "customer.subscription.updated",
        ];
        let (known, rest): (Vec<_>, Vec<_>) = renewed
            .into_iter()
            .partition(|event| known.contains(&event.event_type.as_str()));
        before.extend(known);
        let paid: Vec<Delivery> = rest
            .into_iter()
            .filter(|event| event.event_type == "invoice.paid")
            .collect();
        let bus = bench::start_aws();
        one_by_one(&before, &paid, subscribers, &bus).await;
        in_sets(&before, &paid, subscribers, &bus).await;
        in_a_crowded_second(&bus).await;
        at_once(&bus).await;
    });
}

/// The time every event is handled at.
fn now() -> Timestamp {
    Timestamp::from_second(1_780_000_000).expect("an instant")
}

#[derive(Default)]
struct Figures {
    wall: Vec<Duration>,
    /// Of Postgres's backend.
    postgres: Vec<Duration>,
}

impl Figures {
    fn print(&self, what: &str) {
        let (wall, postgres) = (median(self.wall.clone()), median(self.postgres.clone()));
        say(&format!(
            "  {what:<12} {:>7} {:>9}",
            wall.as_micros(),
            postgres.as_micros()
        ));
    }
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
fn say(line: &str) {
    println!("{line}");
}

async fn one_by_one(before: &[Delivery], paid: &[Delivery], subscribers: i32, bus: &str) {
    let handler = Sandbox::start(subscribers, bus).await;
    let floor = Sandbox::start(subscribers, bus).await;
    let bare = Sandbox::start(subscribers, bus).await;
    for sandbox in [&handler, &floor, &bare] {
        sandbox.handle_in_sets(before).await;
    }
    let rows = handler.database.client().await;
    let by_floor = ByHand::connect(&floor, &["open", "close", "published"]).await;
    let by_bare = ByHand::connect(&bare, &["bare"]).await;
    let mut figures: [Figures; 3] = Default::default();
    let (mut publishing, mut processor, mut at_the_bus) = (Vec::new(), Vec::new(), Vec::new());
    for (place, delivery) in paid.iter().enumerate() {
        let invocation = invocation(delivery.invocation(now()));
        let last_message = last_message(&rows).await;
        let backend = Backend::of_the_function(&rows).await;
        let (cpu, own, start) = (backend.cpu(), own_cpu(), Instant::now());
        handler.invoke(invocation).await;
        let wall = start.elapsed();
        let thread = own_cpu() - own;
        let of_handler = (wall, backend.cpu_since(cpu).await);
        let values = Values::of(&rows, delivery, &by_floor.needs, last_message).await;
        let messages = values.messages();
        let (own, start) = (own_cpu(), Instant::now());
        handler.publish(&messages).await;
        let (bus, bus_thread) = (start.elapsed(), own_cpu() - own);
        let of_floor = by_floor.apply(&values).await;
        let of_bare = by_bare.apply(&values).await;
        if place >= WARM_UP {
            for (figures, (wall, postgres)) in
                figures.iter_mut().zip([of_handler, of_floor, of_bare])
            {
                figures.wall.push(wall);
                figures.postgres.push(postgres);
            }
            publishing.push(bus);
            processor.push(thread);
            at_the_bus.push(bus_thread);
        }
    }
    let client = bare.database.client().await;
    let published = "UPDATE outbox SET published_at = created_at, attempts = 1";
    client.batch_execute(published).await.expect("an update");
    let expected = ledger_rows(&rows).await.expect("rows");
    for (other, name) in [(&floor, "the floor"), (&bare, "the bare writes")] {
        let found = ledger_rows(&other.database.client().await).await;
        let found = found.expect("rows");
        let (missing, extra) = testing::differing_rows(&expected, &found);
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{name}: {} rows are missing, as {:?}; {} are too many, as {:?}",
            missing.len(),
            missing.first(),
            extra.len(),
            extra.first()
        );
    }
    say(&format!(
        "\n{} invoice.paid of renewals, median, µs\n                  wall  Postgres",
        paid.len() - WARM_UP
    ));
    let [of_handler, of_floor, of_bare] = &figures;
    of_handler.print("handler");
    of_floor.print("floor");
    of_bare.print("bare writes");
    let wall = |figures: &Figures| median(figures.wall.clone());
    let bus = median(publishing);
    let without_bus = wall(of_handler).saturating_sub(bus);
    say(&format!(
        "  handler / floor {}, without the bus ({} µs) {}\n  handler / bare writes {}, without the bus {}",
        ratio(wall(of_handler), wall(of_floor)),
        bus.as_micros(),
        ratio(without_bus, wall(of_floor)),
        ratio(wall(of_handler), wall(of_bare)),
        ratio(without_bus, wall(of_bare)),
    ));
    say(&format!(
        "  processor time of the handler {} µs, of which the bus {} µs",
        median(processor).as_micros(),
        median(at_the_bus).as_micros()
    ));
}

async fn in_sets(before: &[Delivery], paid: &[Delivery], subscribers: i32, bus: &str) {
    let sandbox = Sandbox::start(subscribers, bus).await;
    sandbox.handle_in_sets(before).await;
    let rows = sandbox.database.client().await;
    let mut figures = Figures::default();
    let mut processor = Vec::new();
    for set in paid.chunks_exact(SET) {
        let invocation = batch(set);
        let backend = Backend::of_the_function(&rows).await;
        let (cpu, own, start) = (backend.cpu(), own_cpu(), Instant::now());
        sandbox.invoke(invocation).await;
        figures.wall.push(start.elapsed());
        processor.push(own_cpu() - own);
        figures.postgres.push(backend.cpu_since(cpu).await);
    }
    let each = |times: Vec<Duration>| {
        let sum: Duration = times.iter().sum();
        let events = u32::try_from(times.len() * SET).expect("a number of events");
        (sum / events).as_micros()
    };
    say(&format!(
        "in sets of {SET}, mean of an event, µs: wall {}, Postgres {}, processor time of the handler {}",
        each(figures.wall),
        each(figures.postgres),
        each(processor)
    ));
}

/// Changes of a customer, the last of them in the second of many others.
async fn in_a_crowded_second(bus: &str) {
    const CUSTOMERS: usize = 100;
    let template = sample("stripe_customer_created_endive").json();
    let change = |customer: &str, number: usize| {
        let mut event = template.clone();
        event["id"] = format!("evt_{customer}_{number}").into();
        event["type"] = "customer.updated".into();
        let object = &mut event["data"]["object"];
        object["id"] = format!("cus_{customer}").into();
        object["metadata"] = json!({"change": number.to_string()});
        event["data"]["previous_attributes"] =
            json!({"metadata": {"change": (number.wrapping_sub(1)).to_string()}});
        Delivery::of(&event)
    };
    let sandbox = Sandbox::start(1, bus).await;
    let crowd: Vec<Delivery> = (1..=CROWD).map(|number| change("Crowd", number)).collect();
    sandbox.handle_in_sets(&crowd).await;
    let (alone, crowded) = {
        let (mut first, mut next) = (0, CROWD);
        bench::in_turns(
            CUSTOMERS,
            async || {
                first += 1;
                sandbox.handle(&change(&format!("Alone{first}"), 1)).await
            },
            async || {
                next += 1;
                sandbox.handle(&change("Crowd", next)).await
            },
        )
        .await
    };
    say(&format!(
        "one event with {CROWD} others of its object in its second / with none: {} ({} µs, {} µs)",
        ratio(crowded, alone),
        crowded.as_micros(),
        alone.as_micros()
    ));
}

/// Payments of one day and currency, as many at once as there are clients.
async fn at_once(bus: &str) {
    let template = sample("stripe_charge_succeeded_2022_11_15");
    let environment = Sandbox::start(1, bus).await;
    let clients = (0..CLIENTS).map(|client| {
        let app = environment.another();
        let invocations: Vec<_> = (0..PAYMENTS_PER_CLIENT)
            .map(|number| {
                let name = format!("C{client:02}n{number:03}");
                let event = template.body.replace("Meridian", &name);
                let event: Value = serde_json::from_str(&event).expect("an event");
                invocation(Delivery::of(&event).invocation(now()))
            })
            .collect();
        (app, invocations)
    });
    let clients: Vec<_> = clients.collect();
    let start = Instant::now();
    let working = clients.into_iter().map(|(app, invocations)| async move {
        for invocation in invocations {
            answer(&app, invocation).await;
        }
    });
    join_all(working).await;
    let elapsed = start.elapsed();
    let payments = CLIENTS * PAYMENTS_PER_CLIENT;
    let rows = environment.database.client().await;
    let sum: i64 = rows
        .query_one("SELECT sum(payments)::bigint FROM revenue_daily", &[])
        .await
        .expect("a row")
        .get(0);
    assert_eq!(usize::try_from(sum), Ok(payments));
    say(&format!(
        "payments of one day and currency, {CLIENTS} clients: {} a second",
        payments as u128 * 1_000 / elapsed.as_millis().max(1)
    ));
}

fn invocation(text: String) -> LambdaEvent<Box<RawValue>> {
    LambdaEvent::new(
        RawValue::from_string(text).expect("JSON"),
        Context::default(),
    )
}

/// What SQS makes of events on Stripe's partner bus.
fn batch(deliveries: &[Delivery]) -> LambdaEvent<Box<RawValue>> {
    let mut record = sample("sqs_stripe_partner").json()["Records"][0].take();
    let records = deliveries.iter().map(|delivery| {
        let detail: Value = serde_json::from_str(&delivery.body).expect("an event");
        let envelope = json!({"source": "aws.partner/stripe.com/bench", "detail": detail});
        record["body"] = envelope.to_string().into();
        record.clone()
    });
    invocation(json!({"Records": records.collect::<Vec<_>>()}).to_string())
}

async fn answer(app: &App, invocation: LambdaEvent<Box<RawValue>>) {
    // Boxed, as the Lambda runtime does: the compiler gives up on the nesting of the types.
    let answer = Box::pin(webhook::handle_invocation(app, invocation, now())).await;
    let answer = answer.expect("an answer");
    match answer["batchItemFailures"].as_array() {
        Some(failures) => assert_eq!(failures.len(), 0),
        None => {
            let body = answer["body"].as_str().unwrap_or_default();
            let is_kept = answer["statusCode"] == 200 && !body.contains("parked");
            assert!(is_kept, "{answer}");
        }
    }
}

/// A function on a separate database.
struct Sandbox {
    app: App,
    bus: EventBus,
    database: TestDatabase,
    environment: Environment,
    sdk: SdkConfig,
}

impl Sandbox {
    async fn start(subscribers: i32, bus: &str) -> Sandbox {
        let database = setting::database(subscribers).await;
        let environment = Environment::from_pairs([
            ("DATABASE_URL", database.url.as_str()),
            ("DATABASE_SSLMODE", "disable"),
            ("STRIPE_WEBHOOK_SECRETS", SECRET),
            ("STRIPE_LIVEMODE", "any"),
            // Nothing may be parked.
            ("PARKED_EVENTS_TABLE", "never-needed"),
            ("DOCUMENT_BUCKET", "never-needed"),
            ("EVENT_BUS_NAME", "billing"),
        ]);
        let environment = as_function("webhook", &environment);
        let sdk = aws::sdk_config(bus);
        Sandbox {
            app: App::from_env(&environment, &sdk).expect("an app"),
            bus: EventBus::from_env(&environment, &sdk).expect("a bus"),
            database,
            environment,
            sdk,
        }
    }

    /// Another function on the same database.
    fn another(&self) -> App {
        App::from_env(&self.environment, &self.sdk).expect("an app")
    }

    async fn invoke(&self, invocation: LambdaEvent<Box<RawValue>>) {
        answer(&self.app, invocation).await;
    }

    /// How long the function took.
    async fn handle(&self, delivery: &Delivery) -> Duration {
        let invocation = invocation(delivery.invocation(now()));
        let start = Instant::now();
        self.invoke(invocation).await;
        start.elapsed()
    }

    async fn handle_in_sets(&self, deliveries: &[Delivery]) {
        for set in deliveries.chunks(SET) {
            self.invoke(batch(set)).await;
        }
        let client = self.database.client().await;
        client.batch_execute("ANALYZE").await.expect("statistics");
    }

    async fn publish(&self, messages: &[(String, Value)]) {
        let entries: Vec<event_bus::BusEntry<'_>> = messages
            .iter()
            .map(|(detail_type, detail)| event_bus::BusEntry {
                detail_type,
                detail,
            })
            .collect();
        let outcomes = self.bus.publish(&entries).await;
        assert_eq!(outcomes[0], event_bus::Outcome::Published);
    }
}

async fn last_message(rows: &Client) -> i64 {
    let last = "SELECT COALESCE(max(id), 0) FROM outbox";
    rows.query_one(last, &[]).await.expect("a row").get(0)
}

/// The values in the rows that an event has left, as text: by table, place among its rows, and column.
struct Values(BTreeMap<Name, Option<String>>);

type Name = (String, usize, String);
/// Tables and their columns.
type Needs = BTreeMap<String, BTreeSet<String>>;

impl Values {
    /// Those written in the transaction of the event; the messages have been marked since.
    async fn of(rows: &Client, event: &Delivery, needs: &Needs, last_message: i64) -> Values {
        let parsed: Value = serde_json::from_str(&event.body).expect("an event");
        let event_id = parsed["id"].as_str().expect("an id");
        let mut values = BTreeMap::new();
        for (table, columns) in needs {
            let texts: Vec<String> = columns
                .iter()
                .map(|column| format!("{column}::text"))
                .collect();
            let written = match table.as_str() {
                "outbox" => format!("id > {last_message} ORDER BY id"),
                _ => format!(
                    "xmin = (SELECT xmin FROM stripe_events WHERE event_id = '{event_id}') ORDER BY ctid"
                ),
            };
            let select = format!("SELECT {} FROM {table} WHERE {written}", texts.join(", "));
            let found = rows.query(&select, &[]).await.expect("rows");
            for (place, row) in found.iter().enumerate() {
                for (index, column) in columns.iter().enumerate() {
                    values.insert((table.clone(), place, column.clone()), row.get(index));
                }
            }
        }
        Values(values)
    }

    fn messages(&self) -> Vec<(String, Value)> {
        let value = |place, column: &str| self.0.get(&("outbox".into(), place, column.into()));
        (0..2)
            .map(|place| {
                let [kind, detail] = ["detail_type", "detail"].map(|column| {
                    let value = value(place, column).expect("a message");
                    value.clone().expect("not null")
                });
                (kind, serde_json::from_str(&detail).expect("JSON"))
            })
            .collect()
    }
}

/// A value as Postgres writes it, of whatever type.
#[derive(Debug)]
struct Text(Option<String>);

impl ToSql for Text {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(text) = &self.0 else {
            return Ok(IsNull::Yes);
        };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// Flights of `floor.sql`, prepared.
struct ByHand {
    client: Client,
    backend: Backend,
    flights: Vec<Vec<(Statement, Vec<Name>)>>,
    needs: Needs,
}

impl ByHand {
    async fn connect(sandbox: &Sandbox, names: &[&str]) -> ByHand {
        let client = sandbox.database.client().await;
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await;
        let backend = Backend(pid.ok().map(|row| row.get(0)));
        let (mut flights, mut needs) = (Vec::new(), Needs::new());
        for flight in FLOOR.split("-- flight ").skip(1) {
            let (name, text) = flight.split_once('\n').expect("a name");
            if !names.contains(&name) {
                continue;
            }
            let text: String = text
                .lines()
                .filter(|line| !line.starts_with("--"))
                .flat_map(|line| [line, "\n"])
                .collect();
            let mut statements = Vec::new();
            for statement in text.split(';').filter(|text| !text.trim().is_empty()) {
                let (sql, names) = numbered(statement);
                for (table, _, column) in &names {
                    needs
                        .entry(table.clone())
                        .or_default()
                        .insert(column.clone());
                }
                let prepared = client.prepare(&sql).await;
                statements.push((
                    prepared.unwrap_or_else(|error| panic!("{sql}: {error}")),
                    names,
                ));
            }
            flights.push(statements);
        }
        ByHand {
            client,
            backend,
            flights,
            needs,
        }
    }

    /// Wall time, and that of the backend.
    async fn apply(&self, values: &Values) -> (Duration, Duration) {
        let flights: Vec<Vec<(&Statement, Vec<Text>)>> = self
            .flights
            .iter()
            .map(|flight| {
                let statements = flight.iter().map(|(statement, names)| {
                    let values = names.iter().map(|name| {
                        let value = values.0.get(name);
                        Text(value.unwrap_or_else(|| panic!("no {name:?}")).clone())
                    });
                    (statement, values.collect())
                });
                statements.collect()
            })
            .collect();
        let (cpu, start) = (self.backend.cpu(), Instant::now());
        for flight in &flights {
            let answers = flight
                .iter()
                .map(|(statement, values)| self.send(statement, values));
            try_join_all(answers).await.expect("a flight");
        }
        let wall = start.elapsed();
        (wall, self.backend.cpu_since(cpu).await)
    }

    async fn send(
        &self,
        statement: &Statement,
        values: &[Text],
    ) -> Result<(), tokio_postgres::Error> {
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        self.client.query(statement, &values).await.map(drop)
    }
}

/// The statement with `$1` … for the names in it.
fn numbered(statement: &str) -> (String, Vec<Name>) {
    let mut names: Vec<Name> = Vec::new();
    let mut parts = statement.split(':');
    let mut sql = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_of_name = |character: char| character.is_alphanumeric() || "._".contains(character);
        let end = part.find(|character| !is_of_name(character));
        let (name, rest) = part.split_at(end.unwrap_or(part.len()));
        let (place, name) = match name.strip_prefix("2.") {
            Some(name) => (1, name),
            None => (0, name),
        };
        let (table, column) = name.split_once('.').expect("a column");
        let name = (table.to_owned(), place, column.to_owned());
        let known = names.iter().position(|known| *known == name);
        let number = known.unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        sql += &format!("${}{rest}", number + 1);
    }
    (sql, names)
}

/// A backend of Postgres on this machine; none before the function has connected.
struct Backend(Option<i32>);

impl Backend {
    async fn of_the_function(rows: &Client) -> Backend {
        let select = "SELECT pid FROM pg_stat_activity
                      WHERE datname = current_database() AND usename LIKE '%webhook'";
        let found = rows.query(select, &[]).await.expect("rows");
        Backend(found.first().map(|row| row.get("pid")))
    }

    fn cpu(&self) -> Duration {
        let pid = self.0.map(|pid| pid.to_string());
        pid.map_or(Duration::ZERO, |pid| cpu_of(&format!("/proc/{pid}")))
    }

    /// Once it has nothing to do.
    async fn cpu_since(&self, before: Duration) -> Duration {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.cpu().saturating_sub(before)
    }
}

/// What this thread has taken of the processor: Postgres is another process, the bus another thread. The kernel's share of
/// sending and receiving is in it.
fn own_cpu() -> Duration {
    // The kernel adds up what a thread has taken when it stops running.
    std::thread::sleep(Duration::from_micros(1));
    cpu_of("/proc/thread-self")
}

fn cpu_of(task: &str) -> Duration {
    let schedule = std::fs::read_to_string(format!("{task}/schedstat"));
    let schedule = schedule.unwrap_or_default();
    let nanoseconds = schedule.split(' ').next().map(str::parse);
    Duration::from_nanos(nanoseconds.and_then(Result::ok).unwrap_or_default())
}
