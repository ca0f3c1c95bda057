//! The command line: what each command does, start to end.

use crate::bundle::Bundle;
use crate::services::{Services, Story};
use crate::state::{DataDir, State};
use crate::story::Outcomes;
use crate::{Clock, Error, server, story, summary, token};
use clap::{Args, Parser, Subcommand};
use fake_stripe::Shape;
use fake_stripe::delivery::{Endpoint, http_client, post};
use jiff::{SignedDuration, Timestamp};
use runtime::aws::document_bucket::DocumentBucket;
use runtime::config::Environment;
use runtime::telemetry;
use runtime::telemetry::cause_chain;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

const DEFAULT_PORT: u16 = 9000;

/// The whole billing bundle on one machine.
#[derive(Debug, Parser)]
#[command(name = "local", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArguments,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Stop after the revenue summary
    #[arg(long)]
    once: bool,
    /// Print one JSON line on standard output when ready, everything else on standard error
    #[arg(long)]
    json: bool,
    /// Do not replay the sample story
    #[arg(long)]
    no_sample: bool,
}

#[derive(Debug, Args)]
struct Place {
    /// Where the bundle keeps its data [default: <target>/local/<port>]
    #[arg(long, global = true)]
    data_dir: Option<PathBuf>,
    /// The one port everything answers on
    #[arg(long, global = true, default_value_t = DEFAULT_PORT)]
    port: u16,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the backing services only, and write an env file for `cargo lambda watch`
    Services,
    /// Invoke a function of the running bundle with an event
    Invoke {
        /// The function's name, as in functions/
        function: String,
        /// A JSON file, such as those in events/
        event: PathBuf,
    },
    /// Sign a Stripe event now and deliver it to the running bundle
    Send {
        /// A JSON file with a whole event
        event: PathBuf,
    },
    /// Make something happen at the fake Stripe of the running bundle, or list what can happen
    Stripe {
        /// Such as pay_once; left out, all operations are listed
        operation: Option<String>,
        /// A JSON object with the operation's arguments
        arguments: Option<String>,
    },
    /// Print the revenue summary of the running bundle
    Summary,
    /// Print a token for the bundle of this port
    Token {
        #[command(subcommand)]
        kind: TokenKind,
    },
}

#[derive(Debug, Subcommand)]
enum TokenKind {
    /// For staff: opens every /admin route
    Admin,
    /// For the application's backend: opens the /usage routes
    Service,
    /// For what an API partner may read: its own usage and invoices
    Partner {
        /// The partner's API key prefix, such as dp_pk_harbor
        api_key_prefix: String,
    },
}

/// Does what the arguments say.
///
/// # Errors
/// What went wrong, for the person at the terminal.
pub async fn run(arguments: Arguments, clock: Clock) -> Result<(), Error> {
    let data = DataDir::new(arguments.place.data_dir, arguments.place.port)?;
    let port = arguments.place.port;
    let run = &arguments.run;
    if arguments.command.is_some() && (run.once || run.json || run.no_sample) {
        return Err(Error::new(
            "--once, --json and --no-sample go without a sub-command",
        ));
    }
    match arguments.command {
        None => run_bundle(run, &data, port, clock).await,
        Some(Command::Services) => run_services(&data, port, clock).await,
        Some(Command::Invoke { function, event }) => invoke(&data, port, &function, &event).await,
        Some(Command::Send { event }) => send(&data, port, &event, clock).await,
        Some(Command::Stripe {
            operation: Some(operation),
            arguments,
        }) => operate(&data, port, &operation, arguments.as_deref()).await,
        Some(Command::Stripe {
            operation: None, ..
        }) => list_operations(&data, port).await,
        Some(Command::Summary) => print_summary(&data, port, clock).await,
        Some(Command::Token { kind }) => print_token(&data, port, &kind, clock),
    }
}

