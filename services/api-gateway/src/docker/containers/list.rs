//! `GET /containers/json`: one query for all containers, filtered here.

use std::collections::BTreeSet;

use axum::{extract::State, http::StatusCode};
use model::{Digest, Error, PortProtocol, Result};
use regex::{Regex, RegexBuilder};
use store::{ContainerRecord, ProjectTx};
use time::OffsetDateTime;

use super::{
    render::{self, Line},
    sizes::Sizes,
    state, volumes,
};
use crate::{
    Gateway,
    auth::Project,
    docker::{
        body::{DockerResponse, json},
        filters::Filters,
        query::Query,
        version::RequestedVersion,
    },
};

const KNOWN: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];

/// Lists containers.
#[utoipa::path(get, path = "/containers/json", operation_id = "ContainerList", tag = "Container",
    params(("all" = Option<bool>, Query, description = "Also those that do not run"),
        ("limit" = Option<i64>, Query, description = "Only so many, newest first; includes those that do not run"),
        ("size" = Option<bool>, Query, description = "Tell sizes, which their hosts measure now"),
        ("filters" = Option<String>, Query, description = "JSON, as Docker's")),
    responses((status = 200, description = "Containers", body = Vec<Object>), (status = 400, description = "Unknown filter")))]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    query: Query,
) -> DockerResponse {
    let limit = query.integer("limit")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let filters = Filters::parse(query.get("filters"), &KNOWN)?;
    // As dockerd: an exit code alone does not bring those that do not run.
    let any_state = query.flag("all") || limit.is_some() || filters.has("status");
    let mut tx = gateway.store.project_tx(&scope).await?;
    let chosen = Chosen::parse(&mut tx, &filters).await?;
    let containers = tx.list_containers(any_state).await?;
    drop(tx);
    let now = gateway.clock.now();
    let shown: Vec<&ContainerRecord> = containers
        .iter()
        .filter(|c| (any_state || state::of(c).is_running()) && chosen.passes(c))
        .take(limit.unwrap_or(usize::MAX))
        .collect();
    let sizes = if query.flag("size") { Sizes::ask(&gateway, &shown).await } else { Sizes::default() };
    let shown: Vec<Line> = shown.iter().map(|c| Line::of(c, version, now).with_size(sizes.of(&c.id))).collect();
    json(StatusCode::OK, &shown)
}

/// The filters, parsed and with their references resolved.
struct Chosen<'a> {
    filters: &'a Filters,
    names: Vec<Regex>,
    ids: Vec<Regex>,
    images: Option<BTreeSet<Digest>>,
    before: Option<OffsetDateTime>,
    since: Option<OffsetDateTime>,
    exited: Vec<i32>,
    tasks: bool,
    publish: Vec<Ports>,
    expose: Vec<Ports>,
}

/// A range of ports of one transport.
struct Ports {
    from: u16,
    to: u16,
    protocol: PortProtocol,
}

