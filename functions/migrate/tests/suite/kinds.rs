//! The kinds of migration, each with what may get in its way: locks, kills, other runs. The files are the tests' own.

use std::time::Duration;

use crate::upgrade::json_of;
use runtime::deadline::Deadline;
use runtime::telemetry::cause_chain;
use serde_json::json;
use store::migrations::{Background, Error, Migration, Patience, Progress, Release};
use testing::{TestDatabase, logs};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// What the runner needs, and then these files.
fn release(files: &[(&'static str, &'static str)]) -> Release {
    let runner = include_str!("../../../../migrations/V0032__kinds_of_migrations.sql");
    Release {
        versioned: migrations([&[("V0001__runner.sql", runner)], files].concat()),
        repeatable: &[],
        patience: Patience {
            lock_timeout: Duration::from_millis(50),
            first_pause: Duration::from_millis(10),
            longest_pause: Duration::from_millis(40),
            // Whatever else the machine does.
            longest_slice: Duration::from_secs(60),
        },
    }
}

fn migrations(files: Vec<(&'static str, &'static str)>) -> &'static [Migration] {
    let files = files.into_iter().map(|(file, sql)| Migration { file, sql });
    files.collect::<Vec<_>>().leak()
}

/// A database with a table of this many rows, at the version before `files`, and a connection to it.
async fn database(rows: i32) -> (TestDatabase, Client) {
    let database = TestDatabase::empty().await;
    let mut client = database.client().await;
    let table = format!(
        "CREATE TABLE t (id INT PRIMARY KEY, n INT); INSERT INTO t SELECT generate_series(1, {rows})"
    );
    client.batch_execute(&table).await.unwrap();
    release(&[])
        .apply(&mut client, Background::Later)
        .await
        .unwrap();
    (database, client)
}

const COLUMN: (&str, &str) = ("V0002__column.sql", "ALTER TABLE t ADD COLUMN m INT");
const INDEX: (&str, &str) = (
    "V0002__t_n_idx.concurrent.sql",
    "-- Looked up by it.\nCREATE INDEX CONCURRENTLY IF NOT EXISTS t_n_idx ON t (n)",
);
/// Counts how often it has been at a row: more than once is a fault.
const BACKFILL: (&str, &str) = (
    "V0002__n.backfill.sql",
    "UPDATE t SET n = COALESCE(n, 0) + 1 WHERE id IN (SELECT id FROM t WHERE n IS NULL ORDER BY id LIMIT $1)",
);

/// What never ends here waits for something that it should not wait for.
const LONG: Duration = Duration::from_secs(20);

async fn deploy(client: &mut Client, release: Release) -> Result<Vec<String>, Error> {
    let apply = tokio::time::timeout(LONG, release.apply(client, Background::Later));
    Ok(apply.await.expect("it ends")?.applied)
}

async fn maintain(client: &mut Client, release: Release) -> Result<Vec<Progress>, Error> {
    let maintain = release.maintain(client, Deadline::default());
    tokio::time::timeout(LONG, maintain).await.expect("it ends")
}

/// A run on a connection of its own, as another sandbox has it.
async fn spawn_run(
    database: &TestDatabase,
    release: Release,
) -> JoinHandle<Result<Vec<Progress>, Error>> {
    let mut client = database.client().await;
    tokio::spawn(async move { maintain(&mut client, release).await })
}

