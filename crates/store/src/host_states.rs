//! What an operator wants of a host: written by the gateway, read by the planner.

use model::{Error, HostId, HostState, Result};

use crate::{OperatorTx, store_error};

impl OperatorTx {
    /// Lets a host take new containers, or not.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn set_host_state(&mut self, host: HostId, state: HostState) -> Result<()> {
        let text = match state {
            HostState::Active => "active",
            HostState::Paused => "paused",
        };
        let found = sqlx::query!("UPDATE hosts SET state = $2 WHERE id = $1", host.0, text)
            .execute(self.connection())
            .await
            .map_err(store_error)?
            .rows_affected();
        if found == 0 { Err(Error::NotFound(format!("no such host: {host}"))) } else { Ok(()) }
    }
}
