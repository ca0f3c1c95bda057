//! `GET /admin/health`: whether the database, the bucket, the bus, the table and Stripe can be reached.
//!
//! It says `ok` or a word why not, and nothing of hosts, names or credentials. The causes are logged.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use futures_util::future::join5;
use lambda_http::http::StatusCode;
use runtime::api::Error;
use runtime::api::extract::{Json, documented};
use runtime::config;
use runtime::http_call::http_get;
use runtime::time_limit;
use serde::Serialize;
use store::{Database, revenue_report};
use utoipa::openapi::RefOr;
use utoipa::{IntoResponses, ToSchema};

use crate::Clients;

const OK: &str = "ok";
/// Longest time one check may take; they run side by side.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Whether something can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reach {
    Ok,
    /// It answers with an error, or not at all.
    Unavailable,
    TimedOut,
    /// The deployment does not configure it.
    NotConfigured,
}

/// Whether everything that the figures need can be reached.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok` when every check is, else `degraded`.
    status: &'static str,
    checks: Checks,
}

/// The result of each check.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HealthChecks)]
pub(crate) struct Checks {
    database: Reach,
    bucket: Reach,
    bus: Reach,
    table: Reach,
    stripe: Reach,
}

/// 200 when every check is `ok`, else 503 with the same body.
#[derive(Debug)]
pub(crate) struct HealthAnswer(Health);

impl IntoResponse for HealthAnswer {
    fn into_response(self) -> axum::response::Response {
        let is_ok = self.0.status == OK;
        let mut response = Json(self.0).into_response();
        if !is_ok {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }
}

impl IntoResponses for HealthAnswer {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let mut responses = documented::<Health>(StatusCode::OK, Some("Every check is ok"));
        responses.extend(documented::<Health>(
            StatusCode::SERVICE_UNAVAILABLE,
            Some("A check is not ok"),
        ));
        responses
    }
}

/// Whether the database, the bucket, the bus, the table and Stripe can be reached.
#[utoipa::path(get, path = "/admin/health")]
pub(crate) async fn get(State(app): State<Arc<Clients>>) -> Result<HealthAnswer, Error> {
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
    let is_ok = states.iter().all(|state| *state == Reach::Ok);
    Ok(HealthAnswer(Health {
        status: if is_ok { OK } else { "degraded" },
        checks: Checks {
            database,
            bucket,
            bus,
            table,
            stripe,
        },
    }))
}

type CheckError = Box<dyn StdError + Send + Sync>;

async fn check(name: &'static str, check: impl Future<Output = Result<(), CheckError>>) -> Reach {
    match time_limit::within(TIMEOUT, check).await {
        Ok(Ok(())) => Reach::Ok,
        Ok(Err(error)) if error.is::<config::Error>() => {
            tracing::warn!(check = name, cause = %error, "a health check failed");
            Reach::NotConfigured
        }
        Ok(Err(error)) => {
            let cause = runtime::telemetry::cause_chain(error.as_ref());
            tracing::warn!(check = name, cause, "a health check failed");
            Reach::Unavailable
        }
        Err(given_up) => {
            given_up.stop().await;
            tracing::warn!(check = name, "a health check took too long");
            Reach::TimedOut
        }
    }
}

fn configured<T>(resource: &Result<T, config::Error>) -> Result<&T, config::Error> {
    resource.as_ref().map_err(Clone::clone)
}

async fn ping(database: &Database) -> Result<(), CheckError> {
    let client = database.client().await?;
    Ok(revenue_report::ping(&client).await?)
}

/// Any answer but a server error will do: nothing is asked for, no key is sent.
async fn reach_stripe(base: &str) -> Result<(), CheckError> {
    let (status, _) = http_get(&format!("{}/v1", base.trim_end_matches('/'))).await?;
    if status.is_server_error() {
        return Err(format!("Stripe answered {status}").into());
    }
    Ok(())
}
