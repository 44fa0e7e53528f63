//! An upgraded connection and a shim's stream, copied into each other. The end of the shim's side
//! ends it; the end of the client's sending side is end of file for stdin and nothing else.

use chassis::axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use contract::agent::STREAM_PROTOCOL;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use model::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, sink, split};

use crate::shims::Shim;

/// A request that asked to be upgraded.
pub(crate) struct Upgrade(OnUpgrade);

impl Upgrade {
    /// # Errors
    /// It did not ask for our protocol.
    pub(crate) fn of(request: &mut Request) -> model::Result<Self> {
        let asked = request.headers().get(header::UPGRADE).and_then(|v| v.to_str().ok());
        if asked != Some(STREAM_PROTOCOL) {
            return Err(Error::InvalidArgument(format!("this needs `Upgrade: {STREAM_PROTOCOL}`")));
        }
        Ok(Self(hyper::upgrade::on(request)))
    }

    /// Answers 101 and runs `work` on the connection. The work belongs to the request in the logs.
    pub(crate) fn accept<F, Fut>(self, work: F) -> Response
    where
        F: FnOnce(TokioIo<Upgraded>) -> Fut + Send + 'static,
        Fut: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        chassis::request::spawn(async move {
            match self.0.await {
                Ok(connection) => {
                    if let Err(error) = work(TokioIo::new(connection)).await {
                        tracing::debug!(%error, "a stream broke off");
                    }
                }
                Err(error) => tracing::debug!(%error, "an upgrade did not come about"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(STREAM_PROTOCOL));
        response
    }
}

/// Copies until the shim's side has ended, or the client is gone.
///
/// # Errors
/// The client went away.
pub(crate) async fn splice<C>(client: C, shim: Shim, forward_stdin: bool) -> std::io::Result<()>
where
    C: AsyncRead + AsyncWrite + Send,
{
    let (first, shim) = shim.into_stream();
    let (mut from_client, mut to_client) = split(client);
    let (mut from_shim, mut to_shim) = shim.into_split();
    let down = async {
        to_client.write_all(&first).await?;
        to_client.flush().await?;
        copy(&mut from_shim, &mut to_client).await?;
        to_client.shutdown().await
    };
    let up = async {
        if forward_stdin {
            copy(&mut from_client, &mut to_shim).await?;
            to_shim.shutdown().await?;
        } else {
            copy(&mut from_client, &mut sink()).await?;
        }
        // Half-closed: what comes down is still awaited.
        std::future::pending::<std::io::Result<()>>().await
    };
    tokio::pin!(down);
    tokio::select! {
        ended = &mut down => ended,
        // The process may have closed its stdin while it still writes; a client that broke off is
        // noticed when that cannot be delivered.
        _ = up => down.await,
    }
}
