//! The stand-ins, and a client that speaks raw HTTP where it matters.

use std::{net::SocketAddr, time::Duration};

use api_gateway::{Config, Gateway};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use chassis::{Common, Ctx, ids};
use contract::{
    agent::{ExecState, KillRequest, TopReply},
    place::{PLACE, PlaceRequest, Placement},
};
use hyper_util::rt::TokioIo;
use model::{Error, HostId};
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::{Postgres, Seed, SeededProject, room_for};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// One test's gateway with everything around it.
pub(crate) struct Fleet {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) seed: Seed,
}

#[derive(Clone)]
struct Host {
    pool: PgPool,
    id: HostId,
}

/// What a host does, in the words its reports would have in Postgres. Commands choose their fate.
const HOST_STEPS: [&str; 5] = [
    "UPDATE containers SET observed_run = run, observed_phase = 5, exit_code = 127, finished_at = clock_timestamp(),
        exit_error = 'exec: \"missing\": executable file not found in $PATH: unknown'
     WHERE host_id IS NOT NULL AND desired_state = 'running' AND observed_run < run AND spec->'cmd'->>0 = 'missing'",
    "UPDATE containers SET observed_run = run, observed_phase = 4, started_at = clock_timestamp(), pid = 42
     WHERE host_id IS NOT NULL AND desired_state = 'running' AND observed_run < run
        AND spec->'cmd'->>0 IS DISTINCT FROM 'missing'",
    "UPDATE containers SET observed_phase = 5, exit_code = 3, finished_at = clock_timestamp(),
        desired_state = CASE WHEN (spec->>'auto_remove')::boolean THEN 'removed' ELSE desired_state END
     WHERE observed_phase = 4 AND spec->'cmd'->>0 = 'short' AND started_at < clock_timestamp() - interval '200 ms'",
    "UPDATE containers SET observed_phase = 5, exit_code = 143, finished_at = clock_timestamp()
     WHERE desired_state = 'stopped' AND observed_phase = 4",
    "UPDATE containers SET observed_phase = 6, removed_at = clock_timestamp()
     WHERE desired_state = 'removed' AND removed_at IS NULL AND host_id IS NOT NULL",
];

impl Fleet {
    pub(crate) async fn new(name: &str) -> Self {
        let database = Postgres::shared().migrated_database(name).await.expect("a database");
        let seed = Seed::connect(&database).await.expect("the owner's connection");
        let host = seed.host("node-1", room_for(100)).await.expect("a host");
        let state = Host { pool: seed.pool().clone(), id: host };
        let agent = serve(agent().with_state(state.clone())).await;
        sqlx::query("UPDATE hosts SET address = '127.0.0.1', agent_port = $1")
            .bind(i32::from(agent.port()))
            .execute(seed.pool())
            .await
            .expect("the host's address");
        let scheduler = serve(Router::new().route(PLACE, post(place)).with_state(state.clone())).await;
        tokio::spawn(async move {
            while host_acts(&state.pool).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let text = format!(
            "listen = \"127.0.0.1:0\"\nscheduler = \"http://{scheduler}\"\nimage = \"http://127.0.0.1:1\"\n\
             [database]\nurl = \"{}\"\n",
            database.gateway
        );
        let (config, _) = chassis::config::parse::<Config>(&text, []).expect("a configuration");
        let gateway = Gateway::new(&Ctx::new("api-gateway", &Common::default()), config).expect("a gateway");
        let address = serve(api_gateway::router(&gateway)).await;
        let (_, token) = project(&seed).await;
        Self { address, token, seed }
    }

    /// A call of the fleet's own project.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.call_as(&self.token, method, path, body).await
    }

    pub(crate) async fn call_as(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Reply {
        let client = chassis::reqwest::Client::builder().no_proxy().build().expect("a client");
        let method = method.parse().expect("a method");
        let mut request = client.request(method, format!("http://{}{path}", self.address)).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let kind = response.headers().get(header::CONTENT_TYPE).map(|v| v.to_str().expect("text").to_owned());
        Reply { status, kind: kind.unwrap_or_default(), body: response.text().await.expect("a body") }
    }

    /// Creates a container that runs `cmd`; its id.
    pub(crate) async fn create(&self, name: &str, cmd: &[&str], more: Value) -> String {
        let mut body = json!({"Image": "busybox", "Cmd": cmd});
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let reply = self.call("POST", &format!("/v1.53/containers/create?name={name}"), Some(body)).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        reply.json()["Id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn start(&self, reference: &str) -> Reply {
        self.call("POST", &format!("/containers/{reference}/start"), None).await
    }

    /// Opens a connection, sends a request with an upgrade, and returns the head of the answer and the stream.
    pub(crate) async fn hijack(&self, path: &str, body: &str, upgrade: bool) -> (String, TcpStream) {
        let upgrade = if upgrade { "Connection: Upgrade\r\nUpgrade: tcp\r\n" } else { "" };
        self.request("POST", path, upgrade, body).await
    }

    /// As [`Fleet::hijack`], of any method, with header lines of one's own.
    pub(crate) async fn request(&self, method: &str, path: &str, lines: &str, body: &str) -> (String, TcpStream) {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: docker\r\nAuthorization: Bearer {}\r\n{lines}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the head of an answer"));
        }
        (String::from_utf8(head).expect("text"), stream)
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().expect("a message").to_owned()
    }
}

/// A project with a token and the image `busybox`.
pub(crate) async fn project(seed: &Seed) -> (SeededProject, String) {
    let project = seed.project().await.expect("a project");
    let token = ids::random_token();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}});
    for (statement, bytes, text) in [
        (
            "INSERT INTO tokens (id, project_id, kind, secret_sha256) SELECT gen_random_uuid(), id, 'bearer', $2 FROM projects WHERE id = $1::text::uuid AND $3 <> ''",
            ids::sha256(token.as_bytes()).to_vec(),
            "x".to_owned(),
        ),
        (
            "UPDATE images SET config = $2 WHERE project_id = $1::text::uuid AND $3 <> ''",
            config.to_string().into_bytes(),
            "x".to_owned(),
        ),
        (
            "INSERT INTO image_tags (project_id, repository, tag, image_id) SELECT $1::text::uuid, 'docker.io/library/busybox', 'latest', $3 WHERE $2::bytea IS NOT NULL",
            Vec::new(),
            project.image.clone(),
        ),
    ] {
        sqlx::query(statement)
            .bind(project.id.to_string())
            .bind(bytes)
            .bind(text)
            .execute(seed.pool())
            .await
            .expect(statement);
    }
    (project, token)
}

