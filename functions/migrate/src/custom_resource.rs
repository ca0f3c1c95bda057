//! CloudFormation's custom-resource protocol: the deploy waits until it is answered under a pre-signed address.
//!
//! Source: <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requesttypes.html>.

use std::time::Duration;

use runtime::http_call::http_put;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The id of what this resource stands for. There is one schema, however often it changes: an id that changed would
/// make CloudFormation delete the one before.
const PHYSICAL_ID: &str = "deedpro-billing-schema";
/// An answer may have 4 KB in all.
const REASON_CHARS: usize = 1_000;
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// What the deploy asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Kind {
    Create,
    Update,
    Delete,
}

/// A request of CloudFormation. `Debug` leaves the address out: who has it can answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Request {
    #[serde(rename = "RequestType")]
    pub(crate) kind: Kind,
    #[serde(rename = "ResponseURL")]
    response_url: String,
    stack_id: String,
    request_id: String,
    logical_resource_id: String,
    physical_resource_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    physical_resource_id: &'a str,
    stack_id: &'a str,
    request_id: &'a str,
    logical_resource_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    version: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    address: Option<Address>,
}

/// What the template is told about a database that is up to date.
pub(crate) struct Done {
    /// The version of the schema.
    pub(crate) version: u32,
    /// Where the database is, when it has an address.
    pub(crate) address: Option<Address>,
}

/// Where the database is.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: String,
    pub(crate) name: String,
}

/// The answer did not get through: CloudFormation does not know the outcome of its request.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// CloudFormation's response address could not be reached.
    #[error("the deploy could not be told")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address of the request refused the answer.
    #[error("the deploy did not take the answer: {status}")]
    Refused { status: u16 },
}

/// Whether an invocation comes from CloudFormation.
pub(crate) fn is_request(event: &Value) -> bool {
    event.get("ResponseURL").is_some()
}

impl Request {
    pub(crate) fn read(event: Value) -> Result<Request, serde_json::Error> {
        serde_json::from_value(event)
    }

    /// Tells the deploy the schema's version and the database's address, or why there is none; tries again when nobody answers.
    pub(crate) async fn answer(&self, outcome: Result<Done, String>) -> Result<(), Unanswered> {
        let (status, reason, data) = match outcome {
            Ok(Done { version, address }) => {
                let version = version.to_string();
                ("SUCCESS", None, Some(Data { version, address }))
            }
            Err(reason) => ("FAILED", Some(short(&reason)), None),
        };
        let answer = Answer {
            status,
            reason,
            physical_resource_id: self.physical_resource_id.as_deref().unwrap_or(PHYSICAL_ID),
            stack_id: &self.stack_id,
            request_id: &self.request_id,
            logical_resource_id: &self.logical_resource_id,
            data,
        };
        let body = serde_json::to_string(&answer)
            .map_err(|error| Unanswered::Unreachable(Box::new(error)))?;
        let mut attempt = 1;
        loop {
            let failed = match http_put(&self.response_url, body.clone()).await {
                Ok(status) if status.is_success() => return Ok(()),
                Ok(status) => Unanswered::Refused {
                    status: status.as_u16(),
                },
                Err(error) => Unanswered::Unreachable(error),
            };
            if attempt == ATTEMPTS {
                return Err(failed);
            }
            tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt)).await;
            attempt += 1;
        }
    }
}

fn short(reason: &str) -> String {
    reason.chars().take(REASON_CHARS).collect()
}
