//! The client of Stripe's API against the fake Stripe, and against a server that answers nonsense.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_types::SdkConfig;
use fake_stripe::account::Account;
use fake_stripe::objects::Metadata;
use fake_stripe::{FakeStripe, Fault, Options};
use jiff::Timestamp;
use runtime::config::Environment;
use serde_json::{Map, Value, json};
use stripe::client::{Client, Error, IdempotencyKey, Patience};
use testing::logs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const KEY: &str = "rk_test_NeverToBeSeen";
const ATTEMPTS: u32 = 3;

fn noon() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().expect("an instant")
}

fn client_with_key(base: &str, key: &str) -> Client {
    logs::capture();
    let environment = Environment::from_pairs([
        ("STRIPE_API_BASE", base),
        ("STRIPE_API_KEY", key),
        ("STRIPE_LIVEMODE", "any"),
    ]);
    let client = Client::from_env(&environment, &SdkConfig::builder().build());
    client.expect("a client").with_patience(Patience {
        timeout: Duration::from_secs(20),
        attempts: ATTEMPTS,
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_secs(5),
    })
}

fn client(stripe: &FakeStripe) -> Client {
    client_with_key(&stripe.base_url(), KEY)
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port")
}

/// A Stripe with that many customers that takes one key only.
async fn stripe(customers: usize) -> FakeStripe {
    let mut account = Account::new("Client", noon());
    for _ in 0..customers {
        account.create_customer(None, None, Metadata::new());
    }
    let mut options = Options::new(account, noon);
    options.api_key = Some(KEY.to_owned());
    FakeStripe::start(listener().await, options).expect("a fake Stripe")
}

async fn first_customer(client: &Client) -> Result<String, Error> {
    let page = client.list(&["customers"], &Map::new(), noon()).await?;
    Ok(page.data[0]["id"].as_str().expect("an id").to_owned())
}

fn fault(status: u16, retry_after: Option<u32>, times: u32) -> Fault {
    Fault::Status {
        status,
        retry_after,
        path: String::new(),
        times,
    }
}

fn idempotency_key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text).expect("a key")
}

/// A server that answers each connection with `answer` as it stands and closes it; counts them.
async fn nonsense(answer: &'static str) -> (String, Arc<AtomicU64>) {
    let listener = listener().await;
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            if socket.read(&mut request).await.is_ok() {
                // The client may have gone.
                drop(socket.write_all(answer.as_bytes()).await);
            }
        }
    });
    (base, count)
}

#[tokio::test]
async fn an_object_is_retrieved_as_it_is_with_what_is_expanded() {
    let stripe = stripe(1).await;
    let client = client(&stripe);
    let id = first_customer(&client).await.expect("a customer");
    let customer = client.retrieve(&["customers", &id], &[], noon()).await;
    assert_eq!(customer.expect("the customer")["id"], id.as_str());
    let intent = stripe
        .with_account(|account| {
            use fake_stripe::payments::Outcome;
            account.pay_once(&id, 900, "usd", Outcome::Succeeds)
        })
        .expect("a payment");
    let path = ["payment_intents", intent.as_str()];
    let plain = client.retrieve(&path, &[], noon()).await.expect("it");
    assert!(plain["latest_charge"].is_string(), "{plain}");
    let expanded = client.retrieve(&path, &["latest_charge"], noon()).await;
    assert_eq!(expanded.expect("it")["latest_charge"]["amount"], 900);
    client.check(noon()).await.expect("a Stripe");
}

#[tokio::test]
async fn paging_returns_each_object_once_and_never_a_part_for_the_whole() {
    let stripe = stripe(250).await;
    let client = client(&stripe);
    let mut pages = client.pages(&["customers"], Map::new(), 3, noon());
    let mut ids = Vec::new();
    while let Some(page) = pages.next_page().await.expect("a page") {
        ids.extend(page.iter().map(|one| one["id"].as_str().map(str::to_owned)));
    }
    assert_eq!((ids.len(), stripe.requests()), (250, 3));
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 250);
    assert!(pages.next_page().await.expect("the end").is_none());

    let mut pages = client.pages(&["customers"], Map::new(), 2, noon());
    for _ in 0..2 {
        let page = pages.next_page().await.expect("a page");
        assert_eq!(page.map(|page| page.len()), Some(100));
    }
    let Err(Error::MorePages { after }) = pages.next_page().await else {
        panic!("a part was taken for the whole");
    };
    let mut params = Map::new();
    params.insert("starting_after".to_owned(), after.into());
    let mut pages = client.pages(&["customers"], params, 1, noon());
    let rest = pages.next_page().await.expect("a page").expect("objects");
    assert_eq!(rest.len(), 50);
    assert_eq!(rest[49]["id"].as_str().map(str::to_owned), ids[249]);
}

