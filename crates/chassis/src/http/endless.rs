//! Answers that never end by themselves (events, followed logs, statistics). A process that stops
//! cuts them off at once instead of waiting for clients that wait for it; the client sees a broken
//! answer, as it does when dockerd stops, and not one that seems complete.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Put into a response's extensions by the handler whose answer has no end of its own.
#[derive(Clone, Copy, Debug)]
pub struct Endless;

/// Layer of every server.
pub(super) async fn cut(State(draining): State<CancellationToken>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.extensions().get::<Endless>().is_none() {
        return response;
    }
    response.map(|body| Body::new(Cut { body, draining: Box::pin(draining.cancelled_owned()) }))
}

struct Cut {
    body: Body,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if self.draining.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionAborted).into())));
        }
        Pin::new(&mut self.body).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
