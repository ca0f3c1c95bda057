//! The S3 bucket of invoice PDFs, exports and reports.

use aws_sdk_s3::primitives::ByteStream;
use aws_types::SdkConfig;

use super::Error;
use crate::config::{self, Environment};

const SERVICE: &str = "S3";

/// The bucket, and the client to reach it.
#[derive(Debug, Clone)]
pub struct DocumentBucket {
    client: aws_sdk_s3::Client,
    bucket: String,
}

impl DocumentBucket {
    /// A bucket by name.
    pub fn new(client: aws_sdk_s3::Client, bucket: impl Into<String>) -> DocumentBucket {
        DocumentBucket {
            client,
            bucket: bucket.into(),
        }
    }

    /// The bucket `DOCUMENT_BUCKET`.
    pub fn from_env(
        environment: &Environment,
        sdk: &SdkConfig,
    ) -> Result<DocumentBucket, config::Error> {
        Ok(DocumentBucket::new(
            super::s3_client(sdk),
            environment.required("DOCUMENT_BUCKET")?,
        ))
    }

    /// Stores a document under its key; the same key is replaced.
    pub async fn put(&self, key: &str, content_type: &str, body: Vec<u8>) -> Result<(), Error> {
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(content_type)
            .body(ByteStream::from(body))
            .send()
            .await
            .map(drop)
            .map_err(|error| Error::unavailable(SERVICE, error))
    }

    /// The document under `key`, or `None` when there is none.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let answer = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .send();
        match answer.await {
            Ok(object) => {
                let body = object.body.collect().await;
                let body = body.map_err(|error| Error::unavailable(SERVICE, error))?;
                Ok(Some(body.to_vec()))
            }
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_no_such_key()) =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::unavailable(SERVICE, error)),
        }
    }

    /// Whether the bucket is there and may be used.
    pub async fn check(&self) -> Result<(), Error> {
        let answer = self.client.head_bucket().bucket(&self.bucket).send();
        answer
            .await
            .map(drop)
            .map_err(|error| Error::unavailable(SERVICE, error))
    }
}
