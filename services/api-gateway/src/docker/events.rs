//! `GET /events`: a project's history from some instant on, then whatever comes. Wake-ups only say
//! that there is more; what there is, is read by sequence, so that nothing is missed or told twice,
//! however often Redis or this process goes away in between.

use std::{collections::VecDeque, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use chassis::bus::Wakeups;
use contract::wake::Topic;
use model::{Error, Event, EventKind, Result};
use serde_json::{Map, Value, json};
use store::ProjectScope;
use time::OffsetDateTime;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{body::DockerResponse, filters::Filters, instant, query::Query, version::RequestedVersion};
use crate::{Gateway, auth::Project};

/// Events read at once.
const BATCH: i64 = 256;
/// How long a stream goes without a wake-up before it looks by itself.
const SWEEP: Duration = Duration::from_secs(5);
/// Kinds whose filter matches the beginning of an id or a name.
const BY_NAME: [&str; 10] =
    ["container", "network", "volume", "plugin", "service", "node", "secret", "config", "daemon", "builder"];
/// Actions that carry more text after a colon.
const WITH_DETAIL: [&str; 3] = ["exec_create", "exec_start", "health_status"];

/// What happened, and what happens.
#[utoipa::path(get, path = "/events", operation_id = "SystemEvents", tag = "System",
    params(("since" = Option<String>, Query, description = "Begin at this instant instead of now"),
        ("until" = Option<String>, Query, description = "End at this instant"),
        ("filters" = Option<String>, Query, description = "JSON, as Docker's")),
    responses((status = 200, description = "One JSON object per line", content_type = "application/jsonl"),
        (status = 400, description = "Not an instant, or no filters")))]
pub(crate) async fn events(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    query: Query,
    headers: HeaderMap,
) -> DockerResponse {
    let now = gateway.clock.now();
    let at = |key: &str| query.text(key).map(|text| instant::parse(key, text, now)).transpose();
    let (since, until) = (at("since")?, at("until")?);
    if since.zip(until).is_some_and(|(since, until)| until < since) {
        return Err(Error::InvalidArgument("`since` time cannot be after `until` time".into()).into());
    }
    let filters = Filters::parse_any(query.get("filters"))?;
    // Registered before the first read.
    let wakeups = gateway.bus.subscribe(&Topic::Project(scope.project()));
    let mut tx = gateway.store.project_tx(&scope).await?;
    let told = match since {
        Some(since) => tx.event_before(since).await?,
        None => tx.last_event().await?,
    };
    drop(tx);
    let format = Format::choose(version, &headers);
    let legacy = !version.at_least(52);
    let history = History { gateway, scope, wakeups, told, until, read: VecDeque::new() };
    let lines = futures::stream::unfold(history, move |mut history| {
        let filters = filters.clone();
        async move {
            loop {
                let event = match history.next().await {
                    Ok(event) => event?,
                    Err(error) => return Some((Err(std::io::Error::other(error)), history)),
                };
                if passes(&filters, &event) {
                    return Some((Ok(format.line(&render(&event, legacy))), history));
                }
            }
        }
    });
    let mut response: Response = Body::from_stream(lines).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response.extensions_mut().insert(chassis::Endless);
    Ok(response)
}

/// The one operation on events.
pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(events))
}

/// How lines are separated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    JsonLines,
    Ndjson,
    JsonSequence,
}

impl Format {
    /// Before 1.52 there was one; since then the client may choose.
    fn choose(version: RequestedVersion, headers: &HeaderMap) -> Self {
        if !version.at_least(52) {
            return Self::Json;
        }
        let accepted = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let accepts = |kind: &str| accepted.split(',').any(|a| a.split(';').next().is_some_and(|a| a.trim() == kind));
        if accepts("application/jsonl") {
            Self::JsonLines
        } else if accepts("application/json-seq") {
            Self::JsonSequence
        } else if accepts("application/x-ndjson") {
            Self::Ndjson
        } else {
            Self::JsonLines
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonLines => "application/jsonl",
            Self::Ndjson => "application/x-ndjson",
            Self::JsonSequence => "application/json-seq",
        }
    }

    fn line(self, event: &Value) -> String {
        match self {
            Self::JsonSequence => format!("\u{1e}{event}\n"),
            Self::Json | Self::JsonLines | Self::Ndjson => format!("{event}\n"),
        }
    }
}

/// A reader of one project's history.
struct History {
    gateway: Gateway,
    scope: ProjectScope,
    wakeups: Wakeups,
    /// Everything up to this sequence was read.
    told: i64,
    until: Option<OffsetDateTime>,
    read: VecDeque<Event>,
}

impl History {
    /// The next event; `None` when there will be none any more.
    async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            while let Some(event) = self.read.pop_front() {
                if self.until.is_none_or(|until| event.at <= until) {
                    return Ok(Some(event));
                }
            }
            // Looked at before reading: what happened until then is read below.
            let over = self.until.is_some_and(|until| until <= self.gateway.clock.now());
            match self.refill().await {
                Ok(()) => {}
                // The client waits; Postgres may come back.
                Err(Error::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(500)).await,
                Err(other) => return Err(other),
            }
            if self.read.is_empty() {
                if over {
                    return Ok(None);
                }
                self.wakeups.woken(self.patience()).await;
            }
        }
    }

    async fn refill(&mut self) -> Result<()> {
        let mut tx = self.gateway.store.project_tx(&self.scope).await?;
        let events = tx.events_after(self.told, BATCH).await?;
        if let Some(last) = events.last() {
            self.told = last.sequence;
        }
        self.read = events.into();
        Ok(())
    }

    fn patience(&self) -> Duration {
        let left = self.until.map(|until| until - self.gateway.clock.now());
        left.map_or(SWEEP, |left| Duration::try_from(left).unwrap_or_default().min(SWEEP))
    }
}

