//! Real backing services for tests and for `functions/local`: Postgres, moto, a fault proxy, Lambda's Runtime API.
//!
//! Nothing of ours is mocked: a test runs on its own database in a real Postgres that this
//! module starts, one cluster per test process, and against the real AWS SDKs talking to moto.
//! Whatever is started here ends with the process that started it, however that process ends.

pub mod access;
pub mod aws;
pub mod bench;
pub mod contract;
pub mod database;
pub mod fault_proxy;
pub mod ledger;
pub mod logs;
pub mod places;
pub mod pooler;
pub mod roles;
pub mod runtime_api;
pub mod services;
pub mod surroundings;

pub use aws::Aws;
pub use database::TestDatabase;
pub use fault_proxy::FaultProxy;
pub use ledger::{LEDGER, differing_rows, ledger_rows};
pub use runtime_api::Function;
pub use surroundings::Surroundings;

use std::path::{Path, PathBuf};

/// One file of `events/`.
#[derive(Debug, Clone)]
pub struct Sample {
    /// File name without `.json`: `<source>_<event>`.
    pub name: String,
    /// The text as it stands in the file.
    pub body: String,
}

impl Sample {
    /// The text read as JSON.
    ///
    /// # Panics
    /// When the file is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("events/{}.json is not JSON: {error}", self.name))
    }
}

/// The root of the workspace this crate was built from.
#[must_use]
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate lies two folders below the root")
        .to_path_buf()
}

/// Every `events/*.json`, by name.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let folder = workspace_root().join("events");
    let entries = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    let mut samples: Vec<Sample> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path
                .file_name()?
                .to_str()?
                .strip_suffix(".json")?
                .to_owned();
            let body = std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
            Some(Sample { name, body })
        })
        .collect();
    samples.sort_by(|left, right| left.name.cmp(&right.name));
    samples
}

/// The sample `events/<name>.json`.
///
/// # Panics
/// When there is no such file.
#[must_use]
pub fn sample(name: &str) -> Sample {
    let path = workspace_root().join("events").join(format!("{name}.json"));
    let body = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    Sample {
        name: name.to_owned(),
        body,
    }
}

/// The recorded payloads, which lie beside the workspace in `../shared/fixtures`.
///
/// # Panics
/// When they are not there: only a test that was asked for by name wants them.
#[must_use]
pub fn fixtures_dir() -> PathBuf {
    let folder = workspace_root().join("../shared/fixtures");
    assert!(folder.is_dir(), "no fixtures in {}", folder.display());
    folder
}

/// A name no other test of any process uses: `<prefix>-<random>`.
#[must_use]
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:016x}", rand::random::<u64>())
}
