//! Where downloaded tools, test clusters and logs lie on this machine.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Reads one variable of the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "where build products and caches lie is cargo's and the user's business, not configuration"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `<target>/local`: downloaded tools and test clusters, shared by all runs of this user.
///
/// The target directory is the one this binary was built into, else cargo's, else the
/// workspace's. One that this user cannot write to is passed over for the user's cache directory,
/// and that for `/var/tmp`.
///
/// # Errors
/// When no candidate can be written to.
pub fn cache_dir() -> Result<PathBuf, std::io::Error> {
    static CACHE_DIR: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = CACHE_DIR.get() {
        return Ok(found.clone());
    }
    let candidates = [
        built_into().map(|target| target.join("local")),
        variable("CARGO_TARGET_DIR").map(|target| Path::new(&target).join("local")),
        Some(super::workspace_root())
            .filter(|root| root.join("Cargo.toml").is_file())
            .map(|root| root.join("target").join("local")),
        variable("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("deedpro-billing")),
        variable("HOME").map(|home| Path::new(&home).join(".cache").join("deedpro-billing")),
    ];
    for candidate in candidates.into_iter().flatten() {
        if let Ok(path) = writable(&candidate) {
            return Ok(CACHE_DIR.get_or_init(|| path).clone());
        }
    }
    let path = private_dir()?;
    Ok(CACHE_DIR.get_or_init(|| path).clone())
}

/// A directory of this user under `/var/tmp` that every user may look into.
///
/// # Errors
/// When it cannot be made, or somebody else made it first.
pub fn private_dir() -> Result<PathBuf, std::io::Error> {
    private_dir_in(Path::new("/var/tmp"))
}

/// Such a directory in memory (`/dev/shm`), where there is one with room for some clusters: making a database is a
/// thousand files.
#[must_use]
pub fn memory_dir() -> Option<PathBuf> {
    const ROOM_BYTES: u64 = 4 << 30;
    let memory = Path::new("/dev/shm");
    let space = rustix::fs::statvfs(memory).ok()?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free < ROOM_BYTES {
        return None;
    }
    private_dir_in(memory).ok()
}

fn private_dir_in(parent: &Path) -> Result<PathBuf, std::io::Error> {
    let uid = user_id()?;
    let path = parent.join(format!("deedpro-billing-{uid}"));
    std::fs::create_dir_all(&path)?;
    let metadata = std::fs::symlink_metadata(&path)?;
    // The parent belongs to everybody: never trust a directory another user put there.
    if !metadata.is_dir() || metadata.uid() != uid {
        return Err(std::io::Error::other(format!(
            "{} belongs to another user",
            path.display()
        )));
    }
    set_mode(&path, 0o755)?;
    Ok(path)
}

/// Whether the user `uid`/`gid` can reach `path` (or what will be made there).
#[must_use]
pub fn reachable(path: &Path, uid: u32, gid: u32) -> bool {
    path.ancestors().skip(1).all(|ancestor| {
        let Ok(metadata) = std::fs::metadata(ancestor) else {
            return true; // not made yet: will be made readable
        };
        let execute = if metadata.uid() == uid {
            0o100
        } else if metadata.gid() == gid {
            0o010
        } else {
            0o001
        };
        uid == 0 || metadata.mode() & execute != 0
    })
}

/// The effective user of this process.
///
/// # Errors
/// When `id` cannot be run.
pub fn user_id() -> Result<u32, std::io::Error> {
    static USER_ID: OnceLock<u32> = OnceLock::new();
    if let Some(uid) = USER_ID.get() {
        return Ok(*uid);
    }
    let uid = id(&["-u"])?.ok_or_else(|| std::io::Error::other("`id -u` told no user"))?;
    Ok(*USER_ID.get_or_init(|| uid))
}

/// User and group of the account `name`, when there is one.
pub(crate) fn account(name: &str) -> Result<Option<(u32, u32)>, std::io::Error> {
    Ok(id(&["-u", name])?.zip(id(&["-g", name])?))
}

/// Gives `path` these permission bits.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), std::io::Error> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn id(arguments: &[&str]) -> Result<Option<u32>, std::io::Error> {
    let output = Command::new("id")
        .args(arguments)
        .stderr(Stdio::null())
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok())
}

/// The target directory that holds this binary: cargo marks it.
fn built_into() -> Option<PathBuf> {
    let binary = std::env::current_exe().ok()?;
    binary
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .map(Path::to_path_buf)
}

fn writable(path: &Path) -> Result<PathBuf, std::io::Error> {
    std::fs::create_dir_all(path)?;
    // Two users on one target directory keep apart: the first has it, the second has a cache.
    if std::fs::metadata(path)?.uid() != user_id()? {
        return Err(std::io::Error::other("belongs to another user"));
    }
    tempfile::tempfile_in(path)?;
    std::path::absolute(path)
}
