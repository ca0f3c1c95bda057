//! Statements that travel together: the answer of one is not waited for before the next is sent.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use futures_util::{FutureExt, poll, try_join};
use jiff::Timestamp;
use tokio_postgres::{Client, Transaction};

use store::ledger::{self, Opened, Opening, Writes};
use store::outbox::Message;
use store::{Error, stripe_events};
use stripe::event::Event;

/// The transaction that an event is applied in: one of its own, or a part of the caller's.
pub(super) enum Scope<'a> {
    Own {
        client: &'a Client,
        /// Whether a transaction may have begun that is not over.
        is_open: bool,
    },
    Within(&'a Transaction<'a>),
}

impl<'a> Scope<'a> {
    pub(super) fn own(client: &'a Client) -> Scope<'a> {
        let is_open = false;
        Scope::Own { client, is_open }
    }

    pub(super) fn within(db: &'a Transaction<'a>) -> Scope<'a> {
        Scope::Within(db)
    }

    /// Archives an event without locking anything; false when it was archived before.
    pub(super) async fn archive(
        &self,
        event: &Event,
        payload: &str,
        outcome: &str,
        now: Timestamp,
    ) -> Result<bool, Error> {
        match self {
            Scope::Own { client, .. } => {
                stripe_events::insert(*client, event, payload, outcome, now).await
            }
            Scope::Within(db) => stripe_events::insert(*db, event, payload, outcome, now).await,
        }
    }

    /// Begins, and opens.
    pub(super) async fn open(
        &mut self,
        opening: &Opening<'_>,
        now: Timestamp,
    ) -> Result<Option<Opened>, Error> {
        self.open_after("BEGIN", "SAVEPOINT before_locks", opening, now)
            .await
    }

    /// Lets go of everything that [`Scope::open`] has locked and written, and opens more.
    pub(super) async fn open_again(
        &mut self,
        opening: &Opening<'_>,
        now: Timestamp,
    ) -> Result<Option<Opened>, Error> {
        self.open_after(
            "ROLLBACK AND CHAIN",
            "ROLLBACK TO SAVEPOINT before_locks",
            opening,
            now,
        )
        .await
    }

    async fn open_after(
        &mut self,
        own: &'static str,
        within: &'static str,
        opening: &Opening<'_>,
        now: Timestamp,
    ) -> Result<Option<Opened>, Error> {
        let (_, opened) = match self {
            Scope::Own { client, is_open } => {
                *is_open = true;
                in_one_flight(
                    begin(client.batch_execute(own)),
                    ledger::open(*client, opening, now),
                )
                .await?
            }
            Scope::Within(db) => {
                in_one_flight(
                    begin(db.batch_execute(within)),
                    ledger::open(*db, opening, now),
                )
                .await?
            }
        };
        Ok(opened)
    }

    /// Writes and, in a transaction of its own, commits.
    pub(super) async fn close(
        mut self,
        writes: &Writes,
        now: Timestamp,
    ) -> Result<Vec<Message>, Error> {
        match &mut self {
            Scope::Own { client, is_open } => {
                let commit = begin(client.batch_execute("COMMIT"));
                let messages = if writes.is_empty() {
                    commit.await?;
                    Vec::new()
                } else {
                    in_one_flight(ledger::close(*client, writes, now), commit)
                        .await?
                        .0
                };
                *is_open = false;
                Ok(messages)
            }
            Scope::Within(db) if !writes.is_empty() => ledger::close(*db, writes, now).await,
            Scope::Within(_) => Ok(Vec::new()),
        }
    }
}

/// What was begun and not committed is rolled back. Nobody waits for it: the connection's next statement comes behind it.
impl Drop for Scope<'_> {
    fn drop(&mut self) {
        if let Scope::Own {
            client,
            is_open: true,
        } = self
        {
            drop(client.batch_execute("ROLLBACK").now_or_never());
        }
    }
}

async fn begin(
    statement: impl Future<Output = Result<(), tokio_postgres::Error>>,
) -> Result<(), Error> {
    Ok(statement.await?)
}

/// Sends `first`, then `second` without waiting for the answer, and waits for both. The server runs them in this order.
async fn in_one_flight<A, B>(
    first: impl Future<Output = Result<A, Error>>,
    second: impl Future<Output = Result<B, Error>>,
) -> Result<(A, B), Error> {
    let mut first = pin!(first);
    // A statement is sent when it is first polled.
    match poll!(&mut first) {
        Poll::Ready(answer) => Ok((answer?, second.await?)),
        Poll::Pending => try_join!(first, second),
    }
}