fn progress(file: (&'static str, &str), is_done: bool, slices: i64, rows_done: i64) -> Progress {
    Progress {
        file: file.0,
        is_done,
        slices,
        rows_done,
    }
}

/// Whether a build has made its index, invalid as yet, and waits for writers. The view shows every database's.
const BUILDING: &str = "SELECT phase LIKE 'waiting for writers%' FROM pg_stat_progress_create_index
    WHERE datname = current_database() AND index_relid <> 0";

/// Waits until the query answers true.
async fn wait_for(client: &Client, condition: &str) {
    let sql = format!("SELECT to_jsonb(COALESCE(({condition}), false))");
    for _ in 0..1_000 {
        if json_of(client, &sql).await == json!(true) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {condition}");
}

/// As if a minute had passed since the last run.
async fn let_the_lease_run_out(client: &Client) {
    let sql = "UPDATE billing_migrations SET leased_until = clock_timestamp() - interval '1 second'
        WHERE leased_until IS NOT NULL";
    client.batch_execute(sql).await.unwrap();
}

/// The sizes of the transactions that changed the rows, in their order.
const SLICES: &str = "SELECT jsonb_agg(n ORDER BY id)
    FROM (SELECT min(id) AS id, count(*) AS n FROM t WHERE n IS NOT NULL GROUP BY xmin) AS slices";
const CHANGED: &str = "SELECT jsonb_build_object('once', count(*) FILTER (WHERE n = 1),
    'more', count(*) FILTER (WHERE n > 1), 'never', count(*) FILTER (WHERE n IS NULL)) FROM t";

/// Each statement takes this long.
async fn slow_down(client: &Client, seconds: &str) {
    let trigger = format!(
        "CREATE FUNCTION wait() RETURNS TRIGGER LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END';
         CREATE TRIGGER slow BEFORE UPDATE ON t EXECUTE FUNCTION wait()"
    );
    client.batch_execute(&trigger).await.unwrap();
}

#[tokio::test]
async fn a_lock_of_somebody_else_is_waited_for() {
    let (database, mut client) = database(1).await;
    let mut other = database.client().await;
    let reader = other.transaction().await.unwrap();
    reader.query("SELECT id FROM t", &[]).await.unwrap();
    let deploy = tokio::spawn(async move { deploy(&mut client, release(&[COLUMN])).await });
    // The migration waits for the reader, and other readers behind it: shortly, and again and again.
    let bystander = database.client().await;
    for _ in 0..20 {
        let read = bystander.query("SELECT id FROM t", &[]);
        let read = tokio::time::timeout(Duration::from_secs(1), read).await;
        assert_eq!(read.expect("nobody waits long").unwrap().len(), 1);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!deploy.is_finished(), "the reader was not waited for");
    reader.rollback().await.unwrap();
    assert_eq!(deploy.await.unwrap().unwrap(), ["V0002__column.sql"]);
    bystander.query("SELECT m FROM t", &[]).await.unwrap();
}

#[tokio::test]
async fn a_lock_that_is_never_let_go_of_fails_the_deploy() {
    let (database, mut client) = database(1).await;
    let mut other = database.client().await;
    let reader = other.transaction().await.unwrap();
    reader.query("SELECT id FROM t", &[]).await.unwrap();
    let files = release(&[
        ("V0002__table.sql", "CREATE TABLE first (id INT)"),
        (
            "V0003__never_let_go_of.sql",
            "CREATE TABLE second (id INT); ALTER TABLE t ADD COLUMN m INT",
        ),
    ]);
    let error = deploy(&mut client, files).await.unwrap_err();
    assert_eq!(
        cause_chain(&error),
        "migration V0003__never_let_go_of.sql did not get its locks in 10 tries; nothing of the last remains: \
         the database is unavailable: Postgres: canceling statement due to lock timeout (55P03)"
    );
    let waits = logs::captured();
    let waits = waits.lines().filter(|line| {
        line.contains("V0003__never_let_go_of.sql") && line.contains("waits for the lock")
    });
    assert_eq!(waits.count(), 9, "a pause between two tries");
    // The one before it stays, and a repeat goes on from there.
    let tables = "SELECT jsonb_build_array(to_regclass('first'), to_regclass('second'))";
    assert_eq!(json_of(&client, tables).await, json!(["first", null]));
    reader.rollback().await.unwrap();
    let applied = deploy(&mut client, files).await.unwrap();
    assert_eq!(applied, ["V0003__never_let_go_of.sql"]);
}

#[tokio::test]
async fn another_deploy_is_waited_for_longer_than_a_lock() {
    let (database, mut client) = database(1).await;
    let mut other = database.client().await;
    let slow = release(&[("V0002__slow.sql", "SELECT pg_sleep(1.5)")]);
    let first = tokio::spawn(async move { deploy(&mut other, slow).await });
    wait_for(
        &client,
        "SELECT true FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1.5)' AND state = 'active'
             AND datname = current_database()",
    )
    .await;
    assert_eq!(deploy(&mut client, slow).await.unwrap(), [""; 0]);
    assert_eq!(first.await.unwrap().unwrap(), ["V0002__slow.sql"]);
}

#[tokio::test]
async fn no_deploy_waits_for_an_index_of_a_table_in_use() {
    let (database, mut client) = database(10).await;
    let files = release(&[INDEX, ("V0003__later.sql", "CREATE TABLE later (id INT)")]);
    let applied = deploy(&mut client, files).await.unwrap();
    assert_eq!(applied, [INDEX.0, "V0003__later.sql"]);
    let index =
        "SELECT to_jsonb(indisvalid) FROM pg_index WHERE indexrelid = to_regclass('t_n_idx')";
    assert!(client.query_opt(index, &[]).await.unwrap().is_none());

    let mut other = database.client().await;
    let writer = other.transaction().await.unwrap();
    writer.execute("UPDATE t SET n = 1", &[]).await.unwrap();
    let run = spawn_run(&database, files).await;
    wait_for(&client, BUILDING).await;
    // The build waits for the writer longer than a migration waits for a lock; nobody waits for the build.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!run.is_finished());
    writer.execute("UPDATE t SET n = 2", &[]).await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!(run.await.unwrap().unwrap(), [progress(INDEX, true, 0, 0)]);
    assert_eq!(json_of(&client, index).await, json!(true));
    assert_eq!(maintain(&mut client, files).await.unwrap(), []);
}

#[tokio::test]
async fn an_invalid_leftover_is_dropped_before_the_index_is_built() {
    let (database, mut client) = database(10).await;
    let files = release(&[INDEX]);
    deploy(&mut client, files).await.unwrap();
    let mut other = database.client().await;
    let writer = other.transaction().await.unwrap();
    writer.execute("UPDATE t SET n = 1", &[]).await.unwrap();
    let run = spawn_run(&database, files).await;
    wait_for(&client, BUILDING).await;
    let kill = "SELECT to_jsonb(pg_terminate_backend(pid)) FROM pg_stat_progress_create_index
        WHERE datname = current_database()";
    assert_eq!(json_of(&client, kill).await, json!(true));
    run.await.unwrap().unwrap_err();
    let index =
        "SELECT to_jsonb(indisvalid) FROM pg_index WHERE indexrelid = to_regclass('t_n_idx')";
    assert_eq!(json_of(&client, index).await, json!(false));
    writer.rollback().await.unwrap();

    let waiting = maintain(&mut client, files).await.unwrap();
    assert_eq!(
        waiting,
        [progress(INDEX, false, 0, 0)],
        "the lease of the run that was killed"
    );
    assert_eq!(json_of(&client, index).await, json!(false));
    let_the_lease_run_out(&client).await;
    let limit = format!("ALTER DATABASE {} SET lock_timeout = '7s'", database.name);
    client.batch_execute(&limit).await.unwrap();
    let mut next = database.client().await;
    let done = maintain(&mut next, files).await.unwrap();
    assert_eq!(done, [progress(INDEX, true, 0, 0)]);
    assert_eq!(json_of(&client, index).await, json!(true));
    // The session is as it was.
    let limit = "SELECT to_jsonb(current_setting('lock_timeout'))";
    assert_eq!(json_of(&next, limit).await, json!("7s"));
}

/// Where the function is killed, the server does not know it and goes on.
#[tokio::test]
async fn an_index_that_is_still_being_built_for_a_killed_run_is_left_alone() {
    let (database, mut client) = database(10).await;
    let files = release(&[INDEX]);
    deploy(&mut client, files).await.unwrap();
    let mut other = database.client().await;
    let writer = other.transaction().await.unwrap();
    writer.execute("UPDATE t SET n = 1", &[]).await.unwrap();
    // It has no time for it; the same as a kill.
    let short = Deadline::after(Duration::from_secs(2));
    let mut killed = database.client().await;
    let found = files.maintain(&mut killed, short).await.unwrap();
    assert_eq!(found, [progress(INDEX, false, 0, 0)]);
    drop(killed);
    let oid = "SELECT to_jsonb(to_regclass('t_n_idx')::oid::bigint)";
    let building = json_of(&client, oid).await;
    assert!(building.is_number(), "{building}");

    let_the_lease_run_out(&client).await;
    let found = maintain(&mut client, files).await.unwrap();
    assert_eq!(found, [progress(INDEX, false, 0, 0)]);
    writer.commit().await.unwrap();
    wait_for(
        &client,
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('t_n_idx')",
    )
    .await;
    let_the_lease_run_out(&client).await;
    let found = maintain(&mut client, files).await.unwrap();
    assert_eq!(found, [progress(INDEX, true, 0, 0)]);
    assert_eq!(json_of(&client, oid).await, building, "it was built once");
}

#[tokio::test]
async fn a_backfill_commits_a_thousand_rows_at_a_time() {
    let (_database, mut client) = database(2_500).await;
    let files = release(&[BACKFILL]);
    assert_eq!(deploy(&mut client, files).await.unwrap(), [BACKFILL.0]);
    assert_eq!(json_of(&client, CHANGED).await["never"], json!(2_500));
    let found = files.maintain(&mut client, Deadline::after(Duration::ZERO));
    assert_eq!(
        found.await.unwrap(),
        [progress(BACKFILL, false, 0, 0)],
        "no time"
    );
    let_the_lease_run_out(&client).await;
    let found = maintain(&mut client, files).await.unwrap();
    assert_eq!(found, [progress(BACKFILL, true, 3, 2_500)]);
    assert_eq!(json_of(&client, SLICES).await, json!([1_000, 1_000, 500]));
    assert_eq!(json_of(&client, CHANGED).await["once"], json!(2_500));
    // Rows that come later are none of its business.
    client
        .execute("INSERT INTO t VALUES (3000)", &[])
        .await
        .unwrap();
    assert_eq!(maintain(&mut client, files).await.unwrap(), []);
    assert_eq!(json_of(&client, CHANGED).await["never"], json!(1));
}

#[tokio::test]
async fn slices_over_200_ms_are_halved() {
    let (_database, mut client) = database(1_800).await;
    let files = Release {
        patience: Release::EMBEDDED.patience,
        ..release(&[BACKFILL])
    };
    deploy(&mut client, files).await.unwrap();
    slow_down(&client, "0.21").await;
    let found = maintain(&mut client, files).await.unwrap();
    assert_eq!(found, [progress(BACKFILL, true, 4, 1_800)]);
    assert_eq!(json_of(&client, SLICES).await, json!([1_000, 500, 250, 50]));
}

#[tokio::test]
async fn a_backfill_goes_on_where_it_was_killed() {
    let (database, mut client) = database(4_500).await;
    let files = release(&[BACKFILL]);
    deploy(&mut client, files).await.unwrap();
    slow_down(&client, "0.3").await;
    let run = spawn_run(&database, files).await;
    wait_for(
        &client,
        "SELECT slices >= 1 FROM billing_migrations WHERE version = 2",
    )
    .await;
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    wait_for(
        &client,
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'
             AND pid <> pg_backend_pid()",
    )
    .await;
    let left = "SELECT to_jsonb(rows_done) FROM billing_migrations WHERE version = 2";
    let left = json_of(&client, left).await.as_i64().unwrap();
    assert!((1_000..4_500).contains(&left), "{left}");
    let changed = json_of(&client, CHANGED).await;
    assert_eq!(
        changed,
        json!({"once": left, "more": 0, "never": 4_500 - left})
    );

    let found = maintain(&mut client, files).await.unwrap();
    let waits = progress(BACKFILL, false, left / 1_000, left);
    assert_eq!(found, [waits], "the lease of the run that was killed");
    let_the_lease_run_out(&client).await;
    let found = maintain(&mut client, files).await.unwrap();
    assert_eq!(found, [progress(BACKFILL, true, 5, 4_500)]);
    let changed = json_of(&client, CHANGED).await;
    assert_eq!(changed, json!({"once": 4_500, "more": 0, "never": 0}));
}

#[tokio::test]
async fn of_two_runs_one_has_the_lease_and_one_that_lost_it_stops() {
    let (database, mut client) = database(6_000).await;
    let files = release(&[BACKFILL]);
    deploy(&mut client, files).await.unwrap();
    slow_down(&client, "0.3").await;
    let run = spawn_run(&database, files).await;
    wait_for(
        &client,
        "SELECT slices >= 1 FROM billing_migrations WHERE version = 2",
    )
    .await;
    let other = maintain(&mut client, files).await.unwrap();
    assert!(!other[0].is_done, "it waited for the other run: {other:?}");
    assert!(!run.is_finished());
    // A sandbox that was frozen for longer than its lease finds that another run has taken over.
    let taken =
        "UPDATE billing_migrations SET leased_until = clock_timestamp() + interval '50 seconds'
        WHERE version = 2";
    client.execute(taken, &[]).await.unwrap();
    let found = run.await.unwrap().unwrap();
    assert!(!found[0].is_done && found[0].rows_done < 6_000, "{found:?}");
    assert_eq!(
        json_of(&client, CHANGED).await["once"],
        json!(found[0].rows_done)
    );
}

#[tokio::test]
async fn a_slice_waits_for_a_locked_row_as_the_others_wait_for_tables() {
    let (database, mut client) = database(10).await;
    let files = release(&[BACKFILL]);
    deploy(&mut client, files).await.unwrap();
    let mut other = database.client().await;
    let writer = other.transaction().await.unwrap();
    let lock = "UPDATE t SET id = id WHERE id = 7";
    writer.execute(lock, &[]).await.unwrap();
    let error = maintain(&mut client, files).await.unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert_eq!(json_of(&client, CHANGED).await["never"], json!(10));
    let_the_lease_run_out(&client).await;
    let run = spawn_run(&database, files).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    writer.rollback().await.unwrap();
    let found = run.await.unwrap().unwrap();
    assert_eq!(found, [progress(BACKFILL, true, 1, 10)]);
}

#[tokio::test]
async fn a_backfill_that_fails_keeps_its_slices_and_says_which_it_is() {
    let (_database, mut client) = database(1_500).await;
    let files = release(&[(
        "V0002__n.backfill.sql",
        "UPDATE t SET n = 1 / (1500 - id) WHERE id IN (SELECT id FROM t WHERE n IS NULL ORDER BY id LIMIT $1)",
    )]);
    deploy(&mut client, files).await.unwrap();
    let error = maintain(&mut client, files).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "migration V0002__n.backfill.sql failed and was rolled back"
    );
    assert_eq!(json_of(&client, CHANGED).await["never"], json!(500));
    // A way past it (docs/migrations.md).
    client
        .execute(
            "UPDATE billing_migrations SET state = 'done' WHERE version = 2",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(maintain(&mut client, files).await.unwrap(), []);
}

#[tokio::test]
async fn a_deploy_stops_at_a_file_that_requires_what_is_not_done() {
    let (_database, mut client) = database(10).await;
    let files = release(&[
        BACKFILL,
        ("V0003__before.sql", "CREATE TABLE before (id INT)"),
        (
            "V0004__n_is_there.sql",
            "-- Every row has it.\n-- requires: V0002\n\nALTER TABLE t ALTER COLUMN n SET NOT NULL",
        ),
    ]);
    let error = deploy(&mut client, files).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "V0004__n_is_there.sql says \"-- requires: V0002\", which is not done yet: migrate.maintain runs it every \
         hour; deploy again afterwards"
    );
    let before = "SELECT to_jsonb(to_regclass('before'))";
    assert_eq!(json_of(&client, before).await, json!("before"));
    maintain(&mut client, files).await.unwrap();
    let applied = deploy(&mut client, files).await.unwrap();
    assert_eq!(applied, ["V0004__n_is_there.sql"]);
}

