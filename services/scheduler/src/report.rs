//! A host tells how far its containers got. Answered once it is durable, then everyone who waits for
//! one of them is woken. Any report is also a sign of life.

use axum::{
    Json,
    extract::{State as Shared, rejection::JsonRejection},
    http::StatusCode,
};
use chassis::{Caller, error::Answer};
use contract::{host::HostReport, wake::Topic};
use model::Phase;

use crate::{State, api};

/// Takes a report of the host whose certificate it is.
#[utoipa::path(
    post, path = contract::host::REPORT, tag = "hosts", request_body = HostReport,
    responses(
        (status = 204, description = "It is durable"),
        (status = 401, description = "No host's certificate"),
        (status = 403, description = "The host is no longer part of the fleet"),
    )
)]
pub(crate) async fn report(
    Shared(state): Shared<State>,
    caller: Caller,
    report: Result<Json<HostReport>, JsonRejection>,
) -> Answer<StatusCode> {
    let host = caller.require_host()?;
    let report = api::body(report)?;
    let recorded = state.store.record_report(host, &report).await?;
    for container in recorded.containers {
        state.bus.publish(&Topic::Container(container));
    }
    if recorded.has_more_to_do {
        state.bus.publish(&Topic::Host(host));
    }
    for project in recorded.projects {
        state.bus.publish(&Topic::Project(project));
    }
    if !report.containers.is_empty() {
        state.names.notify_one();
    }
    if report.containers.iter().any(|container| container.observed.progress.phase == Phase::Removed) {
        // There is room now.
        state.placements.wake().notify_one();
    }
    Ok(StatusCode::NO_CONTENT)
}
