//! Credentials of projects, for operators. A secret is shown once, when it is made, and is stored
//! and logged nowhere.

use axum::{Json, http::StatusCode};
use chassis::{Problems, ids};
use model::{Error, ProjectId, Result, TokenId};
use rustls::{
    pki_types::{CertificateDer, pem::PemObject as _},
    server::ParsedCertificate,
};
use serde::{Deserialize, Serialize};
use store::{NewToken, Token, TokenKind};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer,
    caller::{Administration, Id, Ids},
    input::{Body, List, Position, id},
};
use crate::Gateway;

/// Longest label.
const LABEL_BYTES: usize = 255;

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(create, list)).routes(routes!(revoke))
}

/// A credential to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRequest {
    /// For people.
    #[serde(default)]
    label: String,
    /// What it shall be.
    #[serde(default)]
    kind: TokenKind,
    /// The client certificate, for kind `certificate`; any issuer, known by its fingerprint.
    #[serde(default)]
    certificate_pem: Option<String>,
    /// When it shall open nothing any more.
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}

/// A credential that was just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeToken {
    #[serde(flatten)]
    token: Token,
    /// The secret of a bearer token. It cannot be shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// Make a credential; its secret is in this answer and nowhere else
#[utoipa::path(post, path = "/api/v1/projects/{project}/tokens", operation_id = "TokenCreate", tag = "Token",
    params(("project" = ProjectId, Path, description = "The project it shall open")),
    request_body = TokenRequest, responses((status = 201, description = "Made", body = MadeToken), Problems))]
async fn create(
    call: Administration,
    Id(project): Id<ProjectId>,
    Body(wanted): Body<TokenRequest>,
) -> Answer<(StatusCode, Json<MadeToken>)> {
    if wanted.label.len() > LABEL_BYTES {
        return Err(Error::invalid("label", "is longer than 255 bytes").into());
    }
    if wanted.expires_at.is_some_and(|at| at <= call.gateway.clock.now()) {
        return Err(Error::invalid("expires_at", "is in the past").into());
    }
    let (sha256, secret) = credential(wanted.kind, wanted.certificate_pem.as_deref())?;
    let new = NewToken {
        id: TokenId(ids::uuid_v7()),
        project,
        label: &wanted.label,
        kind: wanted.kind,
        sha256,
        expires_at: wanted.expires_at,
    };
    let mut tx = call.tx().await?;
    let token = tx.create_token(&new).await?;
    tx.commit().await?;
    tracing::info!(token = %token.id, project = %token.project_id, operator = %call.operator.token(), "token made");
    Ok((StatusCode::CREATED, Json(MadeToken { token, secret })))
}

/// What is stored of a credential, and the secret to show once.
fn credential(kind: TokenKind, certificate_pem: Option<&str>) -> Result<([u8; 32], Option<String>)> {
    match (kind, certificate_pem) {
        (TokenKind::Bearer, None) => {
            let secret = ids::random_token();
            Ok((ids::sha256(secret.as_bytes()), Some(secret)))
        }
        (TokenKind::Bearer, Some(_)) => Err(Error::invalid("certificate_pem", "belongs to kind `certificate`")),
        (TokenKind::Certificate, None) => Err(Error::invalid("certificate_pem", "is missing")),
        (TokenKind::Certificate, Some(pem)) => {
            let no_certificate = || Error::invalid("certificate_pem", "is not a PEM certificate");
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| no_certificate())?;
            ParsedCertificate::try_from(&der).map_err(|_| no_certificate())?;
            Ok((ids::sha256(&der), None))
        }
    }
}

/// List a project's credentials, the youngest first
#[utoipa::path(get, path = "/api/v1/projects/{project}/tokens", operation_id = "TokenList", tag = "Token",
    params(("project" = ProjectId, Path, description = "The project they open"), Position),
    responses((status = 200, description = "Credentials, without secrets", body = List<Token>), Problems))]
async fn list(call: Administration, Id(project): Id<ProjectId>, position: Position) -> Answer<Json<List<Token>>> {
    let (limit, before) = (position.limit()?, position.after().map(id).transpose()?);
    let mut tx = call.tx().await?;
    let tokens = tx.tokens(project, before, limit).await?;
    Ok(Json(List::sliced(tokens, limit, |token| token.id.to_string())))
}

/// Revoke a credential: it opens nothing from the next request on
#[utoipa::path(delete, path = "/api/v1/projects/{project}/tokens/{token}", operation_id = "TokenRevoke", tag = "Token",
    params(
        ("project" = ProjectId, Path, description = "The project it opens"),
        ("token" = TokenId, Path, description = "Its id"),
    ),
    responses((status = 204, description = "Revoked"), Problems))]
async fn revoke(call: Administration, Ids(project, token): Ids<ProjectId, TokenId>) -> Answer<StatusCode> {
    let mut tx = call.tx().await?;
    tx.revoke_token(project, token).await?;
    tx.commit().await?;
    tracing::info!(%token, %project, operator = %call.operator.token(), "token revoked");
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_stored_as_its_digest_only() {
        let (sha256, secret) = credential(TokenKind::Bearer, None).expect("made");
        assert_eq!(sha256, ids::sha256(secret.expect("shown once").as_bytes()));
    }

    #[test]
    fn what_is_no_certificate_is_refused_by_field() {
        for pem in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = credential(TokenKind::Certificate, Some(pem)).expect_err("refused");
            assert_eq!(error.to_string(), "invalid certificate_pem: is not a PEM certificate");
        }
        assert!(credential(TokenKind::Certificate, None).is_err());
        assert!(credential(TokenKind::Bearer, Some("x")).is_err());
    }
}
