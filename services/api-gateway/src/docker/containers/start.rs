//! `POST /containers/{id}/start`: wants one more run and waits until its host says that PID 1 runs,
//! or why it does not.
//!
//! Round trips of a start: BEGIN, lock and read (1), want it (1), reserve ports (0 to 2), COMMIT; a
//! wake-up over Redis; then two per look at the progress, normally two looks.

use std::time::Duration;

use axum::{
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use contract::wake::Topic;
use model::{Desired, Error, Phase, Result};
use store::{ContainerProgress, ContainerRecord, ProjectScope};

use super::{joining, links, publish, remove, state, waiting::Watch};
use crate::{
    Gateway,
    auth::Project,
    docker::{body::DockerResponse, error::empty},
};

/// A host may have to fetch and unpack a large image first.
const PATIENCE: Duration = Duration::from_secs(600);

/// Starts a container.
#[utoipa::path(post, path = "/containers/{id}/start", operation_id = "ContainerStart", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("detachKeys" = Option<String>, Query, description = "Accepted; used by attach")),
    responses(
        (status = 204, description = "It runs"),
        (status = 304, description = "It ran already"),
        (status = 400, description = "Its command cannot be executed"),
        (status = 404, description = "No such container"),
        (status = 500, description = "A port is taken")))]
pub(crate) async fn start(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(reference): Path<String>,
    request: Request,
) -> DockerResponse {
    refuse_body(request.headers())?;
    run(&gateway, scope, &reference).await?;
    Ok::<Response, _>(empty(StatusCode::NO_CONTENT))
}

/// dockerd refuses a `HostConfig` here since 1.24; tiny bodies of old clients are let through.
fn refuse_body(headers: &HeaderMap) -> Result<()> {
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if chunked || length.is_some_and(|n| n > 7) {
        return Err(Error::InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24".into(),
        ));
    }
    Ok(())
}

/// Starts it and waits for the outcome. `NotModified` if it runs already.
pub(super) async fn run(gateway: &Gateway, scope: ProjectScope, reference: &str) -> Result<()> {
    let mut tx = gateway.store.project_tx(&scope).await?;
    let container = tx.lock_container(reference).await?;
    if is_started(&container) {
        return Err(Error::NotModified);
    }
    // Registered before the wish is committed: the outcome cannot be missed.
    let watch = Watch::new(gateway, scope, &container.id);
    let run = tx.want_running(&container.id).await?;
    let prepared = async {
        joining::check(&mut tx, &container).await?;
        links::check(&mut tx, &container).await?;
        publish::reserve(&mut tx, &container, run).await
    };
    if let Err(error) = prepared.await {
        drop(tx);
        if container.spec.auto_remove {
            // As dockerd does: a `--rm` whose start fails is removed, and `docker run` waits for that.
            remove::discard(gateway, scope, container.id.as_str()).await?;
        }
        return Err(error);
    }
    tx.commit().await?;
    wake_host(gateway, &container);
    outcome(watch, run).await
}

/// Wakes whoever tells the container's host.
pub(in crate::docker) fn wake_host(gateway: &Gateway, container: &ContainerRecord) {
    if container.endpoints.iter().any(|endpoint| endpoint.named) {
        gateway.bus.publish(&Topic::Networks);
    }
    match &container.host {
        Some(host) => gateway.bus.publish(&Topic::Host(host.id)),
        None => gateway.bus.publish(&Topic::Unplaced),
    }
}

/// Whether it runs or is being started: the wanted run has not ended yet.
pub(super) fn is_started(container: &ContainerRecord) -> bool {
    match container.desired {
        Desired::Created | Desired::Removed => false,
        Desired::Running { run } | Desired::Stopped { run, .. } => {
            let progress = container.observed.progress;
            progress.run < run || progress.phase < Phase::Exited || state::of(container).is_running()
        }
    }
}

