//! The shim's state and its loop: sleep, take what is ready, settle what follows from it.

use std::{
    io::ErrorKind,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::sys::{
    signalfd::SignalFd,
    socket::{getsockopt, sockopt::PeerCredentials},
};
use runtime::{
    OciRuntime, RunDir,
    protocol::{Event, ExitRecord, LINGER_MS, ShimConfig, Stage, UNSTARTED_LINGER_MS},
};

use crate::{
    client::{Client, Role, Stream},
    detach::{self, Prepared},
    log::Log,
    memory,
    native::Native,
    oom::Oom,
    poll::{self, PollSet, Source},
    task::{By, INIT, Task},
};

/// Read at once from an output or a client.
const BUFFER_BYTES: usize = 64 * 1024;
/// Clients at a time; the agent needs a handful, and one per attached user.
const MAX_CLIENTS: usize = 256;
/// Idle for so long, memory of the last burst is given back.
const TRIM_AFTER: Duration = Duration::from_millis(500);

/// Everything a shim knows.
pub(crate) struct Shim {
    pub(crate) dir: RunDir,
    pub(crate) dir_fd: OwnedFd,
    pub(crate) config: ShimConfig,
    pub(crate) runtime: Box<dyn OciRuntime>,
    pub(crate) native: Native,
    /// The OCI runtime knows nothing of the container.
    pub(crate) started_here: bool,
    pub(crate) stage: Stage,
    /// The container's first process, then execs, by key.
    pub(crate) tasks: Vec<Task>,
    pub(crate) next_key: u64,
    pub(crate) clients: Vec<Client>,
    next_client: u64,
    pub(crate) log: Option<Log>,
    pub(crate) exit: Option<ExitRecord>,
    /// Children that ended before the runtime told us whose they are.
    pub(crate) strays: Vec<(u32, i32)>,
    pub(crate) oom: Oom,
    /// The agent has said goodbye.
    pub(crate) dismissed: bool,
    listener: UnixListener,
    /// Kept for the agent, which answers; never accepted from here.
    pub(crate) docker_socket: Option<UnixListener>,
    signals: SignalFd,
    /// Since when nobody is connected.
    alone_since: Instant,
    /// When to give memory back, after something happened.
    trim_at: Option<Instant>,
    buffer: Vec<u8>,
}

/// Runs the shim until its work is done.
pub(crate) fn live(prepared: Prepared) -> ExitCode {
    let signals = match enter(&prepared) {
        Ok(signals) => signals,
        Err(e) => {
            eprintln!("wharfage-shim: {e}");
            return ExitCode::FAILURE;
        }
    };
    let mut shim = Shim::new(prepared, signals);
    let result = shim.run();
    let _ = std::fs::remove_file(shim.dir.socket());
    if let Err(e) = result {
        eprintln!("wharfage-shim: {e}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn enter(prepared: &Prepared) -> std::io::Result<SignalFd> {
    detach::redirect_streams(&prepared.dir)?;
    detach::claim(&prepared.listener)?;
    detach::own_children()
}

impl Shim {
    fn new(prepared: Prepared, signals: SignalFd) -> Self {
        let Prepared { dir, config, runtime, listener, docker_socket, dir_fd } = prepared;
        let init = Task {
            key: INIT,
            tty: config.tty,
            open_stdin: config.open_stdin,
            stdin_once: config.stdin_once,
            size: config.console_size,
            ..Task::default()
        };
        Self {
            dir,
            dir_fd,
            config,
            runtime,
            native: Native::default(),
            started_here: false,
            stage: Stage::Created,
            tasks: vec![init],
            next_key: INIT + 1,
            clients: Vec::new(),
            next_client: 0,
            log: None,
            exit: None,
            strays: Vec::new(),
            oom: Oom::default(),
            dismissed: false,
            listener,
            docker_socket,
            signals,
            alone_since: Instant::now(),
            trim_at: Some(Instant::now() + TRIM_AFTER),
            buffer: Vec::new(),
        }
    }

    fn run(&mut self) -> std::io::Result<()> {
        let mut set = PollSet::default();
        loop {
            self.fill(&mut set);
            set.wait(self.deadline())?;
            for (source, events) in set.ready() {
                self.trim_at = Some(Instant::now() + TRIM_AFTER);
                match source {
                    Source::Signals => self.take_signals(),
                    Source::Listener => self.accept(),
                    Source::Console(key) => self.take_console(key),
                    Source::Underway(key) => self.take_underway(key),
                    Source::Output(key, output) => self.pump(key, output),
                    Source::Stdin(key) => self.with_task(key, Task::flush_input),
                    Source::Client(id) => self.serve(id, events),
                    Source::Memory => self.oom.woken(),
                }
            }
            self.settle();
            if self.is_done() {
                return Ok(());
            }
        }
    }

    /// What is worth waking up for.
    fn fill(&self, set: &mut PollSet) {
        let now = Instant::now();
        set.clear();
        set.add(&self.signals, poll::IN, Source::Signals);
        if self.clients.len() < MAX_CLIENTS {
            set.add(&self.listener, poll::IN, Source::Listener);
        }
        for task in &self.tasks {
            if let Some(console) = &task.console {
                set.add(console, poll::IN, Source::Console(task.key));
            }
            if let Some(By::Shim(underway)) = task.job.as_ref().map(|job| &job.by) {
                set.add(underway, poll::IN, Source::Underway(task.key));
            }
            if let Some(stdin) = task.stdin.as_ref().filter(|s| s.is_blocked()) {
                set.add(stdin, poll::OUT, Source::Stdin(task.key));
            }
            let readable = task.started_at_ns.is_some() && !self.is_held_back(task.key);
            for (output, fd) in task.outputs.iter().enumerate() {
                let rests = task.rests_until(output).is_some_and(|until| until > now);
                if let Some(fd) = fd.as_ref().filter(|_| readable && !rests) {
                    set.add(fd, poll::IN, Source::Output(task.key, output));
                }
            }
        }
        if let Some(watch) = self.oom.watch() {
            set.add(watch, watch.events(), Source::Memory);
        }
        for client in &self.clients {
            let reads = self.may_read(client);
            // A client that has gone is always ready: asked only when its rest can be taken.
            if client.hung_up && !reads {
                continue;
            }
            let events = if reads { poll::IN } else { 0 } | if client.wants_to_send() { poll::OUT } else { 0 };
            set.add(client, events, Source::Client(client.id));
        }
    }

    /// May bytes of this client be taken now?
    fn may_read(&self, client: &Client) -> bool {
        match client.role {
            _ if client.input_ended => false,
            Role::Requests | Role::Events => true,
            Role::Waiting => false,
            Role::Stream(s) if s.stdin => self.task(s.task).is_none_or(Task::takes_input),
            Role::Stream(_) => true,
        }
    }

    /// A client of this task has a full buffer.
    pub(crate) fn is_held_back(&self, key: u64) -> bool {
        let of_task = |c: &&Client| matches!(c.role, Role::Stream(s) if s.task == key);
        self.clients.iter().filter(of_task).any(Client::is_full)
    }

    /// When to wake up although nothing is ready.
    fn deadline(&self) -> Option<Instant> {
        let cuts = self.clients.iter().filter_map(Client::cut_at);
        let jobs = self.tasks.iter().filter_map(|t| t.job.as_ref()).filter(|j| !j.timed_out).map(|j| j.deadline);
        let held = |t: &&Task| !self.is_held_back(t.key);
        let drains = self.tasks.iter().filter(held).filter_map(|t| t.ended.map(|e| e.drain_until));
        let now = Instant::now();
        let rests =
            self.tasks.iter().flat_map(|t| [t.rests_until(0), t.rests_until(1)]).flatten().filter(|at| *at > now);
        let all = rests
            .chain(cuts)
            .chain(jobs)
            .chain(drains)
            .chain(self.trim_at)
            .chain(self.gone_at())
            .chain(self.oom.look_at());
        all.min()
    }

    /// When a shim that nobody talks to leaves.
    fn gone_at(&self) -> Option<Instant> {
        let patience = match self.stage {
            Stage::Created => UNSTARTED_LINGER_MS,
            Stage::Exited => LINGER_MS,
            Stage::Starting | Stage::Running => return None,
        };
        self.clients.is_empty().then(|| self.alone_since + Duration::from_millis(patience))
    }

    fn is_done(&self) -> bool {
        let told = self.clients.iter().all(|c| !c.wants_to_send());
        (self.dismissed && told) || self.gone_at().is_some_and(|at| at <= Instant::now())
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => self.welcome(socket),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Only root's processes (and our own user's, in tests) may talk to a shim.
    fn welcome(&mut self, socket: UnixStream) {
        let uid = getsockopt(&socket, PeerCredentials).map(|c| c.uid());
        let own = nix::unistd::geteuid().as_raw();
        if uid.is_ok_and(|uid| uid == 0 || uid == own) && socket.set_nonblocking(true).is_ok() {
            self.next_client += 1;
            self.clients.push(Client::new(self.next_client, socket));
        }
    }

    /// One read of an output: into the log, and to everyone attached.
    fn pump(&mut self, key: u64, output: usize) {
        self.buffer.resize(BUFFER_BYTES, 0);
        let Some(task) = self.tasks.iter_mut().find(|t| t.key == key) else { return };
        let Some(n) = task.read_output(output, &mut self.buffer).filter(|n| *n > 0) else { return };
        let bytes = &self.buffer[..n];
        if let Some(log) = self.log.as_mut().filter(|_| key == INIT) {
            log.feed(output, bytes);
        }
        for client in &mut self.clients {
            match client.role {
                Role::Stream(s) if s.task == key && s.outputs[output] => client.send_output(s, output, bytes),
                Role::Stream(_) | Role::Requests | Role::Waiting | Role::Events => {}
            }
        }
    }

    /// A client is ready: to be written to, to be read, or gone.
    fn serve(&mut self, id: u64, events: i16) {
        let Some(at) = self.clients.iter().position(|c| c.id == id) else { return };
        let may_read = self.may_read(&self.clients[at]);
        let client = &mut self.clients[at];
        if events & (libc::POLLERR | libc::POLLNVAL) != 0 {
            return client.cut();
        }
        if events & libc::POLLOUT != 0 {
            client.flush();
        }
        if events & libc::POLLHUP != 0 {
            client.hang_up();
        }
        if may_read && events & (libc::POLLIN | libc::POLLHUP) != 0 {
            self.read_client(at);
        }
    }

    fn read_client(&mut self, at: usize) {
        self.buffer.resize(BUFFER_BYTES, 0);
        let client = &mut self.clients[at];
        let n = match client.read(&mut self.buffer) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => return client.cut(),
        };
        if n == 0 {
            client.input_ended = true;
        }
        match client.role {
            Role::Stream(s) => self.input(s, n),
            Role::Events if n == 0 => client.cut(),
            Role::Events => {}
            Role::Requests | Role::Waiting => {
                client.inbox.extend_from_slice(&self.buffer[..n]);
                self.take_requests(at);
                // It asks no more; what it has asked is still answered.
                let client = &mut self.clients[at];
                if n == 0 && client.role == Role::Requests {
                    client.close_when_sent();
                }
            }
        }
    }

    /// Bytes of a stream's client, already in the buffer; none is the end.
    fn input(&mut self, stream: Stream, n: usize) {
        if !stream.stdin {
            return;
        }
        let Some(task) = self.tasks.iter_mut().find(|t| t.key == stream.task) else { return };
        if n == 0 {
            task.input_ended();
        } else {
            task.offer_input(&self.buffer[..n]);
        }
    }

    pub(crate) fn signals(&self) -> &SignalFd {
        &self.signals
    }

    pub(crate) fn broadcast(&mut self, event: &Event) {
        for client in self.clients.iter_mut().filter(|c| c.role == Role::Events) {
            client.send_line(event);
        }
    }

    pub(crate) fn task(&self, key: u64) -> Option<&Task> {
        self.tasks.iter().find(|t| t.key == key)
    }

    pub(crate) fn with_task(&mut self, key: u64, f: impl FnOnce(&mut Task)) {
        if let Some(task) = self.tasks.iter_mut().find(|t| t.key == key) {
            f(task);
        }
    }

    pub(crate) fn client(&mut self, id: u64) -> Option<&mut Client> {
        self.clients.iter_mut().find(|c| c.id == id)
    }

    /// What follows from what has happened.
    fn settle(&mut self) {
        let now = Instant::now();
        for client in &mut self.clients {
            if client.cut_at().is_some_and(|at| at <= now) {
                eprintln!("cut a client that took no output for too long");
                client.cut();
            }
            // Input that was left for a container that has not been started waits for nobody.
            if client.hung_up && self.stage == Stage::Created {
                client.cut();
            }
        }
        if self.oom.is_due(now) {
            self.note_oom();
        }
        self.settle_jobs(now);
        self.settle_ended(now);
        self.drop_clients(now);
        if self.trim_at.is_some_and(|at| at <= now) {
            self.give_back();
        }
    }

    fn drop_clients(&mut self, now: Instant) {
        if self.clients.is_empty() {
            return;
        }
        for at in 0..self.clients.len() {
            let client = &self.clients[at];
            if let (true, Role::Stream(s)) = (client.is_over(), client.role) {
                let cut_short = s.stdin && !client.input_ended;
                self.with_task(s.task, |task| {
                    if task.lifeline {
                        task.kill();
                    } else if cut_short {
                        task.input_ended();
                    }
                });
            }
        }
        self.clients.retain(|c| !c.is_over());
        if self.clients.is_empty() {
            self.alone_since = now;
        }
    }

    fn give_back(&mut self) {
        self.trim_at = None;
        self.buffer = Vec::new();
        self.clients.shrink_to_fit();
        self.tasks.shrink_to_fit();
        if let Some(log) = &mut self.log {
            log.release_buffers();
        }
        memory::trim();
    }
}
