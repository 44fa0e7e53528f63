//! Records that lists have read, kept by the version of the rows they were read from. Postgres is asked
//! every time which containers there are and at which versions; only rows are not carried twice.
//!
//! Invariant: a record is kept under a version only if it was read while that version was the one. A
//! version is `xmin`, the transaction that wrote a row, of the container's own row and of everything
//! shown with it; a change by whomever makes another one. A transaction that has written keeps nothing: its
//! second write of a row would leave the version as it is.

use std::sync::{Arc, Mutex, PoisonError};

use model::ContainerId;
use quick_cache::{Weighter, sync::Cache};
use time::OffsetDateTime;

use super::ContainerRecord;

/// What is kept at most, roughly.
const KEPT_BYTES: u64 = 64 << 20;
/// A record without its texts.
const BARE_RECORD_BYTES: usize = 3_072;

/// The rows of a container that are shown, by who wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Its own row.
    pub(super) own: i64,
    /// Its endpoints and, negative, its published ports; in order. What networks show never changes.
    pub(super) attached: Option<Vec<i64>>,
}

/// A record as it was at a version, without its client's own documents and without its host.
#[derive(Clone, Debug)]
struct Kept {
    version: Version,
    record: Arc<ContainerRecord>,
}

/// The records.
#[derive(Clone, Debug)]
pub(crate) struct KeptRecords(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    records: Cache<ContainerId, Kept, KeptWeight>,
    /// When the server was started that the versions are from.
    server: Mutex<Option<OffsetDateTime>>,
}

#[derive(Clone, Debug)]
struct KeptWeight;

impl Weighter<ContainerId, Kept> for KeptWeight {
    fn weight(&self, _: &ContainerId, kept: &Kept) -> u64 {
        let spec = &kept.record.spec;
        let words = spec.env.iter().chain(&spec.cmd).chain(&spec.entrypoint).chain(&spec.extra_hosts);
        let labels = spec.labels.iter().chain(&spec.annotations).map(|(key, value)| key.len() + value.len());
        let bytes = BARE_RECORD_BYTES + words.map(String::len).chain(labels).map(|len| len + 48).sum::<usize>();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl KeptRecords {
    pub(crate) fn new() -> Self {
        let expected = usize::try_from(KEPT_BYTES).unwrap_or(usize::MAX) / BARE_RECORD_BYTES;
        let records = Cache::with_weighter(expected, KEPT_BYTES, KeptWeight);
        Self(Arc::new(Inner { records, server: Mutex::default() }))
    }

    /// A connection was made to a server that was started then. Another server (a standby that took
    /// over) may give a transaction's number to another transaction.
    pub(crate) fn connected_to(&self, server: OffsetDateTime) {
        let mut known = self.0.server.lock().unwrap_or_else(PoisonError::into_inner);
        if known.replace(server).is_some_and(|known| known != server) {
            self.0.records.clear();
        }
    }

    pub(super) fn get(&self, id: &ContainerId, version: &Version) -> Option<Arc<ContainerRecord>> {
        self.0.records.get(id).filter(|kept| kept.version == *version).map(|kept| kept.record)
    }

    pub(super) fn keep(&self, version: Version, record: Arc<ContainerRecord>) {
        self.0.records.insert(record.id.clone(), Kept { version, record });
    }
}
