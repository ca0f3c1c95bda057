//! Whole events recorded from Stripe, of every API version since 2017: each is answered 200, and
//! none parks unless its body lacks a field that no version could supply.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

mod bundle;

use std::path::Path;

use bundle::Webhook;
use serde_json::{Value, json};
use testing::services::progress_to_stderr;
use testing::{fixtures_dir, logs};

/// Events the ledger cannot apply, and what their bodies lack.
const LACKING: &[(&str, &str)] = &[
    (
        "stripe-ruby-mock/charge.dispute.closed.json",
        "`id` of the dispute is missing",
    ),
    (
        "stripe-ruby-mock/charge.dispute.updated.json",
        "`id` of the dispute is missing",
    ),
];

/// Every event in a file: the file is one, or a list of them.
fn events(text: &str) -> Vec<Value> {
    let value: Value = serde_json::from_str(text).unwrap();
    let listed = value
        .as_array()
        .or_else(|| value["data"].as_array())
        .cloned();
    let mut events = listed.unwrap_or_else(|| vec![value]);
    events.retain(|event| event["type"].is_string() && event["data"]["object"].is_object());
    events
}

fn files(stripe: &Path) -> Vec<(String, String)> {
    let index = std::fs::read_to_string(stripe.join("INDEX.tsv")).unwrap();
    let mut files = Vec::new();
    for line in index.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        if matches!(columns[6], "webhook-event" | "event-list") {
            let text = std::fs::read_to_string(stripe.join(columns[0])).unwrap();
            files.push((columns[0].to_owned(), text));
        }
    }
    files
}

#[tokio::test]
async fn every_recorded_event_is_kept_and_applied_where_it_can_be() {
    let Some(folder) = fixtures_dir() else {
        progress_to_stderr("skipped: there is no ../shared/fixtures beside this checkout");
        return;
    };
    let webhook = Webhook::start(1).await;
    let mut delivered = 0_i64;
    let mut problems = Vec::new();
    let mut people = std::collections::BTreeSet::new();
    for (file, text) in files(&folder.join("stripe")) {
        for (position, mut event) in events(&text).into_iter().enumerate() {
            // Recorded under one placeholder id; two events need two.
            event["id"] = json!(format!("evt_{}_{position}", file.replace(['/', '.'], "_")));
            let (status, answer) = bundle::deliver(&webhook.sandbox(0), event.to_string()).await;
            delivered += 1;
            // Names such as "gold" are words of everybody's.
            let texts = logs::personal_texts(&event).into_iter();
            people.extend(texts.filter(|text| text.len() > 8));
            let lacks = LACKING.iter().find(|(lacking, _)| *lacking == file);
            let outcome = answer["outcome"].as_str().unwrap_or_default();
            let is_right = match lacks {
                Some((_, what)) if outcome == "parked" => {
                    let id = event["id"].as_str().unwrap();
                    webhook.parked_because(id).await.contains(what)
                }
                Some(_) => false,
                None => matches!(outcome, "applied" | "ignored"),
            };
            if status != 200 || !is_right {
                problems.push(format!(
                    "{file}: {} answered {status} {answer}",
                    event["type"]
                ));
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(delivered > 200, "only {delivered} events were found");
    let db = webhook.database.client().await;
    let kept: i64 = db
        .query_one("SELECT count(*) FROM stripe_events", &[])
        .await
        .unwrap()
        .get(0);
    let parked = i64::try_from(LACKING.len()).unwrap();
    assert_eq!(
        kept,
        delivered - parked,
        "an event was answered 200 and is nowhere"
    );
    assert!(people.len() > 20, "the recorded events hold people");
    logs::assert_free_of(people);
}
