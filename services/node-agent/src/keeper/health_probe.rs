//! One probe: a process in the container, through its shim, on a lifeline: it dies when its time is
//! over, when nobody wants to know any more, and when this agent does. No user sees it as an exec.

use std::{fs, io, time::Duration};

use model::{ContainerId, HEALTH_OUTPUT_MAX_BYTES, HealthProbe, Healthcheck};
use runtime::{
    ExecProcess,
    protocol::{ExecRequest, Failure, Reply, Request, parse_frame_header},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{Instant, timeout},
};

use super::effects::blocking;
use crate::{
    host::SharedHost,
    shims::{self, Shim},
};

/// Ids of probes begin so; no user's exec id does.
const PREFIX: &str = "health";
/// How long starting a probe may take, as in dockerd.
const START_TIME: Duration = Duration::from_secs(30);
/// A start that hangs gives its slot back then: it does not keep the host busy.
const SLOT_TIME: Duration = Duration::from_secs(2);
/// dockerd's code of a probe that came to no end of its own.
const NO_CODE: i32 = -1;

/// Runs probes in a container.
pub(super) struct Probe {
    pub(super) host: SharedHost,
    id: ContainerId,
}

/// What came of a start.
enum Started {
    Runs(Shim),
    Refused(String),
    /// The container is not there to be probed.
    Gone,
}

impl Probe {
    pub(super) fn new(host: SharedHost, id: ContainerId) -> Self {
        Self { host, id }
    }

    /// Records that an earlier agent did not live to read.
    pub(super) async fn sweep(&self) {
        let dir = self.host.places.run_dir(&self.id).execs();
        let swept = blocking(move || {
            for entry in fs::read_dir(dir)?.flatten() {
                if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        });
        if let Err(why) = swept.await {
            tracing::debug!(container = %self.id, why, "no records of earlier probes");
        }
    }

    /// Probes once. Also how long the start took; `None` if there was nothing to probe.
    pub(super) async fn run(&self, check: &Healthcheck) -> Option<(HealthProbe, Duration)> {
        let slot = self.host.probe_slots.clone().acquire_owned().await.ok()?;
        let (began, started_at) = (Instant::now(), self.host.clock.now());
        let exec_id = format!("{PREFIX}{}", ContainerId::from_bytes(chassis::ids::random_hex_id()));
        let starting = self.start(check, &exec_id);
        tokio::pin!(starting);
        let started = match timeout(SLOT_TIME, &mut starting).await {
            Ok(started) => started,
            Err(_) => {
                drop(slot);
                let late = || Started::Refused(format!("timed out starting health check for container {}", self.id));
                timeout(START_TIME - SLOT_TIME, starting).await.unwrap_or_else(|_| late())
            }
        };
        let took = began.elapsed();
        let (exit_code, output) = match started {
            Started::Gone => return None,
            Started::Refused(why) => (NO_CODE, why),
            Started::Runs(shim) => self.follow(shim, check, &exec_id).await?,
        };
        Some((HealthProbe { started_at, finished_at: self.host.clock.now(), exit_code, output }, took))
    }

    async fn start(&self, check: &Healthcheck, exec_id: &str) -> Started {
        let bundle = self.host.places.bundle(&self.id);
        // User, directory and environment are the container's own.
        let wanted = ExecProcess { argv: check.command.clone(), ..ExecProcess::default() };
        let made = blocking(move || runtime::exec_process(&bundle, &wanted).map_err(io::Error::other));
        let process = match made.await {
            Ok(process) => process,
            Err(why) => return Started::Refused(self.host.told(&self.id, &why)),
        };
        let request = ExecRequest {
            id: exec_id.to_owned(),
            process,
            stdin: false,
            stdout: true,
            stderr: true,
            detach: false,
            tty: false,
            console_size: None,
            lifeline: true,
        };
        let Ok(mut shim) = Shim::connect(&self.host.places.run_dir(&self.id)) else { return Started::Gone };
        match shim.ask(&Request::Exec(request)).await {
            Ok(Reply::ExecStarted { .. }) => Started::Runs(shim),
            Ok(Reply::Failed { failure: Failure::NotRunning, .. }) | Err(_) => Started::Gone,
            Ok(Reply::Failed { message, .. }) => Started::Refused(self.host.told(&self.id, &message)),
            Ok(other) => Started::Refused(format!("the shim answered a health check with {other:?}")),
        }
    }

    /// Waits for its end, or ends it.
    async fn follow(&self, shim: Shim, check: &Healthcheck, exec_id: &str) -> Option<(i32, String)> {
        let (early, stream) = shim.into_stream();
        let mut output = Output::default();
        output.feed(&early);
        let patience = Duration::from_millis(check.timeout_ms);
        // The stream is dropped with the future: that is what kills a probe that takes too long.
        let Ok(read) = timeout(patience, output.read(stream)).await else {
            let kept = output.text();
            let what = format!("Health check exceeded timeout ({})", go_duration(check.timeout_ms));
            return Some((NO_CODE, if kept.is_empty() { what } else { format!("{what}: {kept}") }));
        };
        let run_dir = self.host.places.run_dir(&self.id);
        let record = run_dir.read_exec(exec_id).ok().flatten();
        let _ = fs::remove_file(run_dir.exec_record(exec_id));
        match record.and_then(|record| record.exit_code) {
            Some(code) => Some((code, output.text())),
            // The shim went away, and with it the container; or it could not write.
            None if read.is_err() || shims::connect(&run_dir).is_err() => None,
            None => Some((NO_CODE, format!("healthcheck for container {} has no exit code", self.id))),
        }
    }
}

/// The beginning of what a probe writes, both streams in one; the rest is read and dropped.
#[derive(Debug, Default)]
struct Output {
    kept: Vec<u8>,
    truncated: bool,
    /// Bytes of an incomplete frame header.
    header: Vec<u8>,
    /// Bytes of the current frame that are still to come.
    left: usize,
}

impl Output {
    async fn read(&mut self, mut stream: UnixStream) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match stream.read(&mut buffer).await? {
                0 => return stream.shutdown().await,
                n => self.feed(&buffer[..n]),
            }
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let (head, rest) = bytes.split_at(bytes.len().min(8 - self.header.len()));
                self.header.extend_from_slice(head);
                bytes = rest;
                if let Ok(header) = <[u8; 8]>::try_from(self.header.as_slice()) {
                    self.left = parse_frame_header(header).map_or(0, |(_, length)| length as usize);
                    self.header.clear();
                }
                continue;
            }
            let (payload, rest) = bytes.split_at(bytes.len().min(self.left));
            let room = HEALTH_OUTPUT_MAX_BYTES - self.kept.len();
            self.kept.extend_from_slice(&payload[..payload.len().min(room)]);
            self.truncated |= payload.len() > room;
            self.left -= payload.len();
            bytes = rest;
        }
    }

    /// As dockerd shows it; what is no text is replaced.
    fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.kept).into_owned();
        let mut truncated = self.truncated;
        if text.len() > HEALTH_OUTPUT_MAX_BYTES {
            text.truncate(text.floor_char_boundary(HEALTH_OUTPUT_MAX_BYTES));
            truncated = true;
        }
        if truncated {
            text.push_str("...");
        }
        text
    }
}

