//! Runs inside a measured container: a writer that knows how long its writes took, and a neighbour that
//! knows how fast it was. Compiled by the bench with nothing but the standard library, static.
//!
//! * `lines <count> <lines a write> <MB a second, 0 is as fast as it goes>` writes numbered lines of 100
//!   bytes to stdout, then one line that begins with `#`: microseconds of the longest write, and of all.
//! * `work <milliseconds>` counts rounds of arithmetic and prints how many there were.

use std::{
    env,
    io::Write as _,
    time::{Duration, Instant},
};

const LINE_BYTES: usize = 100;

fn main() {
    let args: Vec<String> = env::args().collect();
    let number = |n: usize| args.get(n).and_then(|a| a.parse::<u64>().ok()).unwrap_or(0);
    match args.get(1).map(String::as_str) {
        Some("lines") => lines(number(2), number(3).max(1), number(4)),
        Some("work") => work(Duration::from_millis(number(2))),
        _ => std::process::exit(2),
    }
}

fn lines(count: u64, per_write: u64, mb_per_second: u64) {
    // Not `stdout()`: that one looks for newlines and writes when it likes.
    let mut out = std::fs::File::from(std::os::fd::OwnedFd::from(
        std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned().expect("stdout is open"),
    ));
    let mut batch = Vec::with_capacity(LINE_BYTES * per_write as usize);
    let (mut longest, mut written, mut next) = (Duration::ZERO, 0u64, 0u64);
    let began = Instant::now();
    while next < count {
        batch.clear();
        for _ in 0..per_write.min(count - next) {
            let at = batch.len();
            write!(batch, "{next:010} ").expect("memory takes it");
            batch.resize(at + LINE_BYTES - 1, b'x');
            batch.push(b'\n');
            next += 1;
        }
        if mb_per_second > 0 {
            let due = Duration::from_micros(written / mb_per_second);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let before = Instant::now();
        out.write_all(&batch).expect("somebody reads");
        longest = longest.max(before.elapsed());
        written += batch.len() as u64;
    }
    let all = began.elapsed();
    writeln!(out, "# {} {}", longest.as_micros(), all.as_micros()).expect("somebody reads");
}

fn work(how_long: Duration) {
    let (mut rounds, mut state, began) = (0u64, 1u64, Instant::now());
    while began.elapsed() < how_long {
        for _ in 0..10_000 {
            state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        rounds += 1;
    }
    println!("{rounds}");
}
