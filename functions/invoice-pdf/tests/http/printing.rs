//! Invoices printed and stored by the first request for their PDF.

use futures_util::future::join_all;
use invoice_pdf::App;
use jiff::Timestamp;
use runtime::aws::document_bucket::DocumentBucket;
use runtime::config::Environment;
use runtime::http_call::http_get;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testing::{Aws, TestDatabase};

use crate::requests::{admin, answer, app, body, partner, request};

const NOW: &str = "2025-11-22T00:00:00Z";
const ISSUER: &str = r#"{"name": "DeedPro Inc.", "email": "billing@deedpro.example"}"#;

const STORY: &str = "
    INSERT INTO users (id, email, full_name) VALUES (3, 'z@example.test', 'Zoë');
    INSERT INTO api_partner_contracts (id, api_key_prefix, company, pricing_model, monthly_flat_fee_cents, currency,
        payment_method, payment_terms, contract_start_date, created_at)
        VALUES (5, 'dp_pk_alpha', 'Alpha Title', 'flat', 10000, 'EUR', 'wire', 'net_30', '2025-10-01', '2025-09-15Z');
    INSERT INTO invoices (id, invoice_number, kind, api_key_prefix, contract_id, currency, subtotal_cents, total_cents,
        amount_due_cents, status, line_items, billing_period_start, billing_period_end, due_date, finalized_at, created_at)
        VALUES (1, 'API-202510-dp_pk_alpha', 'partner', 'dp_pk_alpha', 5, 'EUR', 10000, 10000, 9000, 'open',
                '{\"items\": [{\"description\": \"Flat fee\", \"quantity\": 1, \"unit_price_cents\": 10000,
                  \"total_cents\": 10000}]}', '2025-10-01Z', '2025-11-01Z', '2025-12-01Z', '2025-11-01 00:05Z',
                '2025-11-01 00:05Z'),
               (2, 'API-202509-dp_pk_alpha', 'partner', 'dp_pk_alpha', NULL, 'EUR', 500, 500, 500, 'draft', NULL, NULL,
                NULL, NULL, NULL, '2025-10-01Z'),
               (3, 'API-202508-dp_pk_alpha', 'partner', 'dp_pk_alpha', NULL, 'EUR', 500, 500, 0, 'void', NULL, NULL, NULL,
                NULL, NULL, '2025-09-01Z');
    UPDATE invoices SET credit_applied_cents = 1000 WHERE id = 1;
    INSERT INTO credits (id, api_key_prefix, amount_cents, remaining_cents, currency, reason)
        VALUES (8, 'dp_pk_alpha', 1000, 0, 'EUR', 'goodwill');
    INSERT INTO credit_applications (credit_id, invoice_id, amount_cents) VALUES (8, 1, 1000);
    INSERT INTO invoices (id, invoice_number, kind, user_id, currency, subtotal_cents, total_cents, amount_paid_cents,
        status, line_items, created_at)
        VALUES (4, 'OVER 1/2025', 'overage', 3, 'USD', 500, 500, 500, 'paid',
                '{\"items\": [{\"description\": \"Deeds\", \"total_cents\": 500}]}', '2025-10-05Z');
    INSERT INTO invoices (id, invoice_number, stripe_invoice_id, kind, user_id, currency, total_cents, status,
        lines_complete, created_at)
        VALUES (6, 'in_6', 'in_6', 'subscription', 3, 'USD', 500, 'open', false, '2025-10-05Z'),
               (7, 'INV-7', 'in_7', 'subscription', 3, 'USD', 0, 'paid', true, '2025-10-05Z')";

struct Setting {
    app: App,
    bucket: DocumentBucket,
    database: TestDatabase,
    client: tokio_postgres::Client,
}

fn now() -> Timestamp {
    NOW.parse().expect("an instant")
}

async fn setting(more: &[(&str, &str)]) -> Setting {
    let aws = Aws::shared().await;
    let name = aws.bucket().await;
    let mut pairs = vec![
        ("DOCUMENT_BUCKET", name.as_str()),
        ("INVOICE_ISSUER", ISSUER),
    ];
    pairs.extend(more);
    let environment = Environment::from_pairs(pairs.iter().copied());
    let bucket = DocumentBucket::from_env(&environment, &aws.sdk_config()).expect("a bucket");
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute(STORY).await.expect("rows");
    Setting {
        app: app(&database.url, Some(aws), &pairs),
        bucket,
        database,
        client,
    }
}

