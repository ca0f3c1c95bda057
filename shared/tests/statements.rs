//! Every SQL statement of the repository is prepared against the migrated schema, with the types that its parameters are
//! declared with, and its columns are those that are read of its rows.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

#[path = "statements/sources.rs"]
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use domain::stripe_objects::objects::Ids;
use futures_util::future::join_all;
use serde_json::{Value, json};
use store::exports::Export;
use store::ledger;
use testing::{TestDatabase, workspace_root};
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Column};

use sources::{Found, Sources, Statement, first_line};

/// The functions whose statements the sources do not show. What they run is in [`generated`], or is no statement on the
/// migrated schema.
const ELSEWHERE: [&str; 20] = [
    "shared/store/src/exports.rs::page",
    "shared/store/src/exports.rs::end",
    "shared/store/src/exports.rs::span",
    // The conditions of a list: its callers are seen, and each gives several statements.
    "shared/store/src/list.rs::read",
    // Run the migrations themselves, and what goes with them.
    "shared/store/src/migrations.rs::apply_next",
    "shared/store/src/migrations.rs::limit",
    "shared/store/src/migrations/background.rs::slice",
    "shared/store/src/migrations/background.rs::build",
    "shared/store/src/migrations/repeatable.rs::try_repeatable",
    "shared/store/src/migrations/repeatable.rs::drop_outdated",
    // Calls of functions whose names have a hash: `every_statement_of_the_ledgers_functions_runs`.
    "shared/store/src/ledger.rs::open",
    "shared/store/src/ledger.rs::read",
    "shared/store/src/ledger.rs::close",
    // Roles, whose names and limits are a deployment's.
    "shared/store/src/roles.rs::make",
    "shared/store/src/roles.rs::grant",
    // `CREATE DATABASE` and `DROP DATABASE` with names that are made at run time.
    "shared/testing/src/database.rs::create",
    "shared/testing/src/database.rs::administrate",
    // A table, a condition and a role that a test names.
    "shared/testing/src/database.rs::lock_table",
    "shared/testing/src/database.rs::backends",
    "shared/testing/src/database.rs::limited_to",
];

/// Statements that are made at run time, or by a macro that the test does not know.
fn generated() -> Vec<Statement> {
    let exports = std::iter::successors(Some(Export::Payments), |export| match export {
        Export::Payments => Some(Export::Invoices),
        Export::Invoices => Some(Export::Refunds),
        Export::Refunds => Some(Export::Usage),
        Export::Usage => Some(Export::Subscriptions),
        Export::Subscriptions => Some(Export::MrrMovements),
        Export::MrrMovements => None,
    });
    let calls = ledger::calls().into_iter().map(|(text, types)| Statement {
        place: "shared/store/src/ledger.rs".to_owned(),
        types,
        text: text.to_owned(),
        reads: None,
    });
    exports
        .flat_map(|export| {
            let statement = |(text, types): (String, Vec<Type>), reads: &[&str]| {
                let reads = reads.iter().map(|name| ((*name).to_owned(), None));
                Statement {
                    place: format!("shared/store/src/exports.rs: {export:?}"),
                    text,
                    types,
                    reads: Some(reads.collect()),
                }
            };
            let (rows, types) = export.statement();
            let rows = statement((rows, types.into()), export.header());
            let (end, types) = export.end_statement();
            let end = statement((end, types.into()), &["key"]);
            let span = export.span_statement();
            let span =
                span.map(|(text, types)| statement((text, types.into()), &["first", "last"]));
            [rows, end].into_iter().chain(span)
        })
        .chain(calls)
        .collect()
}

