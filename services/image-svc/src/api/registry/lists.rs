//! Lists: tags, referrers, a project's repositories. A list that goes on says where, in `Link`.

use axum::{
    Json,
    extract::State,
    http::{HeaderName, header},
    response::{IntoResponse as _, Response},
};
use contract::registry::{CATALOG, Code, REFERRERS, RegistryQuery, TAGS};
use serde_json::{Value, json};
use store::Page;

use super::{
    Answer,
    access::{InProject, InRepository, PathDigest},
    set,
};
use crate::{
    api::AppState,
    limits::{LIST_ENTRIES_MAX, REFERRERS_MAX},
    registry::{Outcome, refused},
};

const REFERRERS_PATH: &str = "/internal/v1/registry/referrers/{digest}";
const _: () = assert!(REFERRERS.len() + "/{digest}".len() == REFERRERS_PATH.len(), "the path is the contract's");
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// List a repository's tags.
#[utoipa::path(get, path = TAGS, operation_id = "registry_tags", tag = "registry", params(RegistryQuery),
    responses((status = 200, description = "Tags in order"), (status = 404, description = "No such repository")))]
pub(crate) async fn list_tags(
    State(state): State<AppState>,
    InRepository { scope, repository, query }: InRepository,
) -> Answer {
    let (limit, after) = (limit(&query)?, query.last.as_deref().unwrap_or_default());
    let mut tx = state.store.project_tx(&scope).await?;
    let tags = tx.repository_tags(repository, after, limit + 1).await?;
    let base = format!("/v2/{}/tags/list", query.name);
    Ok(sliced(tags, limit, &base, |tags| json!({ "name": query.name, "tags": tags })))
}

/// List a project's repositories.
#[utoipa::path(get, path = CATALOG, operation_id = "registry_catalog", tag = "registry", params(RegistryQuery),
    responses((status = 200, description = "Whole names in order")))]
pub(crate) async fn list_repositories(State(state): State<AppState>, InProject { scope, query }: InProject) -> Answer {
    let (limit, prefix) = (limit(&query)?, format!("{}/", query.name));
    let last = query.last.as_deref().unwrap_or_default();
    let after = last.strip_prefix(&prefix).unwrap_or(if last > prefix.as_str() { "\u{10ffff}" } else { "" });
    let mut tx = state.store.project_tx(&scope).await?;
    let names = tx.repository_names(&Page { after, limit: limit + 1 }).await?;
    let names = names.into_iter().map(|name| format!("{prefix}{name}")).collect();
    Ok(sliced(names, limit, "/v2/_catalog", |names| json!({ "repositories": names })))
}

/// List what is about a manifest.
#[utoipa::path(get, path = REFERRERS_PATH, operation_id = "registry_referrers", tag = "registry",
    params(("digest" = String, Path, description = "The subject"), RegistryQuery),
    responses((status = 200, description = "An index of them, maybe empty"), (status = 404, description = "No such repository")))]
pub(crate) async fn list_referrers(
    State(state): State<AppState>,
    InRepository { scope, repository, query }: InRepository,
    PathDigest(subject): PathDigest,
) -> Answer {
    let kind = query.artifact_type.as_deref().filter(|kind| !kind.is_empty());
    let after = query.last.as_deref().unwrap_or_default();
    let mut tx = state.store.project_tx(&scope).await?;
    let mut found = tx.referrers(repository, &subject, kind, after, REFERRERS_MAX + 1).await?;
    let more = found.len() > REFERRERS_MAX.unsigned_abs() as usize;
    found.truncate(REFERRERS_MAX.unsigned_abs() as usize);
    let last = found.last().filter(|_| more).map(|referrer| referrer.digest.clone());
    let manifests: Vec<Value> = found
        .into_iter()
        .map(|referrer| {
            let mut entry =
                json!({ "mediaType": referrer.media_type, "digest": referrer.digest, "size": referrer.size_bytes });
            if let Some(kind) = referrer.artifact_type {
                entry["artifactType"] = kind.into();
            }
            if let Some(annotations) = referrer.annotations {
                entry["annotations"] = annotations;
            }
            entry
        })
        .collect();
    let mut answer =
        Json(json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests })).into_response();
    let headers = answer.headers_mut();
    set(headers, header::CONTENT_TYPE, OCI_INDEX);
    if kind.is_some() {
        set(headers, HeaderName::from_static("oci-filters-applied"), "artifactType");
    }
    if let Some(last) = last {
        let base = format!("/v2/{}/referrers/{subject}", query.name);
        let kind = kind.map(|kind| format!("&artifactType={}", escaped(kind))).unwrap_or_default();
        set(headers, header::LINK, &format!("<{base}?last={last}{kind}>; rel=\"next\""));
    }
    Ok(answer)
}

/// How many entries are wanted; all that one answer may have if nothing is said.
fn limit(query: &RegistryQuery) -> Outcome<i64> {
    match query.n.as_deref() {
        None | Some("") => Ok(LIST_ENTRIES_MAX),
        Some(text) => match text.parse::<i64>() {
            Ok(n) if n >= 0 => Ok(n.min(LIST_ENTRIES_MAX)),
            Ok(_) | Err(_) => refused(Code::Unsupported, "n is not a number of entries"),
        },
    }
}

/// A list of at most `limit` entries, of one that was read with one entry more.
fn sliced(mut names: Vec<String>, limit: i64, base: &str, body: impl Fn(&[String]) -> Value) -> Response {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = names.len() > most;
    names.truncate(most);
    let mut answer = Json(body(&names)).into_response();
    if let Some(last) = names.last().filter(|_| more) {
        set(answer.headers_mut(), header::LINK, &format!("<{base}?n={limit}&last={}>; rel=\"next\"", escaped(last)));
    }
    answer
}

/// As a value in a query: everything but what never means something else.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
