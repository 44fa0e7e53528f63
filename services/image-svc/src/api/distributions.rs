//! `POST /internal/v1/distributions` and `/internal/v1/searches`: what registries have, told and not brought.

use axum::{Json, extract::State};
use chassis::{Answer, Caller};
use contract::image::{DISTRIBUTION, DistributionReply, DistributionRequest, SEARCH, SearchHit, SearchRequest};

use super::AppState;
use crate::{distribution, search};

/// What a registry has under a name.
#[utoipa::path(
    post,
    path = DISTRIBUTION,
    operation_id = "inspect_distribution",
    tag = "pulls",
    request_body = DistributionRequest,
    responses(
        (status = 200, description = "Descriptor and platforms", body = DistributionReply),
        (status = 400, description = "The reference cannot be read"),
        (status = 401, description = "Not the gateway, or the registry does not take the credentials"),
        (status = 403, description = "The registry denies it, or is at an address this platform does not reach out to"),
        (status = 404, description = "No such image"),
        (status = 429, description = "The registry's own limit is reached"),
        (status = 503, description = "The registry does not answer"),
    ),
)]
pub(crate) async fn inspect_distribution(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<DistributionRequest>,
) -> Answer<Json<DistributionReply>> {
    caller.require("service:gateway")?;
    Ok(Json(distribution::inspect(&state.puller, &request).await?))
}

/// Images with a term in their names.
#[utoipa::path(
    post,
    path = SEARCH,
    operation_id = "search_images",
    tag = "pulls",
    request_body = SearchRequest,
    responses(
        (status = 200, description = "What is found, hosted repositories first", body = Vec<SearchHit>),
        (status = 401, description = "Not the gateway"),
        (status = 501, description = "The term names another registry"),
        (status = 503, description = "An upstream does not answer"),
    ),
)]
pub(crate) async fn search_images(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<SearchRequest>,
) -> Answer<Json<Vec<SearchHit>>> {
    caller.require("service:gateway")?;
    Ok(Json(search::search(&state.store, &state.puller, &state.hosted, &request).await?))
}
