//! One object, looked at again before anything is concluded: Stripe is asked for it, then the ledger for its rows.

use domain::reconciliation::{self, Discrepancy};
use serde_json::Value;
use store::reconciliation_runs;
use stripe::{client, reader};
use tokio_postgres::Client;

use super::rows::Rows;
use super::subject::Subject;
use super::{Run, Stop};

/// Objects of one list that are asked for one by one; where more differ, something else is wrong than a lost event.
const MOST_EXAMINED: usize = 1_000;

/// The outcome of comparing one object again after fetching it by its id.
pub(super) struct Examined {
    /// The object as Stripe answered it; `None` when Stripe has no such object.
    pub(super) object: Option<Value>,
    pub(super) discrepancies: Vec<Discrepancy>,
}

impl Run<'_> {
    /// Notes how the object differs, if it still does. Returns whether all is well. An object of a list of which the
    /// ledger has no row at all need not be asked for.
    pub(super) async fn examine(
        &mut self,
        subject: Subject,
        id: &str,
        listed: Option<Value>,
    ) -> Result<bool, Stop> {
        self.tally.examined += 1;
        if self.tally.examined > MOST_EXAMINED {
            return Err(Stop::TooMany(MOST_EXAMINED));
        }
        if self.deadline.is_reached() {
            return Err(Stop::Deadline);
        }
        let unknown = match listed {
            Some(object) => {
                let rows = self.rows(subject, id).await?;
                (!rows.has(subject, id)).then_some((object, rows))
            }
            None => None,
        };
        let discrepancies = match unknown {
            Some((object, rows)) => self.compared(subject, id, &object, &rows)?,
            None => self.look(subject, id).await?.discrepancies,
        };
        let is_well = discrepancies.is_empty();
        self.tell_all(discrepancies).await?;
        Ok(is_well)
    }

    /// Notes differences that nobody has accepted.
    pub(super) async fn tell_all(
        &mut self,
        discrepancies: Vec<Discrepancy>,
    ) -> Result<(), store::Error> {
        if discrepancies.is_empty() {
            return Ok(());
        }
        let client = self.app.database.client().await?;
        let db: &Client = &client;
        for discrepancy in discrepancies {
            if reconciliation_runs::is_accepted(db, &discrepancy).await? {
                self.tally.accepted.insert(discrepancy);
            } else {
                reconciliation_runs::insert_item(db, self.run_id, &discrepancy, self.now).await?;
            }
        }
        Ok(())
    }

    /// Asks Stripe, then the ledger: what came in between is in both.
    pub(super) async fn look(&self, subject: Subject, id: &str) -> Result<Examined, Stop> {
        let object = match self.retrieve(subject, id).await {
            Ok(object) => Some(object),
            Err(client::Error::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let rows = self.rows(subject, id).await?;
        let discrepancies = match &object {
            Some(object) => self.compared(subject, id, object, &rows)?,
            None if rows.has(subject, id) => {
                reconciliation::missing_in_stripe(subject.object_type(), id)
            }
            None => Vec::new(),
        };
        Ok(Examined {
            object,
            discrepancies,
        })
    }

    pub(super) fn compared(
        &self,
        subject: Subject,
        id: &str,
        object: &Value,
        rows: &Rows,
    ) -> Result<Vec<Discrepancy>, Stop> {
        let facts = reader::read_fetched(object, self.now)
            .map_err(|error| Stop::from(shared::ledger::Error::from(error)))?;
        Ok(rows.compare(subject, id, &facts))
    }

    pub(super) async fn rows(&self, subject: Subject, id: &str) -> Result<Rows, Stop> {
        let client = self.app.database.client().await?;
        let ids = [id.to_owned()];
        Ok(Rows::load(&client, subject, &ids, self.app.fee_estimate).await?)
    }

    async fn retrieve(&self, subject: Subject, id: &str) -> Result<Value, client::Error> {
        let path = [subject.list(), id];
        let stripe = &self.app.stripe;
        match stripe.retrieve(&path, subject.expand(), self.now).await {
            // A version that has no such field carries what it has instead.
            Err(client::Error::Invalid { param, .. }) if param.as_deref() == Some("expand") => {
                stripe.retrieve(&path, &[], self.now).await
            }
            other => other,
        }
    }
}
