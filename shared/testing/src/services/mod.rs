//! Servers started as child processes that never outlive the process that started them.
//!
//! Everything here is std threads and processes, never a runtime: each test has a runtime of its
//! own that ends before the next test, and the servers stay.

mod moto;
mod postgres;
mod python;

pub use moto::{MOTO_VERSION, Moto};
pub use postgres::Postgres;

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Told what is going on while something takes long: one line each.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// Why a backing service could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something this machine lacks.
    #[error("{what} is missing. Type: {remedy}")]
    Missing {
        what: String,
        /// The one line that installs it.
        remedy: String,
    },
    /// Another process has the directory.
    #[error("{directory} is in use by another running bundle", directory = .0.display())]
    InUse(PathBuf),
    /// A file or process operation that the machine refused.
    #[error("{what}")]
    Io {
        what: String,
        /// What the machine said.
        source: std::io::Error,
    },
    /// A program that ended badly.
    #[error("{what} failed:\n{output}")]
    Failed {
        what: String,
        /// The end of what it printed.
        output: String,
    },
}

/// Prints progress to this process's own stderr, past the test harness's capture: the first start
/// takes minutes, and silence looks like a hang.
pub fn progress_to_stderr(line: &str) {
    let mut stderr = std::io::stderr();
    // A closed stderr must not stop the work that is being reported.
    drop(writeln!(stderr, "{line}"));
}

fn io<T>(what: impl Into<String>, result: Result<T, std::io::Error>) -> Result<T, Error> {
    result.map_err(|source| Error::Io {
        what: what.into(),
        source,
    })
}

/// The user a server runs as, when it may not be the one we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RunAs {
    uid: u32,
    gid: u32,
}

/// A server with its guard: a shell that reads from a pipe whose other end this process holds.
///
/// The pipe closes when this process ends in any way, SIGKILL included; the guard then stops the
/// server. When the server ends by itself, the guard ends too.
#[derive(Debug)]
struct Guarded {
    guard: Child,
    lifeline: Option<ChildStdin>,
}

/// `$1` = signal that stops the server, `$2` = directory to remove once it was told to stop (or
/// nothing; after a crash the log in it stays readable); the rest is the server's command line.
/// Both run in their own process group, so that Ctrl-C reaches only us and the order of
/// stopping stays ours.
const GUARD: &str = r#"
signal=$1; remove=$2; shift 2
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(
  read -r line <&3
  if [ -n "$remove" ]; then : >"$remove/stopping"; fi
  kill -s "$signal" "$server"
  seconds=0
  while kill -0 "$server" && [ "$seconds" -lt 15 ]; do sleep 1; seconds=$((seconds + 1)); done
  kill -s KILL "$server"
) 2>/dev/null &
watch=$!
wait "$server"; code=$?
kill "$watch" 2>/dev/null
if [ -e "$remove/stopping" ]; then rm -rf "$remove" 2>/dev/null; fi
exit "$code"
"#;

impl Guarded {
    fn start(
        server: &[String],
        signal: &str,
        remove_afterwards: Option<&Path>,
        run_as: Option<RunAs>,
        home: &Path,
        log: &Path,
    ) -> Result<Guarded, Error> {
        let log_file = io(format!("cannot write {}", log.display()), File::create(log))?;
        let errors = io("cannot share the log", log_file.try_clone())?;
        let mut command = clean_command("/bin/sh", home, run_as);
        command
            .args(["-c", GUARD, "guard", signal])
            .arg(remove_afterwards.unwrap_or_else(|| Path::new("")))
            .args(server)
            .stdin(Stdio::piped())
            .stdout(log_file)
            .stderr(errors)
            .process_group(0);
        let mut guard = io("cannot run /bin/sh", command.spawn())?;
        let lifeline = guard.stdin.take();
        Ok(Guarded { guard, lifeline })
    }

    /// The exit status, when the server is no longer running.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.guard.try_wait().ok().flatten()
    }

    fn stop(&mut self) {
        self.lifeline = None;
        // The guard cannot be waited for only when it is gone already.
        drop(self.guard.wait());
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A directory of one server of one process, below `<root>/run`; it is removed after the server,
/// and what a crash left there is swept away by the next process that comes by.
#[derive(Debug)]
struct RunDir {
    path: PathBuf,
    /// Held as long as the owner lives, so that a directory in use is not mistaken for a left-over.
    _lock: File,
}

impl RunDir {
    fn create(root: &Path, run_as: Option<RunAs>) -> Result<RunDir, Error> {
        let all = root.join("run");
        io(
            format!("cannot create {}", all.display()),
            std::fs::create_dir_all(&all),
        )?;
        // Held while a directory is made and locked, so that no sweep comes between.
        let _sweeping = lock(&root.join("run.lock"), &|_| ())?;
        sweep(&all);
        let path = all.join(format!("{:016x}", rand::random::<u64>()));
        io(
            format!("cannot create {}", path.display()),
            std::fs::create_dir(&path),
        )?;
        let lock = io("cannot create a lock file", File::create(path.join("lock")))?;
        io("cannot take a new lock", lock.lock())?;
        give(&path, run_as)?;
        Ok(RunDir { path, _lock: lock })
    }
}

/// Best effort: what cannot be removed now is tried again by the next process.
fn sweep(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let path = entry.path();
        let abandoned = match File::open(path.join("lock")) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => true,
        };
        if abandoned {
            drop(std::fs::remove_dir_all(&path));
        }
    }
}

/// Makes the server's user the owner of `path`.
fn give(path: &Path, run_as: Option<RunAs>) -> Result<(), Error> {
    let Some(RunAs { uid, gid }) = run_as else {
        return Ok(());
    };
    io(
        format!("cannot give {} to user {uid}", path.display()),
        std::os::unix::fs::chown(path, Some(uid), Some(gid)),
    )
}

/// A command with a clean environment: `PGDATA`, `PYTHONPATH` and the like stay outside.
fn clean_command(
    program: impl AsRef<std::ffi::OsStr>,
    home: &Path,
    run_as: Option<RunAs>,
) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        )
        .env("HOME", home)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir("/");
    if let Some(RunAs { uid, gid }) = run_as {
        command.uid(uid).gid(gid);
    }
    command
}

/// Runs a command to its end; its output is the error when it fails.
fn run(command: &mut Command, what: &str) -> Result<String, Error> {
    let output = io(
        format!("cannot run {what}"),
        command.stdin(Stdio::null()).output(),
    )?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let all = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    Err(Error::Failed {
        what: what.to_owned(),
        output: last_lines(&all),
    })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Holds an exclusive lock file while another process may be doing the same work.
fn lock(path: &Path, progress: Progress<'_>) -> Result<File, Error> {
    let what = || format!("cannot lock {}", path.display());
    let file = io(what(), File::create(path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            progress("waiting for another process that is setting up the same tools");
        }
        Err(std::fs::TryLockError::Error(source)) => {
            return Err(Error::Io {
                what: what(),
                source,
            });
        }
    }
    io(what(), file.lock())?;
    Ok(file)
}

/// Asks `ready` every few milliseconds until it answers, or the time is over.
fn wait_for<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ready() {
            return Some(answer);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