async fn run_bundle(
    arguments: &RunArguments,
    data: &DataDir,
    port: u16,
    clock: Clock,
) -> Result<(), Error> {
    log_to_stderr();
    let mut signals = Signals::listen()?;
    let running = tokio::select! {
        running = Running::start(arguments, data, port, clock) => running?,
        // What was started so far is stopped by its own drop.
        () = signals.next() => return Err(stopped_early()),
    };
    if arguments.once {
        return Ok(());
    }
    running.serve(signals, clock).await
}

/// A bundle that answers. Fields are dropped in this order: the services go last.
#[derive(Debug)]
struct Running<'a> {
    _state_file: StateFile<'a>,
    serving: JoinHandle<Result<(), Error>>,
    stop: oneshot::Sender<()>,
    bundle: Arc<Bundle>,
    services: Services,
}

impl<'a> Running<'a> {
    /// Starts everything, replays the sample, and prints where everything is.
    async fn start(
        arguments: &RunArguments,
        data: &'a DataDir,
        port: u16,
        clock: Clock,
    ) -> Result<Running<'a>, Error> {
        // First of all: a taken port must be told before minutes of setting up.
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .map_err(|error| {
                if error.kind() == std::io::ErrorKind::AddrInUse {
                    return Error::new(format!(
                        "port {port} is taken; choose another, such as --port {}",
                        port.saturating_add(1)
                    ));
                }
                Error::because(format!("cannot listen on port {port}"), error)
            })?;
        let address = listener
            .local_addr()
            .map_err(|error| Error::because("the port has no address", error))?;
        let base_url = format!("http://{address}");
        let story = if arguments.no_sample {
            Story::Known
        } else {
            Story::Told
        };
        let services = start_services(data, &base_url, story, clock).await?;
        let bundle = Arc::new(make_bundle(&services).await?);
        let admin_token = token::admin(&services.secrets().admin_jwt_secret, clock())?;
        let state = services.state(base_url, admin_token);
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let serving = tokio::spawn(server::serve(listener, Arc::clone(&bundle), clock, stopped));
        data.write_state(&state)?;
        let running = Running {
            _state_file: StateFile(data),
            serving,
            stop,
            bundle,
            services,
        };
        let events = if arguments.no_sample {
            Outcomes::new()
        } else {
            running.replay_sample(&state, clock).await?
        };
        let reconciled = if arguments.no_sample {
            None
        } else {
            Some(reconcile(&running.bundle, clock).await?)
        };
        let revenue = revenue(&state).await?;
        if arguments.json {
            let mut line = json!(state);
            line["events"] = json!(events);
            line["revenue"] = revenue;
            line["reconciliation"] = json!(reconciled);
            print(&line.to_string());
        } else {
            print(&summary::text(&revenue, &events));
            if let Some(reconciled) = &reconciled {
                print(&summary::reconciliation(reconciled));
            }
            if let Some(path) = running.save_invoice(data).await? {
                print(&format!("Invoice        {}\n", path.display()));
            }
            if !arguments.once {
                print(&running.welcome(&state, data, port));
            }
        }
        Ok(running)
    }

    async fn replay_sample(&self, state: &State, clock: Clock) -> Result<Outcomes, Error> {
        let stripe = self.services.stripe();
        let events = stripe.with_account(|account| account.events(Shape::Endive));
        let count = events.len();
        note(&format!("replaying the sample story: {count} events"));
        story::create_users(&state.database_url).await?;
        let progress = |done: usize| {
            if done.is_multiple_of(100) && done < count {
                note(&format!("  {done} of {count}"));
            }
        };
        let endpoint = self.services.webhook_endpoint();
        let outcomes = story::replay(endpoint, &events, clock, progress).await?;
        // What was parked on the way, messages the bus has not taken yet, and from Stripe what the events name but do
        // not carry (fees, for one).
        redrive(&self.bundle, clock).await?;
        let now = clock();
        story::create_partners(&state.database_url, now).await?;
        invoice_partners(&self.bundle, now).await?;
        Ok(outcomes)
    }

    /// The newest invoice of a partner that is in the bucket, as a file in the data directory.
    async fn save_invoice(&self, data: &DataDir) -> Result<Option<PathBuf>, Error> {
        let newest = story::newest_partner_invoice(&self.services.database_url()).await?;
        let Some((number, key)) = newest else {
            return Ok(None);
        };
        let failed = |error| Error::because("cannot read an invoice from the bucket", error);
        let (environment, sdk) = (self.services.environment(), self.services.sdk_config());
        let bucket = DocumentBucket::from_env(&environment, &sdk)
            .map_err(|error| Error::because("no bucket", error))?;
        let Some(pdf) = bucket.get(&key).await.map_err(failed)? else {
            return Ok(None);
        };
        let path = data.path().join(format!("{number}.pdf"));
        std::fs::write(&path, pdf)
            .map_err(|error| Error::because(format!("cannot write {}", path.display()), error))?;
        Ok(Some(path))
    }

    /// Where everything is, and what to do with it.
    fn welcome(&self, state: &State, data: &DataDir, port: u16) -> String {
        let base_url = &state.base_url;
        let mut text = String::from("Routes\n");
        for route in Bundle::routes() {
            text.push_str(&format!(
                "  {:<5} {base_url}{}  ({})\n",
                route.method, route.path, route.function
            ));
        }
        text.push_str(&format!(
            "  POST  {base_url}/2015-03-31/functions/<name>/invocations  ({})\n\n\
             Database       {}\nAWS endpoint   {}\nStripe API     {}\nData           {}\n",
            Bundle::FUNCTIONS.join(", "),
            state.database_url,
            state.aws_endpoint_url,
            state.stripe_api_base,
            data.path().display(),
        ));
        let cluster = self.services.cluster_directory();
        if !cluster.starts_with(data.path()) {
            text.push_str(&format!("Cluster        {}\n", cluster.display()));
        }
        let place = place_arguments(data, port);
        let token = format!("cargo run -q -p local -- token admin{place}");
        text.push_str(&format!(
            "\nTry next\n  \
             curl -H \"authorization: Bearer $({token})\" {base_url}/admin/revenue\n  \
             curl -H \"authorization: Bearer $({token})\" {base_url}/admin/health\n"
        ));
        // Somebody comes back: that shows in the figures at once.
        let subscribe = self.services.stripe().with_account(|account| {
            let (customer, price) = account.last_to_leave()?;
            Some(json!({"customer": customer, "price": price}))
        });
        if let Some(arguments) = subscribe {
            text.push_str(&format!(
                "  cargo run -q -p local -- stripe subscribe{place} '{arguments}'\n"
            ));
        }
        text.push_str("\nCtrl-C stops everything; the ledger and the fake Stripe's account stay for the next start.\n");
        text
    }

    /// Answers until a signal comes, then finishes the requests that are under way.
    async fn serve(mut self, mut signals: Signals, clock: Clock) -> Result<(), Error> {
        tokio::select! {
            () = signals.next() => {}
            () = redrive_every_minute(&self.bundle, clock) => {}
            ended = &mut self.serving => return Err(match ended {
                Ok(Err(error)) => error,
                Ok(Ok(())) => Error::new("the HTTP server ended by itself"),
                Err(error) => Error::because("the HTTP server broke off", error),
            }),
        }
        note("stopping");
        if self.stop.send(()).is_err() {
            tracing::warn!("the HTTP server had ended before it was told to");
        }
        match tokio::time::timeout(STOP_LIMIT, &mut self.serving).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(Error::because("the HTTP server broke off", error)),
            // A caller that neither finishes nor goes away does not hold up the end.
            Err(_) => Ok(()),
        }
    }
}

