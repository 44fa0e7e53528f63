//! On to image-svc and back: bodies pass through as they come, and of headers only those the
//! distribution spec knows.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts},
    response::IntoResponse as _,
};
use contract::registry::{BLOBS, CATALOG, MANIFESTS, REFERRERS, RegistryQuery, TAGS, UPLOADS};
use futures::TryStreamExt as _;
use model::{Error, ProjectId, RepositoryName};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use store::RepositoryAccess;

use super::{
    Answer,
    call::{Action, Target},
    holder::Holder,
};
use crate::Gateway;

const ASKED: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::RANGE,
    header::IF_RANGE,
    header::IF_NONE_MATCH,
    header::ACCEPT,
];
const ANSWERED: [HeaderName; 12] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::RANGE,
    header::ETAG,
    header::LINK,
    header::LOCATION,
    HeaderName::from_static("docker-content-digest"),
    HeaderName::from_static("docker-upload-uuid"),
    HeaderName::from_static("oci-subject"),
    HeaderName::from_static("oci-filters-applied"),
];

/// The repositories of the caller's project.
pub(super) async fn catalog(gateway: &Gateway, project: ProjectId, parts: &Parts) -> Answer {
    let name = gateway.store.registry_namespace(project).await?;
    let name = name.ok_or_else(|| Error::Unavailable("the project is being removed".into()))?;
    let mut query = RegistryQuery { project: Some(project), name, ..asked(parts) };
    query.digest = None;
    send(gateway, &parts.method, CATALOG, &query, &parts.headers, Body::empty()).await
}

/// What the caller, who is allowed to, wants of a repository.
pub(super) async fn repository(
    gateway: &Gateway,
    holder: &Holder,
    name: &RepositoryName,
    access: &RepositoryAccess,
    target: &Target,
    parts: Parts,
    body: Body,
) -> Answer {
    let mut query = RegistryQuery {
        project: Some(access.project),
        repository: access.repository,
        name: name.to_string(),
        path: name.path.clone(),
        ..asked(&parts)
    };
    if *target == Target::Uploads {
        mount(gateway, holder, &parts, &mut query).await?;
    }
    let path = match target {
        Target::Tags => TAGS.to_owned(),
        Target::Referrers(digest) => below(REFERRERS, digest),
        Target::Manifest(reference) => below(MANIFESTS, reference),
        Target::Blob(digest) => below(BLOBS, digest),
        Target::Uploads => UPLOADS.to_owned(),
        Target::Upload(id) => below(UPLOADS, id),
    };
    send(gateway, &parts.method, &path, &query, &parts.headers, body).await
}

/// A path of image-svc with something of the caller's at its end.
pub(super) fn below(root: &str, last: &str) -> String {
    format!("{root}/{}", utf8_percent_encode(last, NON_ALPHANUMERIC))
}

/// What the query of a request says.
fn asked(parts: &Parts) -> RegistryQuery {
    let mut asked = RegistryQuery::default();
    for (key, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
        let value = Some(value.into_owned());
        match &*key {
            "digest" => asked.digest = value,
            "mount" => asked.mount = value,
            "n" => asked.n = value,
            "last" => asked.last = value,
            "artifactType" => asked.artifact_type = value,
            _ => {}
        }
    }
    asked
}

/// A blob is mounted only from where the caller may read it; otherwise there is nothing to mount, and an
/// upload begins, whether or not the source has such a blob.
async fn mount(gateway: &Gateway, holder: &Holder, parts: &Parts, query: &mut RegistryQuery) -> Result<(), Error> {
    if query.mount.is_none() {
        return Ok(());
    }
    let from = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
        .find(|(key, _)| key == "from")
        .map(|(_, value)| value.into_owned());
    let Some(from) = from else {
        query.from_anywhere = holder.is_whole();
        return Ok(());
    };
    let Ok(from) = from.parse::<RepositoryName>() else { return Ok(()) };
    if !holder.may(&from, Action::Pull) {
        return Ok(());
    }
    if let Some(source) = gateway.store.registry_repository(&from, holder.project()).await? {
        query.from_project = Some(source.project);
        query.from_repository = source.repository;
    }
    Ok(())
}

async fn send(
    gateway: &Gateway,
    method: &Method,
    path: &str,
    query: &RegistryQuery,
    asked: &HeaderMap,
    body: Body,
) -> Answer {
    let mut headers = HeaderMap::new();
    for name in ASKED {
        if let Some(value) = asked.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let body = matches!(*method, Method::POST | Method::PUT | Method::PATCH).then(|| body.into_data_stream());
    let answered = gateway.image.relay(method.clone(), path, query, headers, body).await?;
    let status = answered.status();
    if status == StatusCode::UNAUTHORIZED {
        return Err(Error::Internal("image-svc refused the gateway's certificate".into()).into());
    }
    let mut response = StatusCode::OK.into_response();
    *response.status_mut() = status;
    for name in ANSWERED {
        if let Some(value) = answered.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    if *method != Method::HEAD {
        *response.body_mut() = Body::from_stream(answered.bytes_stream().map_err(std::io::Error::other));
    }
    Ok(response)
}
