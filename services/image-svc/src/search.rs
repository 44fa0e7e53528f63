//! Finding images by a part of their names: in the hosted registry, as far as the caller may read it, and
//! in the catalogs of upstreams that the operator opened to this.

use contract::image::{SearchHit, SearchRequest};
use model::{DEFAULT_REGISTRY, Error, ImageReference, Result};
use store::Store;

use crate::{
    pull::{HostedNames, Puller},
    upstream::UpstreamError,
};

/// What is found, the hosted ones first; `limit` at most.
///
/// # Errors
/// Postgres or an upstream does not answer.
pub(crate) async fn search(
    store: &Store,
    puller: &Puller,
    hosted: &HostedNames,
    request: &SearchRequest,
) -> Result<Vec<SearchHit>> {
    let _permit = puller.asking()?;
    let term = request.term.to_lowercase();
    let (registry, term) = split(&term);
    let (own, outside) = match registry {
        None => (hosted.first(), true),
        Some(DEFAULT_REGISTRY) => (None, true),
        Some(named) if hosted.is(named) => (Some(named), false),
        Some(other) => {
            let text = format!("{other}: only the hosted registry and the upstreams of this platform are searched");
            return Err(Error::NotImplemented(text));
        }
    };
    let mut hits = Vec::new();
    if let Some(own) = own {
        for name in store.search_repositories(request.project, term, request.limit).await? {
            hits.push(SearchHit { name: format!("{own}/{name}"), is_official: false });
        }
    }
    if outside {
        for (registry, names) in puller.catalogs().await.map_err(UpstreamError::of_registry)? {
            hits.extend(names.iter().filter_map(|name| hit(&registry, name)).filter(|hit| hit.name.contains(term)));
        }
    }
    hits.truncate(usize::from(request.limit));
    Ok(hits)
}

/// A term may begin with a registry, by Docker's rule of what looks like one.
fn split(term: &str) -> (Option<&str>, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => (Some(host), rest),
        Some(_) | None => (None, term),
    }
}

/// A repository by the name it is pulled by; one that is no name is nobody's to pull.
fn hit(registry: &str, repository: &str) -> Option<SearchHit> {
    let reference: ImageReference = format!("{registry}/{repository}").parse().ok()?;
    let is_official = registry == DEFAULT_REGISTRY && repository.starts_with("library/");
    Some(SearchHit { name: reference.familiar_name(), is_official })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_calls_official_is_the_library_of_its_hub() {
        let found = |registry: &str, name: &str| hit(registry, name).map(|hit| (hit.name, hit.is_official));
        assert_eq!(found("docker.io", "library/busybox"), Some(("busybox".into(), true)));
        assert_eq!(found("docker.io", "me/app"), Some(("me/app".into(), false)));
        assert_eq!(found("r.example", "library/x"), Some(("r.example/library/x".into(), false)));
        assert_eq!(found("docker.io", "NO/../NAME"), None);
    }
}
