//! The time at which a run stops accepting work, so that the platform never interrupts it.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// The time for the unit of work in hand and the summary after it.
const MARGIN: Duration = Duration::from_secs(30);
/// A run works at least this long whatever the deadline says: an emulator's deadline is in 1970, and a time-out shorter
/// than the margin must not mean that nothing is ever done.
const FLOOR: Duration = Duration::from_secs(10);

/// The end of a run's working time. Without one the run works until it is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deadline {
    stop_at: Option<Instant>,
}

impl Deadline {
    /// Half a minute before the invocation's deadline, which is in Unix milliseconds.
    #[must_use]
    pub fn of_invocation(deadline_ms: u64, now: Timestamp) -> Deadline {
        Deadline::after(working_time(deadline_ms, now))
    }

    /// The deadline `working_time` from now.
    #[must_use]
    pub fn after(working_time: Duration) -> Deadline {
        Deadline {
            stop_at: Instant::now().checked_add(working_time),
        }
    }

    /// The future's result; `None` when the deadline comes first, and the future is dropped.
    pub async fn cut<F: Future>(self, future: F) -> Option<F::Output> {
        match self.stop_at {
            Some(stop_at) => tokio::time::timeout_at(stop_at, future).await.ok(),
            None => Some(future.await),
        }
    }

    /// Whether the run must accept no more work.
    #[must_use]
    pub fn is_reached(self) -> bool {
        self.stop_at
            .is_some_and(|stop_at| Instant::now() >= stop_at)
    }
}

fn working_time(deadline_ms: u64, now: Timestamp) -> Duration {
    let now_ms = u64::try_from(now.as_millisecond()).unwrap_or_default();
    let left = Duration::from_millis(deadline_ms.saturating_sub(now_ms));
    left.saturating_sub(MARGIN).max(FLOOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_minute_is_left_and_something_is_always_done() {
        let now: Timestamp = "2026-11-22T00:05:00Z".parse().unwrap();
        let now_ms = u64::try_from(now.as_millisecond()).unwrap();
        for (deadline_ms, seconds) in [
            (now_ms + 300_000, 270),
            (now_ms + 31_000, 10),
            (now_ms + 3_000, 10),
            (now_ms - 1, 10),
            (0, 10),
        ] {
            assert_eq!(working_time(deadline_ms, now).as_secs(), seconds);
        }
    }
}
