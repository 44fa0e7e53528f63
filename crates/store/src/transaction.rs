//! Transactions, by what they may touch. BEGIN and the naming of the scope to row-level security
//! are one round trip. Dropping one without commit rolls it back.

use model::{ProjectId, Result};
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Transaction};

use crate::{OperatorScope, ProjectScope, Store, containers::KeptRecords, store_error};

/// Inside one project.
#[derive(Debug)]
pub struct ProjectTx {
    pub(crate) tx: Transaction<'static, Postgres>,
    pub(crate) project: ProjectId,
    pub(crate) kept: KeptRecords,
}

/// Administration of the platform.
#[derive(Debug)]
pub struct OperatorTx {
    pub(crate) tx: Transaction<'static, Postgres>,
}

/// The scheduler's: over all projects, under its own role's grants.
#[derive(Debug)]
pub struct ServiceTx {
    pub(crate) tx: Transaction<'static, Postgres>,
}

impl Store {
    /// Opens a transaction in a project.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn project_tx(&self, scope: &ProjectScope) -> Result<ProjectTx> {
        let project = scope.project();
        // A UUID has no character that could end the literal.
        let begin = format!("BEGIN; SELECT set_config('wharfage.project', '{project}', true)");
        let tx = self.pool().begin_with(AssertSqlSafe(begin)).await.map_err(store_error)?;
        Ok(ProjectTx { tx, project, kept: self.kept.clone() })
    }

    /// Opens a transaction in a project whose commit does not wait for the disk: a crash of Postgres within
    /// the next moments may take back what it did, as a whole.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn forgetful_project_tx(&self, scope: &ProjectScope) -> Result<ProjectTx> {
        let project = scope.project();
        // As above.
        let begin = format!(
            "BEGIN; SET LOCAL synchronous_commit = off; SELECT set_config('wharfage.project', '{project}', true)"
        );
        let tx = self.pool().begin_with(AssertSqlSafe(begin)).await.map_err(store_error)?;
        Ok(ProjectTx { tx, project, kept: self.kept.clone() })
    }

    /// Opens a transaction for platform administration.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn operator_tx(&self, _scope: &OperatorScope) -> Result<OperatorTx> {
        let begin = "BEGIN; SELECT set_config('wharfage.operator', 'on', true)";
        Ok(OperatorTx { tx: self.pool().begin_with(begin).await.map_err(store_error)? })
    }

    /// Opens a transaction under the service's own role, without a tenant.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn service_tx(&self) -> Result<ServiceTx> {
        Ok(ServiceTx { tx: self.pool().begin().await.map_err(store_error)? })
    }
}

macro_rules! transaction {
    ($name:ident) => {
        impl $name {
            /// Makes it durable.
            ///
            /// # Errors
            /// Postgres does not answer; whether it was committed is then unknown.
            pub async fn commit(self) -> Result<()> {
                self.tx.commit().await.map_err(store_error)
            }

            pub(crate) fn connection(&mut self) -> &mut PgConnection {
                &mut self.tx
            }
        }
    };
}

transaction!(ProjectTx);
transaction!(OperatorTx);
transaction!(ServiceTx);

impl ProjectTx {
    /// The project it is in.
    #[must_use]
    pub fn project(&self) -> ProjectId {
        self.project
    }
}
