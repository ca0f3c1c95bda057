//! Whose PDF it is, where it lies, and who may know.

use invoice_pdf::{App, routes};
use jiff::Timestamp;
use runtime::aws::document_bucket::DocumentBucket;
use runtime::config::Environment;
use runtime::http_call::http_get;
use serde_json::{Value, json};
use testing::access::{self, VIEWER_OR_PARTNER};
use testing::contract::Contract;
use testing::{Aws, TestDatabase, logs};

use crate::requests::{JWT_SECRET, admin, answer, app, bearer, body, partner, request};

const NOW: &str = "2026-11-22T00:00:00Z";

/// Invoices of Stripe's with and without a PDF there, a partner's, and one that another stands for.
const STORY: &str = "
    INSERT INTO invoices (id, invoice_number, stripe_invoice_id, kind, currency, total_cents, status, invoice_pdf_url,
        created_at)
        VALUES (7, 'INV-7', 'in_7', 'subscription', 'USD', 3000, 'paid', 'https://pay.example.test/in_7/pdf',
                '2025-10-01Z'),
               (8, 'INV-8', 'in_8', 'subscription', 'USD', 3000, 'open', NULL, '2025-11-01Z');
    INSERT INTO invoices (id, invoice_number, api_key_prefix, kind, currency, total_cents, amount_due_cents, status,
        created_at)
        VALUES (9, 'API-202510-dp_pk_alpha', 'dp_pk_alpha', 'partner', 'EUR', 12800, 12800, 'open', '2025-11-01Z');
    INSERT INTO invoices (id, invoice_number, stripe_invoice_id, superseded) VALUES (10, 'INV-7', 'in_10', true)";

fn now() -> Timestamp {
    NOW.parse().expect("an instant")
}

/// A ledger with the story, and the function over it without AWS.
async fn story() -> (TestDatabase, App) {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute(STORY).await.expect("rows");
    let app = app(&database.url, None, &[]);
    (database, app)
}

/// Status and problem.
async fn refusal(app: &App, path: &str, authorization: Option<&str>) -> (u16, Value) {
    let response = answer(app, request("GET", path, authorization), now()).await;
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    (response.status().as_u16(), body(&response))
}

#[tokio::test]
async fn a_pdf_is_ours_from_the_bucket_for_ten_minutes_or_stripes() {
    let aws = Aws::shared().await;
    let bucket_name = aws.bucket().await;
    let pairs = [("DOCUMENT_BUCKET", bucket_name.as_str())];
    let environment = Environment::from_pairs(pairs);
    let bucket = DocumentBucket::from_env(&environment, &aws.sdk_config()).unwrap();
    let key = "invoices/2025/API-202510-dp_pk_alpha.pdf";
    let stored = bucket.put(key, "application/pdf", b"%PDF-1.7".to_vec());
    stored.await.unwrap();
    let (database, _) = story().await;
    let noted = "UPDATE invoices SET pdf_key = $1 WHERE id IN (9, 8)";
    let client = database.client().await;
    client.execute(noted, &[&key]).await.unwrap();
    let app = app(&database.url, Some(aws), &pairs);
    let link = async |path: &str, authorization: &str| {
        let response = answer(&app, request("GET", path, Some(authorization)), now()).await;
        assert_eq!(response.status(), 302, "{path}");
        let link = response.headers()["location"].to_str();
        link.expect("a link").to_owned()
    };
    let ours = link("/admin/invoices/9/pdf", &admin(now())).await;
    assert!(ours.contains("X-Amz-Expires=600"), "{ours}");
    assert!(ours.contains("X-Amz-Date=20261122T000000Z"), "{ours}");
    assert!(
        ours.contains("attachment%3B%20filename%3D%22API-202510-dp_pk_alpha.pdf%22"),
        "{ours}"
    );
    let (status, pdf) = http_get(&ours).await.unwrap();
    assert_eq!(
        (status.as_u16(), pdf.as_ref()),
        (200, b"%PDF-1.7".as_slice())
    );
    let own = partner("dp_pk_alpha", now());
    assert_eq!(link("/admin/invoices/9/pdf", &own).await, ours);
    assert!(
        link("/admin/invoices/in_8/pdf", &admin(now()))
            .await
            .contains("INV-8.pdf"),
        "our own goes before Stripe's"
    );
    assert_eq!(
        link("/admin/invoices/7/pdf", &admin(now())).await,
        "https://pay.example.test/in_7/pdf"
    );
}

