//! Reading containers: by reference, by id, in lists. Every read is one query.

use model::{ContainerId, ContainerSpec, Error, Exit, Health, Observed, Phase, Progress, PublishedPort, Result};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{ContainerProgress, ContainerRecord, EndpointRecord, HostAddress, desired, no_such_container, unsigned};
use crate::{ProjectTx, store_error};

/// The row behind [`ContainerRecord`], as the macro below selects it.
struct Row {
    id: String,
    name: String,
    image_id: String,
    spec: Json<ContainerSpec>,
    created_at: OffsetDateTime,
    desired_state: String,
    run: i32,
    stop_signal: String,
    stop_timeout_s: i64,
    observed_run: i32,
    observed_restart: i32,
    observed_phase: i16,
    pid: Option<i32>,
    started_at: Option<OffsetDateTime>,
    exit_code: Option<i32>,
    oom_killed: bool,
    exit_error: String,
    finished_at: Option<OffsetDateTime>,
    prepare_error: Option<String>,
    observed_revision: i64,
    paused: bool,
    oom_kills: i32,
    health: Option<Json<Health>>,
    removed_at: Option<OffsetDateTime>,
    host_id: Option<Uuid>,
    host_address: Option<String>,
    agent_port: Option<i32>,
    last_seen_at: Option<OffsetDateTime>,
    endpoints: Json<Vec<EndpointRecord>>,
    ports: Json<Vec<PublishedPort>>,
}

macro_rules! container_rows {
    ($rest:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Row,
            "SELECT c.id, c.name, c.image_id, c.created_at, c.desired_state, c.run, c.stop_signal, c.stop_timeout_s,
                c.observed_run, c.observed_restart, c.observed_phase, c.pid, c.started_at, c.exit_code, c.oom_killed,
                c.exit_error, c.finished_at, c.prepare_error, c.observed_revision, c.paused, c.oom_kills,
                c.health AS \"health: Json<Health>\", c.removed_at, c.host_id,
                host(h.address) AS \"host_address?\", h.agent_port AS \"agent_port?\", h.last_seen_at AS \"last_seen_at?\",
                (SELECT coalesce(jsonb_agg(jsonb_build_object('network', e.network_id, 'network_name', n.name, 'driver', n.driver,
                        'subnet', n.subnet::text, 'gateway', host(n.gateway), 'internal', n.internal, 'named', n.named,
                        'ip', host(e.ip), 'interface', e.interface, 'aliases', e.aliases, 'fixed_ip', e.fixed_ip,
                        'gw_priority', e.gw_priority, 'mac', e.mac, 'links', e.links) ORDER BY e.gw_priority DESC, n.name), '[]')
                 FROM endpoints e JOIN networks n ON n.id = e.network_id WHERE e.container_id = c.id)
                AS \"endpoints!: Json<Vec<EndpointRecord>>\",
                (SELECT coalesce(jsonb_agg(jsonb_build_object('container_port', p.container_port, 'protocol', p.protocol,
                        'host_ip', host(p.host_ip), 'host_port', p.host_port) ORDER BY p.container_port, p.protocol, p.host_port), '[]')
                 FROM published_ports p WHERE p.container_id = c.id) AS \"ports!: Json<Vec<PublishedPort>>\",
                c.spec AS \"spec!: Json<ContainerSpec>\"
                FROM containers c
                LEFT JOIN hosts h ON h.id = c.host_id "
                + $rest,
            $($argument),*
        )
    };
}

