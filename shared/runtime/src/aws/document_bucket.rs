//! The S3 bucket with invoice PDFs, exports and reports.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::operation::create_multipart_upload::CreateMultipartUploadOutput;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption};
use aws_types::SdkConfig;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::Error;
use crate::config::{self, Environment};

const SERVICE: &str = "S3";
/// How long a link to a document works. The browser that asked for it follows it at once.
const LINK_WORKS_FOR: Duration = Duration::from_secs(10 * 60);

/// How often a document is offered while S3 says that another one is being stored under its key.
const OFFERS: u32 = 3;

/// The result of storing a document whose key is used once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The SHA-256 digest of the stored document, in hex.
    pub sha256: String,
    /// False when the document was already stored.
    pub is_new: bool,
}

/// Why a document was not stored under its key.
#[derive(Debug, thiserror::Error)]
pub enum PutOnceError {
    /// Another document is stored under the key, and stays.
    #[error("another document is stored under {key}")]
    Differs {
        /// The key of the document.
        key: String,
        /// The SHA-256 digest of the stored document, in hex.
        stored_sha256: String,
    },
    /// S3 is unavailable. Whether the document is stored shows when it is tried again.
    #[error(transparent)]
    Aws(#[from] Error),
}

/// The bucket, and the client that reaches it.
#[derive(Debug, Clone)]
pub struct DocumentBucket {
    client: aws_sdk_s3::Client,
    bucket: String,
}

impl DocumentBucket {
    /// The bucket with this name.
    pub fn new(client: aws_sdk_s3::Client, bucket: impl Into<String>) -> DocumentBucket {
        DocumentBucket {
            client,
            bucket: bucket.into(),
        }
    }

    /// The bucket that `DOCUMENT_BUCKET` names.
    pub fn from_env(
        environment: &Environment,
        sdk: &SdkConfig,
    ) -> Result<DocumentBucket, config::Error> {
        Ok(DocumentBucket::new(
            super::s3_client(sdk),
            environment.required("DOCUMENT_BUCKET")?,
        ))
    }

    /// Stores a document under its key, in place of an earlier one.
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

    /// Stores a PDF under a key that is used once: the first document stays whatever comes after, and the same one may
    /// come again. Encrypted at rest; a browser saves it under the last part of the key.
    pub async fn put_pdf_once(&self, key: &str, pdf: Vec<u8>) -> Result<Stored, PutOnceError> {
        let sha256 = hex::encode(Sha256::digest(&pdf));
        let filename = safe_filename(key.rsplit('/').next().unwrap_or(key));
        let mut offers_left = OFFERS;
        loop {
            let answer = self
                .client
                .put_object()
                .bucket(&self.bucket)
                .key(key)
                .if_none_match("*")
                .content_type("application/pdf")
                .content_disposition(attachment(&filename))
                .server_side_encryption(ServerSideEncryption::Aes256)
                .body(ByteStream::from(pdf.clone()))
                .send();
            let refused = match answer.await {
                Ok(_) => {
                    return Ok(Stored {
                        sha256,
                        is_new: true,
                    });
                }
                Err(error) => error,
            };
            offers_left -= 1;
            match refused.code() {
                // Also when our first attempt succeeded and its answer was lost.
                Some("PreconditionFailed") => break,
                Some("ConditionalRequestConflict") if offers_left > 0 => {}
                _ => return Err(Error::unavailable(SERVICE, refused).into()),
            }
        }
        let stored = self.get(key).await?.ok_or_else(|| Error::Unreadable {
            service: SERVICE,
            what: "a document that was there a moment ago".to_owned(),
        })?;
        let stored_sha256 = hex::encode(Sha256::digest(&stored));
        if stored_sha256 == sha256 {
            Ok(Stored {
                sha256,
                is_new: false,
            })
        } else {
            Err(PutOnceError::Differs {
                key: key.to_owned(),
                stored_sha256,
            })
        }
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

    /// A link from which anybody can download the document for ten minutes. The browser saves it under `filename`, in
    /// which anything but letters, digits, dots, hyphens and underscores becomes a hyphen. Does not ask S3: whoever
    /// follows the link finds out whether the document exists.
    pub async fn presigned_get(
        &self,
        key: &str,
        filename: &str,
        now: Timestamp,
    ) -> Result<String, Error> {
        let filename = safe_filename(filename);
        let presigning = PresigningConfig::builder()
            .start_time(SystemTime::from(now))
            .expires_in(LINK_WORKS_FOR)
            .build()
            .map_err(|error| Error::unavailable(SERVICE, error))?;
        let link = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .response_content_disposition(attachment(&filename))
            .presigned(presigning)
            .await
            .map_err(|error| Error::unavailable(SERVICE, error))?;
        Ok(link.uri().to_owned())
    }

    /// Starts a document that is uploaded in parts. It exists once the upload is complete.
    pub async fn begin_upload(&self, key: &str, content_type: &str) -> Result<Upload<'_>, Error> {
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .content_type(content_type)
            .send()
            .await
            .map_err(|error| Error::unavailable(SERVICE, error))?;
        Ok(Upload {
            bucket: self,
            key: key.to_owned(),
            begun,
            parts: Vec::new(),
        })
    }

