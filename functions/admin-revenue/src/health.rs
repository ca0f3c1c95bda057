//! `GET /admin/health`: whether the database, the bucket, the bus, the table and Stripe can be reached.
//!
//! It says `ok` or a word why not, and nothing of hosts, names or credentials. The causes are logged.

use std::error::Error as StdError;
use std::time::Duration;

use futures_util::future::join5;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use runtime::config;
use runtime::http_call::http_get;
use serde::Serialize;
use store::{Database, revenue_report};

use crate::Clients;

/// Longest time one check may take; they run side by side.
const TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// It answers with an error, or not at all.
    Unavailable,
    TimedOut,
    /// The deployment names none.
    NotConfigured,
}

#[derive(Serialize)]
struct Health {
    /// `ok` when every check is.
    status: &'static str,
    checks: Checks,
}

#[derive(Serialize)]
struct Checks {
    database: State,
    bucket: State,
    bus: State,
    table: State,
    stripe: State,
}

/// 200 when every check is `ok`, else 503 with the same body.
pub(crate) async fn get(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    Query::parse(request, &[])?;
    // Boxed: the SDK's futures are large, and five of them side by side would not fit a small stack.
    let (database, bucket, bus, table, stripe) = join5(
        Box::pin(check("database", ping(&app.database))),
        Box::pin(check("bucket", async {
            Ok(configured(&app.document_bucket)?.check().await?)
        })),
        Box::pin(check("bus", async {
            Ok(configured(&app.event_bus)?.check().await?)
        })),
        Box::pin(check("table", async {
            Ok(configured(&app.parked_events)?.check().await?)
        })),
        Box::pin(check("stripe", reach_stripe(&app.stripe_api_base))),
    )
    .await;
    let states = [database, bucket, bus, table, stripe];
    let is_ok = states.iter().all(|state| *state == State::Ok);
    let health = Health {
        status: if is_ok { "ok" } else { "degraded" },
        checks: Checks {
            database,
            bucket,
            bus,
            table,
            stripe,
        },
    };
    let status = if is_ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    api::json(status, &health)
}

type CheckError = Box<dyn StdError + Send + Sync>;

async fn check(name: &'static str, check: impl Future<Output = Result<(), CheckError>>) -> State {
    match tokio::time::timeout(TIMEOUT, check).await {
        Ok(Ok(())) => State::Ok,
        Ok(Err(error)) if error.is::<config::Error>() => {
            tracing::warn!(check = name, cause = %error, "a health check failed");
            State::NotConfigured
        }
        Ok(Err(error)) => {
            let cause = runtime::telemetry::cause_chain(error.as_ref());
            tracing::warn!(check = name, cause, "a health check failed");
            State::Unavailable
        }
        Err(_elapsed) => {
            tracing::warn!(check = name, "a health check took too long");
            State::TimedOut
        }
    }
}

fn configured<T>(resource: &Result<T, config::Error>) -> Result<&T, config::Error> {
    resource.as_ref().map_err(Clone::clone)
}

async fn ping(database: &Database) -> Result<(), CheckError> {
    let client = database.client().await?;
    Ok(revenue_report::ping(&**client).await?)
}

/// Any answer but a server error will do: nothing is asked for, no key is sent.
async fn reach_stripe(base: &str) -> Result<(), CheckError> {
    let (status, _) = http_get(&format!("{}/v1", base.trim_end_matches('/'))).await?;
    if status.is_server_error() {
        return Err(format!("Stripe answered {status}").into());
    }
    Ok(())
}
