//! `POST /containers/{id}/exec`: writes down what shall run.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use contract::{agent::ExecStart, wake::Topic};
use model::{Error, ExecId, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::ContainerRecord;
use utoipa::ToSchema;

use super::{StoredExec, action};
use crate::{
    Gateway,
    auth::Project,
    docker::{
        body::{DockerResponse, JsonBody, json},
        containers::{recorded, state, typed},
        streams::DetachKeys,
    },
};

/// Bytes of arguments and environment together.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// What to run.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ExecConfig {
    user: String,
    privileged: bool,
    tty: bool,
    console_size: Option<[u16; 2]>,
    attach_stdin: bool,
    attach_stderr: bool,
    attach_stdout: bool,
    // docker-py writes it so; dockerd takes any spelling.
    #[serde(alias = "detachKeys")]
    detach_keys: String,
    env: Vec<String>,
    working_dir: String,
    cmd: Vec<String>,
}

/// Makes an exec; it is not started.
#[utoipa::path(post, path = "/containers/{id}/exec", operation_id = "ContainerExec", tag = "Exec",
    params(("id" = String, Path, description = "Container: id, name or unique id prefix")),
    request_body = ExecConfig,
    responses((status = 201, description = "Its id", body = Object), (status = 400, description = "Nothing to run"),
        (status = 403, description = "Privileged"), (status = 404, description = "No such container"),
        (status = 409, description = "The container does not run")))]
pub(crate) async fn create(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(reference): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> DockerResponse {
    let config: ExecConfig = typed(body.unwrap_or_else(|| json!({})))?;
    check(&config)?;
    let mut tx = gateway.store.project_tx(&scope).await?;
    let container = tx.find_container(&reference).await?;
    state::must_run(&container, "exec")?;
    let id = ExecId::from_bytes(chassis::ids::random_hex_id());
    let stored = stored(config, &container);
    tx.insert_exec(&id, &container.id, &stored, gateway.clock.now()).await?;
    let what = action("exec_create", &stored.start);
    recorded::within(&gateway, &mut tx, &container, &what, &[("execID", id.as_str())]).await?;
    tx.commit().await?;
    gateway.bus.publish(&Topic::Project(scope.project()));
    json(StatusCode::CREATED, &json!({"Id": id}))
}

fn check(config: &ExecConfig) -> Result<()> {
    let invalid = |text: &str| Err(Error::InvalidArgument(text.into()));
    if config.privileged {
        return Err(Error::Forbidden(
            "Privileged: privileged execs are not available on Wharfage: hosts are shared".into(),
        ));
    }
    if config.cmd.is_empty() {
        return invalid("No exec command specified");
    }
    DetachKeys::parse(&config.detach_keys)?;
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return invalid("the working directory is invalid, it needs to be an absolute path");
    }
    if let Some(bad) = config.env.iter().find(|e| e.split('=').next().is_none_or(str::is_empty)) {
        return Err(Error::InvalidArgument(format!("invalid environment variable: {bad}")));
    }
    let texts = || config.cmd.iter().chain(&config.env).chain([&config.user, &config.working_dir]);
    if texts().any(|text| text.contains('\0')) {
        return invalid("text contains a NUL character");
    }
    if texts().map(String::len).sum::<usize>() > TEXT_BYTES_MAX || config.user.len() > 256 {
        return invalid("arguments and environment together are larger than 1 MiB");
    }
    Ok(())
}

fn stored(config: ExecConfig, container: &ContainerRecord) -> StoredExec {
    StoredExec {
        start: ExecStart {
            container: container.id.clone(),
            cmd: config.cmd,
            env: config.env,
            working_dir: config.working_dir,
            user: config.user,
            tty: config.tty,
            attach_stdin: config.attach_stdin,
            attach_stdout: config.attach_stdout,
            attach_stderr: config.attach_stderr,
            detach: false,
            console_size: config.console_size.map(|[rows, columns]| (rows, columns)),
        },
        detach_keys: config.detach_keys,
    }
}
