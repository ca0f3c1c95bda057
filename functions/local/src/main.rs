//! `cargo run -p local`: the whole bundle on one machine.

use clap::Parser;
use local::command::{Arguments, run};
use std::process::ExitCode;

#[expect(
    clippy::disallowed_methods,
    reason = "main.rs is where the clock is read"
)]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(arguments, jiff::Timestamp::now));
    // A blocking task that still waits, for a slow answer say, must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", runtime::telemetry::cause_chain(&error));
            ExitCode::FAILURE
        }
    }
}
