//! The data directory: secrets that outlive a start, and the state that a running bundle writes for its sub-commands.

use crate::Error;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Secrets of one bundle, made at its first start.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secrets {
    /// Secret that signs webhooks (`whsec_…`).
    pub webhook_secret: String,
    /// Key of the fake Stripe (`sk_test_…`).
    pub stripe_api_key: String,
    /// Secret that signs admin tokens (HS256).
    pub admin_jwt_secret: String,
    /// Bearer token of the application's backend.
    pub service_token: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secrets(..)")
    }
}

/// A running bundle: what `--json` prints and what `send` and `invoke` need.
#[derive(Clone, Serialize, Deserialize)]
pub struct State {
    /// Where the HTTP routes and the Invoke path are.
    pub base_url: String,
    /// Postgres URL of the ledger's database.
    pub database_url: String,
    /// Where moto, the stand-in for AWS, listens.
    pub aws_endpoint_url: String,
    /// The base URL of the fake Stripe's API.
    pub stripe_api_base: String,
    /// Secret that signs webhooks (`whsec_…`).
    pub webhook_secret: String,
    /// A token for the admin routes.
    pub admin_token: String,
    /// Secret that signs admin tokens (HS256).
    pub admin_jwt_secret: String,
    /// A token for the usage routes.
    pub service_token: String,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("State")
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}

/// What is kept of the sample story.
#[derive(Serialize, Deserialize)]
struct Story {
    anchor: Timestamp,
}

/// The directory of one bundle. Its files are readable by their owner only.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
    is_chosen: bool,
}

impl DataDir {
    /// `chosen`, else `<target>/local/<port>`.
    ///
    /// # Errors
    /// When there is no place for it.
    pub fn new(chosen: Option<PathBuf>, port: u16) -> Result<DataDir, Error> {
        let is_chosen = chosen.is_some();
        let path = match chosen {
            Some(path) => std::path::absolute(&path).map_err(|error| {
                Error::because(format!("{} is no directory", path.display()), error)
            })?,
            None => testing::places::cache_dir()
                .map_err(|error| Error::because("no directory for the bundle's data", error))?
                .join(port.to_string()),
        };
        Ok(DataDir { path, is_chosen })
    }
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the caller chose it, rather than the port.
    #[must_use]
    pub fn is_chosen(&self) -> bool {
        self.is_chosen
    }

    /// Makes the directory when it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(&self) -> Result<(), Error> {
        std::fs::create_dir_all(&self.path).map_err(|error| {
            Error::because(format!("cannot create {}", self.path.display()), error)
        })
    }

    /// The secrets, made and kept at the first call.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn secrets(&self) -> Result<Secrets, Error> {
        if let Some(secrets) = self.read("secrets.json")? {
            return Ok(secrets);
        }
        let random = || {
            format!(
                "{:032x}{:032x}",
                rand::random::<u128>(),
                rand::random::<u128>()
            )
        };
        let secrets = Secrets {
            webhook_secret: format!("whsec_{}", random()),
            stripe_api_key: format!("sk_test_{}", random()),
            admin_jwt_secret: random(),
            service_token: format!("service_{}", random()),
        };
        self.write_json("secrets.json", &secrets)?;
        Ok(secrets)
    }

    /// The secrets, when a bundle was ever started here.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn existing_secrets(&self) -> Result<Option<Secrets>, Error> {
        self.read("secrets.json")
    }

    /// When the sample story begins: at the first start that loaded it. Every later start tells
    /// the same story, so that its events are the ones the ledger has.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn anchor(&self, now: Timestamp) -> Result<Timestamp, Error> {
        if let Some(anchor) = self.existing_anchor()? {
            return Ok(anchor);
        }
        self.write_json("story.json", &Story { anchor: now })?;
        Ok(now)
    }

    /// The same, when the story was ever told here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn existing_anchor(&self) -> Result<Option<Timestamp>, Error> {
        let story: Option<Story> = self.read("story.json")?;
        Ok(story.map(|story| story.anchor))
    }

    /// What the bundle that runs here says, or said before it was killed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn state(&self) -> Result<Option<State>, Error> {
        self.read("state.json")
    }

    /// Tells the sub-commands about the running bundle.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_state(&self, state: &State) -> Result<(), Error> {
        self.write_json("state.json", state)
    }

    /// Removes `state.json` when the bundle stops.
    pub fn remove_state(&self) {
        // Should this fail, a left-over state is recognised because its bundle does not answer.
        drop(std::fs::remove_file(self.path.join("state.json")));
    }

    /// Writes a file that only its owner reads, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        let unfinished = self
            .path
            .join(format!("{name}.{:08x}", rand::random::<u32>()));
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| std::fs::rename(&unfinished, &path));
        match written {
            Ok(()) => Ok(path),
            Err(error) => Err(Error::because(
                format!("cannot write {}", path.display()),
                error,
            )),
        }
    }

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Error::because(format!("cannot write {name}"), error))?;
        self.write(name, &text).map(|_| ())
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.path.join(name);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Error::because(
                    format!("cannot read {}", path.display()),
                    error,
                ));
            }
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            Error::because(format!("{} is damaged; remove it", path.display()), error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::DataDir;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_story_is_told_from_the_first_start() {
        let folder = tempfile::tempdir().expect("a directory");
        let data = DataDir::new(Some(folder.path().to_owned()), 1).expect("a data directory");
        assert_eq!(data.existing_anchor().expect("readable"), None);
        let day = |day: i64| jiff::Timestamp::from_second(day * 86_400).expect("an instant");
        assert_eq!(data.anchor(day(1)).expect("an anchor"), day(1));
        assert_eq!(data.anchor(day(2)).expect("an anchor"), day(1));
        assert_eq!(data.existing_anchor().expect("readable"), Some(day(1)));
    }

    #[test]
    fn secrets_are_made_once_and_for_their_owner_only() {
        let folder = tempfile::tempdir().expect("a directory");
        let data = DataDir::new(Some(folder.path().join("data")), 1).expect("a data directory");
        data.create().expect("made");
        assert!(data.existing_secrets().expect("readable").is_none());
        let first = data.secrets().expect("secrets");
        let second = data.secrets().expect("secrets");
        assert_eq!(first.webhook_secret, second.webhook_secret);
        assert_ne!(first.admin_jwt_secret, first.service_token);
        let mode = std::fs::metadata(data.path().join("secrets.json"))
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
