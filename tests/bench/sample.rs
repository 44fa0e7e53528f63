//! Times of one thing, and how rounds of several peers are interleaved so that a noisy minute hits
//! all of them. Rounds are 120 ms apart: warm loops hide what the first attach to a cgroup costs.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use crate::peer::Peer;

/// Durations in milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    /// Times one execution.
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let value = work();
        self.0.push(began.elapsed().as_secs_f64() * 1_000.0);
        value
    }

    pub(crate) fn push_ms(&mut self, ms: f64) {
        self.0.push(ms);
    }

    pub(crate) fn median_ms(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn min_ms(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} / {:.1}", self.median_ms(), self.min_ms())
    }
}

/// A B A B …; the work returns the milliseconds it wants counted.
pub(crate) fn interleave(peers: &[&Peer], rounds: usize, work: impl Fn(&Peer) -> f64) -> Vec<Sample> {
    let mut samples: Vec<Sample> = peers.iter().map(|_| Sample::default()).collect();
    for _ in 0..rounds {
        for (peer, sample) in peers.iter().zip(&mut samples) {
            thread::sleep(Duration::from_millis(120));
            sample.push_ms(work(peer));
        }
    }
    samples
}