/// Where Stripe's webhooks go.
const WEBHOOK_PATH: &str = "/payments/webhook";

/// A little more than the sample's story goes back.
const YEAR: SignedDuration = SignedDuration::from_hours(370 * 24);

/// How long requests that are under way may take after a signal.
const STOP_LIMIT: Duration = Duration::from_secs(5);

async fn make_bundle(services: &Services) -> Result<Bundle, Error> {
    Bundle::new(&services.environment(), &services.sdk_config())
        .map_err(|error| Error::because("the bundle's configuration is not complete", error))
}

/// Removes the state file when the bundle stops in any orderly way.
#[derive(Debug)]
struct StateFile<'a>(&'a DataDir);

impl Drop for StateFile<'_> {
    fn drop(&mut self) {
        self.0.remove_state();
    }
}

async fn migrate(bundle: &Bundle, clock: Clock) -> Result<(), Error> {
    let done = bundle
        .invoke("migrate", json!({}), clock())
        .await
        .map_err(|error| Error::because("the migrations failed", error))?;
    let applied = done
        .get("applied")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    if applied > 0 {
        note(&format!("applied {applied} migrations"));
    }
    Ok(())
}

async fn invoice_partners(bundle: &Bundle, now: Timestamp) -> Result<(), Error> {
    let event = json!({
        "source": "aws.scheduler",
        "detail-type": "partner-invoicing.monthly",
        "time": now.to_string(),
    });
    bundle
        .invoke("partner-invoicing", event, now)
        .await
        .map(|_| ())
        .map_err(|error| Error::because("the partners could not be invoiced", error))
}

