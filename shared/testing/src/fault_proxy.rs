//! A TCP proxy in front of Postgres, or of AWS, that fails on demand: the faults of the failure matrix.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot, watch};

/// How a `COMMIT` looks on the wire: the end of a simple query.
const COMMIT: &[u8] = b"COMMIT\0";

/// A client that has sent nothing for this long waits for an answer. One flight may leave in several
/// writes; a busy machine may pause between them, though not for so long.
const SILENCE: Duration = Duration::from_millis(50);

/// What a server says when it has carried out, or given up, a `COMMIT`. Its answers to what the
/// client sent just before (closing a statement, say) come earlier and must not be taken for it.
const COMMIT_ANSWERS: [&[u8]; 3] = [b"COMMIT\0", b"ROLLBACK\0", b"VERROR\0"];

/// A proxy on a port of 127.0.0.1; it ends with this value, and its connections with it.
///
/// It has its own thread and runtime, so it serves any test's runtime.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    counts: Arc<Counts>,
    _stop: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Counts {
    round_trips: AtomicU64,
    connections: AtomicU64,
    cuts: AtomicU64,
    listening: AtomicBool,
    held: Notify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Pass,
    Refuse,
    Hang,
    Count,
    HoldFlight(u64),
    CutAfterCommit,
    CutBefore(Vec<u8>),
}

impl FaultProxy {
    /// Starts passing everything through to `upstream`.
    ///
    /// # Panics
    /// When no port or thread is to be had.
    #[must_use]
    pub fn start(upstream: SocketAddr) -> FaultProxy {
        let listener =
            std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port for the proxy");
        listener
            .set_nonblocking(true)
            .expect("a non-blocking listener");
        let address = listener.local_addr().expect("the proxy's address");
        let (mode, watching) = watch::channel(Mode::Pass);
        let (stop, stopped) = oneshot::channel();
        let counts = Arc::new(Counts::default());
        let proxy = Proxy {
            address,
            upstream,
            mode: watching,
            counts: Arc::clone(&counts),
        };
        std::thread::Builder::new()
            .name("fault-proxy".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime for the proxy");
                runtime.block_on(async {
                    tokio::select! {
                        () = proxy.accept(listener) => {}
                        _ = stopped => {}
                    }
                });
            })
            .expect("a thread for the proxy");
        FaultProxy {
            address,
            mode,
            counts,
            _stop: stop,
        }
    }

    /// Address that clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// No more faults, from the next byte on. Connections that were cut stay cut.
    pub fn pass(&self) {
        self.switch(Mode::Pass);
    }

    /// Nobody listens any more, and every open connection is cut.
    pub fn refuse(&self) {
        self.switch(Mode::Refuse);
    }

    /// Connections are accepted and stay open, but no byte moves in either direction.
    pub fn hang(&self) {
        self.switch(Mode::Hang);
    }

    /// The server gets a `COMMIT` and carries it out; the connection is cut before the client
    /// hears so. Holds for every commit until [`FaultProxy::pass`].
    pub fn cut_on_commit(&self) {
        self.switch(Mode::CutAfterCommit);
    }

    /// The connection is cut before the server gets a `COMMIT`.
    pub fn cut_before_commit(&self) {
        self.switch(Mode::CutBefore(COMMIT.to_vec()));
    }

    /// The connection is cut before the server gets what contains `text`, such as the first line
    /// of a statement (`-- invoices::upsert`): a death in the middle of a transaction.
    pub fn cut_before(&self, text: &str) {
        self.switch(Mode::CutBefore(text.as_bytes().to_vec()));
    }

    /// The flight of this number, from 1 on and counted over all connections from now, does not reach the server, and
    /// neither does a later one: the moment to kill the client. Ended with this value they are lost.
    pub fn hold_flight(&self, number: u64) {
        self.counts.round_trips.store(0, Ordering::SeqCst);
        self.switch(Mode::HoldFlight(number));
    }

    /// Waits until a flight is held.
    pub async fn held(&self) {
        self.counts.held.notified().await;
    }

    /// Starts counting round trips from 0. Until another mode is chosen, answers reach the client
    /// only when it has fallen silent, so that a flight counts once however many writes it takes.
    pub fn count_round_trips(&self) {
        self.switch(Mode::Count);
        self.counts.round_trips.store(0, Ordering::SeqCst);
    }

    /// Flights from client to server since [`FaultProxy::count_round_trips`] or [`FaultProxy::hold_flight`]: bytes the
    /// client sent after it had been given the answers to what it sent before. Connecting counts too, and so does the
    /// closing of a named statement; unnamed ones (`query_typed`) give exact numbers.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.counts.round_trips.load(Ordering::SeqCst)
    }

    /// How many connections were accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// How many connections a fault has cut.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.counts.cuts.load(Ordering::SeqCst)
    }

    fn switch(&self, mode: Mode) {
        let listen = mode != Mode::Refuse;
        self.mode.send_replace(mode);
        // Only when the port answers as told is the switch done.
        while self.counts.listening.load(Ordering::SeqCst) != listen {
            std::thread::yield_now();
        }
    }
}

