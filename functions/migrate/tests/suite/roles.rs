//! The database roles of the functions: made with their limits, checked when others make them, refused when the server
//! has too few connections.

use jiff::Timestamp;
use migrate::{App, Error, handle};
use runtime::config::Environment;
use runtime::telemetry::cause_chain;
use serde_json::{Value, json};
use testing::{Aws, TestDatabase, logs, unique};
use tokio_postgres::{Client, NoTls};

use crate::upgrade::json_of;

const FUNCTIONS: [&str; 6] = [
    "webhook",
    "usage",
    "admin_revenue",
    "invoice_pdf",
    "reconciliation",
    "partner_invoicing",
];

/// A database, and the secrets of roles that begin with its name.
struct Stack {
    database: TestDatabase,
    arns: Vec<String>,
}

impl Stack {
    async fn create() -> Stack {
        let database = TestDatabase::empty().await;
        let mut arns = Vec::new();
        for function in FUNCTIONS {
            let login = json!({"username": format!("{}_{function}", database.name), "password": password(function)});
            arns.push(Aws::shared().await.secret(&login.to_string()).await);
        }
        Stack { database, arns }
    }

    async fn migrate(&self, more: &[(&'static str, &str)]) -> Result<Value, Error> {
        let arns = self.arns.join(",");
        let ours = [
            ("DATABASE_URL", self.database.url.as_str()),
            ("DATABASE_SSLMODE", "disable"),
            ("DATABASE_ROLE_SECRET_ARNS", &arns),
        ];
        let environment = Environment::from_pairs(ours.into_iter().chain(more.iter().copied()));
        let app = App::from_env(&environment, &Aws::shared().await.sdk_config()).unwrap();
        handle(&app, json!({}), Timestamp::UNIX_EPOCH).await
    }

    /// A connection as a function's role.
    async fn connect(&self, function: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config: tokio_postgres::Config = self.database.url.parse().unwrap();
        config.user(format!("{}_{function}", self.database.name));
        config.password(password(function));
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

fn password(function: &str) -> String {
    format!("it's {function}'s secret")
}

/// What a session of a role has, and what it may do.
const SEEN: &str = "SELECT jsonb_build_object(
    'lock', current_setting('lock_timeout'), 'statement', current_setting('statement_timeout'),
    'transaction', current_setting('idle_in_transaction_session_timeout'),
    'session', current_setting('idle_session_timeout'), 'jit', current_setting('jit'),
    'check', current_setting('client_connection_check_interval'),
    'connections', (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
    'lacks', (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT (
        has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
        AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))),
    'truncates', has_table_privilege('invoices'::regclass, 'TRUNCATE'))";

#[tokio::test]
async fn every_function_has_a_role_with_its_limits_and_a_second_run_changes_nothing() {
    let stack = Stack::create().await;
    for _ in 0..2 {
        stack.migrate(&[]).await.unwrap();
        for (function, lock, statement, transaction, session, connections) in [
            ("webhook", "1s", "2s", "2s", "15s", 16),
            ("usage", "1s", "2s", "2s", "15s", 16),
            ("admin_revenue", "1s", "4s", "5s", "1min", 10),
            ("invoice_pdf", "1s", "4s", "5s", "1min", 4),
            ("reconciliation", "2s", "1min", "30s", "1min", 6),
            ("partner_invoicing", "2s", "1min", "30s", "1min", 5),
        ] {
            let client = stack.connect(function).await.unwrap();
            assert_eq!(
                json_of(&client, SEEN).await,
                json!({"lock": lock, "statement": statement, "transaction": transaction, "session": session,
                    "jit": "off", "check": "1s", "connections": connections, "lacks": 0, "truncates": false}),
                "{function}"
            );
        }
        // Another password than the secret's is replaced, by two runs at once as by one.
        let owner = stack.database.client().await;
        let other = format!("ALTER ROLE {}_usage PASSWORD 'x'", stack.database.name);
        owner.batch_execute(&other).await.unwrap();
        let (one, other) = tokio::join!(stack.migrate(&[]), stack.migrate(&[]));
        one.unwrap();
        other.unwrap();
    }
    logs::assert_free_of(FUNCTIONS.map(password).iter().map(String::as_str));
}

#[tokio::test]
async fn a_pooler_keeps_idle_connections() {
    let stack = Stack::create().await;
    let prefix = unique("Stack");
    let pooled = [
        ("DATABASE_POOLED", "true"),
        ("DATABASE_ROLE_PREFIX", prefix.as_str()),
    ];
    let error = stack.migrate(&pooled).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no secret of DATABASE_ROLE_SECRET_ARNS has the username {prefix}_webhook")
    );
    stack.migrate(&pooled[..1]).await.unwrap();
    let client = stack.connect("webhook").await.unwrap();
    assert_eq!(json_of(&client, SEEN).await["session"], "0");
}

#[tokio::test]
async fn a_role_has_its_connections_and_no_more() {
    let stack = Stack::create().await;
    stack
        .migrate(&[("DATABASE_CONNECTIONS", "20")])
        .await
        .unwrap();
    let first = stack.connect("reconciliation").await.unwrap();
    let second = stack.connect("reconciliation").await.unwrap();
    let refused = stack.connect("reconciliation").await.err().unwrap();
    assert_eq!(refused.code().unwrap().code(), "53300", "{refused:?}");
    // Others connect all the same.
    stack.connect("webhook").await.unwrap();
    drop((first, second));
}

#[tokio::test]
async fn more_connections_than_the_server_has_are_refused_before_anything_is_changed() {
    let stack = Stack::create().await;
    let many = [
        ("DATABASE_CONNECTIONS", "200"),
        ("DATABASE_HOST_CONNECTIONS", "100"),
    ];
    let error = stack.migrate(&many).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "200 connections wanted, 197 allowed: of 300 the server keeps 3 and the host application 100; \
         set DatabaseConnections or DatabaseHostConnections lower, or max_connections higher"
    );
    let client = stack.database.client().await;
    let made = "SELECT jsonb_build_array(to_regclass('invoices'), (SELECT count(*) FROM pg_roles
        WHERE rolname LIKE current_database() || '\\_%'))";
    assert_eq!(json_of(&client, made).await, json!([null, 0]));
}

