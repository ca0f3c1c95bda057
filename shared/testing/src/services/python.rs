//! Private Python environments: made once, shared by all runs, never in the user's own Python.

use super::{Error, Progress, io, lock, run};
use crate::places;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The directory of a virtual environment that has `requirement` installed, under `folder`.
///
/// `requirement` is what pip installs, with its version; pip asks whatever index this machine is set up with.
pub(super) fn environment(
    folder: &Path,
    name: &str,
    requirement: &str,
    progress: Progress<'_>,
) -> Result<PathBuf, Error> {
    let venv = folder.join(name);
    let complete = venv.join(".complete");
    let works = || complete.is_file() && python_version(&venv.join("bin/python")).is_some();
    if works() {
        return Ok(venv);
    }
    io(
        format!("cannot create {}", folder.display()),
        std::fs::create_dir_all(folder),
    )?;
    let _guard = lock(&folder.join(format!("{name}.lock")), progress)?;
    if works() {
        return Ok(venv);
    }
    if venv.exists() {
        // Half made by a run that was stopped, or its Python is gone.
        io(
            format!("cannot remove {}", venv.display()),
            std::fs::remove_dir_all(&venv),
        )?;
    }
    let python = interpreter()?;
    progress(&format!(
        "installing {requirement} into {} (once; takes a minute or two)",
        venv.display()
    ));
    let made = run(
        Command::new(&python).args(["-m", "venv"]).arg(&venv),
        "python3 -m venv",
    );
    if let Err(error) = made {
        // Debian splits venv off Python; its own message names a package that may not exist.
        return Err(match error {
            Error::Failed { output, .. }
                if output.contains("ensurepip") || output.contains("No module named venv") =>
            {
                Error::Missing {
                    what: "Python's venv module".to_owned(),
                    remedy: "apt-get install python3-venv".to_owned(),
                }
            }
            other @ (Error::Failed { .. }
            | Error::Io { .. }
            | Error::Missing { .. }
            | Error::InUse(_)) => other,
        });
    }
    run(
        Command::new(venv.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .arg(requirement),
        &format!("pip install {requirement}"),
    )?;
    // Another user may have to run what is in it, whatever our umask is.
    run(
        Command::new("chmod").args(["-R", "a+rX"]).arg(&venv),
        "chmod a+rX",
    )?;
    io(
        "cannot mark the environment complete",
        std::fs::write(&complete, b""),
    )?;
    Ok(venv)
}

/// A Python of at least 3.11: `BILLING_PYTHON` when set, else what is on `PATH`.
fn interpreter() -> Result<String, Error> {
    let candidates = match places::variable("BILLING_PYTHON") {
        Some(chosen) => vec![chosen],
        None => [
            "python3",
            "python3.14",
            "python3.13",
            "python3.12",
            "python3.11",
            "/usr/bin/python3",
        ]
        .map(str::to_owned)
        .to_vec(),
    };
    candidates
        .into_iter()
        .find(|name| python_version(Path::new(name)).is_some_and(|version| version >= (3, 11)))
        .ok_or_else(|| Error::Missing {
            what: "Python 3.11 or newer (`python3`)".to_owned(),
            remedy: "apt-get install python3 python3-venv".to_owned(),
        })
}

fn python_version(python: &Path) -> Option<(u32, u32)> {
    let output = Command::new(python)
        .args(["-c", "import sys; print(*sys.version_info[:2])"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (major, minor) = text.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
