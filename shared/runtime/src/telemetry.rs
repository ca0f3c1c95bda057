//! Telemetry: JSON logs with ids but never people, one line per failure, and metrics as log lines.

use std::error::Error;
use std::sync::OnceLock;

use metrics_cloudwatch_embedded::Collector;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Environment;

/// The namespace of every metric in CloudWatch.
pub const METRICS_NAMESPACE: &str = "deedpro-billing";

static COLLECTOR: OnceLock<&'static Collector> = OnceLock::new();

/// Starts the logs (JSON lines on standard output, level by `RUST_LOG`, default `info`) and metrics of this process.
/// Called once by `main`; a second call, as from tests in one process, changes nothing.
pub fn init(environment: &Environment, function: &'static str) {
    let defaults = Targets::new().with_default(LevelFilter::INFO);
    let logs = tracing_subscriber::fmt::layer()
        .json()
        .with_target(true)
        .with_current_span(false)
        .with_span_list(true)
        .with_filter(log_filter(environment, defaults));
    if tracing_subscriber::registry()
        .with(logs)
        .try_init()
        .is_err()
    {
        return;
    }
    let metrics = metrics_cloudwatch_embedded::Builder::new()
        .cloudwatch_namespace(METRICS_NAMESPACE)
        .with_dimension("function", function)
        .init();
    match metrics {
        Ok(collector) => {
            COLLECTOR.get_or_init(|| collector);
        }
        Err(error) => tracing::warn!(%error, "metrics are not collected"),
    }
}

/// Which log lines are written: what `RUST_LOG` says (`info,shared=debug`), otherwise `defaults`. The connection pool
/// logs only errors, unless `RUST_LOG` names `deadpool`: it warns of a socket that died while the sandbox was frozen,
/// when it has already replaced it.
pub fn log_filter(environment: &Environment, defaults: Targets) -> Targets {
    const POOL: &str = "deadpool";
    let targets = environment
        .optional("RUST_LOG")
        .and_then(|directives| directives.parse().ok())
        .unwrap_or(defaults);
    let is_named = targets.iter().any(|(target, _)| target == POOL);
    if is_named || !targets.would_enable(POOL, &Level::WARN) {
        targets
    } else {
        targets.with_target(POOL, LevelFilter::ERROR)
    }
}

/// Writes the metrics since the last call as one line in embedded metric format. `main` calls it at the end of an
/// invocation: a frozen sandbox writes nothing.
pub fn flush_metrics() {
    if let Some(collector) = COLLECTOR.get()
        && let Err(error) = collector.flush(std::io::stdout())
    {
        tracing::warn!(%error, "metrics could not be written");
    }
}

/// The causes of an error down to the root, as `what: why: why that`. Each `Display` gives its own part only.
pub fn cause_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Logs a failure once, with its causes, at the boundary that handles it. Nothing below that logs.
pub fn log_failure(what: &'static str, error: &(dyn Error + 'static)) {
    metrics::counter!("failures").increment(1);
    tracing::error!(cause = %cause_chain(error), "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the invoice was not stored")]
    struct Outer(#[source] Inner);
    #[derive(Debug, thiserror::Error)]
    #[error("the database cannot be reached")]
    struct Inner(#[source] std::io::Error);

    #[test]
    fn the_pools_warnings_are_left_out_unless_somebody_asks_for_them() {
        let enabled = |directives: &str, target: &str, level: Level| {
            let environment = Environment::from_pairs([("RUST_LOG", directives)]);
            let defaults = Targets::new().with_default(LevelFilter::INFO);
            log_filter(&environment, defaults).would_enable(target, &level)
        };
        let pool = "deadpool.postgres";
        // Unset (as in the template), more of our crates, and unreadable.
        for directives in ["", "info", "debug", "info,shared=trace", "a=b=c"] {
            assert!(!enabled(directives, pool, Level::WARN), "{directives}");
            assert!(enabled(directives, pool, Level::ERROR), "{directives}");
            assert!(enabled(directives, "store", Level::INFO), "{directives}");
        }
        for directives in ["deadpool=info", "info,deadpool=debug"] {
            assert!(enabled(directives, pool, Level::WARN), "{directives}");
        }
        for directives in ["off", "shared=debug", "deadpool=off"] {
            assert!(!enabled(directives, pool, Level::ERROR), "{directives}");
        }
    }

    #[test]
    fn a_failure_is_told_to_its_root() {
        let root = std::io::Error::other("connection refused");
        assert_eq!(
            cause_chain(&Outer(Inner(root))),
            "the invoice was not stored: the database cannot be reached: connection refused"
        );
    }
}
