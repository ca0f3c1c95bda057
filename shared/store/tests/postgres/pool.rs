//! The pool: dead sockets, an unavailable database, and what its errors reveal.

use runtime::config::{DatabaseConfig, Environment};
use runtime::telemetry::cause_chain;
use store::{Database, Error};
use testing::TestDatabase;
use tokio_postgres::types::Type;

fn pool(url: &str) -> Database {
    connect(&Environment::from_pairs([("DATABASE_URL", url)]))
}

fn pool_with(url: &str, ssl_mode: &str) -> Database {
    let pairs = [("DATABASE_URL", url), ("DATABASE_SSLMODE", ssl_mode)];
    connect(&Environment::from_pairs(pairs))
}

fn connect(environment: &Environment) -> Database {
    let sdk = runtime::aws::sdk_config(environment);
    let config = DatabaseConfig::from_env(environment, &sdk).expect("a configuration");
    Database::connect_lazily(&config)
}

async fn answers(database: &Database) -> Result<(), Error> {
    let client = database.client().await?;
    client.query_typed("SELECT 1", &[]).await?;
    Ok(())
}

#[tokio::test]
async fn a_dead_socket_is_replaced_silently_once() {
    let database = TestDatabase::create().await;
    let (proxy, url) = database.behind_proxy();
    let pool = pool(&url);
    answers(&pool).await.unwrap();
    answers(&pool).await.unwrap();
    assert_eq!(proxy.connections(), 1, "the connection is kept");
    // What a sandbox finds after a night in the freezer: the server has closed its end.
    let ended = database
        .client()
        .await
        .query_typed(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = $1 AND application_name = 'deedpro-billing'",
            &[(&database.name, Type::TEXT)],
        )
        .await
        .unwrap();
    assert_eq!(ended.len(), 1);
    answers(&pool).await.unwrap();
    assert_eq!(proxy.connections(), 2);
}

#[tokio::test]
async fn a_socket_nobody_answers_on_is_unavailable_within_five_seconds() {
    let database = TestDatabase::create().await;
    let (proxy, url) = database.behind_proxy();
    let pool = pool(&url);
    answers(&pool).await.unwrap();
    proxy.hang();
    let within = std::time::Duration::from_secs(5);
    let answer = tokio::time::timeout(within, pool.client()).await;
    assert!(answer.expect("in time").unwrap_err().is_unavailable());
    proxy.pass();
    answers(&pool).await.expect("it comes back by itself");
}

#[tokio::test]
async fn a_second_caller_waits_for_the_one_connection_and_not_for_ever() {
    let database = TestDatabase::create().await;
    let pool = pool(&database.url);
    let held = pool.client().await.unwrap();
    let error = pool.client().await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    drop(held);
    answers(&pool).await.unwrap();
}

#[tokio::test]
async fn failures_are_told_apart_without_the_values_of_rows() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE people (email TEXT CONSTRAINT people_email_key UNIQUE,
                 age INT CONSTRAINT people_age_check CHECK (age > 0));
             INSERT INTO people VALUES ('ada@example.com', 36)",
        )
        .await
        .unwrap();
    let fails = async |sql: &str| -> Error {
        let error = client.query_typed(sql, &[]).await.expect_err("refused");
        Error::from(error)
    };
    let conflict = fails("INSERT INTO people VALUES ('ada@example.com', 1)").await;
    assert!(
        matches!(&conflict, Error::Conflict { constraint } if constraint == "people_email_key")
    );
    let check = fails("INSERT INTO people VALUES ('bob@example.com', -7)").await;
    assert_eq!(check.constraint(), Some("people_age_check"));
    assert_eq!(check.sqlstate(), Some("23514"));
    let value = fails("SELECT 'carl@example.com'::int").await;
    assert_eq!(value.sqlstate(), Some("22P02"));
    let mistake = fails("SELECT 1 FROM nobody").await;
    assert_eq!(mistake.sqlstate(), Some("42P01"));
    for error in [&conflict, &check, &value, &mistake] {
        assert!(!error.is_unavailable() && !error.is_retryable());
        let chain = cause_chain(error);
        assert!(
            !chain.contains("@example.com") && !chain.contains("-7"),
            "{chain}"
        );
    }
    let cut = fails("SELECT pg_terminate_backend(pg_backend_pid())").await;
    assert!(cut.is_unavailable(), "{cut:?}");
    let gone = fails("SELECT 1").await;
    assert!(gone.is_unavailable(), "{gone:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    let database = TestDatabase::create().await;
    for ssl_mode in ["require", "verify-full"] {
        let error = pool_with(&database.url, ssl_mode)
            .client()
            .await
            .unwrap_err();
        assert!(error.is_unavailable());
        assert!(
            cause_chain(&error).contains("TLS"),
            "{}",
            cause_chain(&error)
        );
    }
    answers(&pool_with(&database.url, "prefer"))
        .await
        .expect("plain, as the server offers no more");
}
