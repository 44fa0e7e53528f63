//! A pull's lines on their way to whoever asked. A slow reader slows the pull; one that is gone ends it.

use std::collections::BTreeMap;

use contract::image::{ProgressDetail, PullProgress};
use model::{Digest, Error};
use tokio::sync::mpsc;

use crate::limits::PROGRESS_LINES_QUEUED;

/// The writing end.
#[derive(Clone)]
pub(crate) struct Progress(mpsc::Sender<PullProgress>);

impl Progress {
    /// Both ends.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<PullProgress>) {
        let (sender, receiver) = mpsc::channel(PROGRESS_LINES_QUEUED);
        (Self(sender), receiver)
    }

    /// Resolves when nobody reads any more.
    pub(crate) async fn reader_gone(&self) {
        self.0.closed().await;
    }

    pub(crate) async fn line(&self, status: &str, id: Option<&str>) {
        let line =
            PullProgress { status: Some(status.to_owned()), id: id.map(str::to_owned), ..PullProgress::default() };
        self.say(line).await;
    }

    pub(crate) async fn layer(&self, layer: &Digest, status: &str) {
        let line = PullProgress {
            status: Some(status.to_owned()),
            id: Some(short(layer)),
            progress_detail: Some(ProgressDetail::default()),
            ..PullProgress::default()
        };
        self.say(line).await;
    }

    pub(crate) async fn downloading(&self, layer: &Digest, current: u64, total: u64) {
        let line = PullProgress {
            status: Some("Downloading".to_owned()),
            id: Some(short(layer)),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..PullProgress::default()
        };
        self.say(line).await;
    }

    pub(crate) async fn loading(&self, layer: &Digest, current: u64, total: u64) {
        let line = PullProgress {
            status: Some("Loading layer".to_owned()),
            id: Some(short(layer)),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..PullProgress::default()
        };
        self.say(line).await;
    }

    pub(crate) async fn pushing(&self, layer: &Digest, current: u64, total: u64) {
        let line = PullProgress {
            status: Some("Pushing".to_owned()),
            id: Some(short(layer)),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..PullProgress::default()
        };
        self.say(line).await;
    }

    /// Text for people, its end of line included.
    pub(crate) async fn stream(&self, text: String) {
        self.say(PullProgress { stream: Some(text), ..PullProgress::default() }).await;
    }

    /// What came of it, for programs.
    pub(crate) async fn aux(&self, aux: serde_json::Value) {
        let (progress_detail, aux) = (Some(ProgressDetail::default()), Some(aux));
        self.say(PullProgress { progress_detail, aux, ..PullProgress::default() }).await;
    }

    /// The last line of a pull that failed.
    pub(crate) async fn failed(&self, error: &Error) {
        let message = error.public_message();
        let line = PullProgress {
            error: Some(message.clone()),
            error_detail: Some(BTreeMap::from([("message".to_owned(), message)])),
            ..PullProgress::default()
        };
        self.say(line).await;
    }

    async fn say(&self, line: PullProgress) {
        // A reader that is gone is noticed by whoever runs the pull.
        let _ = self.0.send(line).await;
    }
}

/// As `docker pull` shows layers.
fn short(layer: &Digest) -> String {
    layer.hex()[..12].to_owned()
}
