//! Lambda's concurrency in small: one `App` serves one request at a time, and several may run.

use std::fmt;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many requests of one function run at once; more wait their turn.
const CONCURRENCY: usize = 8;

/// The warm and the yet unmade `App`s of one function.
pub struct Sandboxes<A, E> {
    idle: Mutex<Vec<A>>,
    permits: Semaphore,
    make: Box<dyn Fn() -> Result<A, E> + Send + Sync>,
}

impl<A, E> fmt::Debug for Sandboxes<A, E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sandboxes").finish_non_exhaustive()
    }
}

impl<A, E> Sandboxes<A, E> {
    /// Makes the first `App` at once, so that a configuration that does not work fails at the start.
    ///
    /// # Errors
    /// What `make` answers.
    pub fn new(
        make: impl Fn() -> Result<A, E> + Send + Sync + 'static,
    ) -> Result<Sandboxes<A, E>, E> {
        Ok(Sandboxes {
            idle: Mutex::new(vec![make()?]),
            permits: Semaphore::new(CONCURRENCY),
            make: Box::new(make),
        })
    }

    /// A warm sandbox, or a new one, or the first that becomes free.
    ///
    /// # Errors
    /// What `make` answers.
    pub async fn lease(&self) -> Result<Lease<'_, A, E>, E> {
        // The semaphore is never closed: without a permit nobody could be waiting here.
        let permit = self.permits.acquire().await.ok();
        let warm = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let app = match warm {
            Some(app) => app,
            None => (self.make)()?,
        };
        Ok(Lease {
            app: Some(app),
            home: self,
            _permit: permit,
        })
    }
}

/// One `App` in use; it is warm again afterwards, unless its handler panicked.
pub struct Lease<'a, A, E> {
    app: Option<A>,
    home: &'a Sandboxes<A, E>,
    _permit: Option<SemaphorePermit<'a>>,
}

impl<A, E> Deref for Lease<'_, A, E> {
    type Target = A;

    fn deref(&self) -> &A {
        // Unwrap safety: only `drop` takes it out.
        self.app
            .as_ref()
            .expect("a lease holds its app until it is dropped")
    }
}

impl<A, E> Drop for Lease<'_, A, E> {
    fn drop(&mut self) {
        if let Some(app) = self.app.take()
            && !std::thread::panicking()
        {
            self.home
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(app);
        }
    }
}

impl<A, E> fmt::Debug for Lease<'_, A, E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lease").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{CONCURRENCY, Sandboxes};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_warm_app_is_used_again_and_no_more_than_the_limit_are_made() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let sandboxes = Sandboxes::<usize, ()>::new(|| Ok(MADE.fetch_add(1, Ordering::SeqCst)));
        let sandboxes = sandboxes.expect("a first one");
        for _ in 0..3 {
            assert_eq!(*sandboxes.lease().await.expect("a lease"), 0);
        }
        let mut leases = Vec::new();
        for _ in 0..CONCURRENCY {
            leases.push(sandboxes.lease().await.expect("a lease"));
        }
        assert_eq!(MADE.load(Ordering::SeqCst), CONCURRENCY);
        let next = sandboxes.lease();
        tokio::pin!(next);
        let waiting = std::future::poll_fn(|context| {
            std::task::Poll::Ready(next.as_mut().poll(context).is_pending())
        });
        assert!(waiting.await);
        leases.pop();
        next.await.expect("a lease");
        assert_eq!(MADE.load(Ordering::SeqCst), CONCURRENCY);
    }
}