    /// Whether the bucket exists and may be used.
    pub async fn check(&self) -> Result<(), Error> {
        let answer = self.client.head_bucket().bucket(&self.bucket).send();
        answer
            .await
            .map(drop)
            .map_err(|error| Error::unavailable(SERVICE, error))
    }
}

/// Anything but letters, digits, dots, hyphens and underscores becomes a hyphen.
fn safe_filename(filename: &str) -> String {
    let is_safe = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    filename
        .chars()
        .map(|letter| if is_safe(letter) { letter } else { '-' })
        .collect()
}

fn attachment(filename: &str) -> String {
    format!("attachment; filename=\"{filename}\"")
}

/// A document that is uploaded in parts. One that is neither completed nor aborted costs storage until the bucket's
/// lifecycle rule removes it.
#[derive(Debug)]
pub struct Upload<'a> {
    bucket: &'a DocumentBucket,
    key: String,
    begun: CreateMultipartUploadOutput,
    parts: Vec<CompletedPart>,
}

impl Upload<'_> {
    /// Uploads the next part: at least 5 MiB, except for the last one.
    pub async fn part(&mut self, body: Vec<u8>) -> Result<(), Error> {
        let number = i32::try_from(self.parts.len() + 1)
            .map_err(|error| Error::unavailable(SERVICE, error))?;
        let stored = self
            .bucket
            .client
            .upload_part()
            .bucket(&self.bucket.bucket)
            .key(&self.key)
            .set_upload_id(self.begun.upload_id.clone())
            .part_number(number)
            .body(ByteStream::from(body))
            .send()
            .await
            .map_err(|error| Error::unavailable(SERVICE, error))?;
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(stored.e_tag)
            .set_checksum_crc32(stored.checksum_crc32)
            .build();
        self.parts.push(part);
        Ok(())
    }

    /// Joins the parts to one document.
    pub async fn complete(self) -> Result<(), Error> {
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(self.parts))
            .build();
        self.bucket
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket.bucket)
            .key(&self.key)
            .set_upload_id(self.begun.upload_id)
            .multipart_upload(parts)
            .send()
            .await
            .map(drop)
            .map_err(|error| Error::unavailable(SERVICE, error))
    }

    /// Discards the parts uploaded so far.
    pub async fn abort(self) -> Result<(), Error> {
        self.bucket
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket.bucket)
            .key(&self.key)
            .set_upload_id(self.begun.upload_id)
            .send()
            .await
            .map(drop)
            .map_err(|error| Error::unavailable(SERVICE, error))
    }
}