impl ProjectTx {
    /// The container a reference names in this project: full id, name (with or without `/`), or a
    /// unique prefix of an id. One query.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidArgument` if a prefix fits several.
    pub async fn find_container(&mut self, reference: &str) -> Result<ContainerRecord> {
        let (bare, first, behind) = search_terms(reference);
        let rows = container_rows!(
            "WHERE c.project_id = $1 AND c.desired_state <> 'removed' AND (c.id = $2 OR c.name = $2 OR (c.id ~>=~ $3 AND c.id ~<~ $4))
             ORDER BY (c.id = $2) DESC, (c.name = $2) DESC LIMIT 2",
            self.project.0,
            bare,
            first,
            behind,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        choose(reference, bare, rows)
    }

    /// Those of these containers that are in this project, in no order. One query.
    pub(super) async fn find_containers(&mut self, ids: &[&ContainerId]) -> Result<Vec<ContainerRecord>> {
        let ids: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let rows = container_rows!(
            "WHERE c.project_id = $1 AND c.desired_state <> 'removed' AND c.id = ANY($2)",
            self.project.0,
            &ids,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// As [`ProjectTx::find_container`], holding the row until the end of the transaction: nobody
    /// else can change what is wanted of it in between.
    ///
    /// # Errors
    /// As [`ProjectTx::find_container`].
    pub async fn lock_container(&mut self, reference: &str) -> Result<ContainerRecord> {
        let (bare, first, behind) = search_terms(reference);
        let rows = container_rows!(
            "WHERE c.project_id = $1 AND c.desired_state <> 'removed' AND (c.id = $2 OR c.name = $2 OR (c.id ~>=~ $3 AND c.id ~<~ $4))
             ORDER BY (c.id = $2) DESC, (c.name = $2) DESC LIMIT 2 FOR UPDATE OF c",
            self.project.0,
            bare,
            first,
            behind,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        choose(reference, bare, rows)
    }

    /// How far a container got, also when it is being removed or is gone; `None` once its row is swept.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn container_progress(&mut self, id: &ContainerId) -> Result<Option<ContainerProgress>> {
        let row = sqlx::query!(
            "SELECT c.desired_state, c.run, c.stop_signal, c.stop_timeout_s, c.observed_run, c.observed_restart,
                c.observed_phase, c.pid, c.started_at, c.exit_code, c.oom_killed, c.exit_error, c.finished_at,
                c.prepare_error, c.observed_revision, c.paused, c.oom_kills, c.health AS \"health: Json<Health>\",
                c.removed_at, h.last_seen_at AS \"last_seen_at?\"
             FROM containers c LEFT JOIN hosts h ON h.id = c.host_id
             WHERE c.project_id = $1 AND c.id = $2",
            self.project.0,
            id.as_str(),
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(ContainerProgress {
            desired: desired(&row.desired_state, row.run, row.stop_signal, row.stop_timeout_s)?,
            observed: Observed {
                progress: Progress {
                    run: unsigned(row.observed_run)?,
                    restart: unsigned(row.observed_restart)?,
                    phase: Phase::from_rank(row.observed_phase),
                },
                revision: revision(row.observed_revision)?,
                paused: row.paused,
                oom_kills: unsigned(row.oom_kills)?,
                health: row.health.map(|health| health.0),
                pid: row.pid.and_then(|pid| u32::try_from(pid).ok()),
                started_at: row.started_at,
                exit: exit(row.exit_code, row.oom_killed, row.exit_error, row.finished_at),
                prepare_error: row.prepare_error,
            },
            host_seen_at: row.last_seen_at,
            removed: row.removed_at.is_some(),
        }))
    }
}

/// The name without its slash, and where the ids begin and end that a reference can be the beginning of.
/// A range of bytes and not LIKE, whose plan depends on the pattern: Postgres would make one each time.
fn search_terms(reference: &str) -> (&str, Option<&str>, Option<String>) {
    let bare = reference.strip_prefix('/').unwrap_or(reference);
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let is_prefix = (1..=64).contains(&reference.len()) && reference.bytes().all(hex);
    // A NUL cannot be stored, hence names nothing; Postgres would refuse the whole query.
    let bare = if bare.contains('\0') { "" } else { bare };
    (bare, is_prefix.then_some(reference), is_prefix.then(|| behind_prefix(reference)))
}

/// Behind all ids that begin so, byte by byte: `g` is behind every hex digit.
pub(crate) fn behind_prefix(prefix: &str) -> String {
    format!("{prefix}g")
}

fn choose(reference: &str, bare: &str, rows: Vec<Row>) -> Result<ContainerRecord> {
    let mut rows = rows.into_iter();
    let first = rows.next().ok_or_else(|| no_such_container(reference))?;
    let exact = first.id == bare || first.name == bare;
    if !exact && rows.next().is_some() {
        return Err(Error::InvalidArgument(format!("multiple IDs found with provided prefix: {reference}")));
    }
    first.try_into()
}

pub(super) fn exit(
    code: Option<i32>,
    oom_killed: bool,
    error: String,
    finished_at: Option<OffsetDateTime>,
) -> Option<Exit> {
    let (code, finished_at) = code.zip(finished_at)?;
    Some(Exit { code, oom_killed, error, finished_at })
}

pub(super) fn revision(stored: i64) -> Result<u32> {
    u32::try_from(stored).map_err(Error::internal)
}

/// A stored text as the value it stands for; one that does not parse is a fault of ours.
pub(super) fn stored<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|e| Error::Internal(format!("{text:?} in a container's row: {e}")))
}

impl TryFrom<Row> for ContainerRecord {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let host = match (row.host_id, row.host_address, row.agent_port) {
            (Some(id), Some(address), Some(port)) => Some(HostAddress {
                id: model::HostId(id),
                address: stored(&address)?,
                agent_port: u16::try_from(port).map_err(Error::internal)?,
                last_seen_at: row.last_seen_at,
            }),
            _ => None,
        };
        Ok(Self {
            id: stored(&row.id)?,
            name: stored(&row.name)?,
            image_id: stored(&row.image_id)?,
            spec: row.spec.0.into(),
            created_at: row.created_at,
            desired: desired(&row.desired_state, row.run, row.stop_signal, row.stop_timeout_s)?,
            run: unsigned(row.run)?,
            host,
            observed: Observed {
                progress: Progress {
                    run: unsigned(row.observed_run)?,
                    restart: unsigned(row.observed_restart)?,
                    phase: Phase::from_rank(row.observed_phase),
                },
                revision: revision(row.observed_revision)?,
                paused: row.paused,
                oom_kills: unsigned(row.oom_kills)?,
                health: row.health.map(|health| health.0),
                pid: row.pid.and_then(|pid| u32::try_from(pid).ok()),
                started_at: row.started_at,
                exit: exit(row.exit_code, row.oom_killed, row.exit_error, row.finished_at),
                prepare_error: row.prepare_error,
            },
            endpoints: row.endpoints.0,
            ports: row.ports.0,
            removed_at: row.removed_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hex_digits_are_looked_up_as_a_prefix() {
        assert_eq!(search_terms("ab12"), ("ab12", Some("ab12"), Some("ab12g".into())));
        assert_eq!(search_terms("ab%"), ("ab%", None, None));
        assert_eq!(search_terms("a_"), ("a_", None, None));
        assert_eq!(search_terms("/web"), ("web", None, None));
        assert_eq!(search_terms(""), ("", None, None));
        assert_eq!(search_terms("a\0b"), ("", None, None));
        assert_eq!(search_terms(&"a".repeat(65)).1, None);
    }
}
