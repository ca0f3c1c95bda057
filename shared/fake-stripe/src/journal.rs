//! What was asked of an account and may have changed it, kept in a file: the next start asks it again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::account::{Account, Refusal};

/// A request, as far as the account's answer depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path of the request, without the query.
    pub(super) path: String,
    pub(super) query: String,
    pub(super) idempotency_key: Option<String>,
    pub(super) body: String,
}

/// A request with what the account's answer depends on besides: its time, and the prefix of new ids.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    now: Timestamp,
    prefix: String,
    pub(super) request: Request,
}

impl Entry {
    /// Puts the account where it was when this was asked.
    pub(super) fn set(&self, account: &mut Account) {
        account.set_now(self.now);
        account.set_prefix(&self.prefix);
    }
}

/// An open journal: a line of JSON per request, readable by its owner only.
#[derive(Debug)]
pub(super) struct Journal(File);

impl Journal {
    /// Opens it, made when missing, and reads what it holds, oldest first.
    ///
    /// # Errors
    /// When it cannot be read or written, or holds a line that is no entry.
    pub(super) fn open(path: &Path) -> io::Result<(Journal, Vec<Entry>)> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let entries = io::read_to_string(&file)?
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<Entry>, _>>()
            .map_err(|error| {
                io::Error::other(format!("{} is damaged; remove it: {error}", path.display()))
            })?;
        Ok((Journal(file), entries))
    }

    /// Writes a request down before it is answered: one that is refused is refused again.
    ///
    /// # Errors
    /// Stripe's 500 when the file cannot be written; then the request must not be answered.
    pub(super) fn record(&mut self, account: &Account, request: &Request) -> Result<(), Refusal> {
        let entry = Entry {
            now: account.now(),
            prefix: account.prefix().to_owned(),
            request: request.clone(),
        };
        let written = serde_json::to_string(&entry)
            .map_err(io::Error::from)
            .and_then(|line| self.0.write_all(format!("{line}\n").as_bytes()));
        written.map_err(|error| Refusal {
            status: 500,
            code: "journal",
            message: format!("The fake Stripe cannot write its journal: {error}"),
            param: None,
        })
    }
}
