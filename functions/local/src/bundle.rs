//! Every function of the bundle in this process: the one file that knows their crates.

use crate::gateway;
use crate::sandboxes::Sandboxes;
use aws_types::SdkConfig;
use jiff::Timestamp;
use runtime::config::{self, Environment};
use runtime::telemetry::cause_chain;
use serde_json::Value;
use testing::roles::as_function;

/// One route of the HTTP API and the function behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Name of the function, as in the deployment template.
    pub function: &'static str,
    /// HTTP method in capitals.
    pub method: String,
    /// The path with `{param}` segments, as in the deployment template.
    pub path: String,
}

/// Why an invocation failed, as the Invoke API reports it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// There is no function of that name.
    #[error("function not found: {0}")]
    NoSuchFunction(String),
    /// The function failed, or its configuration is not complete.
    #[error("{0}")]
    Failed(String),
}

fn failed(error: impl std::error::Error + 'static) -> InvokeError {
    InvokeError::Failed(cause_chain(&error))
}

/// The functions, ready to be invoked.
#[derive(Debug)]
pub struct Bundle {
    webhook: Sandboxes<webhook::App, config::Error>,
    admin_revenue: Sandboxes<admin_revenue::App, config::Error>,
    usage: Sandboxes<usage::App, config::Error>,
    partner_invoicing: Sandboxes<partner_invoicing::App, config::Error>,
    invoice_pdf: Sandboxes<invoice_pdf::App, config::Error>,
    reconciliation: Sandboxes<reconciliation::App, config::Error>,
    migrate: Sandboxes<migrate::App, config::Error>,
}

impl Bundle {
    /// The functions with this configuration, each with its role where the database is one of this machine's.
    ///
    /// # Errors
    /// When a function's configuration is not complete.
    pub fn new(environment: &Environment, aws: &SdkConfig) -> Result<Bundle, config::Error> {
        let of = |function| as_function(function, environment);
        Ok(Bundle {
            webhook: sandboxes(&of("webhook"), aws, webhook::App::from_env)?,
            admin_revenue: sandboxes(&of("admin-revenue"), aws, admin_revenue::App::from_env)?,
            usage: sandboxes(&of("usage"), aws, usage::App::from_env)?,
            partner_invoicing: sandboxes(
                &of("partner-invoicing"),
                aws,
                partner_invoicing::App::from_env,
            )?,
            invoice_pdf: sandboxes(&of("invoice-pdf"), aws, invoice_pdf::App::from_env)?,
            reconciliation: sandboxes(&of("reconciliation"), aws, reconciliation::App::from_env)?,
            migrate: sandboxes(environment, aws, migrate::App::from_env)?,
        })
    }

    /// Names of all functions.
    pub const FUNCTIONS: [&str; 7] = [
        "webhook",
        "admin-revenue",
        "usage",
        "partner-invoicing",
        "invoice-pdf",
        "reconciliation",
        "migrate",
    ];

    /// Every route of every function.
    #[must_use]
    pub fn routes() -> Vec<Route> {
        let tables = [
            ("webhook", webhook::routes().table()),
            ("usage", usage::routes().table()),
            ("admin-revenue", admin_revenue::routes().table()),
            ("invoice-pdf", invoice_pdf::routes().table()),
        ];
        tables
            .into_iter()
            .flat_map(|(function, table)| {
                table.into_iter().map(move |route| Route {
                    function,
                    method: route.method.to_string(),
                    path: route.path,
                })
            })
            .collect()
    }

    /// Invokes `function` with `event`, as the Lambda service does: JSON in, JSON out.
    ///
    /// HTTP functions take and answer what API Gateway (payload format 2.0) sends and expects; the webhook also takes
    /// Stripe's events in EventBridge's envelope. The scheduled functions take the event's own `time` for now, so that
    /// yesterday's event repeats what was done yesterday.
    ///
    /// # Errors
    /// When there is no such function, its configuration is not complete, or it fails.
    pub async fn invoke(
        &self,
        function: &str,
        event: Value,
        now: Timestamp,
    ) -> Result<Value, InvokeError> {
        match function {
            "webhook" => {
                let app = self.webhook.lease().await.map_err(failed)?;
                if webhook::is_partner_event(&event) {
                    let answer = webhook::handle_partner_event(&app, event, now).await;
                    return answer.map_err(failed);
                }
                let request = gateway::request(&event).map_err(failed)?;
                Ok(gateway::response(webhook::handle(&app, request, now).await))
            }
            "admin-revenue" => {
                let app = self.admin_revenue.lease().await.map_err(failed)?;
                let request = gateway::request(&event).map_err(failed)?;
                Ok(gateway::response(
                    admin_revenue::handle(&app, request, now).await,
                ))
            }
            "usage" => {
                let app = self.usage.lease().await.map_err(failed)?;
                let request = gateway::request(&event).map_err(failed)?;
                Ok(gateway::response(usage::handle(&app, request, now).await))
            }
            "invoice-pdf" => {
                let app = self.invoice_pdf.lease().await.map_err(failed)?;
                let request = gateway::request(&event).map_err(failed)?;
                Ok(gateway::response(
                    invoice_pdf::handle(&app, request, now).await,
                ))
            }
            "partner-invoicing" => {
                let app = self.partner_invoicing.lease().await.map_err(failed)?;
                let now = time_of(&event).unwrap_or(now);
                partner_invoicing::handle(&app, event, now)
                    .await
                    .map_err(failed)
            }
            "reconciliation" => {
                let app = self.reconciliation.lease().await.map_err(failed)?;
                let now = time_of(&event).unwrap_or(now);
                reconciliation::handle(&app, event, now)
                    .await
                    .map_err(failed)
            }
            "migrate" => {
                let app = self.migrate.lease().await.map_err(failed)?;
                migrate::handle(&app, event, now).await.map_err(failed)
            }
            other => Err(InvokeError::NoSuchFunction(other.to_owned())),
        }
    }
}

fn sandboxes<App: 'static>(
    environment: &Environment,
    aws: &SdkConfig,
    from_env: fn(&Environment, &SdkConfig) -> Result<App, config::Error>,
) -> Result<Sandboxes<App, config::Error>, config::Error> {
    let (environment, aws) = (environment.clone(), aws.clone());
    Sandboxes::new(move || from_env(&environment, &aws))
}

/// The `time` of a scheduled event.
fn time_of(event: &Value) -> Option<Timestamp> {
    event.get("time")?.as_str()?.parse().ok()
}