async fn redrive(bundle: &Bundle, clock: Clock) -> Result<(), Error> {
    let now = clock();
    let event = json!({
        "source": "aws.scheduler",
        "detail-type": "reconciliation.redrive",
        "time": now.to_string(),
        "detail": {},
    });
    bundle
        .invoke("reconciliation", event, now)
        .await
        .map(|_| ())
        .map_err(|error| Error::because("the redrive failed", error))
}

/// What the schedule does every morning, over the sample's whole year: its fees are estimates until Stripe is asked.
async fn reconcile(bundle: &Bundle, clock: Clock) -> Result<Value, Error> {
    let now = clock();
    let event = json!({
        "source": "aws.scheduler",
        "detail-type": "reconciliation.daily",
        "time": now.to_string(),
        "detail": {"since": now.saturating_sub(YEAR).unwrap_or(now).to_string()},
    });
    note("comparing the ledger with Stripe");
    bundle
        .invoke("reconciliation", event, now)
        .await
        .map_err(|error| Error::because("the reconciliation failed", error))
}

async fn redrive_every_minute(bundle: &Bundle, clock: Clock) {
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        if let Err(error) = redrive(bundle, clock).await {
            tracing::warn!(error = cause_chain(&error), "trying again in a minute");
        }
    }
}

/// The dashboard's figures, asked for as the dashboard does.
async fn revenue(state: &State) -> Result<Value, Error> {
    let failed = |error| Error::because("cannot read GET /admin/revenue", error);
    let response = http_client()
        .map_err(Error::no_http_client)?
        .get(format!("{}/admin/revenue", state.base_url))
        .bearer_auth(&state.admin_token)
        .send()
        .await
        .map_err(failed)?;
    let status = response.status();
    let text = response.text().await.map_err(failed)?;
    if !status.is_success() {
        return Err(Error::new(format!(
            "GET /admin/revenue answered {status}: {text}"
        )));
    }
    serde_json::from_str(&text)
        .map_err(|error| Error::because("GET /admin/revenue answered no JSON", error))
}

