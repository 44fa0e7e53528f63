//! `POST /containers/{id}/wait`: the head of the answer at once, its body when the condition holds.
//! `docker run` starts the container only after the head, so whatever is needed to see the outcome
//! is registered before the head goes out. Answers from Postgres alone: every other part may
//! restart meanwhile.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use model::{Desired, Error, Phase, RestartPolicy};
use serde_json::json;
use store::ContainerProgress;
use time::OffsetDateTime;

use super::{state, waiting::Watch};
use crate::{
    Gateway,
    auth::Project,
    docker::{body::DockerResponse, query::Query},
};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

/// What was true when the wait began.
#[derive(Clone, Copy, Debug)]
struct Baseline {
    finished_at: Option<OffsetDateTime>,
    policy: RestartPolicy,
}

/// Waits until a container is over or gone; tells its exit code.
#[utoipa::path(post, path = "/containers/{id}/wait", operation_id = "ContainerWait", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("condition" = Option<String>, Query, description = "not-running (default), next-exit or removed")),
    responses((status = 200, description = "The exit code; the head of the answer comes at once", body = Object),
        (status = 400, description = "Unknown condition"), (status = 404, description = "No such container")))]
pub(crate) async fn wait(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    let condition = match query.get("condition").unwrap_or_default() {
        "" | "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => return Err(Error::InvalidArgument(format!("invalid condition: {other:?}")).into()),
    };
    let container = gateway.store.project_tx(&scope).await?.find_container(&reference).await?;
    let baseline = Baseline {
        finished_at: container.observed.exit.as_ref().map(|exit| exit.finished_at),
        policy: container.spec.restart,
    };
    let mut watch = Watch::new(&gateway, scope, &container.id);
    let answer = async move {
        let mut last_code = 0;
        let code = watch
            .until(None, |progress, _| {
                let Some(progress) = progress else { return Some(last_code) };
                last_code = progress.observed.exit.as_ref().map_or(0, |exit| exit.code);
                holds(condition, baseline, progress).then_some(last_code)
            })
            .await;
        let body = match code {
            Ok(code) => json!({"StatusCode": code}),
            Err(error) => json!({"StatusCode": -1, "Error": {"Message": error.public_message()}}),
        };
        Ok::<_, std::convert::Infallible>(format!("{body}\n"))
    };
    let mut response: Response = Body::from_stream(futures::stream::once(answer)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.extensions_mut().insert(chassis::Endless);
    Ok(response)
}

fn holds(condition: Condition, baseline: Baseline, progress: &ContainerProgress) -> bool {
    let observed = &progress.observed;
    if progress.removed || observed.progress.phase == Phase::Removed {
        return true;
    }
    // Whoever waits is told of every exit, also of one after which it is started again.
    let has_exited = observed.exit.as_ref().map(|exit| exit.finished_at) != baseline.finished_at;
    match condition {
        Condition::Removed => false,
        Condition::NextExit => has_exited,
        Condition::NotRunning if has_exited => true,
        Condition::NotRunning => match &progress.desired {
            Desired::Created => true,
            Desired::Removed => observed.progress.phase == Phase::Exited || observed.progress.run == 0,
            desired @ (Desired::Running { run } | Desired::Stopped { run, .. }) => {
                observed.progress.run >= *run
                    && observed.progress.phase == Phase::Exited
                    && !state::from_parts(desired, observed, baseline.policy).is_running()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use model::{Exit, Observed, Progress};

    use super::*;

    const START: Baseline = Baseline { finished_at: None, policy: RestartPolicy::No };

    fn progress(desired: Desired, run: u32, phase: Phase, finished: Option<i64>) -> ContainerProgress {
        ContainerProgress {
            desired,
            observed: Observed {
                exit: finished.map(|at| Exit {
                    code: 3,
                    oom_killed: false,
                    error: String::new(),
                    finished_at: OffsetDateTime::from_unix_timestamp(at).expect("time"),
                }),
                ..Observed::at(Progress { run, restart: 0, phase })
            },
            host_seen_at: None,
            removed: false,
        }
    }

    #[test]
    fn not_running_holds_for_a_created_one_and_not_while_a_start_is_under_way() {
        assert!(holds(Condition::NotRunning, START, &progress(Desired::Created, 0, Phase::Created, None)));
        let starting = progress(Desired::Running { run: 2 }, 1, Phase::Exited, Some(1));
        let before = Baseline { finished_at: OffsetDateTime::from_unix_timestamp(1).ok(), ..START };
        assert!(!holds(Condition::NotRunning, before, &starting));
        assert!(holds(Condition::NotRunning, START, &progress(Desired::Running { run: 1 }, 1, Phase::Exited, Some(1))));
    }

    #[test]
    fn not_running_holds_once_it_has_exited_although_its_policy_starts_it_again() {
        let always = Baseline { policy: RestartPolicy::Always, ..START };
        let mut again = progress(Desired::Running { run: 1 }, 1, Phase::Running, None);
        again.observed.progress.restart = 1;
        assert!(!holds(Condition::NotRunning, always, &again), "no exit was seen");
        let exited = progress(Desired::Running { run: 1 }, 1, Phase::Running, Some(2));
        assert!(holds(Condition::NotRunning, always, &exited));
        let before = Baseline { finished_at: OffsetDateTime::from_unix_timestamp(2).ok(), ..always };
        assert!(!holds(Condition::NotRunning, before, &exited), "that was an exit before the wait");
    }

    #[test]
    fn next_exit_needs_an_exit_that_was_not_there_before() {
        let before = Baseline { finished_at: OffsetDateTime::from_unix_timestamp(1).ok(), ..START };
        let old = progress(Desired::Running { run: 1 }, 1, Phase::Exited, Some(1));
        assert!(!holds(Condition::NextExit, before, &old));
        // Restarted so quickly that the exit was never seen as the current phase.
        let again = progress(Desired::Running { run: 2 }, 2, Phase::Running, Some(2));
        assert!(holds(Condition::NextExit, before, &again));
    }

    #[test]
    fn removed_holds_only_when_nothing_is_left() {
        let exited = progress(Desired::Removed, 1, Phase::Exited, Some(1));
        assert!(!holds(Condition::Removed, START, &exited));
        assert!(holds(Condition::Removed, START, &ContainerProgress { removed: true, ..exited }));
    }
}