const INSERT: (&str, &str) = (
    "V0002__table.sql",
    "CREATE TABLE t (id INT PRIMARY KEY, n INT); INSERT INTO t SELECT generate_series(1, 1500)",
);
const NEW: [(&str, &str); 4] = [
    INSERT,
    ("V0003__n.backfill.sql", BACKFILL.1),
    (
        "V0004__n_is_there.sql",
        "-- requires: V0003\nALTER TABLE t ALTER COLUMN n SET NOT NULL",
    ),
    ("V0005__t_n_idx.concurrent.sql", INDEX.1),
];

#[tokio::test]
async fn a_new_database_ends_complete() {
    let database = TestDatabase::empty().await;
    let mut client = database.client().await;
    let applied = deploy(&mut client, release(&NEW)).await.unwrap();
    assert_eq!(applied.len(), 5);
    let left = "SELECT to_jsonb(count(*)) FROM billing_migrations WHERE state <> 'done'";
    assert_eq!(json_of(&client, left).await, json!(0));
    assert_eq!(json_of(&client, CHANGED).await["once"], json!(1_500));
    let index =
        "SELECT to_jsonb(indisvalid) FROM pg_index WHERE indexrelid = to_regclass('t_n_idx')";
    assert_eq!(json_of(&client, index).await, json!(true));
}