async fn run_services(data: &DataDir, port: u16, clock: Clock) -> Result<(), Error> {
    log_to_stderr();
    let mut signals = Signals::listen()?;
    // Where `cargo lambda watch` will listen.
    let base_url = format!("http://127.0.0.1:{port}");
    let services = tokio::select! {
        services = start_services(data, &base_url, Story::Told, clock) => services?,
        () = signals.next() => return Err(stopped_early()),
    };
    story::create_users(&services.database_url()).await?;
    let lines: Vec<String> = services
        .variables()
        .into_iter()
        .map(|(name, value)| match value.contains('"') {
            // JSON keeps its own quotes.
            true => format!("{name}='{value}'\n"),
            false => format!("{name}={value}\n"),
        })
        .collect();
    let env_file = data.write("services.env", &lines.concat())?;
    let admin_token = token::admin(&services.secrets().admin_jwt_secret, clock())?;
    let state = services.state(base_url, admin_token);
    data.write_state(&state)?;
    let _state_file = StateFile(data);
    print(&format!(
        "The services run until Ctrl-C. In another terminal:\n  \
         cargo lambda watch --invoke-port {port} --env-file {}\n\
         Then, to have the sample's events delivered there:\n  \
         curl -X POST {}/_fake/deliver\n",
        env_file.display(),
        state.stripe_api_base,
    ));
    signals.next().await;
    note("stopping");
    Ok(())
}

/// Nothing that was asked for has been printed: whoever waits for it must not take this for success.
fn stopped_early() -> Error {
    Error::new("stopped by a signal before everything was set up")
}

async fn start_services(
    data: &DataDir,
    base_url: &str,
    story: Story,
    clock: Clock,
) -> Result<Services, Error> {
    note("starting Postgres, moto and the fake Stripe");
    let webhook_url = format!("{base_url}{WEBHOOK_PATH}");
    let services = Services::start(data, &webhook_url, story, clock).await?;
    migrate(&make_bundle(&services).await?, clock).await?;
    services.make_roles().await?;
    story::forget_pdfs(&services.database_url()).await?;
    Ok(services)
}

async fn invoke(data: &DataDir, port: u16, function: &str, event: &Path) -> Result<(), Error> {
    let state = running(data, port)?;
    let unreachable = |error| Error::because(not_running(data, port), error);
    let response = http_client()
        .map_err(Error::no_http_client)?
        .post(format!(
            "{}/2015-03-31/functions/{function}/invocations",
            state.base_url
        ))
        .timeout(INVOCATION_LIMIT)
        .header("content-type", "application/json")
        .body(read(event)?)
        .send()
        .await
        .map_err(unreachable)?;
    let status = response.status();
    let failed = response.headers().contains_key("x-amz-function-error");
    print(&response.text().await.map_err(unreachable)?);
    if failed || !status.is_success() {
        return Err(Error::new(format!("the invocation of {function} failed")));
    }
    Ok(())
}

/// The longest an invocation may run on Lambda.
const INVOCATION_LIMIT: Duration = Duration::from_mins(15);

async fn send(data: &DataDir, port: u16, event: &Path, clock: Clock) -> Result<(), Error> {
    let state = running(data, port)?;
    let unreachable = |error| Error::because(not_running(data, port), error);
    let http = http_client().map_err(Error::no_http_client)?;
    let endpoint = Endpoint {
        url: format!("{}{WEBHOOK_PATH}", state.base_url),
        secret: state.webhook_secret.into(),
        is_thin: false,
    };
    let response = post(&http, &endpoint, read(event)?, clock())
        .await
        .map_err(unreachable)?;
    let status = response.status();
    print(&response.text().await.map_err(unreachable)?);
    if !status.is_success() {
        return Err(Error::new(format!("the webhook answered {status}")));
    }
    Ok(())
}

/// Runs one operation of the fake Stripe and prints the ids it made. Its events are on their way to the webhook then.
async fn operate(
    data: &DataDir,
    port: u16,
    operation: &str,
    arguments: Option<&str>,
) -> Result<(), Error> {
    let state = running(data, port)?;
    let request = http_client()
        .map_err(Error::no_http_client)?
        .post(format!(
            "{}/_fake/operations/{operation}",
            state.stripe_api_base
        ))
        .body(arguments.unwrap_or("{}").to_owned());
    let answer = ask_stripe(request, data, port).await?;
    print(&answer.to_string());
    Ok(())
}

