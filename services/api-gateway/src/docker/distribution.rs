//! `GET /distribution/{name}/json`: what a registry has under a name. `docker service create` asks, and so do
//! clients that want a digest without a pull.

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use contract::image::{DISTRIBUTION, DistributionReply, DistributionRequest, OciDescriptor, OciPlatform};
use model::Error;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    body::{DockerResponse, json},
    error::{ErrorResponse, refused},
    images::registry_auth,
};
use crate::{Gateway, auth::Project};

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(inspect))
}

/// What a registry says of an image.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DistributionInspect {
    descriptor: OciDescriptor,
    platforms: Vec<OciPlatform>,
}

/// Ask a registry about an image
#[utoipa::path(get, path = "/distribution/{name}/json", operation_id = "DistributionInspect", tag = "Distribution",
    params(("name" = String, Path, description = "Reference"),
        ("X-Registry-Auth" = Option<String>, Header, description = "base64url of JSON; used for this question only")),
    responses((status = 200, description = "Descriptor and platforms", body = DistributionInspect),
        (status = 401, description = "The registry does not take the credentials", body = ErrorResponse),
        (status = 403, description = "The registry denies it, or is at an address this platform does not reach out to", body = ErrorResponse),
        (status = 404, description = "It has no such image", body = ErrorResponse)))]
async fn inspect(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> DockerResponse {
    let auth = headers.get("x-registry-auth").and_then(registry_auth);
    let request = DistributionRequest { project: scope.project(), reference: name, auth };
    match gateway.image.post::<_, DistributionReply>(DISTRIBUTION, &request).await {
        Ok(DistributionReply { descriptor, platforms }) => {
            json(StatusCode::OK, &DistributionInspect { descriptor, platforms })
        }
        // Of the registry's credentials, not of ours: no challenge goes with it.
        Err(Error::Unauthenticated(why)) => Ok(refused(StatusCode::UNAUTHORIZED, &why)),
        Err(other) => Err(other.into()),
    }
}