#[derive(Debug, Clone)]
struct Proxy {
    address: SocketAddr,
    upstream: SocketAddr,
    mode: watch::Receiver<Mode>,
    counts: Arc<Counts>,
}

impl Proxy {
    async fn accept(mut self, listener: std::net::TcpListener) {
        let mut listener = TcpListener::from_std(listener).ok();
        loop {
            let refusing = *self.mode.borrow_and_update() == Mode::Refuse;
            if refusing {
                listener = None;
            } else if listener.is_none() {
                listener = TcpListener::bind(self.address).await.ok();
                if listener.is_none() {
                    // Connections of the old listener may hold the port for a moment.
                    tokio::task::yield_now().await;
                    self.mode.mark_changed();
                }
            }
            self.counts
                .listening
                .store(listener.is_some(), Ordering::SeqCst);
            let Some(open) = &listener else {
                if self.mode.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                accepted = open.accept() => {
                    if let Ok((client, _)) = accepted {
                        drop(tokio::spawn(self.clone().serve(client)));
                    }
                }
                changed = self.mode.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn serve(mut self, mut client: TcpStream) {
        let Ok(mut server) = TcpStream::connect(self.upstream).await else {
            return;
        };
        self.counts.connections.fetch_add(1, Ordering::SeqCst);
        // Small packets must not wait for each other: the proxy would change what is measured.
        drop(client.set_nodelay(true));
        drop(server.set_nodelay(true));
        let (mut from_client, mut from_server) = (vec![0_u8; 64 * 1024], vec![0_u8; 64 * 1024]);
        // The end of what the client sent before, for a word that spans two reads.
        let mut tail: Vec<u8> = Vec::new();
        let mut server_spoke_last = true;
        let mut committing = false;
        let mut withheld: Vec<u8> = Vec::new();
        loop {
            let mode = self.mode.borrow_and_update().clone();
            if mode == Mode::Refuse {
                self.counts.cuts.fetch_add(1, Ordering::SeqCst);
                return;
            }
            let moving = mode != Mode::Hang;
            tokio::select! {
                // What the client has sent is seen before its silence is.
                biased;
                changed = self.mode.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                read = client.read(&mut from_client), if moving => {
                    let Ok(length @ 1..) = read else { return };
                    let bytes = &from_client[..length];
                    if server_spoke_last {
                        let flight = self.counts.round_trips.fetch_add(1, Ordering::SeqCst) + 1;
                        server_spoke_last = false;
                        if matches!(mode, Mode::HoldFlight(number) if number <= flight) {
                            self.counts.held.notify_one();
                            let is_over = |now: &Mode| !matches!(now, Mode::HoldFlight(_));
                            match self.mode.wait_for(is_over).await.map(|now| now.clone()) {
                                Err(_) => return,
                                Ok(Mode::Refuse) => {
                                    self.counts.cuts.fetch_add(1, Ordering::SeqCst);
                                    return;
                                }
                                Ok(_) => {}
                            }
                        }
                    }
                    match &mode {
                        Mode::CutBefore(word) if seen(&tail, bytes, word) => {
                            self.counts.cuts.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                        Mode::CutAfterCommit => committing |= seen(&tail, bytes, COMMIT),
                        Mode::CutBefore(_)
                        | Mode::Pass
                        | Mode::Refuse
                        | Mode::Hang
                        | Mode::HoldFlight(_)
                        | Mode::Count => {}
                    }
                    remember(&mut tail, bytes);
                    if server.write_all(bytes).await.is_err() {
                        return;
                    }
                }
                read = server.read(&mut from_server), if moving => {
                    let Ok(length @ 1..) = read else {
                        if !committing {
                            drop(client.write_all(&withheld).await);
                        }
                        return;
                    };
                    if committing {
                        withheld.extend_from_slice(&from_server[..length]);
                        if COMMIT_ANSWERS.iter().any(|answer| seen(&[], &withheld, answer)) {
                            self.counts.cuts.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                        continue;
                    }
                    if mode == Mode::Count || !withheld.is_empty() {
                        withheld.extend_from_slice(&from_server[..length]);
                        continue;
                    }
                    server_spoke_last = true;
                    if client.write_all(&from_server[..length]).await.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(SILENCE), if moving && !committing && !withheld.is_empty() => {
                    server_spoke_last = true;
                    if client.write_all(&withheld).await.is_err() {
                        return;
                    }
                    withheld.clear();
                }
            }
        }
    }
}

/// Whether `word` stands in what was just read, or across its seam with what came before.
fn seen(tail: &[u8], bytes: &[u8], word: &[u8]) -> bool {
    let joined: Vec<u8> = tail
        .iter()
        .skip(tail.len().saturating_sub(word.len().saturating_sub(1)))
        .chain(bytes)
        .copied()
        .collect();
    joined.windows(word.len()).any(|window| window == word)
}

fn remember(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(bytes);
    let surplus = tail.len().saturating_sub(256);
    tail.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::seen;
    use crate::TestDatabase;
    use tokio_postgres::{Client, NoTls};

    async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn rows(database: &TestDatabase) -> i64 {
        let count = database
            .client()
            .await
            .query_one("SELECT count(*) FROM t", &[])
            .await;
        count.expect("a count").get(0)
    }

    async fn with_table() -> TestDatabase {
        let database = TestDatabase::empty().await;
        let made = database
            .client()
            .await
            .batch_execute("CREATE TABLE t (n INT)")
            .await;
        made.expect("a table");
        database
    }

    /// Inserts a row in a transaction; answers what its commit says.
    async fn insert_one(url: &str) -> Result<(), tokio_postgres::Error> {
        let mut client = connect(url).await.expect("a connection");
        let transaction = client.transaction().await.expect("a transaction");
        let insert = transaction.execute("INSERT INTO t VALUES (1)", &[]).await;
        insert.expect("a row");
        transaction.commit().await
    }

    #[test]
    fn a_word_is_seen_across_two_reads() {
        assert!(seen(b"Q....COM", b"MIT\0", b"COMMIT\0"));
        assert!(seen(b"", b"Q....COMMIT\0", b"COMMIT\0"));
        assert!(!seen(b"COMMIT\0", b"SELECT 1\0", b"COMMIT\0"));
        assert!(!seen(b"", b"", b"COMMIT\0"));
    }

    #[tokio::test]
    async fn a_commit_is_carried_out_and_its_answer_is_lost() {
        let database = with_table().await;
        let (proxy, url) = database.behind_proxy();
        proxy.cut_on_commit();
        let committed = insert_one(&url).await;
        committed.expect_err("the answer must be lost");
        assert_eq!(rows(&database).await, 1);
        assert_eq!(proxy.cuts(), 1);
    }

    #[tokio::test]
    async fn a_transaction_dies_before_its_commit() {
        let database = with_table().await;
        let (proxy, url) = database.behind_proxy();
        proxy.cut_before_commit();
        let committed = insert_one(&url).await;
        committed.expect_err("the connection must be gone");
        assert_eq!(rows(&database).await, 0);
        proxy.cut_before("-- t::insert");
        let client = connect(&url).await.expect("a connection");
        let insert = client
            .execute("-- t::insert\nINSERT INTO t VALUES (2)", &[])
            .await;
        insert.expect_err("the connection must be gone");
        assert_eq!(rows(&database).await, 0);
    }

    #[tokio::test]
    async fn a_refusing_proxy_cuts_and_lets_nobody_in_until_it_passes_again() {
        let database = TestDatabase::empty().await;
        let (proxy, url) = database.behind_proxy();
        let client = connect(&url).await.expect("a connection");
        proxy.refuse();
        client
            .simple_query("SELECT 1")
            .await
            .expect_err("an open connection is cut");
        let refused = std::net::TcpStream::connect(proxy.address()).expect_err("nobody listens");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        proxy.pass();
        let client = connect(&url).await.expect("a connection again");
        client
            .simple_query("SELECT 1")
            .await
            .expect("an answer again");
    }

    #[tokio::test]
    async fn a_hanging_proxy_answers_nothing_until_it_passes_again() {
        let database = TestDatabase::empty().await;
        let (proxy, url) = database.behind_proxy();
        let client = connect(&url).await.expect("a connection");
        proxy.hang();
        let query = client.simple_query("SELECT 1");
        tokio::pin!(query);
        let short = std::time::Duration::from_millis(50);
        tokio::time::timeout(short, &mut query)
            .await
            .expect_err("no answer yet");
        proxy.pass();
        query.await.expect("an answer");
    }

    #[tokio::test]
    async fn a_held_flight_waits_and_is_lost_with_the_proxy() {
        let database = with_table().await;
        let (proxy, url) = database.behind_proxy();
        let client = connect(&url).await.expect("a connection");
        proxy.hold_flight(2);
        let insert = async |n: i32| {
            let statement = format!("INSERT INTO t VALUES ({n})");
            client.batch_execute(&statement).await
        };
        insert(1).await.expect("the first passes");
        let short = std::time::Duration::from_millis(50);
        let second = insert(2);
        tokio::pin!(second);
        tokio::select! {
            () = proxy.held() => {}
            done = &mut second => panic!("it should be held: {done:?}"),
        }
        tokio::time::timeout(short, &mut second)
            .await
            .expect_err("no answer yet");
        proxy.pass();
        second.await.expect("it goes on");
        proxy.hold_flight(1);
        let third = insert(3);
        tokio::pin!(third);
        tokio::select! {
            () = proxy.held() => {}
            done = &mut third => panic!("it should be held: {done:?}"),
        }
        drop(proxy);
        third.await.expect_err("it is lost");
        assert_eq!(rows(&database).await, 2);
    }

    #[tokio::test]
    async fn round_trips_are_counted() {
        let database = TestDatabase::empty().await;
        let (proxy, url) = database.behind_proxy();
        let client = connect(&url).await.expect("a connection");
        proxy.count_round_trips();
        client
            .batch_execute("SELECT 1; SELECT 2")
            .await
            .expect("an answer");
        assert_eq!(proxy.round_trips(), 1);
        client
            .query_typed("SELECT 1", &[])
            .await
            .expect("an answer");
        assert_eq!(proxy.round_trips(), 2);
        // More than the driver sends in one write: the server answers the first while the rest
        // is still on its way.
        let long = format!("SELECT 1 -- {}", "x".repeat(5_000));
        let flight = (0..20).map(|_| client.query_typed(&long, &[]));
        futures_util::future::try_join_all(flight)
            .await
            .expect("answers");
        assert_eq!(proxy.round_trips(), 3);
    }
}
