//! One moto server per test process, and uniquely named resources in it for each test.

use super::services::{Moto, progress_to_stderr};
use super::{logs, unique};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use aws_types::SdkConfig;
use runtime::config::Environment;
use std::sync::OnceLock;

/// The region of everything local.
pub const REGION: &str = "us-east-1";

/// The AWS of this test process.
#[derive(Debug)]
pub struct Aws {
    moto: Moto,
}

impl Aws {
    /// The one server of this process, started by the first test that asks.
    ///
    /// # Panics
    /// When moto cannot be started; the message says what to install.
    pub async fn shared() -> &'static Aws {
        static SHARED: OnceLock<Result<Aws, String>> = OnceLock::new();
        logs::capture();
        let start = || {
            SHARED.get_or_init(|| {
                Moto::start(&progress_to_stderr)
                    .map(|moto| Aws { moto })
                    .map_err(|error| error.to_string())
            })
        };
        match tokio::task::spawn_blocking(start).await {
            Ok(Ok(aws)) => aws,
            Ok(Err(problem)) => panic!("{problem}"),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// The address of moto, as in `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn endpoint_url(&self) -> &str {
        self.moto.endpoint_url()
    }

    /// What the SDK's clients are made from: this server, its region, throw-away credentials.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        sdk_config(self.endpoint_url())
    }

    /// A new empty bucket.
    ///
    /// # Panics
    /// When moto refuses.
    pub async fn bucket(&self) -> String {
        let name = unique("documents");
        let client = aws_sdk_s3::Client::new(&self.sdk_config());
        create_bucket(&client, &name)
            .await
            .unwrap_or_else(|error| panic!("cannot create a bucket: {error:?}"));
        name
    }

    /// A new empty table for parked events.
    ///
    /// # Panics
    /// When moto refuses.
    pub async fn parked_events_table(&self) -> String {
        let name = unique("parked-events");
        let client = aws_sdk_dynamodb::Client::new(&self.sdk_config());
        create_parked_events_table(&client, &name)
            .await
            .unwrap_or_else(|error| panic!("cannot create a table: {error:?}"));
        name
    }

    /// A new event bus.
    ///
    /// # Panics
    /// When moto refuses.
    pub async fn event_bus(&self) -> String {
        let name = unique("billing");
        let client = aws_sdk_eventbridge::Client::new(&self.sdk_config());
        create_event_bus(&client, &name)
            .await
            .unwrap_or_else(|error| panic!("cannot create an event bus: {error:?}"));
        name
    }

    /// A new secret with this text; returns its ARN.
    ///
    /// # Panics
    /// When moto refuses.
    pub async fn secret(&self, text: &str) -> String {
        let client = aws_sdk_secretsmanager::Client::new(&self.sdk_config());
        let secret = client.create_secret().name(unique("secret"));
        let created = secret.secret_string(text).send().await;
        let arn = created.map(|secret| secret.arn);
        arn.unwrap_or_else(|error| panic!("cannot create a secret: {error:?}"))
            .expect("an ARN")
    }
}

/// An SDK configuration for a local endpoint; one may also listen nowhere, to have AWS away.
#[must_use]
pub fn sdk_config(endpoint_url: &str) -> SdkConfig {
    runtime::aws::sdk_config(&Environment::from_pairs([
        ("AWS_REGION", REGION),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
        ("AWS_ENDPOINT_URL", endpoint_url),
    ]))
}

/// Creates the bucket `name`.
///
/// # Errors
/// What S3 answers, also when it is there already.
pub async fn create_bucket(s3: &aws_sdk_s3::Client, name: &str) -> Result<(), aws_sdk_s3::Error> {
    s3.create_bucket().bucket(name).send().await?;
    Ok(())
}

/// Creates the event bus `name`.
///
/// # Errors
/// What EventBridge answers, also when it is there already.
pub async fn create_event_bus(
    eventbridge: &aws_sdk_eventbridge::Client,
    name: &str,
) -> Result<(), aws_sdk_eventbridge::Error> {
    eventbridge.create_event_bus().name(name).send().await?;
    Ok(())
}

/// Creates the table of parked events as the deployment template does: key `event_id`, and the
/// sparse index `due` (constant `due` = "1", sorted by `next_attempt_at` in Unix seconds).
///
/// # Errors
/// What DynamoDB answers, also when it is there already.
pub async fn create_parked_events_table(
    dynamodb: &aws_sdk_dynamodb::Client,
    name: &str,
) -> Result<(), aws_sdk_dynamodb::Error> {
    let key = |name: &str, role: KeyType| {
        KeySchemaElement::builder()
            .attribute_name(name)
            .key_type(role)
            .build()
    };
    let attribute = |name: &str, kind: ScalarAttributeType| {
        AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(kind)
            .build()
    };
    let due = GlobalSecondaryIndex::builder()
        .index_name("due")
        .key_schema(key("due", KeyType::Hash)?)
        .key_schema(key("next_attempt_at", KeyType::Range)?)
        .projection(
            Projection::builder()
                .projection_type(ProjectionType::Include)
                .non_key_attributes("received_at")
                .build(),
        )
        .build()?;
    dynamodb
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute("event_id", ScalarAttributeType::S)?)
        .attribute_definitions(attribute("due", ScalarAttributeType::S)?)
        .attribute_definitions(attribute("next_attempt_at", ScalarAttributeType::N)?)
        .key_schema(key("event_id", KeyType::Hash)?)
        .global_secondary_indexes(due)
        .send()
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Aws;
    use aws_sdk_dynamodb::types::AttributeValue;

    #[tokio::test]
    async fn resources_are_there_and_empty() {
        let aws = Aws::shared().await;
        let (bucket, table, bus) =
            tokio::join!(aws.bucket(), aws.parked_events_table(), aws.event_bus());
        let config = aws.sdk_config();
        let objects = aws_sdk_s3::Client::new(&config)
            .list_objects_v2()
            .bucket(&bucket)
            .send()
            .await;
        assert_eq!(objects.expect("a list").key_count(), Some(0));
        let due = aws_sdk_dynamodb::Client::new(&config)
            .query()
            .table_name(&table)
            .index_name("due")
            .key_condition_expression("due = :due AND next_attempt_at <= :now")
            .expression_attribute_values(":due", AttributeValue::S("1".to_owned()))
            .expression_attribute_values(":now", AttributeValue::N("1".to_owned()))
            .send()
            .await;
        assert_eq!(due.expect("an answer").count(), 0);
        let described = aws_sdk_eventbridge::Client::new(&config)
            .describe_event_bus()
            .name(&bus)
            .send()
            .await;
        assert_eq!(described.expect("a bus").name(), Some(bus.as_str()));
    }
}
