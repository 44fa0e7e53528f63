//! `POST /internal/v1/logins`: the gateway asks whether a registry takes a tenant's credentials.

use axum::{Json, extract::State};
use chassis::{Answer, Caller};
use contract::image::{LOGINS, LoginReply, RegistryAuth};

use super::AppState;

/// Try credentials. A registry that does not take them is no failure of this call.
#[utoipa::path(
    post,
    path = LOGINS,
    operation_id = "try_login",
    tag = "logins",
    request_body = RegistryAuth,
    responses(
        (status = 200, description = "What the registry says", body = LoginReply),
        (status = 401, description = "Not the gateway"),
        (status = 403, description = "The registry is at an address this platform does not reach out to"),
        (status = 429, description = "The registry's own limit is reached"),
        (status = 500, description = "The registry answers with something that cannot be taken"),
        (status = 503, description = "The registry does not answer, or too many are being asked"),
    ),
)]
pub(crate) async fn try_login(
    State(state): State<AppState>,
    caller: Caller,
    Json(auth): Json<RegistryAuth>,
) -> Answer<Json<LoginReply>> {
    caller.require("service:gateway")?;
    Ok(Json(LoginReply { refused: state.puller.login(&auth).await? }))
}
