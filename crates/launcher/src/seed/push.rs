//! Pushing to a registry over HTTP (OCI distribution spec, "Push").

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, Method, Response, StatusCode, Url, header};

use super::{layer::sha256, recipe::Document};

/// The registry of this machine.
pub(super) struct Registry {
    http: Client,
    base: Url,
}

impl Registry {
    /// Waits until it answers.
    pub(super) async fn connect(address: &str, within: Duration) -> Result<Self> {
        chassis::tls::install_provider();
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        let registry = Self { http, base: format!("http://{address}/v2/").parse()? };
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let answer = registry.http.get(registry.base.clone()).send().await;
            match answer {
                Ok(answer) if answer.status() == StatusCode::OK => return Ok(registry),
                Ok(_) | Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(answer) => anyhow::bail!("the registry at {address} answers {}", answer.status()),
                Err(error) => return Err(error).with_context(|| format!("no registry answers at {address}")),
            }
        }
    }

    pub(super) async fn has_manifest(&self, repository: &str, reference: &str) -> Result<bool> {
        let url = self.base.join(&format!("{repository}/manifests/{reference}"))?;
        let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
        let answer = self.http.head(url).header(header::ACCEPT, accept).send().await?;
        Ok(answer.status() == StatusCode::OK)
    }

    pub(super) async fn put_blob(&self, repository: &str, content: &[u8]) -> Result<()> {
        let digest = sha256(content);
        let found = self.http.head(self.base.join(&format!("{repository}/blobs/{digest}"))?).send().await?;
        if found.status() == StatusCode::OK {
            return Ok(());
        }
        let begin = self.base.join(&format!("{repository}/blobs/uploads/"))?;
        let begun = expect(self.http.post(begin).send().await?, StatusCode::ACCEPTED)?;
        let location = begun.headers().get(header::LOCATION).context("an upload without a location")?;
        let mut url = self.base.join(location.to_str()?)?;
        url.query_pairs_mut().append_pair("digest", &digest);
        self.put(url, "application/octet-stream", content).await
    }

    pub(super) async fn put_manifest(&self, repository: &str, reference: &str, document: &Document) -> Result<()> {
        let url = self.base.join(&format!("{repository}/manifests/{reference}"))?;
        self.put(url, document.media_type, &document.body).await
    }

    async fn put(&self, url: Url, media_type: &str, content: &[u8]) -> Result<()> {
        let request = self.http.request(Method::PUT, url).header(header::CONTENT_TYPE, media_type);
        expect(request.body(content.to_vec()).send().await?, StatusCode::CREATED)?;
        Ok(())
    }
}

fn expect(answer: Response, status: StatusCode) -> Result<Response> {
    ensure!(answer.status() == status, "{} answers {}", answer.url().path(), answer.status());
    Ok(answer)
}
