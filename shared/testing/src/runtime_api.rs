//! A function's binary as a process, under a Runtime API that hands it events one at a time.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>. It is served by threads, so that a test's own
//! runtime neither delays it nor is delayed by it.

use super::aws::REGION;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long a function may take to ask for its first event, on a machine with much else to do.
const START_LIMIT: Duration = Duration::from_mins(1);

/// A process and its Runtime API; killed (SIGKILL) with this value.
#[derive(Debug)]
pub struct Function {
    child: Child,
    started_at: Instant,
    polls: UnboundedReceiver<Instant>,
    events: Sender<String>,
    answers: UnboundedReceiver<Answer>,
}

/// What a function made of an event.
#[derive(Debug)]
pub struct Answer {
    /// The last part of the path it came to: `response` or `error`.
    pub kind: String,
    /// The answer as JSON text.
    pub body: String,
    /// When all of it was there.
    pub came_at: Instant,
}

impl Function {
    /// Starts the binary of the function `name` with Lambda's own variables and these over them.
    ///
    /// # Panics
    /// When the binary does not run.
    pub fn spawn<'a>(
        binary: &Path,
        name: &str,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Function {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (polled, polls) = unbounded_channel();
        let (events, handed) = channel();
        let (answered, answers) = unbounded_channel();
        let desk = Arc::new(Desk {
            arn: format!("arn:aws:lambda:{REGION}:123456789012:function:{name}"),
            polled,
            events: Mutex::new(handed),
            answered,
        });
        // Its threads end with this process: a listener cannot be told to stop.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let desk = Arc::clone(&desk);
                std::thread::spawn(move || desk.serve(stream));
            }
        });
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}"))
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "test")
            .env("AWS_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", "local")
            .env("AWS_SECRET_ACCESS_KEY", "local")
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let started_at = Instant::now();
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", binary.display()));
        Function {
            child,
            started_at,
            polls,
            events,
            answers,
        }
    }

    /// From its start until it asked for its first event. Once.
    ///
    /// # Panics
    /// When it does not ask.
    pub async fn start_time(&mut self) -> Duration {
        let polled_at = tokio::time::timeout(START_LIMIT, self.polls.recv()).await;
        let polled_at = polled_at.ok().flatten();
        polled_at.expect("the function asks for an event") - self.started_at
    }

    /// Hands it an event, as soon as it asks for one.
    ///
    /// # Panics
    /// When its Runtime API has broken off.
    pub fn hand(&self, event: String) {
        self.events.send(event).expect("the Runtime API listens");
    }

    /// Its next answer.
    ///
    /// # Panics
    /// When its Runtime API has broken off.
    pub async fn answer(&mut self) -> Answer {
        self.answers.recv().await.expect("the Runtime API listens")
    }

    /// Its answer to this event, and how long it took.
    ///
    /// # Panics
    /// When its Runtime API has broken off.
    pub async fn call(&mut self, event: String) -> (Answer, Duration) {
        let handed_at = Instant::now();
        self.hand(event);
        let answer = self.answer().await;
        let took = answer.came_at - handed_at;
        (answer, took)
    }

    /// Kills it, and waits until it is dead: no byte of it comes any more.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn kill(&mut self) {
        self.child.kill().expect("the function is ours to stop");
        self.child.wait().expect("the function has ended");
    }

    /// Its resident memory, in KiB; none where the system does not tell.
    #[must_use]
    pub fn memory_kib(&self) -> Option<u64> {
        self.status("VmRSS:")
    }

    /// The most its resident memory has been, in KiB; none where the system does not tell.
    #[must_use]
    pub fn most_memory_kib(&self) -> Option<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    /// User and system time of all its threads, in steps of 10 ms; none where the system does not tell.
    #[must_use]
    pub fn processor_ms(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The name in parentheses may hold blanks; `utime` is the 14th field, in ticks of 10 ms, `stime` the next.
        let fields = stat.rsplit(')').next()?.split(' ').skip(12).take(2);
        fields
            .map(|ticks| ticks.parse::<u64>().ok()?.checked_mul(10))
            .sum()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server's ends of the channels.
struct Desk {
    arn: String,
    polled: UnboundedSender<Instant>,
    events: Mutex<Receiver<String>>,
    answered: UnboundedSender<Answer>,
}

impl Desk {
    /// Answers one connection until it, or the function's value, ends.
    fn serve(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let (request_line, body) = read_request(&mut reader)?;
            if request_line.starts_with("GET ") {
                self.polled.send(Instant::now()).ok()?;
                let events = self.events.lock();
                let event = events.unwrap_or_else(PoisonError::into_inner).recv().ok()?;
                let headers = [
                    (
                        "lambda-runtime-aws-request-id",
                        "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
                    ),
                    ("lambda-runtime-deadline-ms", "4102444800000"),
                    ("lambda-runtime-invoked-function-arn", self.arn.as_str()),
                    ("content-type", "application/json"),
                ];
                write_answer(reader.get_mut(), "200 OK", &headers, &event)?;
            } else {
                let came_at = Instant::now();
                write_answer(reader.get_mut(), "202 Accepted", &[], "")?;
                let path = request_line.split(' ').nth(1).unwrap_or_default();
                let answer = Answer {
                    kind: path.rsplit('/').next().unwrap_or_default().to_owned(),
                    body: String::from_utf8(body).ok()?,
                    came_at,
                };
                self.answered.send(answer).ok()?;
            }
        }
    }
}

/// The request line and the body of the next request of a kept-alive connection; none at its end.
pub fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut request_line = String::new();
    reader.read_line(&mut request_line).ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader
            .read_line(&mut line)
            .ok()
            .filter(|length| *length > 0)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((request_line, body))
}

/// Answers a request; none when nobody is there to take it.
pub fn write_answer(
    stream: &mut TcpStream,
    status: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<()> {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(answer.as_bytes()).ok()
}