/// One look around by the host; `false` once the database is gone.
async fn host_acts(pool: &PgPool) -> bool {
    for step in HOST_STEPS {
        if sqlx::query(step).execute(pool).await.is_err() {
            return false;
        }
    }
    sqlx::query("UPDATE hosts SET last_seen_at = now()").execute(pool).await.is_ok()
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn place(State(host): State<Host>, Json(request): Json<PlaceRequest>) -> Response {
    let full = Error::NoCapacity("no host has 512 GiB of memory free".into());
    let memory: Option<i64> =
        sqlx::query_scalar("SELECT (spec->'resources'->>'memory_bytes')::bigint FROM containers WHERE id = $1")
            .bind(request.container.as_str())
            .fetch_one(&host.pool)
            .await
            .expect("the container");
    if memory.is_some_and(|bytes| bytes >= 512 << 30) {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(full)).into_response();
    }
    sqlx::query("UPDATE containers SET host_id = $2::text::uuid, observed_phase = 2 WHERE id = $1")
        .bind(request.container.as_str())
        .bind(host.id.to_string())
        .execute(&host.pool)
        .await
        .expect("placed");
    Json(Placement { host: host.id }).into_response()
}

fn agent() -> Router<Host> {
    Router::new()
        .route("/containers/v1/{id}/attach", post(stream))
        .route("/containers/v1/{id}/kill", post(kill))
        .route("/containers/v1/{id}/top", get(top))
        .route("/containers/v1/{id}/logs", get(logs))
        .route("/execs/v1/{id}/start", post(stream))
        .route("/execs/v1/{id}", get(exec_state))
}

/// Says `hello` on stdout, repeats stdin to its end, says `bye`.
async fn stream(request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    if String::from_utf8_lossy(&body).contains("nosuchbin") {
        let error = Error::Failed(
            "OCI runtime exec failed: exec: \"nosuchbin\": executable file not found in $PATH: unknown".into(),
        );
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(error)).into_response();
    }
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>().expect("an upgrade");
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.expect("upgraded"));
        stream.write_all(&frame(b"hello")).await.expect("write");
        let mut typed = Vec::new();
        stream.read_to_end(&mut typed).await.expect("stdin");
        stream.write_all(&frame(&typed)).await.expect("write");
        stream.write_all(&frame(b"bye")).await.expect("write");
        stream.shutdown().await.expect("close");
    });
    let headers = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, "wharfage-stream")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0];
    bytes.extend_from_slice(&u32::try_from(payload.len()).expect("short").to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

async fn kill(State(host): State<Host>, Path(id): Path<String>, Json(request): Json<KillRequest>) -> StatusCode {
    sqlx::query("UPDATE containers SET observed_phase = 5, exit_code = 128 + $2, finished_at = now() WHERE id = $1 AND observed_phase = 4")
        .bind(id)
        .bind(request.signal)
        .execute(&host.pool)
        .await
        .expect("killed");
    StatusCode::NO_CONTENT
}

async fn top() -> Json<TopReply> {
    Json(TopReply { titles: vec!["PID".into(), "CMD".into()], processes: vec![vec!["42".into(), "sleep".into()]] })
}

async fn logs(request: Request) -> Response {
    Body::from(frame(request.uri().query().unwrap_or_default().as_bytes())).into_response()
}

async fn exec_state(Path(id): Path<String>) -> Json<ExecState> {
    Json(ExecState { id: id.parse().expect("an id"), running: false, exit_code: Some(7), pid: 0 })
}
