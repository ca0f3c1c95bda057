//! Timing a call that takes microseconds, for benches.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Samples of which the median is printed.
const SAMPLES: usize = 101;
/// A sample repeats the call for about this long, so that reading the clock does not count.
const SAMPLE: Duration = Duration::from_millis(5);

/// Prints the median time of one call, in microseconds.
#[expect(clippy::print_stdout, reason = "the figure is what a bench is for")]
pub fn report<T>(name: &str, mut call: impl FnMut() -> T) {
    let mut time = |calls: u32| {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(call());
        }
        start.elapsed() / calls
    };
    // The first calls fill caches.
    let once = time(10).as_nanos().max(1);
    let calls = u32::try_from(SAMPLE.as_nanos() / once).unwrap_or(u32::MAX);
    let mut samples: Vec<Duration> = (0..SAMPLES).map(|_| time(calls.max(1))).collect();
    samples.sort();
    let hundredths = samples[SAMPLES / 2].as_nanos() / 10;
    println!("{name}: {}.{:02} µs", hundredths / 100, hundredths % 100);
}
