//! One progress line a step, on stderr: what is being done, how it went, how long it took.

use std::{io::Write, time::Instant};

use anyhow::{Context, Result};

/// Runs one step of bringing the suite up. A failing step says what the user can do about it.
pub(crate) fn step<T>(what: &str, remedy: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprint!("  {what} … ");
    std::io::stderr().flush().ok();
    let began = Instant::now();
    match work() {
        Ok(value) => {
            eprintln!("ok ({} ms)", began.elapsed().as_millis());
            Ok(value)
        }
        Err(error) => {
            eprintln!("failed");
            Err(error).with_context(|| format!("{what} failed. What to do: {remedy}"))
        }
    }
}
