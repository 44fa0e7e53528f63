//! A gateway over a database of the test's own, and calls to it.

use std::sync::Arc;

use api_gateway::{Config, Gateway};
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request},
};
use chassis::{Common, Ctx, Peer, PeerCertificate, ids};
use http_body_util::BodyExt as _;
use model::ProjectId;
use serde_json::{Value, json};
use store::{ProjectScope, Store};
use testkit::{Database, Postgres, Seed};
use tower::ServiceExt as _;

/// One test's gateway.
pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) database: Database,
    pub(crate) seed: Seed,
    /// An operator's token.
    pub(crate) operator: String,
}

/// A project and a token that opens it.
pub(crate) struct OpenProject {
    pub(crate) id: ProjectId,
    pub(crate) token: String,
    pub(crate) token_id: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

impl World {
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, "http://127.0.0.1:1", "").await
    }

    /// With image-svc at an address, and further configuration.
    pub(crate) async fn with(name: &str, image: &str, more: &str) -> Self {
        let database = Postgres::shared().migrated_database(name).await.expect("a database");
        let seed = Seed::connect(&database).await.expect("the owner's connection");
        let operator = ids::random_token();
        seed.operator_token(&ids::sha256(operator.as_bytes())).await.expect("an operator");
        let text = format!(
            "listen = \"127.0.0.1:0\"\nscheduler = \"http://127.0.0.1:1\"\nimage = \"{image}\"\n\
             [database]\nurl = \"{}\"\n{more}",
            database.gateway
        );
        let (config, _) = chassis::config::parse::<Config>(&text, []).expect("a configuration");
        let gateway = Gateway::new(&Ctx::new("api-gateway", &Common::default()), config).expect("a gateway");
        Self { router: api_gateway::router(&gateway), database, seed, operator }
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.expect("never fails");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes().to_vec();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Sends JSON, or nothing, with a bearer token or none.
    pub(crate) async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).expect("a request")).await
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Reply {
        self.call("GET", path, Some(token), None).await
    }

    /// As the operator.
    pub(crate) async fn operate(&self, method: &str, path: &str, body: Value) -> Reply {
        let body = Some(body).filter(|body| !body.is_null());
        self.call(method, path, Some(&self.operator), body).await
    }

    /// A tenant with one project.
    pub(crate) async fn project(&self, name: &str) -> OpenProject {
        let tenant = self.operate("POST", "/api/v1/tenants", json!({ "name": name })).await.json();
        let path = format!("/api/v1/tenants/{}/projects", id(&tenant));
        let project = self.operate("POST", &path, json!({ "name": "main" })).await.json();
        let path = format!("/api/v1/projects/{}/tokens", id(&project));
        let token = self.operate("POST", &path, json!({ "label": "test" })).await.json();
        OpenProject {
            id: id(&project).parse().expect("an id"),
            token: token["secret"].as_str().expect("a secret").to_owned(),
            token_id: id(&token).to_owned(),
        }
    }

    /// As image-svc, which the gateway has asked to act in a project.
    pub(crate) fn image_service(&self, project: ProjectId) -> (Store, ProjectScope) {
        let store = Store::connect_lazy(&self.database.image, 2).expect("a url");
        (store, ProjectScope::delegated(project))
    }
}

/// A request over a connection whose client showed a certificate.
pub(crate) fn with_certificate(path: &str, der: &[u8]) -> Request<Body> {
    let certificate = PeerCertificate {
        common_name: Some("service:gateway".into()),
        sha256_fingerprint: hex::encode(ids::sha256(der)),
        der: der.to_vec(),
        trusted: false,
    };
    let peer = Peer { certificate: Some(Arc::new(certificate)), ..Peer::default() };
    Request::builder().method(Method::GET).uri(path).extension(peer).body(Body::empty()).expect("a request")
}

pub(crate) fn id(document: &Value) -> &str {
    document["id"].as_str().unwrap_or_else(|| panic!("no id in {document}"))
}
