//! A database per test, copied from a migrated template in this process's own cluster.

use super::services::{Postgres, progress_to_stderr};
use super::{FaultProxy, logs, roles, unique};
use runtime::telemetry::cause_chain;
use std::sync::OnceLock;
use store::migrations::{Background, Release};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::NoTls;

/// A table that is locked against everybody else.
#[derive(Debug)]
pub struct TableLock {
    client: tokio_postgres::Client,
}

impl TableLock {
    /// Lets the others go on.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn release(self) {
        let released = self.client.batch_execute("ROLLBACK").await;
        released.expect("the end of the lock");
    }
}

/// A database of one test's own; it is dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// Connects as the owner, without TLS.
    pub url: String,
    /// The database's name in the cluster.
    pub name: String,
}

impl TestDatabase {
    /// A database with every migration applied.
    ///
    /// # Panics
    /// When Postgres cannot be started (the message says what to install) or a migration fails.
    pub async fn create() -> TestDatabase {
        TestDatabase::from_template(Template::Migrated).await
    }

    /// A database with nothing in it.
    ///
    /// # Panics
    /// When Postgres cannot be started; the message says what to install.
    pub async fn empty() -> TestDatabase {
        TestDatabase::from_template(Template::Empty).await
    }

    /// A connection of the calling test's own.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn client(&self) -> tokio_postgres::Client {
        connect(&self.url).await
    }

    /// A proxy in front of the server, and this database's URL through it.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn behind_proxy(&self) -> (FaultProxy, String) {
        let server = cluster().postgres.address();
        let proxy = FaultProxy::start(server);
        let url = self
            .url
            .replace(&server.to_string(), &proxy.address().to_string());
        (proxy, url)
    }

    /// Locks a table against everybody, until the value is released.
    ///
    /// # Panics
    /// When there is no such table.
    pub async fn lock_table(&self, table: &str) -> TableLock {
        let client = self.client().await;
        let statement = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        let locked = client.batch_execute(&statement).await;
        locked.expect("the lock");
        TableLock { client }
    }

    /// How many connections functions have to this database that meet a condition on `pg_stat_activity`, counted over
    /// a new connection.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn backends(&self, condition: &str) -> i64 {
        let statement = format!(
            "-- database::backends
             SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
             AND application_name = 'deedpro-billing' AND {condition}"
        );
        let count = self.client().await.query_one(&statement, &[]).await;
        count.expect("a count").get(0)
    }

    /// This database's URL as a new role that may do all with its tables, over so many connections.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn limited_to(&self, connections: usize) -> String {
        let role = unique("limited").replace('-', "_");
        let statement = format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'limited' CONNECTION LIMIT {connections};
             GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
             GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role};"
        );
        let made = self.client().await.batch_execute(&statement).await;
        made.expect("the role");
        let (_, address) = self.url.split_once('@').expect("a URL with a user");
        format!("postgresql://{role}:limited@{address}")
    }

    async fn from_template(template: Template) -> TestDatabase {
        logs::capture();
        // The first test waits for a server; the runtime's own threads must not.
        let cluster = match tokio::task::spawn_blocking(cluster).await {
            Ok(cluster) => cluster,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let name = unique("test").replace('-', "_");
        let (reply, created) = oneshot::channel();
        let request = Request::Create {
            name: name.clone(),
            template,
            reply,
        };
        let sent = cluster.requests.send(request);
        assert!(sent.is_ok(), "the thread that creates databases has ended");
        match created.await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => panic!("cannot create a test database: {problem}"),
            Err(_) => panic!("the thread that creates databases has ended"),
        }
        TestDatabase {
            url: cluster.postgres.url(&name),
            name,
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // When the thread is gone, so is the process, and the cluster with it.
        drop(cluster().requests.send(Request::Drop {
            name: std::mem::take(&mut self.name),
        }));
    }
}

#[derive(Debug, Clone, Copy)]
enum Template {
    Empty,
    Migrated,
}

