//! PDFs under keys that are given out once, against moto, and with nothing listening.

use aws_sdk_s3::types::ServerSideEncryption;
use futures_util::future::join_all;
use hex::encode;
use runtime::aws::document_bucket::{DocumentBucket, PutOnceError};
use runtime::config::Environment;
use sha2::{Digest, Sha256};
use testing::Aws;

const KEY: &str = "invoices/partner/2025/11/API-202510-dp_5falpha.pdf";

#[tokio::test]
async fn the_first_document_under_a_key_stays() {
    let aws = Aws::shared().await;
    let name = aws.bucket().await;
    let environment = Environment::from_pairs([("DOCUMENT_BUCKET", name.as_str())]);
    let bucket = DocumentBucket::from_env(&environment, &aws.sdk_config()).unwrap();
    let first = bucket
        .put_pdf_once(KEY, b"%PDF first".to_vec())
        .await
        .unwrap();
    assert!(first.is_new);
    assert_eq!(first.sha256, encode(Sha256::digest(b"%PDF first")));
    let again = bucket
        .put_pdf_once(KEY, b"%PDF first".to_vec())
        .await
        .unwrap();
    assert_eq!((again.is_new, &again.sha256), (false, &first.sha256));
    let other = bucket.put_pdf_once(KEY, b"%PDF other".to_vec()).await;
    match other.unwrap_err() {
        PutOnceError::Differs { key, stored_sha256 } => {
            assert_eq!((key.as_str(), stored_sha256), (KEY, first.sha256));
        }
        PutOnceError::Aws(error) => panic!("{error}"),
    }
    assert_eq!(bucket.get(KEY).await.unwrap().unwrap(), b"%PDF first");
    let s3 = aws_sdk_s3::Client::new(&aws.sdk_config());
    let head = s3.head_object().bucket(&name).key(KEY).send();
    let head = head.await.unwrap();
    assert_eq!(head.content_type(), Some("application/pdf"));
    assert_eq!(
        head.content_disposition(),
        Some("attachment; filename=\"API-202510-dp_5falpha.pdf\"")
    );
    assert_eq!(
        head.server_side_encryption(),
        Some(&ServerSideEncryption::Aes256)
    );
}

#[tokio::test]
async fn the_same_document_may_come_many_times_at_once() {
    let aws = Aws::shared().await;
    let name = aws.bucket().await;
    let environment = Environment::from_pairs([("DOCUMENT_BUCKET", name.as_str())]);
    let bucket = DocumentBucket::from_env(&environment, &aws.sdk_config()).unwrap();
    let puts = (0..8).map(|_| bucket.put_pdf_once(KEY, b"%PDF".to_vec()));
    for stored in join_all(puts).await {
        assert_eq!(stored.unwrap().sha256, encode(Sha256::digest(b"%PDF")));
    }
}

#[tokio::test]
async fn a_bucket_that_is_away_says_so() {
    let environment = Environment::from_pairs([("DOCUMENT_BUCKET", "documents")]);
    let nowhere = testing::aws::sdk_config("http://127.0.0.1:1");
    let nowhere = runtime::aws::impatient(&nowhere);
    let bucket = DocumentBucket::from_env(&environment, &nowhere).unwrap();
    let stored = bucket.put_pdf_once(KEY, b"%PDF".to_vec()).await;
    assert!(matches!(stored.unwrap_err(), PutOnceError::Aws(_)));
}
