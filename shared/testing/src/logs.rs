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
            "domain",
            "stripe",
            "store",
            "documents",
            "runtime",
            "shared",
            "testing",
            "fake_stripe",
            "webhook",
            "admin_revenue",
            "usage",
            "partner_invoicing",
            "invoice_pdf",
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
        // A test binary that installed its own subscriber keeps it.
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

/// Fails when one of these texts is in what was logged, and when nothing was logged at all.
///
/// # Panics
/// When the logs are not free of them; the message has the line.
pub fn assert_free_of<T: AsRef<str>>(secrets: impl IntoIterator<Item = T>) {
    let logged = captured();
    assert!(!logged.is_empty(), "nothing was logged: is it captured?");
    for secret in secrets {
        let secret = secret.as_ref();
        assert!(!secret.is_empty(), "everything contains the empty text");
        // Inside of a JSON text.
        let written = serde_json::Value::from(secret).to_string();
        let written = written.trim_matches('"');
        let line = logged.lines().find(|line| line.contains(written));
        assert_eq!(line, None, "{secret} is in the logs");
    }
}

/// What the people, cards and tokens in `value` are known by.
#[must_use]
pub fn personal_texts(value: &serde_json::Value) -> Vec<String> {
    let mut found = Vec::new();
    collect_personal(value, &mut found);
    found
}

fn collect_personal(value: &serde_json::Value, found: &mut Vec<String>) {
    use serde_json::Value;
    const KEYS: [&str; 12] = [
        "email",
        "name",
        "phone",
        "line1",
        "line2",
        "customer_email",
        "customer_name",
        "customer_phone",
        "receipt_email",
        "receipt_url",
        "client_secret",
        "hosted_invoice_url",
    ];
    if let Value::Array(values) = value {
        for value in values {
            collect_personal(value, found);
        }
    }
    let Value::Object(members) = value else {
        return;
    };
    for (key, value) in members {
        if KEYS.contains(&key.as_str())
            && let Value::String(text) = value
            && text.len() > 3
        {
            found.push(text.clone());
        }
        collect_personal(value, found);
    }
}

/// What a function's program logs when it is started without any configuration: one line, and it ends.
///
/// # Panics
/// When the program runs, ends well, or logs anything else than one JSON line.
#[must_use]
pub fn of_a_start_without_configuration(program: &str) -> serde_json::Value {
    let output = std::process::Command::new(program)
        .env_clear()
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    assert!(!output.status.success(), "{program} started");
    let logged = String::from_utf8_lossy(&output.stdout);
    assert_eq!(logged.lines().count(), 1, "{logged}");
    serde_json::from_str(&logged).unwrap_or_else(|error| panic!("{logged}: {error}"))
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
    fn a_person_in_the_logs_is_found_also_where_json_escapes_the_name() {
        super::capture();
        let name = crate::unique("Grace \"Amazing\" Hopper");
        let event = serde_json::json!({"data": [{"name": name, "id": "cus_1"}]});
        let people = super::personal_texts(&event);
        assert_eq!(people, [name.as_str()]);
        tracing::info!("somebody else");
        super::assert_free_of(&people);
        tracing::info!(name, "leaked");
        let found = std::panic::catch_unwind(|| super::assert_free_of(&people));
        assert!(found.is_err());
    }

    #[test]
    fn what_is_logged_is_captured_as_json_and_in_a_file() {
        super::capture();
        let word = crate::unique("word");
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