#[derive(Debug)]
enum Request {
    Create {
        name: String,
        template: Template,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Drop {
        name: String,
    },
}

#[derive(Debug)]
struct Cluster {
    postgres: Postgres,
    requests: mpsc::UnboundedSender<Request>,
}

const MIGRATED: &str = "migrated";

/// The one cluster of this process.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
    let started = CLUSTER.get_or_init(|| {
        let postgres =
            Postgres::start_throwaway(&progress_to_stderr).map_err(|error| cause_chain(&error))?;
        let (requests, inbox) = mpsc::unbounded_channel();
        let (admin_url, template_url) = (postgres.url("postgres"), postgres.url(MIGRATED));
        std::thread::Builder::new()
            .name("databases".to_owned())
            .spawn(move || administrate(&admin_url, &template_url, inbox))
            .map_err(|error| error.to_string())?;
        Ok(Cluster { postgres, requests })
    });
    match started {
        Ok(cluster) => cluster,
        Err(problem) => panic!("{problem}"),
    }
}

/// Creates and drops databases one after the other, in a runtime that no test's end takes away.
fn administrate(admin_url: &str, template_url: &str, mut inbox: mpsc::UnboundedReceiver<Request>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for the databases thread");
    runtime.block_on(async {
        let admin = connect(admin_url).await;
        let mut migrated: Option<Result<(), String>> = None;
        while let Some(request) = inbox.recv().await {
            match request {
                Request::Create {
                    name,
                    template,
                    reply,
                } => {
                    let created = match template {
                        Template::Empty => create(&admin, &name, "template0").await,
                        Template::Migrated => {
                            if migrated.is_none() {
                                migrated = Some(make_template(&admin, template_url).await);
                            }
                            match &migrated {
                                Some(Ok(())) => create(&admin, &name, MIGRATED).await,
                                Some(Err(problem)) => Err(problem.clone()),
                                None => Err("no template".to_owned()),
                            }
                        }
                    };
                    // A test that stopped waiting has failed already.
                    drop(reply.send(created));
                }
                Request::Drop { name } => {
                    // What stays behind goes with the cluster.
                    drop(
                        admin
                            .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
                            .await,
                    );
                }
            }
        }
    });
}

async fn create(admin: &tokio_postgres::Client, name: &str, template: &str) -> Result<(), String> {
    admin
        .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
        .await
        .map_err(|error| cause_chain(&error))
}

async fn make_template(admin: &tokio_postgres::Client, url: &str) -> Result<(), String> {
    create(admin, MIGRATED, "template0").await?;
    let (mut client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .map_err(|error| cause_chain(&error))?;
    let connection = tokio::spawn(connection);
    let applied = Release::EMBEDDED
        .apply(&mut client, Background::AtOnce)
        .await
        .map_err(|error| cause_chain(&error));
    // Once for all: their rights are copied with the template.
    let made = roles::make(&mut client, url)
        .await
        .map_err(|error| cause_chain(&error));
    drop(client);
    // A template may have no connection of anyone when it is copied.
    drop(connection.await);
    applied.and(made)
}

async fn connect(url: &str) -> tokio_postgres::Client {
    match tokio_postgres::connect(url, NoTls).await {
        Ok((client, connection)) => {
            // It ends with the client; its errors reach the client's calls.
            drop(tokio::spawn(connection));
            client
        }
        Err(error) => panic!(
            "cannot connect to the test cluster: {}",
            cause_chain(&error)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::TestDatabase;

    #[tokio::test]
    async fn every_test_has_a_database_of_its_own() {
        let (one, other) = tokio::join!(TestDatabase::create(), TestDatabase::create());
        assert_ne!(one.url, other.url);
        let made = one
            .client()
            .await
            .batch_execute("CREATE TABLE only_here (n INT)")
            .await;
        made.expect("a table");
        let missing = other
            .client()
            .await
            .query("SELECT 1 FROM only_here", &[])
            .await;
        missing.expect_err("the other database must not have it");
    }

    #[tokio::test]
    async fn the_server_tells_time_in_utc() {
        let database = TestDatabase::empty().await;
        let zone = database
            .client()
            .await
            .query_one("SHOW timezone", &[])
            .await;
        assert_eq!(zone.expect("a zone").get::<_, String>(0), "UTC");
    }
}
