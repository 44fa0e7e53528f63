//! The life of a process: configuration, telemetry, build (nothing is bound yet), bind, serve,
//! signal, drain, exit code. A background task that panics ends the process: whoever supervises it
//! starts it again, which every service must survive anyway.

use std::{future::Future, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    config::{self, Common},
    health::Health,
    http::{Observer, Server},
    limits,
    metrics::Metrics,
    telemetry::{self, Telemetry},
    tls,
};

/// What a service hands back from its build: the servers to bind and serve.
#[derive(Debug, Default)]
pub struct App {
    /// All of them. The ops listener of the configuration comes on top.
    pub servers: Vec<Server>,
}

/// What the chassis gives to a service's build. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ctx {
    service: &'static str,
    health: Health,
    metrics: Metrics,
    observer: Arc<Observer>,
    clock: Clock,
    tasks: TaskTracker,
    cancel: CancellationToken,
    died: CancellationToken,
}

impl Ctx {
    /// A context outside of [`main`]: for tests that bind servers themselves.
    #[must_use]
    pub fn new(service: &'static str, common: &Common) -> Self {
        let metrics = Metrics::new(service);
        Self {
            service,
            health: Health::default(),
            observer: Observer::new(&metrics, common.trust_request_id),
            metrics,
            clock: Clock::system(),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            died: CancellationToken::new(),
        }
    }

    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// Where readiness checks are registered.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Where metrics are made.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Cancelled when the servers have drained: background tasks end then.
    #[must_use]
    pub fn cancel(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Runs a task in the background until it returns. It should return when [`Ctx::cancel`] says
    /// so; if it panics, the process ends.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let running = tokio::spawn(task);
        let died = self.died.clone();
        self.tasks.spawn(async move {
            if let Err(error) = running.await {
                tracing::error!(task = name, %error, "a background task died");
                died.cancel();
            }
        });
    }

    /// Ends the background tasks and waits for them; false if they do not end in time.
    pub async fn stop_tasks(&self, patience: Duration) -> bool {
        self.cancel.cancel();
        self.tasks.close();
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }

    pub(crate) fn observer(&self) -> &Arc<Observer> {
        &self.observer
    }
}

#[derive(Parser)]
struct Arguments {
    /// Configuration file. Environment variables `WHARFAGE_<SECTION>__<FIELD>` go on top.
    #[arg(long, env = "WHARFAGE_CONFIG_FILE")]
    config: Option<PathBuf>,
}

/// The whole `main` of a service. `build` makes everything but binds nothing.
pub fn main<C, B, F>(service: &'static str, build: B) -> ExitCode
where
    C: DeserializeOwned,
    B: FnOnce(C, Ctx) -> F,
    F: Future<Output = anyhow::Result<App>>,
{
    let arguments = Arguments::parse();
    let (config, common) = match config::load::<C>(arguments.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{service}: {error:#}");
            return ExitCode::from(2);
        }
    };
    match start(service, config, &common, build) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot run");
            eprintln!("{service}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start<C, B, F>(service: &'static str, config: C, common: &Common, build: B) -> anyhow::Result<ExitCode>
where
    B: FnOnce(C, Ctx) -> F,
    F: Future<Output = anyhow::Result<App>>,
{
    tls::install_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(common.workers.max(1))
        .thread_name(service)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let telemetry = telemetry::init(service, common, runtime.handle())?;
    let ctx = Ctx::new(service, common);
    let outcome = runtime.block_on(live(ctx, config, common, build));
    if let Err(error) = &outcome {
        tracing::error!(error = format!("{error:#}"), "cannot run");
    }
    finish(telemetry, runtime);
    Ok(outcome.unwrap_or(ExitCode::FAILURE))
}

/// Flushes what was traced while the runtime that exports it still runs, then ends the runtime.
fn finish(telemetry: Telemetry, runtime: tokio::runtime::Runtime) {
    telemetry.shutdown();
    runtime.shutdown_timeout(Duration::from_millis(200));
}

async fn live<C, B, F>(ctx: Ctx, config: C, common: &Common, build: B) -> anyhow::Result<ExitCode>
where
    B: FnOnce(C, Ctx) -> F,
    F: Future<Output = anyhow::Result<App>>,
{
    // Before the build, so that a signal during a slow one is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Certificates are looked at again by themselves; the customary signal for that must not kill.
    let mut hangup = signal(SignalKind::hangup())?;
    let app = tokio::select! {
        app = build(config, ctx.clone()) => app?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    let stop = CancellationToken::new();
    let servers = TaskTracker::new();
    for server in app.servers.into_iter().chain(common.ops_listen.map(Server::ops_only)) {
        servers.spawn(server.bind(&ctx).await?.serve(stop.clone()));
    }
    servers.close();
    tracing::info!("ready");
    let code = loop {
        tokio::select! {
            _ = terminate.recv() => break ExitCode::SUCCESS,
            _ = interrupt.recv() => break ExitCode::SUCCESS,
            () = ctx.died.cancelled() => break ExitCode::FAILURE,
            _ = hangup.recv() => {}
        }
    };
    tracing::info!("stopping");
    ctx.health.drain();
    stop.cancel();
    let drained = tokio::select! {
        drained = drain(&ctx, &servers) => drained,
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    tracing::info!(drained, "stopped");
    Ok(code)
}

async fn drain(ctx: &Ctx, servers: &TaskTracker) -> bool {
    let deadline = tokio::time::Instant::now() + limits::DRAIN;
    let served = tokio::time::timeout_at(deadline, servers.wait()).await.is_ok();
    let left = deadline.saturating_duration_since(tokio::time::Instant::now()).max(Duration::from_millis(500));
    ctx.stop_tasks(left).await && served
}
