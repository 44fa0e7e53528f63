//! Credentials of projects. Only a digest of a secret is stored; revoking takes effect with the
//! next request, because every request asks.

use model::{Error, ProjectId, Result, TokenId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{OperatorTx, on_constraint, store_error};

/// What a credential is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// A secret, sent as bearer token or as Basic password.
    #[default]
    Bearer,
    /// A TLS client certificate, known by its fingerprint.
    Certificate,
}

impl TokenKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Certificate => "certificate",
        }
    }
}

/// A credential's record; the secret is not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Token {
    /// Id.
    pub id: TokenId,
    /// The project it opens.
    pub project_id: ProjectId,
    /// For people.
    pub label: String,
    /// What it is.
    pub kind: TokenKind,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it opens nothing any more.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was revoked.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
}

/// A credential to make.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    /// Id.
    pub id: TokenId,
    /// The project it shall open.
    pub project: ProjectId,
    /// For people.
    pub label: &'a str,
    /// What it is.
    pub kind: TokenKind,
    /// SHA-256 of the secret, or of the certificate's DER.
    pub sha256: [u8; 32],
    /// When it shall open nothing any more.
    pub expires_at: Option<OffsetDateTime>,
}

struct Row {
    id: Uuid,
    label: String,
    kind: String,
    created_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
}

impl OperatorTx {
    /// Records a credential.
    ///
    /// # Errors
    /// `NotFound` for an unknown project, `Conflict` for a certificate that opens one already.
    pub async fn create_token(&mut self, new: &NewToken<'_>) -> Result<Token> {
        self.project(new.project).await?;
        let created_at = sqlx::query_scalar!(
            "INSERT INTO tokens (id, project_id, label, kind, secret_sha256, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING created_at",
            new.id.0,
            new.project.0,
            new.label,
            new.kind.as_str(),
            &new.sha256,
            new.expires_at
        )
        .fetch_one(self.connection())
        .await
        .map_err(on_constraint("tokens_secret_key", || {
            Error::Conflict("this certificate is a credential already; use a new one".into())
        }))?;
        Ok(Token {
            id: new.id,
            project_id: new.project,
            label: new.label.to_owned(),
            kind: new.kind,
            created_at,
            expires_at: new.expires_at,
            revoked_at: None,
        })
    }

    /// A project's credentials, the youngest first.
    ///
    /// # Errors
    /// `NotFound` for an unknown project.
    pub async fn tokens(&mut self, project: ProjectId, before: Option<TokenId>, limit: i64) -> Result<Vec<Token>> {
        self.project(project).await?;
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, label, kind, created_at, expires_at, revoked_at FROM tokens
             WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
            project.0,
            before.map(|id| id.0) as Option<Uuid>,
            limit
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        let token = |row: Row| Token {
            id: TokenId(row.id),
            project_id: project,
            label: row.label,
            kind: if row.kind == "certificate" { TokenKind::Certificate } else { TokenKind::Bearer },
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        };
        Ok(rows.into_iter().map(token).collect())
    }

    /// Makes a credential open nothing, from now on. Doing it twice is the same as once.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn revoke_token(&mut self, project: ProjectId, id: TokenId) -> Result<()> {
        let found = sqlx::query!(
            "UPDATE tokens SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 AND project_id = $2",
            id.0,
            project.0
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?
        .rows_affected();
        if found == 0 { Err(Error::NotFound(format!("no such token: {id}"))) } else { Ok(()) }
    }
}