/// The owner of the tables may make no roles: who may is told how, and what is wrong with what is there.
#[tokio::test]
async fn given_roles_are_checked_and_their_sql_is_in_the_log() {
    let stack = Stack::create().await;
    let name = &stack.database.name;
    let superuser = stack.database.client().await;
    let owner = format!(
        "CREATE ROLE {name}_owner LOGIN PASSWORD 'owner'; ALTER DATABASE {name} OWNER TO {name}_owner;
         GRANT ALL ON SCHEMA public TO {name}_owner"
    );
    superuser.batch_execute(&owner).await.unwrap();
    let (_, address) = stack.database.url.split_once('@').unwrap();
    let url = format!("postgresql://{name}_owner:owner@{address}");
    let made = [("DATABASE_URL", url.as_str())];
    let error = stack.migrate(&made).await.unwrap_err();
    assert!(
        cause_chain(&error).starts_with(
            "the owner of the tables may make no roles (CREATEROLE): deploy with DatabaseRoles=given"
        ),
        "{error}"
    );

    let given = [made[0], ("DATABASE_ROLES", "given")];
    let error = stack.migrate(&given).await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("({name}_webhook is missing; {name}_usage")),
        "{error}"
    );
    superuser.batch_execute(&logged_sql(name)).await.unwrap();
    stack.migrate(&given).await.unwrap();
    let client = stack.connect("usage").await.unwrap();
    assert_eq!(json_of(&client, SEEN).await["lacks"], 0);
    drop(client);

    let changed = format!(
        "ALTER ROLE {name}_usage CONNECTION LIMIT 99; ALTER ROLE {name}_usage RESET lock_timeout"
    );
    superuser.batch_execute(&changed).await.unwrap();
    let error = stack.migrate(&given).await.unwrap_err().to_string();
    let wrong =
        format!("({name}_usage may have 99 connections; {name}_usage lacks lock_timeout=1s)");
    assert!(error.contains(&wrong), "{error}");
    superuser.batch_execute(&logged_sql(name)).await.unwrap();
    stack.migrate(&given).await.unwrap();
}

/// What the log says is to be run for the roles that begin with this.
fn logged_sql(prefix: &str) -> String {
    let logged = logs::captured();
    let lines = logged.lines().rev();
    let mut found = lines.filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let sql = line["fields"]["sql"].as_str()?;
        sql.contains(&format!("\"{prefix}_webhook\""))
            .then(|| sql.to_owned())
    });
    found.next().expect("SQL in the log")
}