impl Setting {
    /// Status, and the link or the problem's code.
    async fn ask(&self, path: &str, authorization: &str) -> (u16, String) {
        let response = answer(&self.app, request("GET", path, Some(authorization)), now()).await;
        let told = match response.headers().get("location") {
            Some(link) => link.to_str().expect("a link").to_owned(),
            None => body(&response)["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        };
        (response.status().as_u16(), told)
    }

    async fn noted(&self, id: i64) -> (Option<String>, Option<String>, Option<String>) {
        let sql = "SELECT pdf_key, pdf_sha256, invoice_pdf_url FROM invoices WHERE id = $1";
        let row = self.client.query_one(sql, &[&id]).await;
        let row = row.expect("a row");
        (row.get(0), row.get(1), row.get(2))
    }
}

/// What a reader finds in a PDF.
fn text_of(pdf: &[u8]) -> String {
    let document = lopdf::Document::load_mem(pdf).expect("a PDF");
    let pages: Vec<u32> = document.get_pages().into_keys().collect();
    let text = document.extract_text(&pages).expect("text");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_first_request_prints_stores_and_notes_and_later_ones_find_it() {
    let setting = setting(&[]).await;
    let partner = partner("dp_pk_alpha", now());
    let (status, link) = setting.ask("/admin/invoices/1/pdf", &partner).await;
    assert_eq!(status, 302);
    assert!(link.contains("X-Amz-Expires=600"), "{link}");
    assert!(link.contains("attachment%3B%20filename%3D%22API-202510-dp_pk_alpha.pdf%22"));
    let (status, pdf) = http_get(&link).await.unwrap();
    assert_eq!(status.as_u16(), 200);
    let text = text_of(&pdf);
    for expected in [
        "DeedPro Inc.",
        "Alpha Title",
        "API-202510-dp_pk_alpha",
        "Flat fee 1 €100.00 €100.00",
        "Credit: goodwill -€10.00",
        "Amount due €90.00",
        "How to pay: by wire transfer",
        "Oct 1 – Oct 31, 2025",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let key = "invoices/partner/2025/11/API-202510-dp_5fpk_5falpha.pdf";
    let (noted_key, sha256, url) = setting.noted(1).await;
    assert_eq!(noted_key.as_deref(), Some(key));
    assert_eq!(sha256, Some(hex::encode(Sha256::digest(&pdf))));
    assert_eq!(url.as_deref(), Some("/admin/invoices/1/pdf"));
    assert!(setting.bucket.get(key).await.unwrap().unwrap() == pdf);

    // Paid, voided, reworded: the PDF that went out stays.
    let changed =
        "UPDATE invoices SET status = 'void', amount_due_cents = 0, voided_at = now() WHERE id = 1";
    setting.client.batch_execute(changed).await.unwrap();
    let (status, again) = setting.ask("/admin/invoices/1/pdf", &admin(now())).await;
    assert_eq!((status, again), (302, link));
    assert!(setting.bucket.get(key).await.unwrap().unwrap() == pdf);
}

#[tokio::test]
async fn what_was_stored_and_not_noted_is_noted_as_it_is() {
    let setting = setting(&[]).await;
    let (_, link) = setting.ask("/admin/invoices/1/pdf", &admin(now())).await;
    let first = setting.noted(1).await;
    let (_, pdf) = http_get(&link).await.unwrap();
    // A run was cut off after it had stored the PDF; then something was paid.
    let cut_off = "UPDATE invoices SET pdf_key = NULL, pdf_sha256 = NULL, amount_paid_cents = 100,
                       amount_due_cents = 8900 WHERE id = 1";
    setting.client.batch_execute(cut_off).await.unwrap();
    let (status, again) = setting.ask("/admin/invoices/1/pdf", &admin(now())).await;
    assert_eq!(status, 302);
    assert!(http_get(&again).await.unwrap().1 == pdf);
    assert_eq!(setting.noted(1).await, first);
}

#[tokio::test]
async fn many_requests_at_once_are_one_document() {
    let setting = setting(&[]).await;
    let admin = admin(now());
    let asked = (0..6).map(|_| setting.ask("/admin/invoices/1/pdf", &admin));
    let answers = join_all(asked).await;
    let (status, link) = &answers[0];
    assert_eq!(*status, 302);
    assert!(
        answers.iter().all(|answer| answer == &answers[0]),
        "{answers:?}"
    );
    let (_, pdf) = http_get(link).await.unwrap();
    let (_, sha256, _) = setting.noted(1).await;
    assert_eq!(sha256, Some(hex::encode(Sha256::digest(&pdf))));
}

#[tokio::test]
async fn void_ones_and_users_own_are_printed_drafts_and_halves_are_not() {
    let setting = setting(&[]).await;
    let admin = admin(now());
    for (id, key, expected) in [
        (
            3,
            "invoices/partner/2025/09/API-202508-dp_5fpk_5falpha.pdf",
            "VOID",
        ),
        (
            4,
            "invoices/overage/2025/10/OVER_201_2f2025.pdf",
            "Zoë z@example.test",
        ),
        (
            7,
            "invoices/subscription/2025/10/INV-7.pdf",
            "There is nothing to be charged.",
        ),
    ] {
        let (status, _) = setting
            .ask(&format!("/admin/invoices/{id}/pdf"), &admin)
            .await;
        assert_eq!(status, 302, "{id}");
        let pdf = setting.bucket.get(key).await.unwrap();
        let text = text_of(&pdf.expect("a document"));
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let (_, _, url) = setting.noted(7).await;
    assert_eq!(url, None, "what Stripe says of its own stays");
    for (id, code) in [(2, "invoice_draft"), (6, "invoice_incomplete")] {
        let answer = setting
            .ask(&format!("/admin/invoices/{id}/pdf"), &admin)
            .await;
        assert_eq!(answer, (409, code.to_owned()));
        assert_eq!(setting.noted(id).await.0, None);
    }
}

#[tokio::test]
async fn the_logo_is_taken_from_the_bucket_and_has_to_be_there() {
    let issuer = r#"{"name": "DeedPro Inc.", "logo_key": "branding/logo.png"}"#;
    let setting = setting(&[("INVOICE_ISSUER", issuer)]).await;
    let admin = admin(now());
    let missing = setting.ask("/admin/invoices/1/pdf", &admin).await;
    assert_eq!(missing, (503, "not_configured".to_owned()));
    let mut logo = Vec::new();
    let mut encoder = png::Encoder::new(&mut logo, 1, 1);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[1, 2, 3]).unwrap();
    writer.finish().unwrap();
    let put = setting.bucket.put("branding/logo.png", "image/png", logo);
    put.await.unwrap();
    assert_eq!(setting.ask("/admin/invoices/1/pdf", &admin).await.0, 302);
}

#[tokio::test]
async fn without_s3_or_an_issuer_it_is_a_503_and_nothing_is_noted() {
    let setting = setting(&[]).await;
    let url = &setting.database.url;
    for (pairs, code) in [
        (
            vec![("DOCUMENT_BUCKET", "documents"), ("INVOICE_ISSUER", ISSUER)],
            "unavailable",
        ),
        (vec![("DOCUMENT_BUCKET", "documents")], "not_configured"),
        (
            vec![("DOCUMENT_BUCKET", "documents"), ("INVOICE_ISSUER", "{}")],
            "not_configured",
        ),
        (vec![("INVOICE_ISSUER", ISSUER)], "not_configured"),
    ] {
        // No AWS listens there.
        let app = app(url, None, &pairs);
        let asked = request("GET", "/admin/invoices/1/pdf", Some(&admin(now())));
        let response = answer(&app, asked, now()).await;
        let problem: Value = body(&response);
        assert_eq!(
            (response.status().as_u16(), &problem["code"]),
            (503, &json!(code))
        );
        assert_eq!(setting.noted(1).await, (None, None, None));
    }
}
