//! What the benches share: how one runs, what it measures of a process, and an AWS that answers at once.

use std::future::Future;
use std::hint::black_box;
use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::runtime_api::{read_request, write_answer};

/// Samples of which the median is printed.
const SAMPLES: usize = 101;
/// A sample repeats the call for about this long, so that reading the clock does not count.
const SAMPLE: Duration = Duration::from_millis(5);

/// Runs a bench on one thread, as a function runs. `cargo test --all-targets` starts it without arguments, only to see
/// that it starts: nothing runs then.
///
/// # Panics
/// When there is no runtime.
pub fn run(bench: impl Future<Output = ()>) {
    if std::env::args().count() > 1 {
        runtime().block_on(bench);
    }
}

/// A runtime on the calling thread.
///
/// # Panics
/// When the system has no resources for one.
#[must_use]
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// What follows `name` on the command line.
#[must_use]
pub fn argument(name: &str) -> Option<String> {
    std::env::args()
        .skip_while(|argument| argument != name)
        .nth(1)
}

/// The number that follows `name` on the command line.
///
/// # Panics
/// When it is not a number of that type.
#[must_use]
pub fn number<N: FromStr>(name: &str) -> Option<N> {
    let text = argument(name)?;
    let number = text.parse().ok();
    Some(number.unwrap_or_else(|| panic!("{name} takes a number")))
}

/// The medians of two measurements taken in turns, so that whatever else the machine does falls on both. The first ten
/// of each warm up and do not count.
pub async fn in_turns(
    calls: usize,
    mut one: impl AsyncFnMut() -> Duration,
    mut other: impl AsyncFnMut() -> Duration,
) -> (Duration, Duration) {
    const WARM_UP: usize = 10;
    let (mut of_one, mut of_other) = (Vec::new(), Vec::new());
    for call in 0..calls + WARM_UP {
        let times = (one().await, other().await);
        if call >= WARM_UP {
            of_one.push(times.0);
            of_other.push(times.1);
        }
    }
    (median(of_one), median(of_other))
}

/// The median of the times; of an even number, the upper of the two in the middle.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// `time` divided by `by`, cut to two decimals: `1.25`.
#[must_use]
pub fn ratio(time: Duration, by: Duration) -> String {
    let hundredths = time.as_nanos() * 100 / by.as_nanos().max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

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

/// The most this process has had resident, in kB.
///
/// # Panics
/// Elsewhere than on Linux.
#[must_use]
pub fn peak_kb() -> u64 {
    status_kb("VmHWM:")
}

/// What this process has resident now, in kB.
///
/// # Panics
/// Elsewhere than on Linux.
#[must_use]
pub fn resident_kb() -> u64 {
    status_kb("VmRSS:")
}

fn status_kb(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(name));
    let kb = line.and_then(|line| line.split_whitespace().nth(1));
    kb.expect("a size").parse().expect("a number")
}

/// Runs this program again with these arguments, in a process whose memory is measured alone: the numbers it prints.
///
/// # Panics
/// When it fails, or prints something else.
#[must_use]
pub fn in_a_process(arguments: &[&str]) -> Vec<u64> {
    let this = std::env::current_exe().expect("this program");
    let output = Command::new(this).args(arguments).output();
    let output = output.expect("a process");
    let failure = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{failure}");
    let printed = String::from_utf8(output.stdout).expect("text");
    let words = printed.split_whitespace().map(str::parse);
    let numbers: Result<_, _> = words.collect();
    numbers.unwrap_or_else(|_| panic!("{printed}{failure}"))
}

/// Starts an S3 and an EventBridge that read what they are sent, keep nothing and answer at once, on threads that end
/// with the process. Answers their address.
///
/// # Panics
/// When no port is free.
#[must_use]
pub fn start_aws() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || serve(connection));
        }
    });
    format!("http://{address}")
}

fn serve(connection: TcpStream) -> Option<()> {
    connection.set_nodelay(true).ok()?;
    let mut requests = BufReader::new(connection);
    loop {
        let (request_line, body) = read_request(&mut requests)?;
        let answer = if request_line.starts_with("PUT") {
            String::new()
        } else if request_line.contains("?uploads") {
            "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
                .to_owned()
        } else if request_line.contains("uploadId=") {
            "<CompleteMultipartUploadResult><ETag>\"1\"</ETag></CompleteMultipartUploadResult>"
                .to_owned()
        } else {
            let sent: Value = serde_json::from_slice(&body).ok()?;
            let entries = sent["Entries"].as_array().map_or(0, Vec::len);
            let taken = vec![json!({"EventId": "1"}); entries];
            json!({"FailedEntryCount": 0, "Entries": taken}).to_string()
        };
        let headers = [("etag", "\"1\"")];
        write_answer(requests.get_mut(), "200 OK", &headers, &answer)?;
    }
}
