//! The process killed (SIGKILL) at every exchange of a run with Postgres, S3 and the bus. The next run ends in the
//! state, and with the documents, of one that nothing happened to.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use shared::test_support::{Aws, FaultProxy, Function};

use crate::failures::story;
use crate::site::{Site, event, run};

const TIME: &str = "2025-12-01T00:05:00Z";
/// When the messages are due again that were claimed by a run that was killed.
const LATER: &str = "2025-12-01T00:10:00Z";
/// Sites at once, each of which takes every n-th exchange.
const AT_ONCE: usize = 4;

type Outcome = (Vec<String>, BTreeMap<String, Vec<u8>>);

#[derive(Clone, Copy)]
enum Behind {
    Database,
    Aws,
}

/// The story of the other failures, and a contract whose credit pays it all.
async fn site() -> Site {
    let site = Site::new().await;
    story(&site).await;
    site.contract(
        "dp_pk_gamma",
        json!({"pricing_model": "flat", "currency": "EUR"}),
    )
    .await;
    site.execute(
        "INSERT INTO credits (api_key_prefix, amount_cents, remaining_cents, currency, reason)
         VALUES ('dp_pk_gamma', 60000, 60000, 'EUR', 'goodwill')",
    )
    .await;
    site
}

async fn outcome(site: &Site) -> Outcome {
    (site.state().await, site.documents().await)
}

async fn undisturbed() -> Outcome {
    let site = site().await;
    run(&site.app(), TIME).await;
    let outcome = outcome(&site).await;
    // A PDF of each invoice, that of October among them: the comparison compares something.
    assert_eq!(outcome.1.len(), 4);
    outcome
}

/// Runs the process on a site of its own and kills it when it is about to begin this exchange; whether there was one.
async fn is_killed_at(behind: Behind, exchange: u64, site: &Site) -> bool {
    let (proxy, name, url) = match behind {
        Behind::Database => {
            let (proxy, url) = site.database.behind_proxy();
            (proxy, "DATABASE_URL", url)
        }
        Behind::Aws => {
            let moto = Aws::shared().await.endpoint_url();
            let upstream = moto.trim_start_matches("http://").parse().unwrap();
            let proxy = FaultProxy::start(upstream);
            let url = format!("http://{}", proxy.address());
            (proxy, "AWS_ENDPOINT_URL", url)
        }
    };
    proxy.hold_flight(exchange);
    // One connection: one thing after the other, so that each exchange is a moment of its own.
    let others = [
        ("AWS_ENDPOINT_URL", Aws::shared().await.endpoint_url()),
        ("DATABASE_SSLMODE", "disable"),
        ("DATABASE_POOL_SIZE", "1"),
        (name, url.as_str()),
    ];
    let event = event(TIME, Value::Null).to_string();
    let ours = site.pairs().iter();
    let ours = ours.map(|(name, value)| (*name, value.as_str()));
    let binary = Path::new(env!("CARGO_BIN_EXE_partner-invoicing"));
    let mut function = Function::spawn(binary, "partner-invoicing", ours.chain(others));
    function.hand(event);
    let is_held = tokio::select! {
        () = proxy.held() => true,
        answer = function.answer() => {
            assert_eq!(answer.kind, "response", "exchange {exchange}: {}", answer.body);
            false
        }
    };
    function.kill();
    // What was held is lost with it: the server never gets it.
    drop(proxy);
    is_held
}

/// Kills it at this exchange and at every `AT_ONCE`-th after it, until there is none; at how many it did.
async fn kill_from(behind: Behind, first: usize, expected: &Outcome) -> usize {
    for (kills, exchange) in (first..).step_by(AT_ONCE).enumerate() {
        let site = site().await;
        let is_killed = is_killed_at(behind, u64::try_from(exchange).unwrap(), &site).await;
        run(&site.app(), TIME).await;
        run(&site.app(), LATER).await;
        let outcome = outcome(&site).await;
        assert_eq!(outcome.0, expected.0, "killed at exchange {exchange}");
        assert!(
            outcome.1 == expected.1,
            "other bytes in S3, killed at exchange {exchange}"
        );
        if !is_killed {
            return kills;
        }
    }
    unreachable!("a run ends")
}

async fn kill_everywhere(behind: Behind) -> usize {
    let expected = undisturbed().await;
    let from = (1..=AT_ONCE).map(|first| kill_from(behind, first, &expected));
    let kills = futures_util::future::join_all(from).await;
    kills.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_exchange_with_the_database_leaves_what_the_next_run_completes() {
    let kills = kill_everywhere(Behind::Database).await;
    // At the least: the start of a connection, begin, six of each of three invoices, four of each PDF, the outbox.
    assert!(kills >= 36, "killed at {kills} exchanges");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_exchange_with_s3_and_the_bus_leaves_what_the_next_run_completes() {
    let kills = kill_everywhere(Behind::Aws).await;
    // A PDF of each of three invoices, and the messages.
    assert!(kills >= 4, "killed at {kills} exchanges");
}