/// A stack that is made again over what an attempt left behind: nothing there would run the maintenance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_wait_for_everything_share_the_work() {
    let database = TestDatabase::empty().await;
    let mut client = database.client().await;
    deploy(&mut client, release(&NEW[..1])).await.unwrap();
    deploy(&mut client, release(&NEW[..2])).await.unwrap();
    let mut other = database.client().await;
    let files = release(&NEW);
    let (one, two) = tokio::join!(
        files.apply(&mut client, Background::AtOnce),
        files.apply(&mut other, Background::AtOnce)
    );
    let applied = one.unwrap().applied.len() + two.unwrap().applied.len();
    assert_eq!(applied, 2);
    assert_eq!(json_of(&client, CHANGED).await["once"], json!(1_500));
}

#[tokio::test]
async fn a_migration_of_a_running_state_that_was_edited_is_refused() {
    let (_database, mut client) = database(10).await;
    deploy(&mut client, release(&[BACKFILL])).await.unwrap();
    let edited = release(&[(BACKFILL.0, "UPDATE t SET n = 5 WHERE n IS NULL AND $1 > 0")]);
    for error in [
        maintain(&mut client, edited).await.unwrap_err(),
        deploy(&mut client, edited).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Edited { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_database_that_is_older_than_the_runner_needs_no_maintenance() {
    let database = TestDatabase::empty().await;
    let mut client = database.client().await;
    let files = release(&[BACKFILL]);
    assert_eq!(
        maintain(&mut client, files).await.unwrap(),
        [],
        "nothing there"
    );
    let before = Release {
        versioned: migrations(vec![("V0001__x.sql", "SELECT 1")]),
        ..files
    };
    deploy(&mut client, before).await.unwrap();
    assert_eq!(
        maintain(&mut client, files).await.unwrap(),
        [],
        "no states there"
    );
}

/// A release whose functions answer this, and what it calls.
fn with_functions(body: &'static str, roles: &'static str) -> (Release, String) {
    let release = Release {
        repeatable: migrations(vec![
            ("functions/answer.sql", body),
            (
                "functions/asks.sql",
                "CREATE OR REPLACE FUNCTION asks_HASH() RETURNS INT LANGUAGE plpgsql AS
                     'BEGIN RETURN answer_HASH(); END'",
            ),
            ("roles.sql", roles),
        ]),
        ..release(&[])
    };
    let call = release.with_hash("SELECT to_jsonb(asks_HASH())");
    (release, call)
}

const ONE: &str = "CREATE OR REPLACE FUNCTION answer_HASH() RETURNS INT LANGUAGE sql AS 'SELECT 1'";
const TWO: &str = "CREATE OR REPLACE FUNCTION answer_HASH() RETURNS INT LANGUAGE sql AS 'SELECT 2'";
const THREE: &str =
    "CREATE OR REPLACE FUNCTION answer_HASH() RETURNS INT LANGUAGE sql AS 'SELECT 3'";
/// It may speak of the functions, and is counted.
const GRANT: &str = "GRANT EXECUTE ON FUNCTION asks_HASH() TO PUBLIC; INSERT INTO t VALUES ((SELECT count(*) FROM t))";

#[tokio::test]
async fn functions_of_two_releases_run_side_by_side_and_older_ones_go() {
    let (_database, mut client) = database(0).await;
    let files = ["functions/answer.sql", "functions/asks.sql", "roles.sql"];
    let (one, ask_one) = with_functions(ONE, GRANT);
    let (two, ask_two) = with_functions(TWO, GRANT);
    let (three, ask_three) = with_functions(THREE, GRANT);
    assert_eq!(deploy(&mut client, one).await.unwrap(), files);
    assert_eq!(deploy(&mut client, one).await.unwrap(), [""; 0], "once");
    assert_eq!(json_of(&client, &ask_one).await, json!(1));

    assert_eq!(deploy(&mut client, two).await.unwrap(), files);
    assert_eq!(json_of(&client, &ask_one).await, json!(1));
    assert_eq!(json_of(&client, &ask_two).await, json!(2));

    // Back, which leaves the functions of both, and forth.
    assert_eq!(deploy(&mut client, one).await.unwrap(), files);
    assert_eq!(deploy(&mut client, two).await.unwrap(), files);
    assert_eq!(json_of(&client, &ask_one).await, json!(1));

    assert_eq!(deploy(&mut client, three).await.unwrap(), files);
    assert_eq!(json_of(&client, &ask_two).await, json!(2));
    assert_eq!(json_of(&client, &ask_three).await, json!(3));
    let gone = client.query_one(&ask_one, &[]).await.unwrap_err();
    assert_eq!(gone.code().unwrap().code(), "42883", "{gone}");
    // Roll-backs over a database that no longer has them.
    assert_eq!(one.apply_repeatable(&mut client).await.unwrap(), files);
    assert_eq!(json_of(&client, &ask_one).await, json!(1));
    let runs = "SELECT to_jsonb(count(*)) FROM t";
    assert_eq!(
        json_of(&client, runs).await,
        json!(6),
        "each time with the functions"
    );
}

#[tokio::test]
async fn grants_are_applied_when_their_text_is_new_and_leave_nothing_when_they_fail() {
    let (_database, mut client) = database(0).await;
    let (release, _) = with_functions(ONE, GRANT);
    deploy(&mut client, release).await.unwrap();
    let (broken, ask_broken) = with_functions(TWO, "GRANT SELECT ON nothing TO PUBLIC");
    let error = deploy(&mut client, broken).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "migration roles.sql failed and was rolled back"
    );
    client.query_one(&ask_broken, &[]).await.unwrap_err();
    let (mended, ask_mended) = with_functions(ONE, "GRANT SELECT ON t TO PUBLIC");
    assert_eq!(deploy(&mut client, mended).await.unwrap().len(), 3);
    assert_eq!(json_of(&client, &ask_mended).await, json!(1));
}
