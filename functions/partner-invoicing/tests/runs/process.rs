//! The function's own binary as a process, under a Runtime API that has one event for it.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use shared::test_support::aws::REGION;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::site::Site;

/// A process with its event; killed (SIGKILL) with this value.
pub(crate) struct Process {
    child: Child,
    answers: UnboundedReceiver<(String, String)>,
}

impl Process {
    /// Starts it with the site's variables and these over them.
    pub(crate) async fn start(site: &Site, others: &[(&str, &str)], event: String) -> Process {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answered, answers) = unbounded_channel();
        tokio::spawn(serve(listener, event, answered));
        Process {
            child: spawn(site, others, address),
            answers,
        }
    }

    /// The last part of the path it answered at, `response` or `error`, and what it answered.
    pub(crate) async fn answer(&mut self) -> (String, String) {
        self.answers.recv().await.unwrap()
    }

    /// Kills it, and waits until it is dead: no byte of it comes any more.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(site: &Site, others: &[(&str, &str)], runtime_api: SocketAddr) -> Child {
    let ours = site.pairs().iter();
    Command::new(env!("CARGO_BIN_EXE_partner-invoicing"))
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", runtime_api.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "partner-invoicing")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/partner-invoicing")
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "test")
        .env("AWS_REGION", REGION)
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", "local")
        .envs(ours.map(|(name, value)| (*name, value.as_str())))
        .envs(others.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lambda's side, <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>: the event for who asks first, and
/// nothing more after that.
async fn serve(listener: TcpListener, event: String, answered: UnboundedSender<(String, String)>) {
    let (mut polls, mut streams) = (0, Vec::new());
    while let Ok((stream, _)) = listener.accept().await {
        let mut stream = BufReader::new(stream);
        while let Some((request_line, body)) = read_request(&mut stream).await {
            let is_poll = request_line.starts_with("GET ");
            polls += i32::from(is_poll);
            if polls > 1 {
                break;
            }
            let head = if is_poll {
                "200 OK\r\n\
                 lambda-runtime-aws-request-id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n\
                 lambda-runtime-deadline-ms: 4102444800000\r\n\
                 lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:123456789012:function:partner-invoicing\r\n\
                 content-type: application/json"
            } else {
                let path = request_line.split(' ').nth(1).unwrap_or_default();
                let end = path.rsplit('/').next().unwrap_or_default().to_owned();
                if answered.send((end, body)).is_err() {
                    return;
                }
                "202 Accepted"
            };
            let body = if is_poll { event.as_str() } else { "" };
            let length = body.len();
            let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                break;
            }
        }
        // Kept open: the function waits for its next event until it is killed.
        streams.push(stream);
    }
}

/// The request line and the body of the next request of a kept-alive connection; none at its end.
async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut request_line = String::new();
    stream.read_line(&mut request_line).await.ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        let read = stream.read_line(&mut line).await.ok()?;
        if read == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((request_line, String::from_utf8(body).ok()?))
}