async fn outcome(mut watch: Watch, run: u32) -> Result<()> {
    watch
        .until(Some(PATIENCE), |progress, host_is_away| {
            let Some(progress) = progress else {
                return Some(Err(Error::Conflict("the container was removed while it was being started".into())));
            };
            decide(progress, run).or_else(|| {
                host_is_away.then(|| {
                    Err(Error::Unavailable(
                        "the host of this container does not answer now; it will be started when the host is back"
                            .into(),
                    ))
                })
            })
        })
        .await?
}

/// What a look at the progress says about a run; `None`: wait on.
fn decide(progress: &ContainerProgress, run: u32) -> Option<Result<()>> {
    let observed = &progress.observed;
    if observed.progress.run > run || (observed.progress.run == run && observed.progress.restart > 0) {
        return Some(Ok(()));
    }
    if observed.progress.run < run {
        let gone = progress.removed || observed.progress.phase == Phase::Removed;
        return gone.then(|| Err(Error::Conflict("the container was removed while it was being started".into())));
    }
    match observed.progress.phase {
        Phase::Running => Some(Ok(())),
        Phase::Exited | Phase::Removed => Some(match observed.exit.as_ref().map(|exit| exit.error.as_str()) {
            None | Some("") => Ok(()),
            Some(error) => Err(start_error(error)),
        }),
        Phase::Pending | Phase::Preparing | Phase::Created | Phase::Starting => {
            observed.prepare_error.as_ref().map(|error| Err(Error::Failed(error.clone())))
        }
    }
}

/// The CLI maps this text to its own exit code: 127, 126 or 125.
fn start_error(error: &str) -> Error {
    const PREFIX: &str = "failed to create task for container";
    let text = if error.starts_with(PREFIX) { error.to_owned() } else { format!("{PREFIX}: {error}") };
    let lower = error.to_ascii_lowercase();
    let users_fault = [
        "executable file not found",
        "no such file or directory",
        "permission denied",
        "not a directory",
        "is a directory",
        "exec format error",
        "no matching entries in passwd file",
        "unable to find user",
    ];
    if users_fault.iter().any(|fault| lower.contains(fault)) {
        Error::InvalidArgument(text)
    } else {
        Error::Failed(text)
    }
}

#[cfg(test)]
mod tests {
    use model::{Exit, Observed, Progress};

    use super::*;

    fn progress(run: u32, phase: Phase, error: Option<&str>) -> ContainerProgress {
        ContainerProgress {
            desired: Desired::Running { run },
            observed: Observed {
                exit: error.map(|error| Exit {
                    code: 127,
                    oom_killed: false,
                    error: error.into(),
                    finished_at: time::OffsetDateTime::UNIX_EPOCH,
                }),
                ..Observed::at(Progress { run, restart: 0, phase })
            },
            host_seen_at: None,
            removed: false,
        }
    }

    #[test]
    fn a_start_is_over_when_its_run_runs_or_has_ended() {
        assert_eq!(decide(&progress(1, Phase::Starting, None), 1), None);
        assert_eq!(decide(&progress(1, Phase::Exited, None), 2), None, "the end of the run before");
        assert_eq!(decide(&progress(1, Phase::Running, None), 1), Some(Ok(())));
        assert_eq!(decide(&progress(1, Phase::Exited, Some("")), 1), Some(Ok(())));
    }

    #[test]
    fn a_missing_command_is_the_users_fault_and_says_so_in_dockerds_words() {
        let error =
            decide(&progress(1, Phase::Exited, Some("exec: \"x\": executable file not found in $PATH: unknown")), 1);
        let Some(Err(Error::InvalidArgument(text))) = error else { panic!("{error:?}") };
        assert!(text.starts_with("failed to create task for container: exec: \"x\""), "{text}");
        assert!(matches!(decide(&progress(1, Phase::Exited, Some("no space left")), 1), Some(Err(Error::Failed(_)))));
    }
}
