//! Attach: what was logged so far, if asked, and then the run that lives or the next one.

use chassis::axum::response::Response;
use contract::agent::{AttachQuery, LogsQuery};
use futures::StreamExt as _;
use model::Result;
use runtime::protocol::Request;
use tokio::io::AsyncWriteExt as _;

use super::{Upgrade, hub::Attached, logs, splice};
use crate::{host::SharedHost, keeper::Handle};

/// Accepts the stream. It is connected, or in the waiting room, before the 101 goes out.
pub(crate) async fn attach(
    host: &SharedHost,
    keeper: &Handle,
    query: AttachQuery,
    upgrade: Upgrade,
) -> Result<Response> {
    let request = Request::Attach { stdin: query.stdin, stdout: query.stdout, stderr: query.stderr };
    let attached = match query.stream {
        true => Some(keeper.hub.attach(&host.places.run_dir(&keeper.id), request).await?),
        false => None,
    };
    let so_far = query.logs.then(|| {
        let wanted = LogsQuery { stdout: query.stdout, stderr: query.stderr, ..LogsQuery::default() };
        logs::stream(host, keeper, wanted)
    });
    Ok(upgrade.accept(async move |mut client| {
        if let Some(mut so_far) = so_far {
            while let Some(chunk) = so_far.next().await {
                client.write_all(&chunk?).await?;
            }
        }
        let shim = match attached {
            Some(Attached::Now(shim)) => Some(shim),
            // The run could not be started, or the container was removed: the stream just ends.
            Some(Attached::Later(later)) => later.await.ok(),
            None => None,
        };
        match shim {
            Some(shim) => splice(client, shim, query.stdin).await,
            None => client.shutdown().await,
        }
    }))
}