#[tokio::test]
async fn what_is_not_there_is_a_404_however_the_id_is_written() {
    let (_database, app) = story().await;
    for id in [
        "99",
        "10",
        "in_10",
        "in_99",
        "07",
        "7.0",
        "-7",
        "9223372036854775808",
        "INV-7",
        "in_%00",
        "7/pdf",
    ] {
        let path = format!("/admin/invoices/{id}/pdf");
        let (status, problem) = refusal(&app, &path, Some(&admin(now()))).await;
        assert_eq!(
            (status, &problem["code"]),
            (404, &json!("not_found")),
            "{id}"
        );
    }
}

#[tokio::test]
async fn only_an_admin_and_the_partner_whose_it_is_are_let_in() {
    let (_database, app) = story().await;
    let exp = now().as_second() + 60;
    let good = admin(now());
    let rows: Vec<(&str, Option<String>, u16)> = vec![
        ("no token", None, 401),
        ("garbage", Some("Bearer garbage".to_owned()), 401),
        ("another scheme", Some(good.replace("Bearer", "Basic")), 401),
        ("a signature too many", Some(format!("{good}x")), 401),
        (
            "the secret itself",
            Some(format!("Bearer {JWT_SECRET}")),
            401,
        ),
        (
            "expired",
            Some(bearer(&json!({"exp": now().as_second(), "role": "admin"}))),
            401,
        ),
        (
            "another role",
            Some(bearer(&json!({"exp": exp, "role": "owner"}))),
            403,
        ),
        ("another partner", Some(partner("dp_pk_beta", now())), 404),
        ("no partner", Some(partner("", now())), 403),
    ];
    for (what, token, expected) in &rows {
        let (status, _) = refusal(&app, "/admin/invoices/9/pdf", token.as_deref()).await;
        assert_eq!(status, *expected, "{what}");
    }
    let own = partner("dp_pk_alpha", now());
    let (status, _) = refusal(&app, "/admin/invoices/in_7/pdf", Some(&own)).await;
    assert_eq!(status, 404, "a user's is none of a partner's");
    let tokens = rows.iter().filter_map(|(_, token, _)| token.as_deref());
    logs::assert_free_of(
        tokens
            .filter_map(|token| token.split_once(' '))
            .map(|(_, token)| token),
    );
}

#[tokio::test]
async fn every_route_with_every_token() {
    let (_database, app) = story().await;
    let rows = [("GET /admin/invoices/{id}/pdf", VIEWER_OR_PARTNER)];
    let tokens = access::tokens(JWT_SECRET, "none here", "dp_pk_alpha", now());
    // This function takes no service tokens: the backend's is garbage to it.
    access::check(&routes().table(), &rows, &tokens, async |_, token| {
        let asked = request("GET", "/admin/invoices/99/pdf", token);
        answer(&app, asked, now()).await.status().as_u16()
    })
    .await;
}

#[test]
fn the_document_says_what_everything_is() {
    Contract::new(routes().document()).assert_complete();
}

#[tokio::test]
async fn a_parameter_it_does_not_know_and_another_method_are_refused() {
    let (_database, app) = story().await;
    let admin = admin(now());
    let (status, problem) = refusal(&app, "/admin/invoices/9/pdf?unknown=1", Some(&admin)).await;
    assert_eq!((status, &problem["field"]), (400, &json!("unknown")));
    let asked = request("POST", "/admin/invoices/9/pdf", Some(&admin));
    let response = answer(&app, asked, now()).await;
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "GET");
}
