//! A failed read is never a zero: sections that are null, and the list that says which and why.

use domain::{money, revenue::cohort, revenue::figures, revenue::mrr_bridge};
use runtime::{api, telemetry};
use serde::Serialize;
use utoipa::ToSchema;

/// A field that is null because it could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The member of the answer that is null.
    pub field: &'static str,
    /// For people, without the database's own words.
    pub reason: &'static str,
}

/// Why a section is null.
#[derive(Debug, thiserror::Error)]
pub enum SectionError {
    #[error("the figure could not be read")]
    Store(#[from] store::Error),
    #[error("the figure could not be computed")]
    Revenue(#[from] figures::Error),
    #[error("the figure could not be computed")]
    Bridge(#[from] mrr_bridge::Error),
    #[error("the figure could not be computed")]
    Cohort(#[from] cohort::Error),
    #[error("the figure could not be computed")]
    Money(#[from] money::Error),
    #[error("the figure could not be written")]
    Json(#[from] serde_json::Error),
    #[error("the parked events could not be read")]
    ParkedEvents(#[source] Box<runtime::aws::Error>),
    /// Something this section is made of failed and has been logged for the section it belongs to.
    #[error("a figure this one is made of could not be read")]
    DependsOn,
}

/// A part of a report, which fails by itself.
pub type Section<T> = Result<T, SectionError>;

impl From<SectionError> for api::Error {
    fn from(error: SectionError) -> api::Error {
        match error {
            SectionError::Store(error) => error.into(),
            SectionError::Revenue(_)
            | SectionError::Bridge(_)
            | SectionError::Cohort(_)
            | SectionError::Money(_)
            | SectionError::Json(_)
            | SectionError::ParkedEvents(_)
            | SectionError::DependsOn => api::Error::Internal(Box::new(error)),
        }
    }
}

/// Logs a failed read once, under the first field it leaves null.
pub(super) fn log(field: &'static str, error: &SectionError) {
    let cause = telemetry::cause_chain(error);
    tracing::error!(field, cause, "a figure of a report could not be read");
}

/// The fields that are null, and why.
#[derive(Debug, Default)]
pub(super) struct Nulls {
    pub(super) errors: Vec<FieldError>,
}

impl Nulls {
    /// The section, or null and an entry in `errors`.
    pub(super) fn keep<T>(&mut self, field: &'static str, section: Section<T>) -> Option<T> {
        let error = match section {
            Ok(section) => return Some(section),
            Err(error) => error,
        };
        let reason = match &error {
            SectionError::DependsOn => "a figure it is made of could not be read",
            SectionError::Store(error) if error.is_time_out() => {
                "the database did not answer in time"
            }
            SectionError::Store(error) if error.is_unavailable() => "the database was unavailable",
            SectionError::Store(_) => "the database could not read it",
            SectionError::ParkedEvents(_) => "the table of parked events could not be read",
            SectionError::Revenue(_)
            | SectionError::Bridge(_)
            | SectionError::Cohort(_)
            | SectionError::Money(_)
            | SectionError::Json(_) => "it is out of range",
        };
        if !matches!(error, SectionError::DependsOn) {
            log(field, &error);
        }
        self.errors.push(FieldError { field, reason });
        None
    }

    /// A field that is null with the one kept before.
    pub(super) fn also(&mut self, field: &'static str) {
        let depends_on: Section<()> = Err(SectionError::DependsOn);
        self.keep(field, depends_on);
    }
}

/// A section made of another.
pub(super) fn part<A, T>(source: &Section<A>, make: impl FnOnce(&A) -> Section<T>) -> Section<T> {
    match source {
        Ok(source) => make(source),
        Err(_logged) => Err(SectionError::DependsOn),
    }
}

/// A section made of two others.
pub(super) fn sections<A, B, T>(
    left: &Section<A>,
    right: &Section<B>,
    make: impl FnOnce(&A, &B) -> Section<T>,
) -> Section<T> {
    part(left, |left| part(right, |right| make(left, right)))
}
