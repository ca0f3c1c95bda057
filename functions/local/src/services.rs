//! What the functions stand on: the database, the AWS resources, the fake Stripe.

use crate::state::{DataDir, Secrets, State};
use crate::{Clock, Error};
use aws_types::SdkConfig;
use fake_stripe::delivery::Endpoint;
use fake_stripe::{Account, FakeStripe, Options, sample_account};
use jiff::Timestamp;
use runtime::config::Environment;
use runtime::telemetry::cause_chain;
use std::path::{Path, PathBuf};
use testing::services::{self, Moto, Postgres, Progress};
use testing::{aws, roles};
use tokio::net::TcpListener;
use tokio_postgres::NoTls;
use tokio_postgres::types::Type;

const DATABASE: &str = "billing";
const DOCUMENT_BUCKET: &str = "billing-documents";
const EVENT_BUS: &str = "billing";
/// Without what an env file would need quotes for twice: it is written there between single ones.
const INVOICE_ISSUER: &str = r##"{"name":"DeedPro Inc.","address":["500 Grand Avenue, Suite 1200","Los Angeles, CA 90071"],"tax_id":"US 12-3456789","email":"billing@deedpro.example","payment_instructions":{"wire":["First National Bank, routing 123456789, account 9876543210"],"check":["Payable to DeedPro Inc."],"ach":["Routing 123456789, account 9876543210"]}}"##;
const PARKED_EVENTS_TABLE: &str = "parked-events";

/// The running services; they stop when this value is dropped or this process ends.
#[derive(Debug)]
pub struct Services {
    postgres: Postgres,
    moto: Moto,
    stripe: FakeStripe,
    endpoint: Endpoint,
    secrets: Secrets,
}

/// Which account the fake Stripe serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// The sample's, as it was when it was first told here; from now on, when it never was.
    Told,
    /// The sample's when it was ever told here, else an empty one.
    Known,
}

impl Services {
    /// Starts what is not on the machine yet, and creates database, bucket, table and bus.
    ///
    /// # Errors
    /// When something is missing on this machine, or the data directory is in use.
    pub async fn start(
        data: &DataDir,
        webhook_url: &str,
        story: Story,
        clock: Clock,
    ) -> Result<Services, Error> {
        data.create()?;
        let cluster = data.path().join("postgres");
        // Both may take minutes the first time: side by side, and away from the runtime's threads.
        let postgres = tokio::task::spawn_blocking(move || Postgres::start(&cluster, PROGRESS));
        let moto = tokio::task::spawn_blocking(|| Moto::start(PROGRESS));
        let (postgres, moto) = tokio::join!(postgres, moto);
        let postgres = match postgres {
            Ok(Ok(postgres)) => Ok(postgres),
            Ok(Err(services::Error::InUse(_))) => Err(Error::new(format!(
                "another bundle is running on {}; choose another --port or --data-dir",
                data.path().display()
            ))),
            Ok(Err(error)) => Err(Error::because("cannot start Postgres", error)),
            Err(error) => Err(Error::because("starting Postgres broke off", error)),
        };
        let moto = match moto {
            Ok(Ok(moto)) => Ok(moto),
            Ok(Err(error)) => Err(Error::because("cannot start moto", error)),
            Err(error) => Err(Error::because("starting moto broke off", error)),
        };
        let (postgres, moto) = match (postgres, moto) {
            (Ok(postgres), Ok(moto)) => (postgres, moto),
            // Both may be missing something; then one error names both.
            (Err(one), Err(other)) => {
                let (one, other) = (cause_chain(&one), cause_chain(&other));
                return Err(Error::new(format!("{one}\nerror: {other}")));
            }
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => return Err(error),
        };
        let secrets = data.secrets()?;
        let anchor = match story {
            Story::Told => Some(data.anchor(clock())?),
            Story::Known => data.existing_anchor()?,
        };
        let endpoint = Endpoint {
            url: webhook_url.to_owned(),
            secret: secrets.webhook_secret.as_str().into(),
            is_thin: false,
        };
        // What happened to one account did not happen to the other.
        let journal = data.path().join(match anchor {
            Some(_) => "sample-account.jsonl",
            None => "empty-account.jsonl",
        });
        let stripe = start_stripe(anchor, journal, endpoint.clone(), clock)
            .await
            .map_err(|error| Error::because("cannot start the fake Stripe", error))?;
        let services = Services {
            postgres,
            moto,
            stripe,
            endpoint,
            secrets,
        };
        services.create_database().await?;
        services.create_resources().await?;
        Ok(services)
    }

