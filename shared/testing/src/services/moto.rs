//! moto: S3, DynamoDB, EventBridge and Secrets Manager in one local process.

use super::{Error, Guarded, Progress, RunDir, io, last_lines, python, wait_for};
use crate::places;
use std::path::Path;
use std::time::Duration;

/// The moto this bundle is tested with.
pub const MOTO_VERSION: &str = "5.2.5";

/// A moto server; it stops when this value is dropped or this process ends.
#[derive(Debug)]
pub struct Moto {
    endpoint_url: String,
    _server: Guarded,
    _directory: RunDir,
}

impl Moto {
    /// Installs moto when this is the first time, and starts it on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When Python ≥ 3.11 with venv is missing, pip fails, or the server does not come up.
    pub fn start(progress: Progress<'_>) -> Result<Moto, Error> {
        let folder = io("no directory to install moto in", places::cache_dir())?;
        let venv = python::environment(
            &folder,
            &format!("moto-{MOTO_VERSION}"),
            &format!("moto[server]=={MOTO_VERSION}"),
            progress,
        )?;
        let directory = RunDir::create(&folder, None)?;
        let log = directory.path.join("log");
        // Port 0: the server binds a free one itself and prints it, so nobody can take it first.
        let command = [
            &venv.join("bin/python").display().to_string(),
            "-m",
            "moto.server",
            "-H",
            "127.0.0.1",
            "-p",
            "0",
        ]
        .map(str::to_owned);
        let mut server = Guarded::start(
            &command,
            "TERM",
            Some(&directory.path),
            None,
            &directory.path,
            &log,
        )?;
        let endpoint_url = wait_for(Duration::from_secs(60), || {
            announced(&log)
                .map(Some)
                .or_else(|| server.ended().map(|_| None))
        })
        .flatten()
        .ok_or_else(|| Error::Failed {
            what: "moto_server".to_owned(),
            output: last_lines(&std::fs::read_to_string(&log).unwrap_or_default()),
        })?;
        Ok(Moto {
            endpoint_url,
            _server: server,
            _directory: directory,
        })
    }

    /// `http://127.0.0.1:<port>`: what `AWS_ENDPOINT_URL` is set to.
    #[must_use]
    pub fn endpoint_url(&self) -> &str {
        &self.endpoint_url
    }
}

/// The address in the line the server prints once it listens.
fn announced(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let start = text.find("http://127.0.0.1:")?;
    let line = text[start..].lines().next()?;
    // The line must be whole: a read may come between its first and last character.
    text[start..].contains('\n').then(|| line.trim().to_owned())
}
