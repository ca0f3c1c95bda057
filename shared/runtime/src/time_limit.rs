//! Giving up: work that takes too long is dropped, what it left running elsewhere is stopped, and a sandbox remembers.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long stopping what was left running may take.
pub const STOP_TIMEOUT: Duration = Duration::from_millis(200);
/// After so many time-outs in a row a sandbox asks nobody …
const TIME_OUTS: u32 = 2;
/// … for so long; then it tries once.
const PAUSE: Duration = Duration::from_secs(5);

tokio::task_local! {
    static SCOPE: Arc<Scope>;
}

type Stopping = Pin<Box<dyn Future<Output = ()> + Send>>;
type Stop = Box<dyn FnOnce() -> Stopping + Send>;

/// Work under a time limit, as what it calls sees it.
struct Scope {
    ends_at: Instant,
    time_outs: Option<TimeOuts>,
    state: Mutex<ScopeState>,
}

#[derive(Default)]
struct ScopeState {
    is_admitted: bool,
    left_running: Vec<Stop>,
}

/// Runs `work` for at most `limit`.
///
/// # Errors
/// When it took longer. It has been dropped then; [`GivenUp::stop`] ends what it left running.
pub fn within<F: Future>(
    limit: Duration,
    work: F,
) -> impl Future<Output = Result<F::Output, GivenUp>> {
    // Boxed: the compiler gives up on the nesting of the types otherwise.
    let work = Box::pin(work);
    async move { run(limit, None, work).await.1 }
}

async fn run<F: Future>(
    limit: Duration,
    time_outs: Option<TimeOuts>,
    work: Pin<Box<F>>,
) -> (Arc<Scope>, Result<F::Output, GivenUp>) {
    let scope = Arc::new(Scope {
        ends_at: Instant::now() + limit,
        time_outs,
        state: Mutex::default(),
    });
    let work = SCOPE.scope(Arc::clone(&scope), work);
    let result = tokio::time::timeout_at(scope.ends_at, work).await;
    let result = result.map_err(|_elapsed| GivenUp {
        limit,
        left_running: std::mem::take(&mut lock(&scope.state).left_running),
    });
    (scope, result)
}

/// How long the work that asks this may still take; `None` when nobody limits it.
#[must_use]
pub fn time_left() -> Option<Duration> {
    let left = |scope: &Arc<Scope>| scope.ends_at.saturating_duration_since(Instant::now());
    SCOPE.try_with(left).ok()
}

/// Whether the work that asks this may begin something that timed out before, by [`TimeOuts`].
#[must_use]
pub fn is_admitted() -> bool {
    let asked = SCOPE.try_with(|scope| {
        let mut state = lock(&scope.state);
        let time_outs = scope.time_outs.as_ref();
        state.is_admitted = state.is_admitted || time_outs.is_none_or(TimeOuts::admit);
        state.is_admitted
    });
    asked.unwrap_or(true)
}

/// Has `stop` be called if the work that asks this is given up, once the work has been dropped.
pub fn when_given_up<F: Future<Output = ()> + Send + 'static>(
    stop: impl FnOnce() -> F + Send + 'static,
) {
    // Without a limit nothing is ever given up.
    let _no_limit = SCOPE.try_with(|scope| {
        let stop: Stop = Box::new(|| Box::pin(stop()));
        lock(&scope.state).left_running.push(stop);
    });
}

/// The work took longer than its limit and has been dropped.
#[derive(thiserror::Error)]
#[error("there was no answer within {limit:?}")]
#[must_use = "what was left running has to be stopped"]
pub struct GivenUp {
    limit: Duration,
    left_running: Vec<Stop>,
}

impl GivenUp {
    /// Stops what the work left running, as far as that takes no longer than 200 ms.
    pub async fn stop(self) {
        let stopping = async {
            let left: Vec<Stopping> = self.left_running.into_iter().map(|stop| stop()).collect();
            for stopping in left {
                stopping.await;
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, stopping).await.is_err() {
            tracing::debug!("what was given up may go on");
        }
    }
}

impl fmt::Debug for GivenUp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What a sandbox remembers of its time-outs: after two in a row nothing is asked for five seconds, then once. Clones
/// share it.
#[derive(Debug, Clone, Default)]
pub struct TimeOuts(Arc<Mutex<InARow>>);

#[derive(Debug, Default)]
struct InARow {
    count: u32,
    closed_until: Option<Instant>,
}

impl TimeOuts {
    /// As [`within`], and remembers how it went. `is_time_out` says whether what came in time is a time-out all the same.
    ///
    /// # Errors
    /// As [`within`].
    pub fn within<F: Future>(
        &self,
        limit: Duration,
        work: F,
        is_time_out: impl FnOnce(&F::Output) -> bool,
    ) -> impl Future<Output = Result<F::Output, GivenUp>> {
        let work = Box::pin(work);
        async move {
            let (scope, result) = run(limit, Some(self.clone()), work).await;
            let mut row = lock(&self.0);
            if result.as_ref().map_or(true, is_time_out) {
                row.count += 1;
                row.closed_until = Some(Instant::now() + PAUSE);
            } else if lock(&scope.state).is_admitted {
                *row = InARow::default();
            }
            drop(row);
            result
        }
    }

    fn admit(&self) -> bool {
        let mut row = lock(&self.0);
        let now = Instant::now();
        if row.count < TIME_OUTS {
            return true;
        }
        if row.closed_until.is_some_and(|until| now < until) {
            return false;
        }
        // The one try; whoever asks meanwhile is not admitted.
        row.closed_until = Some(now + PAUSE);
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn what_is_given_up_is_dropped_and_then_stopped() {
        static STOPPED: AtomicBool = AtomicBool::new(false);
        let given_up = within(LIMIT, async {
            assert!(time_left().is_some());
            when_given_up(|| async { STOPPED.store(true, Ordering::SeqCst) });
            pending::<()>().await;
        });
        let given_up = given_up.await.unwrap_err();
        assert!(!STOPPED.load(Ordering::SeqCst));
        given_up.stop().await;
        assert!(STOPPED.load(Ordering::SeqCst));
        assert_eq!(within(LIMIT, async { 7 }).await.unwrap(), 7);
        assert!(time_left().is_none() && is_admitted());
    }

    #[tokio::test]
    async fn two_time_outs_in_a_row_close_and_an_answer_opens() {
        let time_outs = TimeOuts::default();
        let asks = async |works: bool| {
            let work = async {
                let admitted = is_admitted();
                if admitted && !works {
                    pending::<()>().await;
                }
                admitted
            };
            match time_outs.within(LIMIT, work, |_| false).await {
                Ok(admitted) => admitted.to_string(),
                Err(given_up) => given_up.to_string(),
            }
        };
        const NO_ANSWER: &str = "there was no answer within 5ms";
        assert_eq!(asks(false).await, NO_ANSWER);
        assert_eq!(asks(true).await, "true");
        assert_eq!(asks(false).await, NO_ANSWER);
        assert_eq!(asks(false).await, NO_ANSWER);
        for _ in 0..3 {
            assert_eq!(asks(true).await, "false");
        }
        let pause_is_over = || lock(&time_outs.0).closed_until = Some(Instant::now());
        pause_is_over();
        assert_eq!(asks(false).await, NO_ANSWER, "the one try");
        assert_eq!(asks(true).await, "false");
        pause_is_over();
        for _ in 0..3 {
            assert_eq!(asks(true).await, "true");
        }
    }
}
