//! The one thread that holds the plan and touches the kernel. Requests come to it one by one and are
//! answered when the kernel has what they ask for. Between requests it looks whether anybody else
//! changed what it made, and sets it right.
//!
//! What it may do unasked is bounded: it adds and repairs, but removes only what a plan or delta
//! said goes. A netd that lost its plan leaves everything as it is.

mod sync;

use std::{
    sync::{
        Arc, Weak,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use contract::net::{NetDelta, NetPlan, NetStatus};
use model::Error;
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    compile::{Desired, HostConfig},
    config::Config,
    diff::{Observed, Op},
    kernel::{self, Kernel},
    measure::Measures,
    plan_file::{PlanFile, merge},
    resolver::Resolvers,
};

/// How often it is asked whether somebody changed an nft table in case nobody told, and how long a bridge without
/// containers is kept: whoever runs one short container after another finds it there.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Between making one namespace ahead of need and the next, so that starts go first.
const SPARE_PAUSE: Duration = Duration::from_millis(10);
/// How often everything else is looked at.
const REPAIR_EVERY: Duration = Duration::from_secs(4);
/// Without an underlay device to ask.
const DEFAULT_MTU: u32 = 1500;

type Reply = oneshot::Sender<Result<NetStatus, Error>>;

enum Command {
    Plan(NetPlan, Reply),
    Delta(NetDelta, Reply),
    Check(oneshot::Sender<Result<(), String>>),
    /// Somebody, perhaps ourselves, changed an nft table.
    NftChanged,
}

/// The way to the thread. It ends when the last of these is dropped.
#[derive(Clone, Debug)]
pub struct Engine(Arc<mpsc::Sender<Command>>);

/// What the thread owns.
struct Worker {
    kernel: Kernel,
    config: Config,
    host: HostConfig,
    file: PlanFile,
    /// `None` until the agent sent one, ever.
    plan: Option<NetPlan>,
    desired: Desired,
    observed: Observed,
    /// Why the last repair could not set everything right.
    trouble: Option<String>,
    repaired_at: Instant,
    measures: Measures,
    resolvers: Resolvers,
}

impl Engine {
    /// Starts the thread: reads the stored plan and repairs what it says.
    ///
    /// # Errors
    /// The run directory cannot be used, or netlink cannot.
    pub(crate) fn start(config: Config, measures: Measures, runtime: Handle) -> anyhow::Result<Self> {
        let (commands, inbox) = mpsc::channel();
        let (started, start) = mpsc::channel();
        // The handles belong to the thread that opens them: it is the one that visits namespaces.
        thread::Builder::new().name("kernel".to_owned()).spawn(move || {
            match Worker::new(config, measures, Resolvers::new(runtime)) {
                Ok(worker) => {
                    let _: Result<(), _> = started.send(Ok(()));
                    worker.run(&inbox);
                }
                Err(error) => {
                    let _: Result<(), _> = started.send(Err(error));
                }
            }
        })?;
        start.recv().map_err(|_| anyhow::anyhow!("the kernel thread died while starting"))??;
        let commands = Arc::new(commands);
        watch_nft(Arc::downgrade(&commands))?;
        Ok(Self(commands))
    }

    /// Replaces the plan.
    ///
    /// # Errors
    /// The plan could not be stored, or nothing at all could be done. What failed of it is in the status.
    pub(crate) async fn replace(&self, plan: NetPlan) -> Result<NetStatus, Error> {
        self.ask(|reply| Command::Plan(plan, reply)).await?
    }

    /// Changes the plan.
    ///
    /// # Errors
    /// As [`Engine::replace`]; and a conflict if there is no plan to change.
    pub(crate) async fn change(&self, delta: NetDelta) -> Result<NetStatus, Error> {
        self.ask(|reply| Command::Delta(delta, reply)).await?
    }

    /// Whether the thread answers and is content.
    ///
    /// # Errors
    /// It is not, and why.
    pub(crate) async fn check(&self) -> Result<(), String> {
        self.ask(Command::Check).await.map_err(|e| e.to_string())?
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::internal("the kernel thread is gone");
        self.0.send(command(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// Tells the worker at once when an nft table was changed. Without it the worker asks every second.
fn watch_nft(commands: Weak<mpsc::Sender<Command>>) -> anyhow::Result<()> {
    thread::Builder::new().name("nft-watch".to_owned()).spawn(move || {
        let tell = || commands.upgrade().is_some_and(|commands| commands.send(Command::NftChanged).is_ok());
        if let Err(error) = kernel::watch_nft(tell) {
            tracing::warn!(%error, "changes of nft tables are noticed a second late");
        }
    })?;
    Ok(())
}

impl Worker {
    fn new(config: Config, measures: Measures, mut resolvers: Resolvers) -> anyhow::Result<Self> {
        let (file, plan) = PlanFile::open(&config.run_dir)?;
        let host = HostConfig {
            address: config.host_address,
            vxlan_port: config.vxlan_port,
            protected: config.protected.clone(),
            underlay_mtu: DEFAULT_MTU,
            routed: Vec::new(),
        };
        if let Some(plan) = &plan {
            resolvers.replace(plan);
        }
        let mut worker = Self {
            kernel: Kernel::open(config.netns_dir())?,
            config,
            host,
            file,
            plan,
            desired: Desired::default(),
            observed: Observed::default(),
            trouble: None,
            repaired_at: Instant::now(),
            measures,
            resolvers,
        };
        if let Err(error) = worker.kernel.guard() {
            tracing::warn!(%error, "while somebody flushes the ruleset, networks are open until it is loaded again");
        }
        worker.repair();
        Ok(worker)
    }

    fn run(mut self, inbox: &mpsc::Receiver<Command>) {
        let mut spares_missing = true;
        loop {
            let pause = if spares_missing { SPARE_PAUSE } else { IDLE_TICK };
            match inbox.recv_timeout(pause) {
                Ok(command) => {
                    self.answer(command);
                    spares_missing = true;
                }
                Err(RecvTimeoutError::Timeout) if spares_missing => spares_missing = self.prepare(),
                Err(RecvTimeoutError::Timeout) => self.idle(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.repaired_at.elapsed() >= REPAIR_EVERY {
                self.repair();
                // A host that is never idle must not collect the bridges of all it ever ran.
                self.retire();
            }
        }
    }

    fn answer(&mut self, command: Command) {
        // Nobody waits for an answer whose request was given up; the work is done all the same.
        match command {
            Command::Plan(plan, reply) => {
                let begun = Instant::now();
                let status = self.replace(plan);
                self.measures.applied("plan", begun.elapsed(), &status);
                let _: Result<(), _> = reply.send(status);
            }
            Command::Delta(delta, reply) => {
                let begun = Instant::now();
                let status = self.change(&delta);
                self.measures.applied("delta", begun.elapsed(), &status);
                let _: Result<(), _> = reply.send(status);
            }
            Command::Check(reply) => {
                let _: Result<(), _> = reply.send(self.trouble.clone().map_or(Ok(()), Err));
            }
            Command::NftChanged => self.mend_firewall(),
        }
        self.measures.sandboxes(self.observed.sandboxes.len());
    }

    fn replace(&mut self, plan: NetPlan) -> Result<NetStatus, Error> {
        let plan = by_own_ids(plan);
        self.resolvers.replace(&plan);
        self.file.replace(&plan).map_err(|e| Error::Unavailable(format!("cannot store the plan: {e}")))?;
        self.plan = Some(plan);
        let failed = self.look_again().and_then(|()| {
            let gone = |id: &&model::ContainerId| !self.plan.iter().any(|p| p.endpoints.contains_key(id.as_str()));
            let gone: Vec<_> = self.observed.sandboxes.keys().filter(gone).cloned().collect();
            // Who sends a whole plan may not know any more whose namespaces others are in.
            self.sever(&gone);
            self.sync_all()
        });
        let failed = failed.map_err(|e| Error::Unavailable(e.to_string()))?;
        self.trouble = None;
        let named = self.desired.sandboxes.keys().cloned().collect::<Vec<_>>();
        Ok(self.status(&named, failed))
    }

    fn change(&mut self, delta: &NetDelta) -> Result<NetStatus, Error> {
        let Some(plan) = &mut self.plan else {
            return Err(Error::Conflict("there is no plan to change: send the whole one first".to_owned()));
        };
        self.file.append(delta).map_err(|e| Error::Unavailable(format!("cannot store the change: {e}")))?;
        merge(plan, delta);
        self.resolvers.change(plan, delta);
        if self.file.is_long() {
            self.file.replace(plan).map_err(|e| Error::Unavailable(format!("cannot store the plan: {e}")))?;
        }
        self.sever(&delta.held);
        let failed = self.sync_soon().map_err(|e| Error::Unavailable(e.to_string()))?;
        let named = delta.endpoints.iter().map(|e| e.container.clone()).collect::<Vec<_>>();
        Ok(self.status(&named, failed))
    }

    /// Takes the links out of namespaces that outlive their container, because somebody else is in them:
    /// such a namespace would keep them, and with them an address that is its container's next time.
    fn sever(&mut self, held: &[model::ContainerId]) {
        for container in held {
            let numbers = self.observed.sandboxes.get(container).map(|s| s.veths.keys().copied().collect::<Vec<_>>());
            for op in numbers.unwrap_or_default().into_iter().map(|number| Op::RemoveLink(container.clone(), number)) {
                match self.kernel.apply(&op) {
                    Ok(()) => self.observed.note(&op),
                    Err(error) => tracing::warn!(%error, ?op, "failed"),
                }
            }
        }
    }

    /// Reads the kernel anew.
    fn look_again(&mut self) -> kernel::Result<()> {
        self.kernel.prepare_host()?;
        self.host.underlay_mtu = self.kernel.mtu_under(self.host.address)?.unwrap_or(DEFAULT_MTU);
        self.host.routed = self.kernel.routed()?;
        let firewall = self.observed.firewall.take().filter(|_| !self.kernel.nft_changed());
        self.observed = Observed { firewall, ..self.kernel.observe()? };
        Ok(())
    }

    /// Sets right what the plan says and removes nothing.
    fn repair(&mut self) {
        self.repaired_at = Instant::now();
        if self.plan.is_none() {
            return;
        }
        self.trouble = match self.look_again().and_then(|()| self.sync_additive()) {
            Ok(failed) if failed.is_empty() => None,
            Ok(failed) => {
                Some(failed.into_iter().map(|(id, why)| format!("{id}: {why}")).collect::<Vec<_>>().join("; "))
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(trouble) = &self.trouble {
            tracing::warn!(trouble, "not everything could be set right");
        }
    }

    /// Makes a namespace ahead of need; whether there are more to make.
    fn prepare(&mut self) -> bool {
        // Those who need one will make it themselves, and be told why they cannot.
        self.kernel.prepare_spare().unwrap_or(false)
    }

    fn idle(&mut self) {
        if self.plan.is_none() {
            return;
        }
        self.mend_firewall();
        self.retire();
    }

    fn mend_firewall(&mut self) {
        if self.plan.is_some() && self.kernel.nft_changed() {
            tracing::info!("an nft table changed; loading the firewall again");
            self.repair();
        }
    }

    /// Where the namespaces of the named containers are, and what went wrong.
    fn status(&self, named: &[model::ContainerId], failed: sync::Failed) -> NetStatus {
        let dir = self.config.netns_dir();
        let there =
            named.iter().filter(|c| !failed.contains_key(c.as_str()) || self.desired.sandboxes.contains_key(*c));
        let there = there.filter(|c| self.observed.sandboxes.get(*c).is_some_and(|s| s.netns));
        let netns = there.map(|c| (c.to_string(), dir.join(c.as_str()).display().to_string())).collect();
        NetStatus { netns, failed }
    }
}

/// The same plan with every entry under its own id: a delta finds it there.
fn by_own_ids(plan: NetPlan) -> NetPlan {
    NetPlan {
        networks: plan.networks.into_values().map(|n| (n.id.to_string(), n)).collect(),
        endpoints: plan.endpoints.into_values().map(|e| (e.container.to_string(), e)).collect(),
    }
}

/// Removes everything a netd with this configuration made.
///
/// # Errors
/// What could not be removed.
pub fn purge(config: &Config) -> anyhow::Result<()> {
    Kernel::open(config.netns_dir())?.purge()?;
    PlanFile::remove(&config.run_dir)?;
    match std::fs::remove_file(&config.socket_path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}
