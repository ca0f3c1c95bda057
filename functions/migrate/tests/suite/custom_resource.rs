//! The deploy as CloudFormation makes it: it waits for an answer at the request's address, and rolls back on FAILED.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::upgrade::{app, json_of};
use jiff::Timestamp;
use migrate::{App, Error, Unanswered, handle, handle_within, limit};
use serde_json::{Value, json};
use store::migrations::{self, Migration, Release};
use testing::{TestDatabase, logs, sample};

/// The address a deploy waits at.
struct Deploy {
    url: String,
    /// Head and body of each request.
    told: Receiver<(String, Value)>,
}

impl Deploy {
    /// Answers the requests with these statuses, one after the other.
    fn waiting(statuses: &'static [u16]) -> Deploy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!(
            "http://{}/answer?X-Amz-Signature=hush-signature",
            listener.local_addr().unwrap()
        );
        let (sender, told) = channel();
        std::thread::spawn(move || {
            for status in statuses {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    reader.read_line(&mut head).unwrap();
                }
                let length = head.to_lowercase();
                let length = length.split("content-length: ").nth(1).unwrap();
                let length = length.split("\r\n").next().unwrap().parse().unwrap();
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
                let body = serde_json::from_slice(&body).unwrap();
                sender.send((head, body)).unwrap();
            }
        });
        Deploy { url, told }
    }

    /// The sample of this name, with this deploy's address.
    fn request(&self, name: &str) -> Value {
        let mut request = sample(name).json();
        request["ResponseURL"] = json!(self.url);
        request
    }
}

async fn deploy(app: &App, request: Value) -> Result<Value, Error> {
    handle(app, request, Timestamp::UNIX_EPOCH).await
}

#[tokio::test]
async fn a_stack_is_created_once_its_database_is_up_to_date() {
    let database = TestDatabase::empty().await;
    let waiting = Deploy::waiting(&[200]);
    let request = waiting.request("cloudformation_migrate_create");
    deploy(&app(&database.url), request.clone()).await.unwrap();
    let (head, told) = waiting.told.recv().unwrap();
    assert!(head.starts_with("PUT /answer?X-Amz-Signature="), "{head}");
    // It is not part of what was signed.
    assert!(!head.to_lowercase().contains("content-type"), "{head}");
    let version = Release::EMBEDDED.latest();
    let (_, address) = database.url.split_once('@').unwrap();
    let (server, _) = address.split_once('/').unwrap();
    let (host, port) = server.split_once(':').unwrap();
    assert_eq!(
        told,
        json!({
            "Status": "SUCCESS",
            "PhysicalResourceId": "deedpro-billing-schema",
            "StackId": request["StackId"],
            "RequestId": request["RequestId"],
            "LogicalResourceId": "Migrations",
            "Data": {"Version": version.to_string(), "Host": host, "Port": port, "Name": database.name},
        })
    );
    let client = database.client().await;
    let found = migrations::current_version(&client).await.unwrap();
    assert_eq!(found, Some(version));
}

#[tokio::test]
async fn a_migration_that_fails_rolls_the_deploy_back_and_says_why() {
    let database = TestDatabase::empty().await;
    // A table of the host's that is nothing of the kind.
    let client = database.client().await;
    client
        .batch_execute("CREATE VIEW users AS SELECT 'hush@example.test' AS email")
        .await
        .unwrap();
    let waiting = Deploy::waiting(&[200]);
    let answer = deploy(
        &app(&database.url),
        waiting.request("cloudformation_migrate_update"),
    )
    .await;
    let answer = answer.unwrap();
    assert!(answer["failed"].is_string(), "{answer}");
    let (_, told) = waiting.told.recv().unwrap();
    assert_eq!(told["Status"], "FAILED");
    assert_eq!(told["PhysicalResourceId"], "deedpro-billing-schema");
    let reason = told["Reason"].as_str().unwrap();
    assert!(reason.contains("failed and was rolled back"), "{reason}");
    logs::assert_free_of(["hush@example.test", "hush-signature"]);
}