    /// Postgres URL of the ledger's database.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.postgres.url(DATABASE)
    }

    /// Where Postgres keeps its files: below the data directory, unless its user cannot reach that.
    #[must_use]
    pub fn cluster_directory(&self) -> &Path {
        self.postgres.directory()
    }
    #[must_use]
    pub fn stripe(&self) -> &FakeStripe {
        &self.stripe
    }

    /// Where the fake Stripe sends its webhooks.
    #[must_use]
    pub fn webhook_endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What the AWS clients are made from.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        aws::sdk_config(self.moto.endpoint_url())
    }

    /// The functions' environment variables.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DATABASE_URL", self.database_url()),
            ("DATABASE_SSLMODE", "disable".to_owned()),
            (
                "STRIPE_WEBHOOK_SECRETS",
                self.secrets.webhook_secret.clone(),
            ),
            // The fake Stripe has test objects, as have the samples; a real test mode may be forwarded to it.
            ("STRIPE_LIVEMODE", "any".to_owned()),
            ("STRIPE_API_KEY", self.secrets.stripe_api_key.clone()),
            ("STRIPE_API_BASE", self.stripe.base_url()),
            ("PARKED_EVENTS_TABLE", PARKED_EVENTS_TABLE.to_owned()),
            ("DOCUMENT_BUCKET", DOCUMENT_BUCKET.to_owned()),
            ("EVENT_BUS_NAME", EVENT_BUS.to_owned()),
            ("INVOICE_ISSUER", INVOICE_ISSUER.to_owned()),
            ("ADMIN_JWT_SECRET", self.secrets.admin_jwt_secret.clone()),
            ("SERVICE_TOKENS", self.secrets.service_token.clone()),
            ("REPORTING_CURRENCY", "USD".to_owned()),
            ("AWS_ENDPOINT_URL", self.moto.endpoint_url().to_owned()),
            ("AWS_REGION", aws::REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", "local".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "local".to_owned()),
        ]
    }

    /// The same, as the functions read it.
    #[must_use]
    pub fn environment(&self) -> Environment {
        Environment::from_pairs(self.variables())
    }

    /// What `--json` prints and the sub-commands read.
    #[must_use]
    pub fn state(&self, base_url: String, admin_token: String) -> State {
        State {
            base_url,
            database_url: self.database_url(),
            aws_endpoint_url: self.moto.endpoint_url().to_owned(),
            stripe_api_base: self.stripe.base_url(),
            webhook_secret: self.secrets.webhook_secret.clone(),
            admin_token,
            admin_jwt_secret: self.secrets.admin_jwt_secret.clone(),
            service_token: self.secrets.service_token.clone(),
        }
    }

    async fn create_database(&self) -> Result<(), Error> {
        let client = connect(&self.postgres.url("postgres")).await?;
        let failed = |error| Error::because("cannot create the database", error);
        let there = client
            .query_typed(
                "SELECT 1 FROM pg_database WHERE datname = $1",
                &[(&DATABASE, Type::NAME)],
            )
            .await
            .map_err(failed)?;
        if there.is_empty() {
            client
                .batch_execute(&format!("CREATE DATABASE {DATABASE}"))
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Makes the functions' database roles, once the tables are there.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn make_roles(&self) -> Result<(), Error> {
        let url = self.database_url();
        let mut client = connect(&url).await?;
        roles::make(&mut client, &url)
            .await
            .map_err(|error| Error::because("cannot make the database's roles", error))
    }

    /// moto keeps nothing: every start begins with empty resources.
    async fn create_resources(&self) -> Result<(), Error> {
        let config = self.sdk_config();
        aws::create_bucket(&aws_sdk_s3::Client::new(&config), DOCUMENT_BUCKET)
            .await
            .map_err(|error| Error::because("cannot create the bucket", error))?;
        aws::create_parked_events_table(
            &aws_sdk_dynamodb::Client::new(&config),
            PARKED_EVENTS_TABLE,
        )
        .await
        .map_err(|error| Error::because("cannot create the table", error))?;
        aws::create_event_bus(&aws_sdk_eventbridge::Client::new(&config), EVENT_BUS)
            .await
            .map_err(|error| Error::because("cannot create the event bus", error))
    }
}

/// The account with what happened to it in earlier starts, open for more: at this time, under ids of
/// this start only.
async fn start_stripe(
    anchor: Option<Timestamp>,
    journal: PathBuf,
    endpoint: Endpoint,
    clock: Clock,
) -> std::io::Result<FakeStripe> {
    let now = clock();
    let mut account = match anchor {
        Some(anchor) => sample_account(anchor),
        None => Account::new("Empty", now),
    };
    account.set_now(now);
    account.set_prefix(&format!("Start{:x}", now.as_second()));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let options = Options {
        webhook: Some(endpoint),
        journal: Some(journal),
        ..Options::new(account, clock)
    };
    FakeStripe::start(listener, options)
}

const PROGRESS: Progress<'static> = &testing::services::progress_to_stderr;

/// A connection to a local database.
///
/// # Errors
/// When the server refuses it.
pub async fn connect(url: &str) -> Result<tokio_postgres::Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .map_err(|error| Error::because("cannot connect to the database", error))?;
    // It ends with the client; its errors reach the client's calls.
    drop(tokio::spawn(connection));
    Ok(client)
}