/// Prints every operation of the fake Stripe with its arguments.
async fn list_operations(data: &DataDir, port: u16) -> Result<(), Error> {
    let state = running(data, port)?;
    let request = http_client()
        .map_err(Error::no_http_client)?
        .get(format!("{}/_fake/operations", state.stripe_api_base));
    let answer = ask_stripe(request, data, port).await?;
    let operations = answer.get("data").and_then(Value::as_array);
    let text_of = |one: &Value, name: &str| {
        let text = one.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    for one in operations.into_iter().flatten() {
        let (name, arguments) = (text_of(one, "name"), text_of(one, "arguments"));
        print(&format!("{name:<21} {arguments}"));
    }
    Ok(())
}

/// The answer of the fake Stripe as JSON; a refusal is an error with its message.
async fn ask_stripe(
    request: reqwest::RequestBuilder,
    data: &DataDir,
    port: u16,
) -> Result<Value, Error> {
    let unreachable = |error| Error::because(not_running(data, port), error);
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let text = response.text().await.map_err(unreachable)?;
    if !status.is_success() {
        return Err(Error::new(format!(
            "the fake Stripe answered {status}: {text}"
        )));
    }
    serde_json::from_str(&text)
        .map_err(|error| Error::because("the fake Stripe answered no JSON", error))
}

/// The same table as at the start, with the figures of now.
async fn print_summary(data: &DataDir, port: u16, clock: Clock) -> Result<(), Error> {
    let mut state = running(data, port)?;
    // The one in the file may have run out.
    state.admin_token = token::admin(&state.admin_jwt_secret, clock())?;
    print(&summary::text(&revenue(&state).await?, &Outcomes::new()));
    Ok(())
}

fn print_token(data: &DataDir, port: u16, kind: &TokenKind, clock: Clock) -> Result<(), Error> {
    let secrets = data
        .existing_secrets()?
        .ok_or_else(|| Error::new(not_running(data, port)))?;
    match kind {
        TokenKind::Admin => print(&token::admin(&secrets.admin_jwt_secret, clock())?),
        TokenKind::Service => print(&secrets.service_token),
        TokenKind::Partner { api_key_prefix } => {
            print(&token::partner(
                api_key_prefix,
                &secrets.admin_jwt_secret,
                clock(),
            )?);
        }
    }
    Ok(())
}

fn running(data: &DataDir, port: u16) -> Result<State, Error> {
    data.state()?
        .ok_or_else(|| Error::new(not_running(data, port)))
}

fn not_running(data: &DataDir, port: u16) -> String {
    let place = place_arguments(data, port);
    let place = if place.is_empty() {
        place
    } else {
        format!(" --{place}")
    };
    format!("no bundle runs on port {port}. Type: cargo run -p local{place}")
}

/// What to append to a command line to mean the bundle of this place; nothing for the default.
fn place_arguments(data: &DataDir, port: u16) -> String {
    let mut arguments = String::new();
    if port != DEFAULT_PORT {
        arguments.push_str(&format!(" --port {port}"));
    }
    if data.is_chosen() {
        arguments.push_str(&format!(" --data-dir {}", data.path().display()));
    }
    arguments
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path)
        .map_err(|error| Error::because(format!("cannot read {}", path.display()), error))
}

/// Ctrl-C and SIGTERM, listened to from the start, so that none is lost.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, Error> {
        let listen =
            |kind| signal(kind).map_err(|error| Error::because("cannot listen for Ctrl-C", error));
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The functions' logs, where they do not mix with what was asked for.
fn log_to_stderr() {
    let defaults = Targets::new().with_default(LevelFilter::WARN);
    let logs = tracing_subscriber::fmt::layer()
        .json()
        .with_writer(std::io::stderr)
        .with_filter(telemetry::log_filter(
            &Environment::from_process(),
            defaults,
        ));
    // Set before only when a test runs this.
    drop(tracing::subscriber::set_global_default(
        tracing_subscriber::registry().with(logs),
    ));
}

fn note(line: &str) {
    eprintln!("{line}");
}

fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // A reader that has gone away, `head` for one, must not end the bundle.
    drop(writeln!(stdout, "{}", text.trim_end_matches('\n')));
}