impl<'a> Chosen<'a> {
    async fn parse(tx: &mut ProjectTx, filters: &'a Filters) -> Result<Self> {
        let wrong = |key: &str, value: &str| Error::InvalidArgument(format!("invalid filter '{key}={value}'"));
        if let Some(bad) = filters.values("status").iter().find(|s| !STATES.contains(&s.as_str())) {
            return Err(wrong("status", bad));
        }
        let health = ["starting", "healthy", "unhealthy", "none"];
        if let Some(bad) = filters.values("health").iter().find(|s| !health.contains(&s.as_str())) {
            return Err(wrong("health", bad));
        }
        let exited = filters.values("exited").iter().map(|code| code.parse().map_err(|_| wrong("exited", code)));
        let ports = |key: &'static str| {
            filters.values(key).iter().map(|p| parse_ports(p).ok_or_else(|| wrong(key, p))).collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            filters,
            names: patterns(filters.values("name"))?,
            ids: patterns(filters.values("id"))?,
            images: ancestors(tx, filters).await?,
            before: edge(tx, filters, "before").await?.into_iter().min(),
            since: edge(tx, filters, "since").await?.into_iter().max(),
            exited: exited.collect::<Result<_>>()?,
            tasks: filters.boolean("is-task")?.unwrap_or(false),
            publish: ports("publish")?,
            expose: ports("expose")?,
        })
    }

    fn passes(&self, c: &ContainerRecord) -> bool {
        let state = state::of(c);
        let with_slash = format!("/{}", c.name);
        let name_fits = |r: &Regex| r.is_match(c.name.as_str()) || r.is_match(&with_slash);
        let code = c.observed.exit.as_ref().map(|exit| exit.code);
        let exit_fits = |wanted: &i32| state == state::State::Exited && code == Some(*wanted);
        let network_fits = |wanted: &str| {
            let is = |e: &store::EndpointRecord| {
                e.network_name == wanted || (!wanted.is_empty() && e.network.as_str().starts_with(wanted))
            };
            c.endpoints.iter().any(is) || (wanted == "none" && c.spec.network_none)
        };
        (self.names.is_empty() || self.names.iter().any(name_fits))
            && (self.ids.is_empty() || self.ids.iter().any(|r| r.is_match(c.id.as_str())))
            && self.images.as_ref().is_none_or(|images| images.contains(&c.image_id))
            && self.before.is_none_or(|edge| c.created_at < edge)
            && self.since.is_none_or(|edge| c.created_at > edge)
            && (self.exited.is_empty() || self.exited.iter().any(exit_fits))
            && self.filters.labels(&c.spec.labels)
            && self.filters.any("status", |s| s == state.as_str())
            && self.filters.any("network", network_fits)
            && self.filters.any("health", |s| s == state::health_word(c))
            // There are no tasks of services here.
            && !self.tasks
            && self.filters.any("volume", |wanted| volumes::has(&c.spec, wanted))
            && self.ports_fit(c)
    }

    /// As dockerd: of what is published and what is exposed one is enough, and nothing is where nothing runs.
    fn ports_fit(&self, c: &ContainerRecord) -> bool {
        if self.publish.is_empty() && self.expose.is_empty() {
            return true;
        }
        state::of(c).is_alive()
            && (self.publish.iter().any(|range| publishes(c, range))
                || self.expose.iter().any(|range| exposes(c, range)))
    }
}

/// Docker's patterns are regular expressions, found anywhere.
pub(crate) fn patterns(written: &[String]) -> Result<Vec<Regex>> {
    written
        .iter()
        .map(|text| {
            let bounded = RegexBuilder::new(text).size_limit(1 << 18).build();
            // What is no pattern can still be meant as it is written.
            let literal = || Regex::new(&format!("^{}$", regex::escape(text)));
            bounded.or_else(|_| literal()).map_err(|e| Error::invalid("filter", &e.to_string()))
        })
        .collect()
}

async fn ancestors(tx: &mut ProjectTx, filters: &Filters) -> Result<Option<BTreeSet<Digest>>> {
    if !filters.has("ancestor") {
        return Ok(None);
    }
    let mut images = Vec::new();
    for reference in filters.values("ancestor") {
        match tx.resolve_image_id(reference).await {
            Ok(id) => images.push(id),
            // An image that is not here has no containers.
            Err(Error::NotFound(_) | Error::InvalidArgument(_)) => {}
            Err(other) => return Err(other),
        }
    }
    let above = tx.images_above(&images).await?;
    Ok(Some(images.into_iter().chain(above).collect()))
}

async fn edge(tx: &mut ProjectTx, filters: &Filters, key: &str) -> Result<Vec<OffsetDateTime>> {
    let mut edges = Vec::new();
    for reference in filters.values(key) {
        edges.push(tx.find_container(reference).await?.created_at);
    }
    Ok(edges)
}

