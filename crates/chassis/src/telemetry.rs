//! Logs and traces. Logs go to stderr, one JSON document per line; spans go to an OTLP collector
//! when one is configured. Without a collector no span is recorded anywhere and trace headers are
//! passed on as they came.

mod json;
mod otlp;

use std::io::IsTerminal as _;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::Common;

/// What has to be shut down at the end.
#[derive(Debug)]
#[must_use = "spans that are not flushed are lost"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sends what was not sent yet. Blocks for a moment: not for a task of the runtime.
    pub fn shutdown(self) {
        if let Some(provider) = self.provider
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "some spans were not exported");
        }
    }
}

/// Sets up logging and tracing for the process. Fails if it was done before, or on a malformed filter.
pub fn init(service: &'static str, common: &Common, runtime: &Handle) -> anyhow::Result<Telemetry> {
    let filter = || EnvFilter::try_new(&common.log).with_context(|| format!("log filter `{}`", common.log));
    let (json, text) = if common.log_json {
        (Some(json::JsonLines::new(service, std::io::stderr)), None)
    } else {
        let text =
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        (None, Some(text))
    };
    let provider = common.otlp_endpoint.as_deref().map(|to| otlp::provider(service, to, runtime)).transpose()?;
    let spans = provider.as_ref().map(|p| {
        // The exporter's own requests must not become spans that are exported.
        let own = tracing_subscriber::filter::filter_fn(|meta| {
            !["hyper", "reqwest", "h2", "opentelemetry"].iter().any(|library| meta.target().starts_with(library))
        });
        tracing_opentelemetry::layer().with_tracer(p.tracer("wharfage")).with_filter(own)
    });
    tracing_subscriber::registry().with(filter()?).with(json).with(text).with(spans).try_init()?;
    log_panics();
    Ok(Telemetry { provider })
}

fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("no text");
        tracing::error!(place, "panic: {text}");
        if !tracing::enabled!(tracing::Level::ERROR) {
            before(panic);
        }
    }));
}