/// A span of time as Go prints it: `1s`, `1m30s`, `250ms`.
fn go_duration(ms: u64) -> String {
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let (minutes, seconds_ms) = (ms / 60_000, ms % 60_000);
    let fraction = format!("{:03}", seconds_ms % 1_000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{}{point}{fraction}s", seconds_ms / 1_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use runtime::protocol::{STDERR, STDOUT, frame_header};

    use super::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short");
        [&frame_header(stream, length)[..], payload].concat()
    }

    #[test]
    fn both_streams_are_one_text_however_the_bytes_arrive() {
        let bytes = [frame(STDOUT, b"out "), frame(STDERR, b""), frame(STDERR, b"err")].concat();
        for size in 1..=bytes.len() {
            let mut output = Output::default();
            bytes.chunks(size).for_each(|chunk| output.feed(chunk));
            assert_eq!(output.text(), "out err", "in pieces of {size}");
        }
    }

    #[test]
    fn output_is_cut_where_dockerd_cuts_it() {
        let mut output = Output::default();
        output.feed(&frame(STDOUT, &[b'x'; HEALTH_OUTPUT_MAX_BYTES]));
        assert_eq!(output.text().len(), HEALTH_OUTPUT_MAX_BYTES);
        output.feed(&frame(STDERR, b"y"));
        assert!(output.text().ends_with("x..."));
        let mut rubbish = Output::default();
        rubbish.feed(&frame(STDOUT, &[0xff; HEALTH_OUTPUT_MAX_BYTES]));
        assert!(rubbish.text().len() <= HEALTH_OUTPUT_MAX_BYTES + 3);
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (ms, text) in [
            (1, "1ms"),
            (250, "250ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (60_000, "1m0s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
            (3_661_010, "1h1m1.01s"),
        ] {
            assert_eq!(go_duration(ms), text);
        }
    }
}
