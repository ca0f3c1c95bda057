//! The bundle as a person starts it: the real program, on its own data directory.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testing::{places, workspace_root};

/// Where Postgres's own user can reach it, also when we are root.
fn data_dir() -> TempDir {
    let parent = places::private_dir().expect("a directory under /var/tmp");
    let folder = tempfile::tempdir_in(parent).expect("a directory");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
        .expect("permissions");
    folder
}

fn local(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_local"));
    command
        .args(arguments)
        .args(["--port", "0", "--data-dir"])
        .arg(data);
    command
}

/// The bundle, running; it is killed when the test fails.
struct Bundle {
    program: Child,
    state: Value,
}

impl Bundle {
    fn start(data: &Path) -> Bundle {
        Bundle::start_with(data, &["--json", "--no-sample"])
    }

    fn start_with(data: &Path, arguments: &[&str]) -> Bundle {
        let mut program = local(data, arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut line = String::new();
        let stdout = program.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let state = serde_json::from_str(&line).expect("a JSON line");
        Bundle { program, state }
    }

    fn address(&self, key: &str) -> SocketAddr {
        let url = self.state[key].as_str().expect("a URL");
        let address = url
            .rsplit("//")
            .next()
            .and_then(|rest| rest.rsplit('@').next());
        let address = address.and_then(|address| address.split('/').next());
        address.expect("an address").parse().expect("host and port")
    }

    /// Status line, headers and body of the answer of the server under `key`.
    fn ask(&self, key: &str, request_line: &str, body: &str) -> String {
        let header = "authorization: Bearer sk_test_any";
        self.ask_with(header, key, request_line, body)
    }

    /// The bundle's health, as an admin sees it.
    fn health(&self) -> String {
        let token = self.state["admin_token"].as_str().expect("a token");
        let header = format!("authorization: Bearer {token}");
        self.ask_with(&header, "base_url", "GET /admin/health", "")
    }

    fn ask_with(&self, header: &str, key: &str, request_line: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address(key)).expect("a connection");
        let length = body.len();
        write!(
            stream,
            "{request_line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn signal(&self, signal: &str) {
        send_signal(&self.program, signal);
    }

    /// Whether everything the bundle started is gone before the deadline.
    fn services_are_gone(&self) -> bool {
        let addresses =
            ["base_url", "database_url", "aws_endpoint_url"].map(|key| self.address(key));
        eventually(|| {
            let gone = |address| TcpStream::connect(address).is_err();
            addresses.iter().all(gone)
        })
    }
}

fn send_signal(program: &Child, signal: &str) {
    let status = Command::new("kill")
        .args(["-s", signal, &program.id().to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

impl Drop for Bundle {
    fn drop(&mut self) {
        drop(self.program.kill());
        drop(self.program.wait());
    }
}

/// The files of a bundle's Postgres.
struct Cluster(PathBuf);

impl Cluster {
    fn of(data: &Path) -> Cluster {
        Cluster(data.join("postgres").join("pgdata"))
    }

    fn stop(&self) {
        let pid_file = self.0.join("postmaster.pid");
        let text = std::fs::read_to_string(&pid_file).expect("a pid file");
        let pid = text.lines().next().expect("a pid");
        let status = Command::new("kill").args(["-s", "INT", pid]).status();
        assert!(status.expect("kill runs").success());
        assert!(eventually(|| !pid_file.exists()), "Postgres does not stop");
    }

    /// Starts Postgres as it ran before.
    fn start_again(&self, address: SocketAddr) -> Server {
        // A command line, quoted for a shell.
        let options = std::fs::read_to_string(self.0.join("postmaster.opts")).expect("options");
        let owner = std::fs::metadata(&self.0).expect("a directory");
        let server = Command::new("/bin/sh")
            .args(["-c", &format!("exec {options}")])
            .current_dir(&self.0)
            .uid(owner.uid())
            .gid(owner.gid())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = Server(server.expect("/bin/sh runs"));
        let pid_file = self.0.join("postmaster.pid");
        let ready = || {
            let text = std::fs::read_to_string(&pid_file).unwrap_or_default();
            text.lines()
                .last()
                .is_some_and(|line| line.trim() == "ready")
        };
        assert!(eventually(ready), "Postgres does not start");
        assert!(TcpStream::connect(address).is_ok());
        server
    }
}

/// Stopped with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT: at once, whoever is connected, and with all its processes.
        let stop = Command::new("kill")
            .args(["-s", "QUIT", &self.0.id().to_string()])
            .status();
        drop(stop);
        drop(self.0.wait());
    }
}

/// Whether it becomes true before the deadline.
fn eventually(mut is_true: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(30) {
        if is_true() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[test]
fn the_story_counts_once_however_often_the_bundle_starts() {
    let data = data_dir();
    let run = || {
        let output = local(data.path(), &["--once", "--json"])
            .output()
            .expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let text = String::from_utf8(output.stdout).expect("text");
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str::<Value>(&text).expect("a JSON line")
    };
    let (first, second) = (run(), run());
    let keys = [
        "base_url",
        "database_url",
        "aws_endpoint_url",
        "stripe_api_base",
        "webhook_secret",
        "admin_token",
        "admin_jwt_secret",
        "service_token",
    ];
    for key in keys {
        assert!(
            first[key].as_str().is_some_and(|value| !value.is_empty()),
            "{key}"
        );
    }
    assert_eq!(first["webhook_secret"], second["webhook_secret"]);
    let cents = |pointer| first["revenue"].pointer(pointer).and_then(Value::as_i64);
    assert!(cents("/overview/total_revenue_cents") > Some(0));
    assert!(cents("/mrr_arr/mrr_cents") > Some(0));
    let currencies = first["revenue"]["by_currency"].as_array().expect("a list");
    for wanted in ["EUR", "JPY"] {
        let row = currencies.iter().find(|row| row["currency"] == wanted);
        let total = &row.expect("a currency")["overview"]["total_revenue_cents"];
        assert!(total.as_i64() > Some(0), "{wanted}: {total}");
    }
    assert_eq!(first["revenue"]["errors"], serde_json::json!([]));
    // The redrive has asked Stripe for what the events named only.
    assert_eq!(first["revenue"]["estimated_fees"], false);
    let count = |run: &Value, outcome| run["events"].get(outcome).and_then(Value::as_u64);
    assert!(count(&first, "applied") > Some(0));
    assert!(count(&second, "duplicate") > count(&first, "applied"));
    assert_eq!(count(&second, "applied"), None);
    for run in [&first, &second] {
        assert_eq!(count(run, "parked"), None);
    }
    assert_eq!(first["revenue"]["overview"], second["revenue"]["overview"]);
    assert_eq!(first["revenue"]["mrr_arr"], second["revenue"]["mrr_arr"]);

    // For people: the same figures as a table.
    let output = local(data.path(), &["--once", "--no-sample"])
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout).expect("text");
    for told in ["Revenue as of", "MRR", "ARR", "$", "¥", "Subscriptions"] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
fn what_happened_at_the_fake_stripe_is_still_so_at_the_next_start() {
    let data = data_dir();
    let start = || {
        let bundle = Bundle::start_with(data.path(), &["--json"]);
        let reconciliation = &bundle.state["reconciliation"];
        assert_eq!(reconciliation["open"], 0, "{reconciliation}");
        assert_eq!(reconciliation["completeness_bps"], 10_000);
        bundle
    };
    let mrr = |bundle: &Bundle| {
        let token = bundle.state["admin_token"].as_str().expect("a token");
        let header = format!("authorization: Bearer {token}");
        let answer = bundle.ask_with(&header, "base_url", "GET /admin/revenue", "");
        let body = answer.split("\r\n\r\n").nth(1).expect("a body").to_owned();
        let revenue: Value = serde_json::from_str(&body).expect("JSON");
        revenue["mrr_arr"]["mrr_cents"].as_i64().expect("an amount")
    };
    let create = |bundle: &Bundle| {
        let headers = "authorization: Bearer sk_test_any\r\nidempotency-key: once";
        bundle.ask_with(
            headers,
            "stripe_api_base",
            "POST /v1/customers",
            "name=Once",
        )
    };
    let mut bundle = start();
    let before = mrr(&bundle);
    // As the first start proposes, and what a function asks of Stripe.
    let subscribed = bundle.ask(
        "stripe_api_base",
        "POST /_fake/operations/subscribe",
        r#"{"customer":"cus_Sample0007","price":"price_1Sample0001"}"#,
    );
    assert!(subscribed.starts_with("HTTP/1.1 200"), "{subscribed}");
    let created = create(&bundle);
    assert!(created.starts_with("HTTP/1.1 200"), "{created}");
    assert!(eventually(|| mrr(&bundle) > before), "{before}");
    let after = mrr(&bundle);
    bundle.signal("INT");
    assert!(bundle.program.wait().expect("it ends").success());

    let mut bundle = start();
    assert_eq!(mrr(&bundle), after);
    let again = create(&bundle);
    assert!(again.contains("idempotent-replayed: true"), "{again}");
    assert_eq!(
        created.split("\r\n\r\n").nth(1),
        again.split("\r\n\r\n").nth(1)
    );
    bundle.signal("INT");
    assert!(bundle.program.wait().expect("it ends").success());

    // For people, and with an invoice from a bucket that was empty when it began.
    let output = local(data.path(), &["--once"]).output();
    let text = String::from_utf8(output.expect("the program runs").stdout).expect("text");
    for told in ["0 healed, 0 open", "\nInvoice        "] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
fn a_signal_during_set_up_is_no_success() {
    for arguments in [["--once"], ["services"]] {
        let data = data_dir();
        let mut program = local(data.path(), &arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut errors = BufReader::new(program.stderr.take().expect("a pipe"));
        let mut line = String::new();
        errors.read_line(&mut line).expect("a line");
        assert!(line.contains("starting Postgres"), "{line}");
        send_signal(&program, "INT");
        errors.read_to_string(&mut line).expect("text");
        let output = program.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {line}");
        assert!(line.contains("stopped by a signal"), "{line}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_services_alone_write_an_env_file_and_end_on_a_signal() {
    let data = data_dir();
    let mut program = local(data.path(), &["services"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let stdout = BufReader::new(program.stdout.take().expect("a pipe"));
    let told = stdout.lines().map_while(Result::ok);
    let line = told
        .into_iter()
        .find(|line| line.contains("--env-file"))
        .expect("the command to type");
    let file = line.split("--env-file ").nth(1).expect("a file").trim();
    let variables = std::fs::read_to_string(file).expect("the env file");
    for name in [
        "DATABASE_URL=",
        "AWS_ENDPOINT_URL=",
        "STRIPE_WEBHOOK_SECRETS=",
    ] {
        assert!(
            variables.lines().any(|line| line.starts_with(name)),
            "{name}: {variables}"
        );
    }
    send_signal(&program, "INT");
    assert!(program.wait().expect("it ends").success());
}

#[test]
fn a_running_bundle_answers_and_ends_with_all_its_services_on_a_signal() {
    let data = data_dir();
    let mut bundle = Bundle::start(data.path());

    let unknown = bundle.ask("base_url", "GET /nowhere", "");
    assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
    assert!(
        unknown.contains("content-type: application/problem+json"),
        "{unknown}"
    );
    let wrong_method = bundle.ask("base_url", "DELETE /payments/webhook", "");
    assert!(wrong_method.starts_with("HTTP/1.1 405"), "{wrong_method}");
    assert!(wrong_method.contains("allow: POST"), "{wrong_method}");
    let no_function = bundle.ask(
        "base_url",
        "POST /2015-03-31/functions/nobody/invocations",
        "{}",
    );
    assert!(no_function.starts_with("HTTP/1.1 404"), "{no_function}");
    assert!(
        no_function.contains("ResourceNotFoundException"),
        "{no_function}"
    );
    let migrated = bundle.ask(
        "base_url",
        "POST /2015-03-31/functions/migrate/invocations",
        "{}",
    );
    assert!(migrated.starts_with("HTTP/1.1 200"), "{migrated}");
    assert!(migrated.contains("\"version\""), "{migrated}");
    // What would fail if it ran.
    let dry_run = bundle.ask_with(
        "x-amz-invocation-type: DryRun",
        "base_url",
        "POST /2015-03-31/functions/reconciliation/invocations",
        "{}",
    );
    assert!(dry_run.starts_with("HTTP/1.1 204"), "{dry_run}");
    assert!(!dry_run.contains("x-amz-function-error"), "{dry_run}");

    // The sub-commands, against this bundle.
    let sub_command = |arguments: &[&str]| {
        let output = local(data.path(), arguments)
            .output()
            .expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    };
    let token = sub_command(&["token", "admin"]);
    let header = format!("authorization: Bearer {}", token.trim());
    for (path, told) in [
        ("/admin/revenue", "\"mrr_arr\""),
        ("/admin/health", "\"checks\""),
    ] {
        let answer = bundle.ask_with(&header, "base_url", &format!("GET {path}"), "");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(told), "{answer}");
        let stranger = bundle.ask("base_url", &format!("GET {path}"), "");
        assert!(stranger.starts_with("HTTP/1.1 401"), "{stranger}");
    }
    let event = workspace_root().join("events/invoke_migrate.json");
    let migrated = sub_command(&["invoke", "migrate", event.to_str().expect("text")]);
    let migrated: Value = serde_json::from_str(&migrated).expect("JSON");
    assert_eq!(migrated["applied"], serde_json::json!([]));

    let second = local(data.path(), &["--once"])
        .output()
        .expect("the program runs");
    assert!(
        !second.status.success(),
        "two bundles must not share a data directory"
    );
    assert!(String::from_utf8_lossy(&second.stderr).contains("another bundle"));

    bundle.signal("TERM");
    let status = bundle.program.wait().expect("it ends");
    assert!(status.success(), "{status}");
    assert!(bundle.services_are_gone());
}

#[test]
fn while_postgres_is_away_events_are_parked_and_afterwards_applied() {
    let data = data_dir();
    let bundle = Bundle::start(data.path());
    let event = data.path().join("event.json");
    let send = || {
        let place = event.to_str().expect("text");
        let output = local(data.path(), &["send", place])
            .output()
            .expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["outcome"].clone()
    };
    let happen = || {
        let made = bundle.ask(
            "stripe_api_base",
            "POST /_fake/operations/create_customer",
            "{}",
        );
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        let events = bundle.ask("stripe_api_base", "GET /v1/events?limit=1", "");
        let (_, body) = events.split_once("\r\n\r\n").expect("a body");
        let events: Value = serde_json::from_str(body).expect("JSON");
        std::fs::write(&event, events["data"][0].to_string()).expect("written");
    };
    // The fake Stripe delivers by itself too: whoever comes first has it applied.
    happen();
    let outcome = send();
    assert!(outcome == "applied" || outcome == "duplicate", "{outcome}");

    let cluster = Cluster::of(data.path());
    cluster.stop();
    happen();
    let start = Instant::now();
    assert_eq!(send(), "parked");
    assert!(start.elapsed() < Duration::from_secs(5));
    let health = bundle.health();
    assert!(health.starts_with("HTTP/1.1 503"), "{health}");
    assert!(health.contains("\"database\":\"unavailable\""), "{health}");

    let _postgres = cluster.start_again(bundle.address("database_url"));
    // What the bundle does every minute.
    let redrive = "POST /2015-03-31/functions/reconciliation/invocations";
    let schedule = r#"{"source":"aws.scheduler","detail-type":"reconciliation.redrive"}"#;
    let redriven = bundle.ask("base_url", redrive, schedule);
    assert!(redriven.starts_with("HTTP/1.1 200"), "{redriven}");
    assert!(redriven.contains("\"failed\":0"), "{redriven}");
    assert!(redriven.contains("\"poisoned\":0"), "{redriven}");
    assert_eq!(send(), "duplicate", "{redriven}");
    let health = bundle.health();
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
}

#[test]
fn a_killed_bundle_takes_its_services_along_and_starts_again_on_the_same_data() {
    let data = data_dir();
    let mut killed = Bundle::start(data.path());
    killed.signal("KILL");
    assert_eq!(killed.program.wait().expect("it ends").signal(), Some(9));
    assert!(killed.services_are_gone());
    let mut again = Bundle::start(data.path());
    assert_eq!(
        again.state["webhook_secret"],
        killed.state["webhook_secret"]
    );
    again.signal("INT");
    assert!(again.program.wait().expect("it ends").success());
}

#[test]
fn a_sub_command_without_a_bundle_says_how_to_start_one() {
    let data = data_dir();
    for arguments in [
        ["token", "admin"].as_slice(),
        &["send", "nothing.json"],
        &["invoke", "migrate", "x.json"],
    ] {
        let output = local(data.path(), arguments)
            .output()
            .expect("the program runs");
        assert!(!output.status.success());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("cargo run -p local"), "{errors}");
    }
}