/// An event as Docker's clients read it.
fn render(event: &Event, legacy: bool) -> Value {
    let mut shown = Map::new();
    if legacy && matches!(event.kind, EventKind::Container | EventKind::Image) {
        shown.insert("status".into(), json!(event.action));
        shown.insert("id".into(), json!(event.actor_id));
        if event.kind == EventKind::Container
            && let Some(image) = event.attributes.get("image")
        {
            shown.insert("from".into(), json!(image));
        }
    }
    let nanos = i64::try_from(event.at.unix_timestamp_nanos()).unwrap_or(i64::MAX);
    shown.insert("Type".into(), json!(event.kind.as_str()));
    shown.insert("Action".into(), json!(event.action));
    shown.insert("Actor".into(), json!({"ID": event.actor_id, "Attributes": event.attributes}));
    shown.insert("scope".into(), json!("local"));
    shown.insert("time".into(), json!(event.at.unix_timestamp()));
    shown.insert("timeNano".into(), json!(nanos));
    Value::Object(shown)
}

/// Docker's rules: keys are ANDed, values ORed; any key is accepted.
fn passes(filters: &Filters, event: &Event) -> bool {
    let name = event.attributes.get("name").map_or("", String::as_str);
    let by_name =
        |kind: &str| filters.any(kind, |wanted| event.actor_id.starts_with(wanted) || name.starts_with(wanted));
    let action_fits = |wanted: &str| {
        event.action == wanted
            || (WITH_DETAIL.contains(&wanted)
                && event.action.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(':')))
    };
    let image = match event.kind {
        EventKind::Image => name,
        EventKind::Container | EventKind::Network | EventKind::Volume => {
            event.attributes.get("image").map_or("", String::as_str)
        }
    };
    let image_fits = |wanted: &str| event.actor_id == wanted || image == wanted || without_tag(image) == wanted;
    BY_NAME.iter().all(|kind| by_name(kind))
        && filters.any("type", |wanted| wanted == event.kind.as_str())
        && filters.any("event", action_fits)
        && filters.any("image", image_fits)
        && filters.any("scope", |wanted| wanted == "local")
        && filters.labels(&event.attributes)
}

fn without_tag(image: &str) -> &str {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str) -> Event {
        let attributes = [("name", "web"), ("image", "r:5000/nginx:1"), ("tier", "front")];
        Event {
            sequence: 1,
            kind: EventKind::Container,
            action: action.into(),
            actor_id: "3d5b904d".into(),
            attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            at: OffsetDateTime::from_unix_timestamp_nanos(1_795_458_948_251_577_759).expect("time"),
        }
    }

    fn fits(filters: Value, action: &str) -> bool {
        passes(&Filters::parse_any(Some(&filters.to_string())).expect("filters"), &event(action))
    }

    #[test]
    fn keys_are_anded_and_values_ored() {
        assert!(fits(json!({}), "start"));
        assert!(fits(json!({"type": ["container"], "event": ["stop", "start"]}), "start"));
        assert!(!fits(json!({"type": ["image"], "event": ["start"]}), "start"));
        assert!(fits(json!({"anything": ["x"]}), "start"), "unknown keys are accepted");
    }

    #[test]
    fn a_container_is_found_by_the_beginning_of_its_id_or_name() {
        assert!(fits(json!({"container": ["3d5b"]}), "die"));
        assert!(fits(json!({"container": ["we"]}), "die"));
        assert!(!fits(json!({"container": ["eb"]}), "die"));
        assert!(!fits(json!({"network": ["bridge"]}), "die"));
    }

    #[test]
    fn an_exec_is_found_without_its_command() {
        assert!(fits(json!({"event": ["exec_create"]}), "exec_create: sh -c true"));
        assert!(!fits(json!({"event": ["exec"]}), "exec_create: sh -c true"));
    }

    #[test]
    fn an_image_is_found_with_and_without_its_tag_and_labels_are_attributes() {
        assert!(fits(json!({"image": ["r:5000/nginx"]}), "start"));
        assert!(fits(json!({"image": ["r:5000/nginx:1"]}), "start"));
        assert!(!fits(json!({"image": ["nginx"]}), "start"));
        assert!(fits(json!({"label": {"tier=front": true}}), "start"));
        assert!(!fits(json!({"label": ["tier=back"]}), "start"));
    }

    #[test]
    fn clients_before_1_52_get_the_old_fields_too() {
        let old = render(&event("start"), true);
        assert_eq!(
            (&old["status"], &old["id"], &old["from"]),
            (&json!("start"), &json!("3d5b904d"), &json!("r:5000/nginx:1"))
        );
        let new = render(&event("start"), false);
        assert!(new.get("status").is_none());
        assert_eq!((&new["time"], &new["timeNano"]), (&json!(1_795_458_948), &json!(1_795_458_948_251_577_759_i64)));
    }
}