/// `80`, `80/udp`, `8000-8080/tcp`.
fn parse_ports(written: &str) -> Option<Ports> {
    let (range, protocol) = written.split_once('/').unwrap_or((written, "tcp"));
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
    (from <= to).then_some(Ports { from, to, protocol: protocol.parse().ok()? })
}

impl Ports {
    fn has(&self, port: u16, protocol: PortProtocol) -> bool {
        protocol == self.protocol && (self.from..=self.to).contains(&port)
    }
}

fn publishes(c: &ContainerRecord, range: &Ports) -> bool {
    c.ports.iter().any(|p| range.has(p.host_port, p.protocol))
}

fn exposes(c: &ContainerRecord, range: &Ports) -> bool {
    let exposed = c.spec.exposed_ports.iter().filter_map(|written| render::parse_port(written));
    let published = c.ports.iter().map(|port| (port.container_port, port.protocol));
    exposed.chain(published).any(|(port, protocol)| range.has(port, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(filters: &str) -> bool {
        let filters = Filters::parse(Some(filters), &KNOWN).expect("filters");
        let chosen = Chosen {
            names: patterns(filters.values("name")).expect("names"),
            ids: patterns(filters.values("id")).expect("ids"),
            images: None,
            before: None,
            since: None,
            exited: filters.values("exited").iter().filter_map(|c| c.parse().ok()).collect(),
            tasks: filters.boolean("is-task").expect("one or none").unwrap_or(false),
            publish: filters.values("publish").iter().filter_map(|p| parse_ports(p)).collect(),
            expose: filters.values("expose").iter().filter_map(|p| parse_ports(p)).collect(),
            filters: &filters,
        };
        chosen.passes(&render::tests::running())
    }

    #[test]
    fn a_name_is_a_pattern_with_or_without_its_slash() {
        for pattern in ["s1", "^s1$", "^/s1$", "s", "[a-z]1"] {
            assert!(passes(&serde_json::json!({"name": [pattern]}).to_string()), "{pattern}");
        }
        assert!(!passes(r#"{"name":["^1"]}"#));
        assert!(passes(r#"{"name":["nope","s1"]}"#), "values of one key are ORed");
    }

    #[test]
    fn keys_are_anded() {
        assert!(passes(r#"{"status":["running"],"id":["3d5b"]}"#));
        assert!(!passes(r#"{"status":["exited"],"id":["3d5b"]}"#));
        assert!(!passes(r#"{"exited":["0"]}"#));
        assert!(passes(r#"{"publish":["18000-18100/tcp"],"expose":["53/udp"],"network":["bridge"]}"#));
        assert!(!passes(r#"{"publish":["80"]}"#));
        assert!(passes(r#"{"publish":["80"],"expose":["80"]}"#), "but for these two, of which one is enough");
        assert!(!passes(r#"{"is-task":["true"]}"#) && passes(r#"{"is-task":["false"]}"#));
        assert!(!passes(r#"{"volume":["v"]}"#));
    }

    #[test]
    fn filters_of_ports_are_ranges_and_those_of_prunes_are_not_taken() {
        for good in ["80", "80/udp", "8000-8080/tcp"] {
            assert!(parse_ports(good).is_some(), "{good}");
        }
        for bad in ["", "x", "9-8", "80/icmp", "70000"] {
            assert!(parse_ports(bad).is_none(), "{bad}");
        }
        let refused = Filters::parse(Some(r#"{"label!":["a"]}"#), &KNOWN).expect_err("refused");
        assert_eq!(refused.to_string(), "invalid filter 'label!'");
    }

    #[test]
    fn a_pattern_bomb_is_taken_as_plain_text() {
        assert!(!patterns(&["s(".into()]).expect("taken")[0].is_match("is(no"), "and as all of it");
        assert!(patterns(&["(a{1000}){1000}".into()]).is_ok());
        assert!(patterns(&["(".into()]).is_ok());
    }
}
