//! Puts one object to S3: signed by the SDK's signer, sent without the S3 SDK. The webhook does nothing else with S3,
//! and the SDK's model and checksum tables would be a tenth of its binary.

use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningParams,
    SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use http::{Request, StatusCode};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::http_client;
use crate::config::BoxError;

/// The longest time for one attempt; there are two.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Encodes a key as S3 does when it checks the signature: all but the unreserved characters and the slash.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Puts a JSON text under `key`. An object that is already there stays, which is no failure.
pub(super) async fn put_first(
    sdk: &SdkConfig,
    bucket: &str,
    key: &str,
    body: &str,
    now: Timestamp,
) -> Result<(), BoxError> {
    let client = http_client::client(Some(ATTEMPT_TIMEOUT))?;
    let mut attempt = 1;
    loop {
        let request = signed(sdk, bucket, key, body, now).await?;
        let answer = tokio::time::timeout(ATTEMPT_TIMEOUT, client.request(request)).await;
        let failure: BoxError = match answer {
            Ok(Ok(answer)) => match answer.status() {
                status if status.is_success() => return Ok(()),
                StatusCode::PRECONDITION_FAILED => return Ok(()),
                status if status.is_server_error() => format!("S3 answered {status}").into(),
                status => return Err(format!("S3 answered {status}").into()),
            },
            Ok(Err(error)) => error.into(),
            Err(elapsed) => elapsed.into(),
        };
        if attempt == 2 {
            return Err(failure);
        }
        attempt += 1;
    }
}

async fn signed(
    sdk: &SdkConfig,
    bucket: &str,
    key: &str,
    body: &str,
    now: Timestamp,
) -> Result<Request<SdkBody>, BoxError> {
    let region = sdk.region().ok_or("no region is configured")?.as_ref();
    let address = address(sdk, region, bucket, key);
    let credentials = sdk
        .credentials_provider()
        .ok_or("no credentials are configured")?;
    let identity = aws_sdk_dynamodb::config::ProvideCredentials::provide_credentials(&credentials)
        .await?
        .into();
    let mut settings = SigningSettings::default();
    // S3 encodes once, uses the path unchanged, and requires the body's digest.
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let params: SigningParams<'_> = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("s3")
        .time(SystemTime::from(now))
        .settings(settings)
        .build()?
        .into();
    let headers = [("content-type", "application/json"), ("if-none-match", "*")];
    let signable = SignableRequest::new(
        "PUT",
        address.as_str(),
        headers.into_iter(),
        SignableBody::Bytes(body.as_bytes()),
    )?;
    let (instructions, _signature) = sign(signable, &params)?.into_parts();
    let mut request = Request::put(&address);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut request = request.body(SdkBody::from(body))?;
    instructions.apply_to_request_http1x(&mut request);
    Ok(request)
}

/// Addresses the bucket by path when an endpoint is configured, as stand-ins for S3 require, and when its name does not
/// fit the certificate; otherwise by host name.
fn address(sdk: &SdkConfig, region: &str, bucket: &str, key: &str) -> String {
    let key = utf8_percent_encode(key, ENCODED);
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    match sdk.endpoint_url() {
        Some(endpoint) => format!("{}/{bucket}/{key}", endpoint.trim_end_matches('/')),
        None if bucket.contains('.') => {
            format!("https://s3.{region}.amazonaws.com{suffix}/{bucket}/{key}")
        }
        None => format!("https://{bucket}.s3.{region}.amazonaws.com{suffix}/{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[tokio::test]
    async fn a_request_carries_its_signature_and_never_the_key() {
        let environment = Environment::from_pairs([
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "hush"),
            ("AWS_SESSION_TOKEN", "session"),
        ]);
        let sdk = super::super::sdk_config(&environment);
        let now = Timestamp::from_second(1_780_000_000).unwrap();
        let request = signed(&sdk, "documents", "parked/evt 1.json", "{}", now)
            .await
            .unwrap();
        assert_eq!(
            request.uri().to_string(),
            "https://documents.s3.eu-central-1.amazonaws.com/parked/evt%201.json"
        );
        let header = |name: &str| request.headers()[name].to_str().unwrap();
        assert!(header("authorization").starts_with(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260528/eu-central-1/s3/aws4_request, \
             SignedHeaders=content-type;host;if-none-match;x-amz-content-sha256;x-amz-date;"
        ));
        // The digest of `{}`.
        assert_eq!(
            header("x-amz-content-sha256"),
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        assert_eq!(header("x-amz-security-token"), "session");
        assert_eq!(header("if-none-match"), "*");
    }
}