/// The functions' statements are planned when they first run, so each of them runs here: about an id of every kind, and
/// for a member of every step.
#[tokio::test]
async fn every_statement_of_the_ledgers_functions_runs() {
    let database = TestDatabase::create().await;
    let db = &database.client().await;
    let now = "2026-05-01T00:00:00Z".parse().unwrap();
    let mut named = Ids::default();
    for ids in named.by_kind_mut() {
        ids.push("x_1".to_owned());
    }
    let opening = ledger::Opening {
        named,
        shown_transactions: vec!["txn_1".to_owned()],
        users: vec![1],
        decides_plans: true,
        ..ledger::Opening::default()
    };
    let opened = ledger::open(db, &opening, now).await.unwrap().unwrap();
    assert!(opened.locked.contains("x_1") && opened.locked.contains("user:1"));
    let mut writes = ledger::Writes::default();
    let nothing: [Value; 0] = [];
    for member in ledger::members() {
        writes.put(member, &nothing).unwrap();
    }
    writes
        .put("lookups", json!({"answered": [], "wanted": []}))
        .unwrap();
    writes.put("mrr_movements", json!({})).unwrap();
    assert_eq!(ledger::close(db, &writes, now).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_fits_the_migrated_schema() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let mut files = Vec::new();
    for folder in ["functions", "shared"] {
        read(&workspace_root().join(folder), &mut files);
    }
    let mut found = find(&files, &ELSEWHERE);
    found.statements.extend(generated());
    let texts: BTreeSet<&str> = found
        .statements
        .iter()
        .map(|one| first_line(&one.text))
        .collect();
    println!(
        "{} statements, {} prepared",
        texts.len(),
        found.statements.len()
    );
    let complaints = complaints(&client, &found).await;
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The Rust in the folders `src` below this one, with its paths.
fn read(folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, files);
            continue;
        }
        let name = path
            .strip_prefix(workspace_root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        if name.ends_with(".rs") && name.contains("/src/") {
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

fn find(files: &[(String, String)], elsewhere: &[&str]) -> Found {
    let parsed: Vec<_> = files
        .iter()
        .map(|(path, text)| (path.clone(), syn::parse_file(text).unwrap()))
        .collect();
    Sources::of(&parsed).statements(elsewhere)
}

async fn complaints(client: &Client, found: &Found) -> Vec<String> {
    let prepared = found
        .statements
        .iter()
        .map(|statement| check(client, statement));
    let mut complaints = found.complaints.clone();
    for (statement, whys) in found.statements.iter().zip(join_all(prepared).await) {
        let name = first_line(&statement.text).trim_start_matches("-- ");
        complaints.extend(
            whys.iter()
                .map(|why| format!("{}: {name}: {why}", statement.place)),
        );
    }
    complaints.sort();
    complaints.dedup();
    complaints
}

/// Prepares a statement, and compares its parameters and columns with what it is declared and read with.
async fn check(client: &Client, statement: &Statement) -> Vec<String> {
    let Statement {
        text, types, reads, ..
    } = statement;
    let prepared = match client.prepare_typed(text, types).await {
        Ok(prepared) => prepared,
        Err(error) => return vec![refusal(&error, text)],
    };
    let mut complaints = Vec::new();
    let parameters = prepared.params().len();
    if parameters != types.len() {
        complaints.push(format!(
            "{parameters} parameters, and {} types",
            types.len()
        ));
    }
    for (index, declared) in types.iter().enumerate() {
        if !has_parameter(text, index + 1) {
            complaints.push(format!("${} is declared and not used", index + 1));
        }
        // Where Postgres can tell a parameter's type by itself, it is the declared one.
        let mut others = types.clone();
        others[index] = Type::UNKNOWN;
        if let Ok(prepared) = client.prepare_typed(text, &others).await {
            let inferred = &prepared.params()[index];
            if inferred != declared {
                complaints.push(format!(
                    "${} is {inferred}, and declared {declared}",
                    index + 1
                ));
            }
        }
    }
    let Some(reads) = reads else {
        return complaints;
    };
    let columns = prepared.columns();
    // Where nothing is read, the question is whether there is a row.
    let is_question = reads.is_empty() && columns.len() == 1;
    let unread = columns
        .iter()
        .map(Column::name)
        .filter(|name| !is_question && !reads.contains_key(*name));
    complaints.extend(unread.map(|name| format!("nobody reads its column {name}")));
    for (name, member) in reads {
        match columns.iter().find(|column| column.name() == name) {
            None => complaints.push(format!("does not select {name}, which is read")),
            Some(column) => {
                let kind = column.type_();
                if let Some(member) = member.as_deref().filter(|member| !accepts(member, kind)) {
                    complaints.push(format!("{name} is {kind}, and read as {member}"));
                }
            }
        }
    }
    complaints
}

/// Whether a column of this type can be read into the member of a row's struct. A word (an enum) is read from text.
fn accepts(member: &str, column: &Type) -> bool {
    match member {
        "bool" => bool::accepts(column),
        "i32" => i32::accepts(column),
        "i64" => i64::accepts(column),
        "Date" => jiff::civil::Date::accepts(column),
        "Timestamp" => jiff::Timestamp::accepts(column),
        "Value" => serde_json::Value::accepts(column),
        "Vec" => Vec::<String>::accepts(column),
        _ => String::accepts(column),
    }
}

/// What Postgres says, and the words of the statement that it says it of.
fn refusal(error: &tokio_postgres::Error, text: &str) -> String {
    let Some(refusal) = error.as_db_error() else {
        return error.to_string();
    };
    let position = match refusal.position() {
        Some(ErrorPosition::Original(position)) => *position as usize,
        Some(ErrorPosition::Internal { .. }) | None => 1,
    };
    let rest: String = text.chars().skip(position - 1).collect();
    let words: Vec<&str> = rest.split_whitespace().take(5).collect();
    format!("{}: {}", refusal.message(), words.join(" "))
}

fn has_parameter(text: &str, number: usize) -> bool {
    let name = format!("${number}");
    text.match_indices(&name)
        .any(|(at, _)| !text[at + name.len()..].starts_with(|next: char| next.is_ascii_digit()))
}

/// Each check on a small file that breaks it.
mod can_fail {
    use super::{TestDatabase, complaints, find};

    const COLUMNS: &str = "
        pub async fn all<T: FromRow>(db: &impl GenericClient, statement: &str, parameters: &[P]) -> Result<Vec<T>, Error> {
            db.query_typed(statement, parameters).await?.iter().map(T::from_row).collect()
        }";

    async fn complains(file: &str, expected: &[&str]) {
        let database = TestDatabase::create().await;
        let mut files = vec![("src/credits.rs".to_owned(), file.to_owned())];
        if file.contains("columns::all") {
            files.push(("src/columns.rs".to_owned(), COLUMNS.to_owned()));
        }
        let complaints = complaints(&database.client().await, &find(&files, &[])).await;
        assert_eq!(complaints, expected);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_statement_that_fits_is_fine() {
        complains(
            r#"
            async fn ids(db: &C, statement: &str, id: i64) -> R {
                db.query_typed(statement, &[(&id, Type::INT8)]).await?.iter().map(|row| row.try_get("id")).collect()
            }
            async fn first(db: &C) -> R { ids(db, "-- credits::first\n SELECT id FROM credits WHERE id = $1", 1).await }
            columns! { pub struct Credit of "credits" { pub id: i64, pub reason: CreditReason, } }
            async fn all(db: &C, user: i32) -> Result<Vec<Credit>, Error> {
                let table = match user { 0 => return Ok(vec![]), 1 => "credits", _ => "(SELECT 1::bigint AS id, '' AS reason)" };
                columns::all(
                    db,
                    &format!("-- credits::all\n SELECT {} FROM {table} AS listed", Credit::COLUMNS),
                    &[],
                ).await
            }"#,
            &[],
        )
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn columns_that_are_not_there_are_named() {
        complains(
            r#"columns! { pub struct Credit of "credits" { pub id: i32, pub colour: Option<String>, } }
            columns! { pub struct Short of "credits" { pub id: i32, pub reason: CreditReason, pub user_id: Option<i32>, } }
            async fn all(db: &C) -> Result<Vec<Credit>, Error> {
                columns::all(db, &format!("-- credits::all\n SELECT id,\n {} FROM credits", Credit::COLUMNS), &[]).await
            }
            async fn short(db: &C) -> Result<Vec<Short>, Error> {
                columns::all(db, "-- credits::short\n SELECT id, user_id, currency FROM credits", &[]).await
            }"#,
            &[
                "src/credits.rs:4: credits::all: column \"colour\" does not exist: colour, id FROM credits",
                "src/credits.rs:7: credits::short: does not select reason, which is read",
                "src/credits.rs:7: credits::short: id is int8, and read as i32",
                "src/credits.rs:7: credits::short: nobody reads its column currency",
            ],
        )
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn types_that_are_not_the_parameters_are_named() {
        complains(
            r#"async fn f(db: &C, id: i64) {
                db.execute_typed("-- credits::wrong\n DELETE FROM credits WHERE id = $1", &[(&id, Type::INT4)]).await;
                db.execute_typed("-- credits::fewer\n DELETE FROM credits WHERE id = $1 OR user_id = $2", &[(&id, Type::INT8)]).await;
                db.execute_typed("-- credits::more\n DELETE FROM credits", &[(&id, Type::INT8)]).await;
                db.execute("-- credits::untyped\n DELETE FROM credits WHERE id = $1", &[&id]).await;
            }"#,
            &[
                "src/credits.rs:2: credits::wrong: $1 is int8, and declared int4",
                "src/credits.rs:3: credits::fewer: 2 parameters, and 1 types",
                "src/credits.rs:4: credits::more: $1 is declared and not used",
                "src/credits.rs:5: \"-- credits::untyped\" is run by no call that the test sees",
                "src/credits.rs:5: its parameters have no types: use `query_typed` or `execute_typed`",
            ],
        )
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_statement_that_the_test_cannot_see_is_named() {
        complains(
            r#"const UNUSED: &str = "SELECT id FROM credits";
            async fn f(db: &C) { db.query_typed(&words.join(" "), &[]).await; }
            async fn g(db: &C, statement: &str) { db.execute_typed(statement, &[]).await; }
            #[cfg(test)] mod tests { fn t() { db.query("SELECT id FROM nowhere", &[&1]); } }"#,
            &[
                "src/credits.rs:1: \"SELECT id FROM credits\" is run by no call that the test sees",
                "src/credits.rs:2: its text is made at run time, so the test cannot prepare it",
                "src/credits.rs:3: nobody calls this with a statement or a row's struct",
            ],
        )
        .await;
    }
}
