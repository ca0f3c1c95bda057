//! PgBouncer in transaction mode: what deliveries meet where a pooler stands between.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::TestDatabase;

/// How many connections to the server all clients share.
const CONNECTIONS: usize = 3;

/// A pooler in front of one database. It ends with this value.
pub struct Pooler {
    process: Child,
    port: u16,
    database: String,
    _directory: TempDir,
}

impl Pooler {
    /// Starts it; `None`, said aloud, where PgBouncer is not installed.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "what is left out is said")]
    pub fn start(database: &TestDatabase) -> Option<Pooler> {
        let directory = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr());
        let port = port.expect("a free port").port();
        let file = directory.path().join("pgbouncer.ini");
        fs::write(&file, configuration(database, port)).expect("a file");
        for path in [directory.path(), &file] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).expect("permissions");
        }
        let mut command = Command::new("pgbouncer");
        // It refuses to run as root.
        if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
            command.args(["-u", "nobody"]);
        }
        command.arg("-q").arg(&file);
        let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(process) = started else {
            eprintln!("LEFT OUT: no PgBouncer (apt-get install pgbouncer)");
            return None;
        };
        let pooler = Pooler {
            process,
            port,
            database: database.name.clone(),
            _directory: directory,
        };
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "PgBouncer does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(pooler)
    }

    /// The database's URL through the pooler.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "postgresql://pooled@127.0.0.1:{}/{}",
            self.port, self.database
        )
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn configuration(database: &TestDatabase, port: u16) -> String {
    let target: tokio_postgres::Config = database.url.parse().expect("a URL");
    let password = String::from_utf8_lossy(target.get_password().unwrap_or_default());
    let mut text = String::new();
    writeln!(
        text,
        "[databases]\n{name} = host=127.0.0.1 port={} dbname={name} user={} password={password}",
        target.get_ports()[0],
        target.get_user().unwrap_or_default(),
        name = database.name,
    )
    .expect("text");
    write!(
        text,
        "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = transaction\ndefault_pool_size = {CONNECTIONS}\n"
    )
    .expect("text");
    text
}
