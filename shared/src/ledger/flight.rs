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
use stripe::event::{Digests, Event};

/// The transaction that an event is applied in: one of its own, or a part of the caller's.
pub(super) struct Scope<'a> {
    client: &'a Client,
    is_own: bool,
    /// Whether a transaction of its own may have begun that is not over.
    is_open: bool,
}

impl<'a> Scope<'a> {
    pub(super) fn own(client: &'a Client) -> Scope<'a> {
        Scope {
            client,
            is_own: true,
            is_open: false,
        }
    }

    pub(super) fn within(db: &'a Transaction<'_>) -> Scope<'a> {
        Scope {
            client: db.client(),
            is_own: false,
            is_open: false,
        }
    }

    /// The connection, for statements between opening and closing.
    pub(super) fn client(&self) -> &'a Client {
        self.client
    }

    /// Archives an event without locking anything; false when it was archived before.
    pub(super) async fn archive(
        &self,
        event: &Event,
        payload: &str,
        outcome: &str,
        now: Timestamp,
    ) -> Result<bool, Error> {
        stripe_events::insert(self.client, event, payload, outcome, now).await
    }

    /// Begins the transaction, or a part of it that can be taken back, and opens.
    pub(super) async fn open(
        &mut self,
        opening: &Opening<'_>,
        now: Timestamp,
    ) -> Result<Option<Opened>, Error> {
        self.is_open = self.is_own;
        let begun = match self.is_own {
            true => self.client.batch_execute("BEGIN"),
            false => self.client.batch_execute("SAVEPOINT before_locks"),
        };
        let opened = ledger::open(self.client, opening, now);
        Ok(in_one_flight(begin(begun), opened).await?.1)
    }

    /// Lets go of everything that [`Scope::open`] has locked and written, and opens more.
    pub(super) async fn open_again(
        &mut self,
        opening: &Opening<'_>,
        now: Timestamp,
    ) -> Result<Option<Opened>, Error> {
        let opened = ledger::open(self.client, opening, now);
        Ok(in_one_flight(self.take_back(), opened).await?.1)
    }

    /// Lets go of everything that was locked and written, and notes what events of a former release show.
    pub(super) async fn digest(
        &mut self,
        events: &[(String, i32, Option<Digests>)],
    ) -> Result<(), Error> {
        in_one_flight(self.take_back(), ledger::digest(self.client, events)).await?;
        begin(match self.is_own {
            true => self.client.batch_execute("COMMIT AND CHAIN"),
            false => self.client.batch_execute("SAVEPOINT before_locks"),
        })
        .await
    }

    async fn take_back(&self) -> Result<(), Error> {
        begin(match self.is_own {
            true => self.client.batch_execute("ROLLBACK AND CHAIN"),
            false => self
                .client
                .batch_execute("ROLLBACK TO SAVEPOINT before_locks"),
        })
        .await
    }

    /// Writes and, in a transaction of its own, commits.
    pub(super) async fn close(
        mut self,
        writes: &Writes,
        now: Timestamp,
    ) -> Result<Vec<Message>, Error> {
        let close = async {
            match writes.is_empty() {
                true => Ok(Vec::new()),
                false => ledger::close(self.client, writes, now).await,
            }
        };
        if !self.is_own {
            return close.await;
        }
        let commit = begin(self.client.batch_execute("COMMIT"));
        let (messages, ()) = in_one_flight(close, commit).await?;
        self.is_open = false;
        Ok(messages)
    }
}

/// What was begun and not committed is rolled back. Nobody waits for it: the connection's next statement comes behind it.
impl Drop for Scope<'_> {
    fn drop(&mut self) {
        if self.is_open {
            drop(self.client.batch_execute("ROLLBACK").now_or_never());
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
