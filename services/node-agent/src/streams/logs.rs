//! A container's log as a stream of bytes: what is there, and with `follow` what comes until the run
//! has ended and everything was sent.

use std::{io, pin::Pin, time::Duration};

use bytes::Bytes;
use contract::{
    agent::{LOG_END, LOG_MARK, LogsQuery},
    host::PlannedContainer,
};
use futures::Stream;
use model::{Observed, Phase};
use runtime::protocol::frame_header;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use tokio::sync::watch;

use super::{
    follow::Following,
    log_file::{Batch, Cursor, Shown},
};
use crate::{host::SharedHost, keeper::Handle};

/// The shim's own format: nine digits, always UTC.
const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");

/// Bytes for a response body.
pub(crate) type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Where reading has got.
struct Reading {
    cursor: Option<Cursor>,
    follow: Option<Follow>,
    done: bool,
    marks: Marks,
}

/// Frames for a reader that wants to go on after a break.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marks {
    None,
    /// The beginning has yet to be marked.
    First,
    Every,
    /// The end has been said.
    Ended,
}

struct Follow {
    changes: Following,
    observed: watch::Receiver<Observed>,
    until: Option<OffsetDateTime>,
}

/// Begins to read. Only a container that runs is followed, as dockerd does it.
pub(crate) fn stream(host: &SharedHost, keeper: &Handle, query: LogsQuery) -> Chunks {
    let plan = keeper.plan();
    let kept = plan.as_ref().is_some_and(|p| p.spec.log.keep);
    let raw = plan.as_ref().is_some_and(|p| p.spec.tty);
    let observed = keeper.observed();
    let alive = is_alive(&observed.borrow());
    // Listen first, then read: what is written in between wakes us.
    let follow = (query.follow && alive && kept).then(|| host.log_watch.follow(&host.places.log_dir(&keeper.id)));
    let follow = match follow.transpose() {
        Ok(changes) => changes.map(|changes| Follow { changes, observed, until: query.until_ns.and_then(instant) }),
        Err(error) => {
            tracing::warn!(%error, container = %keeper.id, "a log cannot be followed");
            None
        }
    };
    let (path, from) = (host.places.log_file(&keeper.id), (query.resume, query.tail));
    let shown = Shown {
        stdout: query.stdout,
        stderr: query.stderr,
        since: query.since_ns.and_then(stamp),
        until: query.until_ns.and_then(stamp),
        timestamps: query.timestamps,
        details: query.details.then(|| plan.as_ref().map(details).unwrap_or_default()),
        raw: raw && !query.marks,
    };
    let marks = if query.marks { Marks::First } else { Marks::None };
    let begin = Reading { cursor: None, follow, done: !kept, marks };
    Box::pin(futures::stream::try_unfold(
        (begin, Some((path, from, shown))),
        |(mut reading, mut unopened)| async move {
            if let Some((path, from, shown)) = unopened.take()
                && !reading.done
            {
                let open = move || match from {
                    (Some(position), _) => Cursor::resume(&path, &position, shown),
                    (None, tail) => Cursor::open(&path, tail, shown),
                };
                reading.cursor = Some(blocking(open).await?);
            }
            Ok(reading.next().await?.map(|chunk| (chunk, (reading, None))))
        },
    ))
}

impl Reading {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.marks == Marks::First {
            self.marks = Marks::Every;
            let mark = self.cursor.as_mut().map(mark).transpose()?.unwrap_or_default();
            if !mark.is_empty() {
                return Ok(Some(mark.into()));
            }
        }
        while !self.done {
            // Taken before reading: what the run wrote before it ended is then read for certain.
            let ended = self.follow.as_ref().is_none_or(|f| !is_alive(&f.observed.borrow()));
            let Some(mut cursor) = self.cursor.take() else { return Ok(None) };
            let marked = self.marks == Marks::Every;
            let read = move || {
                let mut batch = cursor.read()?;
                if marked && !batch.bytes.is_empty() {
                    batch.bytes.append(&mut mark(&mut cursor)?);
                }
                Ok((cursor, batch))
            };
            let (cursor, batch) = blocking(read).await?;
            self.cursor = Some(cursor);
            let Batch { bytes, at_end, over } = batch;
            self.done = over || (at_end && ended);
            if !bytes.is_empty() {
                return Ok(Some(bytes.into()));
            }
            if at_end
                && !self.done
                && let Some(follow) = &mut self.follow
            {
                self.done = !follow.wait().await;
            }
        }
        if self.marks == Marks::Every {
            self.marks = Marks::Ended;
            return Ok(Some(Bytes::copy_from_slice(&frame_header(LOG_END, 0))));
        }
        Ok(None)
    }
}

/// Where reading has got, as a frame.
fn mark(cursor: &mut Cursor) -> io::Result<Vec<u8>> {
    let Some(position) = cursor.position()? else { return Ok(Vec::new()) };
    let header = frame_header(LOG_MARK, u32::try_from(position.len()).unwrap_or(0));
    Ok([&header, position.as_bytes()].concat())
}

impl Follow {
    /// Returns when there may be more; false when no more is wanted.
    async fn wait(&mut self) -> bool {
        let left = self.until.map(|until| until - OffsetDateTime::now_utc());
        let left = left.map(|left| Duration::try_from(left).unwrap_or(Duration::ZERO));
        let until = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.changes.changed() => true,
            // An error means that the keeper is gone: the container was removed.
            moved = self.observed.changed() => moved.is_ok(),
            () = until => false,
        }
    }
}

/// What goes along with every line, as dockerd writes it: `key=value,…`, each escaped as in a query.
fn details(plan: &PlannedContainer) -> String {
    let mut all = plan.spec.log.attributes.clone();
    if !plan.spec.log.tag.is_empty() {
        all.insert("tag".to_owned(), tag(plan));
    }
    all.iter().map(|(key, value)| format!("{}={}", escaped(key), escaped(value))).collect::<Vec<_>>().join(",")
}

fn tag(plan: &PlannedContainer) -> String {
    let image = plan.image.id.as_str();
    let short = |digest: &str| digest.trim_start_matches("sha256:").chars().take(12).collect::<String>();
    [
        ("{{.ID}}", plan.id.short().to_owned()),
        ("{{.FullID}}", plan.id.to_string()),
        ("{{.Name}}", plan.name.to_string()),
        ("{{.ImageID}}", short(image)),
        ("{{.ImageFullID}}", image.to_owned()),
        ("{{.ImageName}}", plan.spec.image.clone()),
        ("{{.DaemonName}}", "docker".to_owned()),
    ]
    .iter()
    .fold(plan.spec.log.tag.clone(), |tag, (field, value)| tag.replace(field, value))
}

fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        b' ' => "+".to_owned(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

fn is_alive(observed: &Observed) -> bool {
    matches!(observed.progress.phase, Phase::Starting | Phase::Running)
}

fn instant(ns: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ns)).ok()
}

fn stamp(ns: i64) -> Option<String> {
    instant(ns)?.format(STAMP).ok()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_escaped_as_in_a_query() {
        assert_eq!(escaped("a b/c=d,~"), "a+b%2Fc%3Dd%2C~");
    }

    #[test]
    fn a_stamp_is_written_as_the_shim_writes_it() {
        assert_eq!(stamp(1_700_000_000_000_000_007).as_deref(), Some("2023-11-14T22:13:20.000000007Z"));
    }
}