#[tokio::test]
async fn a_deploy_is_told_when_the_database_is_out_of_reach() {
    let waiting = Deploy::waiting(&[200]);
    let app = app("postgres://nobody@127.0.0.1:1/none");
    deploy(&app, waiting.request("cloudformation_migrate_create"))
        .await
        .unwrap();
    let (_, told) = waiting.told.recv().unwrap();
    assert_eq!(told["Status"], "FAILED");
    let reason = told["Reason"].as_str().unwrap();
    assert!(reason.contains("out of reach"), "{reason}");
}

#[tokio::test]
async fn a_deploy_is_told_before_the_function_is_cut_off() {
    let database = TestDatabase::empty().await;
    let waiting = Deploy::waiting(&[200]);
    let within = Some(Duration::ZERO);
    let app = app(&database.url);
    let request = waiting.request("cloudformation_migrate_create");
    let answer = handle_within(&app, request, Timestamp::UNIX_EPOCH, within).await;
    assert!(answer.unwrap()["failed"].is_string());
    let (_, told) = waiting.told.recv().unwrap();
    assert_eq!(told["Status"], "FAILED");
    let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
    let left = |ends: &str| limit(ends.parse().unwrap(), now);
    let most = Duration::from_secs(14 * 60 + 30);
    assert_eq!(left("2026-11-25T00:15:00Z"), Some(most));
    assert_eq!(left("1970-01-01T00:00:00Z"), None, "an emulator's");
}

#[tokio::test]
async fn a_roll_back_to_the_release_before_leaves_the_newer_database_alone() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client
        .execute(
            "INSERT INTO billing_migrations (version, file, sha256)
             SELECT max(version) + 1, 'V9999__of_the_next_release.sql', 'x' FROM billing_migrations",
            &[],
        )
        .await
        .unwrap();
    let waiting = Deploy::waiting(&[200, 200]);
    let app = app(&database.url);
    deploy(&app, waiting.request("cloudformation_migrate_update"))
        .await
        .unwrap();
    let (_, told) = waiting.told.recv().unwrap();
    assert_eq!(told["Status"], "SUCCESS", "{told}");
    let newer = (Release::EMBEDDED.latest() + 1).to_string();
    assert_eq!(told["Data"]["Version"], newer);
    // A new stack over it is a mistake.
    deploy(&app, waiting.request("cloudformation_migrate_create"))
        .await
        .unwrap();
    let (_, told) = waiting.told.recv().unwrap();
    assert_eq!(told["Status"], "FAILED", "{told}");
}

/// The one that a roll-back goes back to, and the one that a deploy brings.
fn release(function: &'static str, background: bool) -> Release {
    let index = Migration {
        file: "V9999__users_plan_idx.concurrent.sql",
        sql: "CREATE INDEX CONCURRENTLY IF NOT EXISTS users_plan_idx ON users (plan)",
    };
    let function = Migration {
        file: "functions/f.sql",
        sql: function,
    };
    let versioned = [Release::EMBEDDED.versioned, &[index]].concat();
    Release {
        versioned: &versioned.leak()[..Release::EMBEDDED.versioned.len() + usize::from(background)],
        repeatable: vec![function].leak(),
        ..Release::EMBEDDED
    }
}

