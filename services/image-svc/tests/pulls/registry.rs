//! The hosted registry as the gateway speaks to it. Each test holds requirements of the distribution
//! spec's text.

mod blobs;
mod collection;
mod interrupted;
mod lists;
mod manifests;
mod quota;
mod runnable;
mod timing;
mod uploads;

use contract::registry::{BLOBS, CATALOG, MANIFESTS, REFERRERS, RegistryQuery, TAGS, UPLOADS};
use model::{ProjectId, RepositoryId};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use crate::{
    image::{MANIFEST, TestImage, sha256},
    stage::Stage,
};

/// A repository, as the gateway has authorized it.
struct Repo<'a> {
    stage: &'a Stage,
    query: RegistryQuery,
}

impl<'a> Repo<'a> {
    /// One that nothing was pushed to yet.
    fn fresh(stage: &'a Stage, project: ProjectId, path: &str) -> Self {
        let query = RegistryQuery {
            project: Some(project),
            name: format!("acme/web/{path}"),
            path: path.to_owned(),
            ..RegistryQuery::default()
        };
        Self { stage, query }
    }

    /// One that is there.
    async fn made(stage: &'a Stage, project: ProjectId, path: &str) -> Self {
        let mut repo = Self::fresh(stage, project, path);
        let begun = repo.post().send().await.expect("an answer");
        assert_eq!(begun.status(), 202);
        repo.find().await;
        repo
    }

    /// Looks up its id, as the gateway does on each request.
    async fn find(&mut self) {
        let id: Option<(uuid::Uuid,)> =
            sqlx::query_as("SELECT id FROM repositories WHERE project_id = $1 AND name = $2")
                .bind(self.query.project.expect("a project").0)
                .bind(&self.query.path)
                .fetch_optional(&self.stage.owner)
                .await
                .expect("a row");
        self.query.repository = id.map(|(id,)| RepositoryId(id));
    }

    fn call(&self, method: Method, path: &str, change: impl FnOnce(&mut RegistryQuery)) -> RequestBuilder {
        let mut query = self.query.clone();
        change(&mut query);
        self.stage.gateway.request(method, format!("{}{path}", self.stage.base)).query(&query)
    }

    fn post(&self) -> RequestBuilder {
        self.call(Method::POST, UPLOADS, |_| {})
    }

    /// A request to where an answer says an upload goes on.
    fn upload(&self, method: Method, begun: &Response) -> RequestBuilder {
        let id = begun.headers()["location"].to_str().expect("text").rsplit('/').next().expect("an id");
        self.call(method, &format!("{UPLOADS}/{id}"), |_| {})
    }

    fn put(&self, begun: &Response, digest: &str) -> RequestBuilder {
        let id = begun.headers()["location"].to_str().expect("text").rsplit('/').next().expect("an id").to_owned();
        self.call(Method::PUT, &format!("{UPLOADS}/{id}"), |query| query.digest = Some(digest.to_owned()))
    }

    async fn begin(&self) -> Response {
        let begun = self.post().send().await.expect("an answer");
        assert_eq!(begun.status(), 202);
        begun
    }

    fn blob(&self, method: Method, digest: &str) -> RequestBuilder {
        self.call(method, &format!("{BLOBS}/{digest}"), |_| {})
    }

    fn manifest(&self, method: Method, reference: &str) -> RequestBuilder {
        self.call(method, &format!("{MANIFESTS}/{reference}"), |_| {})
    }

    async fn push_blob(&self, content: &[u8]) {
        let post = self.call(Method::POST, UPLOADS, |query| query.digest = Some(sha256(content)));
        assert_eq!(post.body(content.to_vec()).send().await.expect("an answer").status(), 201);
    }

    async fn put_manifest(&self, reference: &str, media_type: &str, body: &[u8]) -> Response {
        let put = self.manifest(Method::PUT, reference).header("content-type", media_type);
        put.body(body.to_vec()).send().await.expect("an answer")
    }

    async fn push(&self, tag: &str, image: &TestImage) {
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(blob).await;
        }
        assert_eq!(self.put_manifest(tag, MANIFEST, &image.manifest).await.status(), 201);
    }

    async fn tags(&self, n: Option<&str>, last: Option<&str>) -> Response {
        let call = self.call(Method::GET, TAGS, |query| {
            query.n = n.map(str::to_owned);
            query.last = last.map(str::to_owned);
        });
        call.send().await.expect("an answer")
    }

    fn referrers(&self, digest: &str, kind: Option<&str>) -> RequestBuilder {
        let kind = kind.map(str::to_owned);
        self.call(Method::GET, &format!("{REFERRERS}/{digest}"), |query| query.artifact_type = kind)
    }

    fn catalog(&self) -> RequestBuilder {
        self.call(Method::GET, CATALOG, |query| query.name = "acme/web".into())
    }
}

/// Status and code of a refusal.
async fn refusal(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.expect("an error body");
    assert!(body["errors"][0]["message"].is_string(), "{body}");
    (status, body["errors"][0]["code"].as_str().expect("a code").to_owned())
}

fn header<'r>(answer: &'r Response, name: &str) -> &'r str {
    answer.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}
