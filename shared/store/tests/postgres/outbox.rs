//! The outbox: written once, claimed by one, marked.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use store::outbox::{self, Message, NewMessage};
use testing::TestDatabase;

fn now() -> Timestamp {
    Timestamp::from_second(1_760_000_000).expect("an instant")
}

fn message(key: &str) -> NewMessage {
    NewMessage {
        detail_type: "payment.succeeded",
        dedupe_key: key.to_owned(),
        detail: json!({"event_id": key, "data": {"amount_cents": 100}}),
    }
}

fn keys(messages: &[Message]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| message.dedupe_key.as_str())
        .collect()
}

#[tokio::test]
async fn a_fact_learned_twice_is_one_message() {
    let database = TestDatabase::create().await;
    let db = database.client().await;
    let twice = [message("b"), message("a"), message("b")];
    let first = outbox::insert_all(&db, &twice, now()).await.unwrap();
    assert_eq!(keys(&first), ["b", "a"], "in the order given");
    assert!(first[0].id < first[1].id);
    assert_eq!(first[0].detail, message("b").detail);
    let second = outbox::insert_all(&db, &[message("a"), message("c")], now())
        .await
        .unwrap();
    assert_eq!(keys(&second), ["c"]);
    assert!(
        outbox::insert_all(&db, &[], now())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_message_is_claimed_by_one_sweep_until_its_minute_is_over() {
    let database = TestDatabase::create().await;
    let db = database.client().await;
    let all = [message("a"), message("b"), message("c")];
    outbox::insert_all(&db, &all, now()).await.unwrap();
    assert_eq!(
        keys(&outbox::claim(&db, 2, now()).await.unwrap()),
        ["a", "b"]
    );
    assert_eq!(keys(&outbox::claim(&db, 2, now()).await.unwrap()), ["c"]);
    assert!(outbox::claim(&db, 2, now()).await.unwrap().is_empty());
    // The claimers died: a minute later everything is due again.
    let later = now() + SignedDuration::from_secs(60);
    assert_eq!(
        keys(&outbox::claim(&db, 9, later).await.unwrap()),
        ["a", "b", "c"]
    );
}

#[tokio::test]
async fn two_sweeps_at_once_share_the_messages_without_waiting() {
    let database = TestDatabase::create().await;
    let (mut one, two) = (database.client().await, database.client().await);
    outbox::insert_all(&two, &[message("a"), message("b")], now())
        .await
        .unwrap();
    let held = one.transaction().await.unwrap();
    assert_eq!(keys(&outbox::claim(&held, 1, now()).await.unwrap()), ["a"]);
    assert_eq!(keys(&outbox::claim(&two, 9, now()).await.unwrap()), ["b"]);
    held.commit().await.unwrap();
}

#[tokio::test]
async fn what_is_published_is_not_claimed_again_and_what_failed_waits_longer_each_time() {
    let database = TestDatabase::create().await;
    let db = database.client().await;
    let messages = outbox::insert_all(&db, &[message("a"), message("b")], now())
        .await
        .unwrap();
    let (a, b) = (messages[0].id, messages[1].id);
    assert_eq!(outbox::mark_published(&db, &[a], now()).await.unwrap(), 1);
    assert_eq!(
        outbox::mark_published(&db, &[a], now()).await.unwrap(),
        0,
        "by another already"
    );
    let failure = |id| [(id, "ThrottlingException: slow down".to_owned())];
    assert_eq!(
        outbox::mark_failed(&db, &failure(a), now()).await.unwrap(),
        0
    );
    let mut at = now();
    for pause in [30, 60, 120] {
        assert_eq!(outbox::mark_failed(&db, &failure(b), at).await.unwrap(), 1);
        let early = at + SignedDuration::from_secs(pause - 1);
        assert!(outbox::claim(&db, 9, early).await.unwrap().is_empty());
        at += SignedDuration::from_secs(pause);
        let due = outbox::claim(&db, 9, at).await.unwrap();
        assert_eq!(keys(&due), ["b"], "after {pause} s");
    }
    let row = db
        .query_typed_one(
            "SELECT attempts, last_error FROM outbox WHERE dedupe_key = 'b'",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>("attempts"), 3);
    assert_eq!(
        row.get::<_, String>("last_error"),
        "ThrottlingException: slow down"
    );
}