#[tokio::test]
async fn an_update_leaves_what_can_wait_to_the_schedule() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let new = app(&database.url).with_release(release(
        "CREATE OR REPLACE FUNCTION f_HASH() RETURNS INT LANGUAGE sql AS 'SELECT 2'",
        true,
    ));
    let waiting = Deploy::waiting(&[200, 200]);
    deploy(&new, waiting.request("cloudformation_migrate_update"))
        .await
        .unwrap();
    let (_, told) = waiting.told.recv().unwrap();
    assert_eq!(told["Status"], "SUCCESS", "{told}");
    let index = "SELECT to_jsonb(to_regclass('users_plan_idx') IS NOT NULL)";
    assert_eq!(json_of(&client, index).await, json!(false));

    // Rolled back: the functions of the database that the older release calls are there again.
    let old = app(&database.url).with_release(release(
        "CREATE OR REPLACE FUNCTION f_HASH() RETURNS INT LANGUAGE sql AS 'SELECT 1'",
        false,
    ));
    let answer = deploy(&old, waiting.request("cloudformation_migrate_update")).await;
    assert_eq!(answer.unwrap()["applied"], json!(["functions/f.sql"]));
    let (_, told) = waiting.told.recv().unwrap();
    assert_eq!(told["Status"], "SUCCESS", "{told}");

    let maintained = deploy(&old, sample("schedule_migrate_maintain").json()).await;
    assert_eq!(
        maintained.unwrap(),
        json!({ "maintained": [] }),
        "it does not know the index"
    );
    let maintained = deploy(&new, sample("schedule_migrate_maintain").json()).await;
    let done = json!({
        "file": "V9999__users_plan_idx.concurrent.sql", "is_done": true, "slices": 0, "rows_done": 0
    });
    assert_eq!(maintained.unwrap(), json!({ "maintained": [done] }));
    assert_eq!(json_of(&client, index).await, json!(true));
}

/// A new stack may find the database of another one: none of its functions runs yet.
#[tokio::test]
async fn a_new_stack_waits_for_everything() {
    let database = TestDatabase::create().await;
    let function = "CREATE OR REPLACE FUNCTION f_HASH() RETURNS INT LANGUAGE sql AS 'SELECT 2'";
    let app = app(&database.url).with_release(release(function, true));
    let waiting = Deploy::waiting(&[200]);
    deploy(&app, waiting.request("cloudformation_migrate_create"))
        .await
        .unwrap();
    let (_, told) = waiting.told.recv().unwrap();
    assert_eq!(told["Status"], "SUCCESS", "{told}");
    let index = "SELECT to_jsonb(to_regclass('users_plan_idx') IS NOT NULL)";
    let found = json_of(&database.client().await, index).await;
    assert_eq!(found, json!(true));
}

#[tokio::test]
async fn a_schedule_that_asks_for_something_else_is_refused() {
    // Not even asked.
    let app = app("postgres://nobody@127.0.0.1:1/none");
    let event = json!({ "detail-type": "migrate.undo" });
    let error = deploy(&app, event).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
}

#[tokio::test]
async fn a_stack_that_is_deleted_leaves_the_database() {
    // Not even asked.
    let app = app("postgres://nobody@127.0.0.1:1/none");
    let waiting = Deploy::waiting(&[200]);
    deploy(&app, waiting.request("cloudformation_migrate_delete"))
        .await
        .unwrap();
    let (_, told) = waiting.told.recv().unwrap();
    assert_eq!(told["Status"], "SUCCESS");
}

#[tokio::test]
async fn an_answer_that_does_not_get_through_is_sent_again() {
    let app = app("postgres://nobody@127.0.0.1:1/none");
    let waiting = Deploy::waiting(&[503, 200]);
    deploy(&app, waiting.request("cloudformation_migrate_delete"))
        .await
        .unwrap();
    let told: Vec<_> = waiting.told.iter().collect();
    assert_eq!(told.len(), 2);
    let waiting = Deploy::waiting(&[403, 403, 403, 403]);
    let error = deploy(&app, waiting.request("cloudformation_migrate_delete"))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unanswered(Unanswered::Refused { status: 403 })
        ),
        "the platform tries again: {error}"
    );
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_no_success() {
    let app = app("postgres://nobody@127.0.0.1:1/none");
    let request = json!({"ResponseURL": "http://127.0.0.1:1/", "RequestType": "Undo"});
    let error = deploy(&app, request).await.unwrap_err();
    assert!(matches!(error, Error::Request(_)), "{error}");
}
