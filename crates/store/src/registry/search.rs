//! Finding repositories of the hosted registry by a part of their names.

use model::{ProjectId, Result};

use crate::{Store, store_error};

impl Store {
    /// Names with `term` in them, `tenant/project/name`, of repositories that `asking` may read and that
    /// hold something, in order; `most` of them.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn search_repositories(&self, asking: ProjectId, term: &str, most: u16) -> Result<Vec<String>> {
        sqlx::query_scalar!(
            r#"SELECT name AS "name!" FROM search_repositories($1, $2, $3) AS name"#,
            asking.0,
            term,
            i32::from(most)
        )
        .fetch_all(self.pool())
        .await
        .map_err(store_error)
    }
}