#[tokio::test]
async fn a_page_that_failed_is_asked_for_again() {
    let stripe = stripe(150).await;
    let client = client(&stripe);
    let mut pages = client.pages(&["customers"], Map::new(), 9, noon());
    assert!(pages.next_page().await.expect("a page").is_some());
    stripe.inject(fault(500, None, ATTEMPTS));
    let failed = pages.next_page().await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    let page = pages.next_page().await.expect("a page");
    assert_eq!(page.map(|page| page.len()), Some(50));
}

#[tokio::test]
async fn an_object_stripe_does_not_have_is_not_found_and_asked_for_once() {
    let stripe = stripe(0).await;
    let error = client(&stripe)
        .retrieve(&["invoices", "in_gone"], &[], noon())
        .await;
    let Err(Error::NotFound { path }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        (path.as_str(), stripe.requests()),
        ("/v1/invoices/in_gone", 1)
    );
}

#[tokio::test]
async fn a_refused_request_names_its_parameter() {
    let stripe = stripe(0).await;
    let mut params = Map::new();
    params.insert("limit".to_owned(), 1_000.into());
    let error = client(&stripe).list(&["charges"], &params, noon()).await;
    let Err(Error::Invalid { param, .. }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(param.as_deref(), Some("limit"));
    assert_eq!(stripe.requests(), 1);
}

#[tokio::test]
async fn a_wrong_key_is_unauthorized_and_during_a_rotation_every_key_is_tried() {
    let stripe = stripe(1).await;
    let wrong = client_with_key(&stripe.base_url(), "rk_test_wrong");
    let error = first_customer(&wrong).await;
    assert!(
        matches!(error, Err(Error::Unauthorized { .. })),
        "{error:?}"
    );
    assert_eq!(stripe.requests(), 1);
    let both = client_with_key(
        &stripe.base_url(),
        &json!(["rk_test_wrong", KEY]).to_string(),
    );
    first_customer(&both).await.expect("the second key");
    let none = client_with_key(&stripe.base_url(), "");
    let error = first_customer(&none).await;
    assert!(matches!(error, Err(Error::NoKey(_))), "{error:?}");
}

#[tokio::test]
async fn a_limited_request_waits_as_long_as_stripe_says() {
    let stripe = stripe(1).await;
    let client = client(&stripe);
    stripe.inject(fault(429, Some(1), 1));
    let begun = Instant::now();
    first_customer(&client).await.expect("a customer");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(stripe.requests(), 2);

    // Longer than anybody waits: said at once.
    stripe.inject(fault(429, Some(3_600), 1));
    let Err(Error::RateLimited { retry_after }) = first_customer(&client).await else {
        panic!("it waited");
    };
    assert_eq!(retry_after, Some(Duration::from_secs(3_600)));
    assert_eq!(stripe.requests(), 3);

    stripe.inject(fault(429, None, ATTEMPTS));
    let error = first_customer(&client).await;
    assert!(matches!(error, Err(Error::RateLimited { .. })), "{error:?}");
    assert_eq!(stripe.requests(), 6);
}

#[tokio::test]
async fn a_server_error_is_retried_a_few_times_and_then_unavailable() {
    let stripe = stripe(1).await;
    let client = client(&stripe);
    stripe.inject(fault(500, None, ATTEMPTS - 1));
    first_customer(&client).await.expect("the last attempt");
    stripe.inject(fault(500, None, 100));
    let error = first_customer(&client).await.expect_err("no answer");
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(error.is_temporary());
    assert_eq!(stripe.requests(), u64::from(2 * ATTEMPTS));
}

#[tokio::test]
async fn every_attempt_of_every_clone_takes_its_turn() {
    let stripe = stripe(3).await;
    let per_second = NonZeroU32::new(50).expect("a rate");
    let client = client(&stripe).with_requests_per_second(per_second);
    let clone = client.clone();
    // Two of the attempts are refused for now and made again.
    stripe.inject(fault(429, None, 2));
    let start = Instant::now();
    for _ in 0..4 {
        let (one, other) = tokio::join!(first_customer(&client), first_customer(&clone));
        one.and(other).expect("a customer each");
    }
    // A pause is never shorter than it was to be, however busy the machine is.
    assert_eq!(stripe.requests(), 10);
    assert!(start.elapsed() >= 9 * Duration::from_millis(20));
}

#[tokio::test]
async fn an_answer_that_never_comes_is_waited_for_a_while_and_asked_for_again() {
    let stripe = stripe(1).await;
    let client = client(&stripe).with_patience(Patience {
        timeout: Duration::from_millis(300),
        attempts: ATTEMPTS,
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_secs(1),
    });
    let hang = |times| Fault::Hang {
        path: String::new(),
        times,
    };
    stripe.inject(hang(ATTEMPTS));
    let error = first_customer(&client).await;
    assert!(matches!(error, Err(Error::Unavailable(_))), "{error:?}");
    assert_eq!(stripe.requests(), u64::from(ATTEMPTS));
}

#[tokio::test]
async fn nobody_at_the_address_is_unavailable() {
    let gone = listener().await;
    let base = format!("http://{}", gone.local_addr().expect("an address"));
    drop(gone);
    let error = first_customer(&client_with_key(&base, KEY)).await;
    assert!(matches!(error, Err(Error::Unavailable(_))), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_is_cut_off_or_garbage_is_unreadable_after_the_retries() {
    const ANSWERS: [&str; 6] = [
        "HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"data\": [",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"data\": [",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n<html>504",
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull",
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\u{fffd}\u{1}",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{",
    ];
    for answer in ANSWERS {
        let (base, count) = nonsense(answer).await;
        let error = first_customer(&client_with_key(&base, KEY)).await;
        assert!(
            matches!(error, Err(Error::Unreadable(_))),
            "{answer}: {error:?}"
        );
        assert_eq!(
            count.load(Ordering::SeqCst),
            u64::from(ATTEMPTS),
            "{answer}"
        );
    }
    // A list that is none, and one that would go on for ever.
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 31\r\n\r\n{\"data\": [], \"has_more\": true  }",
    ] {
        let (base, _) = nonsense(answer).await;
        let client = client_with_key(&base, KEY);
        let mut pages = client.pages(&["charges"], Map::new(), 9, noon());
        let error = pages.next_page().await;
        assert!(matches!(error, Err(Error::Unreadable(_))), "{error:?}");
    }
    // Not HTTP at all.
    let (base, _) = nonsense("\u{1}\u{2}\u{3}\r\n\r\n").await;
    let error = first_customer(&client_with_key(&base, KEY)).await;
    assert!(matches!(error, Err(Error::Unavailable(_))), "{error:?}");
    // A 404 that is not Stripe's says nothing of the object.
    let (base, _) = nonsense("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope").await;
    let error = first_customer(&client_with_key(&base, KEY)).await;
    assert!(matches!(error, Err(Error::Unreadable(_))), "{error:?}");
}

#[tokio::test]
async fn a_post_with_the_same_key_changes_stripe_once() {
    let stripe = stripe(0).await;
    let client = client(&stripe);
    let form = json!({"email": "buyer@example.com", "metadata": {"user_id": "7"}});
    let key = idempotency_key("customer-7");
    stripe.inject(fault(500, None, 1));
    let first = client.post(&["customers"], &form, &key, noon()).await;
    let first = first.expect("a customer");
    assert_eq!(first["metadata"]["user_id"], "7");
    let again = client.post(&["customers"], &form, &key, noon()).await;
    assert_eq!(again.expect("the same customer"), first);
    let page = client.list(&["customers"], &Map::new(), noon()).await;
    assert_eq!(page.expect("a page").data.len(), 1);
    // The same key for something else is refused.
    let other = json!({"email": "other@example.com"});
    let error = client.post(&["customers"], &other, &key, noon()).await;
    let Err(Error::Invalid { code, .. }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(code.as_deref(), Some("idempotency_error"));
}

#[tokio::test]
async fn the_key_is_in_no_log_and_no_debug_text() {
    let stripe = stripe(1).await;
    let client = client(&stripe);
    let mut shown = format!(
        "{client:?}{:?}",
        client.pages(&["a"], Map::new(), 1, noon())
    );
    for (status, times) in [(500, 1), (500, ATTEMPTS), (429, ATTEMPTS), (402, 1)] {
        stripe.inject(fault(status, None, times));
        shown.push_str(&format!("{:?}", first_customer(&client).await));
    }
    let (base, _) = nonsense("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await;
    let error = first_customer(&client_with_key(&base, KEY)).await;
    shown.push_str(&format!("{error:?}"));
    let logs = logs::captured();
    assert!(logs.contains("Stripe is asked again"));
    assert!(!shown.contains("NeverToBeSeen"), "{shown}");
    assert!(!logs.contains("NeverToBeSeen"));
    // What a form says is nobody's business either.
    let form: Value = json!({"email": "secret-buyer@example.com"});
    stripe.inject(fault(500, None, 1));
    let posted = client
        .post(&["customers"], &form, &idempotency_key("quiet"), noon())
        .await;
    posted.expect("a customer");
    assert!(!logs::captured().contains("secret-buyer"));
}
