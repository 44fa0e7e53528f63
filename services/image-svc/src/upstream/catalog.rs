//! The names of an upstream's repositories (OCI distribution spec, "Listing Repositories"), page by page.

use reqwest::{
    Method, StatusCode, Url,
    header::{HeaderMap, LINK},
};
use serde::Deserialize;

use super::{
    UpstreamError,
    http::{Http, Outgoing, read_bounded},
    repository::next_page,
};
use crate::limits::{CATALOG_PAGES_MAX, MANIFEST_BYTES_MAX};

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

/// As many as fit into the pages that are read.
pub(super) async fn names(http: &Http, base: &Url, operators: Option<&str>) -> Result<Vec<String>, UpstreamError> {
    let (mut names, mut query) = (Vec::new(), "n=1000".to_owned());
    for _ in 0..CATALOG_PAGES_MAX {
        let bad = |_| UpstreamError::Invalid(format!("{base} is not the address of a registry"));
        let outgoing = Outgoing {
            method: Method::GET,
            url: base.join(&format!("v2/_catalog?{query}")).map_err(bad)?,
            headers: HeaderMap::new(),
            authorization: None,
            form: None,
            body: None,
            operators,
        };
        let response = http.send(outgoing).await?;
        if response.status() != StatusCode::OK {
            return Err(UpstreamError::Unreachable(format!(
                "the catalog of the registry answers {}",
                response.status()
            )));
        }
        let next = response.headers().get(LINK).and_then(|link| link.to_str().ok()).and_then(next_page);
        let page: Page = serde_json::from_slice(&read_bounded(response, MANIFEST_BYTES_MAX).await?)
            .map_err(|_| UpstreamError::Invalid("the registry sends no catalog".into()))?;
        names.extend(page.repositories.unwrap_or_default());
        match next {
            Some(next) => query = next,
            None => break,
        }
    }
    Ok(names)
}
