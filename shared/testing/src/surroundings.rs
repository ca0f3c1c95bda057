//! What a function under test runs on: a database, AWS, and the variables that name them.

use aws_types::SdkConfig;
use runtime::config::Environment;

use crate::{Aws, TestDatabase};

/// A database, bucket, bus and table of parked events that no other test uses, and the variables that name them.
#[derive(Debug)]
pub struct Surroundings {
    pub database: TestDatabase,
    pub aws: SdkConfig,
    pairs: Vec<(&'static str, String)>,
}

impl Surroundings {
    /// Makes them. `more` are variables besides `DATABASE_URL`, `PARKED_EVENTS_TABLE`, `DOCUMENT_BUCKET`,
    /// `EVENT_BUS_NAME` and `STRIPE_LIVEMODE` (`any`).
    ///
    /// # Panics
    /// When Postgres or moto cannot be started, or moto refuses.
    pub async fn new(more: impl IntoIterator<Item = (&'static str, String)>) -> Surroundings {
        let moto = Aws::shared().await;
        let database = TestDatabase::create().await;
        let mut pairs = vec![
            ("DATABASE_URL", database.url.clone()),
            ("PARKED_EVENTS_TABLE", moto.parked_events_table().await),
            ("DOCUMENT_BUCKET", moto.bucket().await),
            ("EVENT_BUS_NAME", moto.event_bus().await),
            // Samples and the fake Stripe are of the test mode.
            ("STRIPE_LIVEMODE", "any".to_owned()),
        ];
        pairs.extend(more);
        Surroundings {
            database,
            aws: moto.sdk_config(),
            pairs,
        }
    }

    /// The variables, some of them with other values.
    #[must_use]
    pub fn environment(&self, others: &[(&'static str, &str)]) -> Environment {
        let pairs = self.pairs.iter();
        let ours = pairs.map(|(name, value)| (*name, value.as_str()));
        Environment::from_pairs(ours.chain(others.iter().copied()))
    }

    /// The variables, for a separate process.
    #[must_use]
    pub fn pairs(&self) -> &[(&'static str, String)] {
        &self.pairs
    }

    /// The value of a variable.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        let pair = self.pairs.iter().find(|(other, _)| *other == name);
        let (_, value) = pair.unwrap_or_else(|| panic!("no variable {name}"));
        value
    }
}
