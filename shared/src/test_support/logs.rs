//! What this process logs, kept as JSON lines, so that a test can prove what is not in it.

use super::places;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

static BUFFER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Installs the capturing subscriber of this process; every further call does nothing.
///
/// Our own crates are captured at `trace`, the libraries at `info`: what an operator may ever turn
/// on must be free of personal data, not only what is on by default.
pub fn capture() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let ours = [
            "shared",
            "webhook",
            "admin_revenue",
            "reconciliation",
            "migrate",
            "local",
        ];
        let filter = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_targets(ours.map(|name| (name, LevelFilter::TRACE)));
        let logs = tracing_subscriber::fmt::layer()
            .json()
            .with_writer(|| Capture)
            .with_filter(filter);
        // A test binary that installed a subscriber of its own keeps it.
        drop(tracing::subscriber::set_global_default(
            tracing_subscriber::registry().with(logs),
        ));
    });
}

/// Everything logged by this process since [`capture`].
#[must_use]
pub fn captured() -> String {
    let buffer = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&buffer).into_owned()
}

/// `<target>/local/test-logs`: one file per test binary, its last run.
///
/// # Errors
/// When it cannot be created.
pub fn directory() -> Result<PathBuf, std::io::Error> {
    let folder = places::cache_dir()?.join("test-logs");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Writes to the buffer and to the file of this binary.
struct Capture;

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        BUFFER
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        if let Some(mut file) = file() {
            file.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn file() -> Option<&'static File> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    FILE.get_or_init(|| {
        let binary = std::env::current_exe().ok()?;
        let name = format!("{}.jsonl", binary.file_name()?.to_str()?);
        File::create(directory().ok()?.join(name)).ok()
    })
    .as_ref()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_logged_is_captured_as_json_and_in_a_file() {
        super::capture();
        let word = crate::test_support::unique("word");
        tracing::info!(%word, "captured");
        let line = super::captured();
        let line = line
            .lines()
            .find(|line| line.contains(&word))
            .expect("the line");
        let line: serde_json::Value = serde_json::from_str(line).expect("one JSON object per line");
        assert_eq!(line["fields"]["word"], word.as_str());
        let files = std::fs::read_dir(super::directory().expect("a directory")).expect("files");
        let in_a_file = files
            .flatten()
            .filter_map(|file| std::fs::read_to_string(file.path()).ok())
            .any(|text| text.contains(&word));
        assert!(in_a_file);
    }
}
