//! What is about a manifest: signatures, attestations, whatever names it as its subject.

use model::{Digest, RepositoryId, Result};
use serde_json::Value;

use crate::{ProjectTx, store_error};

/// One manifest that names another as its subject.
#[derive(Clone, Debug)]
pub struct Referrer {
    /// Its digest.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// Its length.
    pub size_bytes: i32,
    /// What it is.
    pub artifact_type: Option<String>,
    /// What it says of itself.
    pub annotations: Option<Value>,
}

impl ProjectTx {
    /// The manifests about `subject` after the digest `after`, in order.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn referrers(
        &mut self,
        repository: RepositoryId,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Referrer>> {
        sqlx::query_as!(
            Referrer,
            r#"SELECT digest, media_type, octet_length(content) AS "size_bytes!", artifact_type, annotations
               FROM repository_manifests
               WHERE project_id = $1 AND repository_id = $2 AND subject = $3
                 AND ($4::text IS NULL OR artifact_type = $4) AND digest > $5
               ORDER BY digest LIMIT $6"#,
            self.project.0,
            repository.0,
            subject.as_str(),
            artifact_type,
            after,
            limit
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)
    }
}
