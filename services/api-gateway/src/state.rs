//! What every handler may reach: the truth, the wake-ups, the neighbours. Nothing in it changes
//! after start; a gateway keeps no state of its own, so that several can run side by side.

use std::{ops::Deref, sync::Arc};

use chassis::{Bus, Clock, Ctx, ExpectedPeer, client::Internal};
use model::{Error, Result};
use store::Store;

use crate::{config::Config, limits::Rates};

/// The gateway; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway(Arc<Parts>);

/// See [`Gateway`].
#[derive(Debug)]
pub struct Parts {
    /// Postgres, under the gateway's own role.
    pub(crate) store: Store,
    /// Wake-ups.
    pub(crate) bus: Bus,
    /// The scheduler.
    pub(crate) scheduler: Internal,
    /// image-svc.
    pub(crate) image: Internal,
    /// Requests a project may make.
    pub(crate) rates: Rates,
    /// The time.
    pub(crate) clock: Clock,
    /// As configured.
    #[expect(dead_code, reason = "read by the agents' clients")]
    pub(crate) config: Config,
}

impl Deref for Gateway {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}
