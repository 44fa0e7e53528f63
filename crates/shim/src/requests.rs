//! What a client asks, and what it is answered.

use std::os::fd::AsFd as _;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use runtime::{
    StartFailure, cgroup,
    protocol::{self, Event, ExecRequest, Failure, MAX_REQUEST_BYTES, Reply, Request, ShimState, Stage},
};

use crate::{
    client::{Role, Stream},
    shim::Shim,
    task::{INIT, Task},
};

/// Execs at a time in one container.
const MAX_EXECS: usize = 128;

impl Shim {
    /// Whole lines in a client's inbox, for as long as it asks.
    pub(crate) fn take_requests(&mut self, at: usize) {
        loop {
            let client = &mut self.clients[at];
            if client.role != Role::Requests {
                return;
            }
            match protocol::take_line::<Request>(&mut client.inbox) {
                Ok(Some(request)) => {
                    let id = client.id;
                    if let Some(reply) = self.answer_request(id, request) {
                        self.clients[at].send_line(&reply);
                        self.after_reply(at);
                    }
                }
                Ok(None) if client.inbox.len() > MAX_REQUEST_BYTES => return client.cut(),
                Ok(None) => return,
                Err(e) => client.send_line(&failed(Failure::Invalid, &format!("invalid request: {e}"))),
            }
        }
    }

    /// `None`: the answer comes later.
    fn answer_request(&mut self, client: u64, request: Request) -> Option<Reply> {
        match request {
            Request::Start { console_size } => self.start(client, console_size),
            Request::State => Some(Reply::State(self.state())),
            Request::Signal { signal } => Some(self.signal(signal)),
            Request::KillAll => {
                cgroup::kill_all(&self.config.cgroup_path);
                Some(Reply::Done)
            }
            Request::Resize { height, width } => Some(self.resize(INIT, (height, width))),
            Request::Attach { stdin, stdout, stderr } => Some(self.attach(client, stdin, [stdout, stderr])),
            Request::Subscribe => {
                self.set_role(client, Role::Events);
                Some(Reply::Done)
            }
            Request::Exec(exec) => self.exec(client, exec),
            Request::ExecResize { id, height, width } => Some(self.exec_resize(&id, (height, width))),
            Request::ExecState { id } => Some(self.exec_state(&id)),
            Request::DockerSocket => self.hand_over_docker_socket(client),
            Request::Bye => Some(self.bye()),
        }
    }

    /// What a new subscriber must know, and stdin that came along with an attach.
    fn after_reply(&mut self, at: usize) {
        let started = self.task(INIT).filter(|t| t.runs()).and_then(|t| t.pid.zip(t.started_at_ns));
        let (exited, kills) = (self.exit.clone(), self.oom.kills());
        let client = &mut self.clients[at];
        match client.role {
            Role::Events => {
                if let Some((pid, started_at_ns)) = started {
                    client.send_line(&Event::Started { pid, started_at_ns });
                }
                if kills > 0 {
                    client.send_line(&Event::Oom { kills });
                }
                if let Some(record) = exited {
                    client.send_line(&Event::Exited(record));
                }
            }
            Role::Stream(stream) => {
                let early = std::mem::take(&mut client.inbox);
                if exited.is_some() {
                    client.close_when_sent();
                } else if stream.stdin && !early.is_empty() {
                    self.with_task(INIT, |task| task.offer_input(&early));
                }
            }
            Role::Requests | Role::Waiting => {}
        }
    }

    fn set_role(&mut self, client: u64, role: Role) {
        if let Some(client) = self.client(client) {
            client.role = role;
        }
    }

    fn hand_over_docker_socket(&mut self, client: u64) -> Option<Reply> {
        let Some(socket) = &self.docker_socket else {
            return Some(failed(Failure::NotFound, "this container has no Docker socket"));
        };
        if let Some(client) = self.clients.iter_mut().find(|c| c.id == client) {
            client.send_line_with(&Reply::Done, socket.as_fd());
        }
        None
    }

    fn start(&mut self, client: u64, console_size: Option<(u16, u16)>) -> Option<Reply> {
        match self.stage {
            Stage::Created => {}
            Stage::Starting => {
                self.wait_for(INIT, client);
                return None;
            }
            Stage::Running | Stage::Exited => return Some(self.started_reply()),
        }
        self.with_task(INIT, |task| task.size = console_size.or(task.size));
        self.wait_for(INIT, client);
        if let Err(e) = self.start_init() {
            let message = format!("failed to create task for container: {e}: unknown");
            self.not_started(INIT, &StartFailure { message, exit_code: 128 });
        }
        None
    }

    fn started_reply(&self) -> Reply {
        let init = self.task(INIT);
        if let Some((pid, started_at_ns)) = init.and_then(|t| t.pid.zip(t.started_at_ns)) {
            return Reply::Started { pid, started_at_ns };
        }
        match &self.exit {
            Some(exit) => match (exit.pid, exit.started_at_ns) {
                (Some(pid), Some(started_at_ns)) => Reply::Started { pid, started_at_ns },
                _ => Reply::Failed {
                    failure: Failure::Runtime,
                    message: exit.error.clone(),
                    exit_code: Some(exit.exit_code),
                },
            },
            None => failed(Failure::Internal, "the container neither runs nor has ended"),
        }
    }

    fn wait_for(&mut self, key: u64, client: u64) {
        self.set_role(client, Role::Waiting);
        self.with_task(key, |task| task.waiting.push(client));
    }

    fn state(&self) -> ShimState {
        let init = self.task(INIT);
        ShimState {
            id: self.config.id.clone(),
            run: self.config.run,
            restart: self.config.restart,
            stage: self.stage,
            pid: init.filter(|t| t.runs()).and_then(|t| t.pid),
            started_at_ns: init.and_then(|t| t.started_at_ns),
            exit: self.exit.clone(),
            log_lines_dropped: self.log.as_ref().map_or(0, crate::log::Log::dropped_lines),
        }
    }

    /// We are its parent: until it is waited for, its PID is nobody else's.
    fn signal(&self, number: i32) -> Reply {
        let pid = self.task(INIT).filter(|t| t.runs()).and_then(|t| t.pid);
        let Some(pid) = pid.and_then(|p| i32::try_from(p).ok()) else { return not_running() };
        if !(1..=64).contains(&number) {
            return failed(Failure::Invalid, "invalid signal");
        }
        let sent = match Signal::try_from(number) {
            Ok(signal) => kill(Pid::from_raw(pid), signal).map_err(std::io::Error::from),
            Err(_) => send_realtime(pid, number),
        };
        match sent {
            Ok(()) => Reply::Done,
            Err(e) => failed(Failure::Internal, &format!("signal {number}: {e}")),
        }
    }

    fn resize(&mut self, key: u64, size: (u16, u16)) -> Reply {
        let mut result = Ok(());
        self.with_task(key, |task| result = task.resize(size));
        match result {
            Ok(()) => Reply::Done,
            Err(e) => failed(Failure::Internal, &format!("resize: {e}")),
        }
    }

    fn attach(&mut self, client: u64, stdin: bool, outputs: [bool; 2]) -> Reply {
        let raw = self.config.tty;
        // A terminal has one output; whoever wants either gets it.
        let outputs = if raw { [outputs[0] || outputs[1], false] } else { outputs };
        let stdin = stdin && self.config.open_stdin;
        self.set_role(client, Role::Stream(Stream { task: INIT, stdin, outputs, raw }));
        Reply::Done
    }

    fn exec(&mut self, client: u64, request: ExecRequest) -> Option<Reply> {
        if self.stage != Stage::Running || self.task(INIT).is_none_or(|t| !t.runs()) {
            return Some(not_running());
        }
        if !is_exec_id(&request.id) {
            return Some(failed(Failure::Invalid, "invalid exec id"));
        }
        let taken = self.exec_key(&request.id).is_some() || self.dir.exec_record(&request.id).exists();
        if taken || self.tasks.len() > MAX_EXECS {
            let why = if taken { "the exec has been started already" } else { "too many execs" };
            return Some(failed(Failure::Conflict, why));
        }
        let key = self.next_key;
        self.next_key += 1;
        self.tasks.push(Task {
            key,
            exec: Some(request.id.clone()),
            tty: request.tty,
            detached: request.detach,
            lifeline: request.lifeline,
            open_stdin: request.stdin && !request.detach,
            stdin_once: true,
            size: request.console_size,
            ..Task::default()
        });
        self.wait_for(key, client);
        if let Err(e) = self.start_exec(key, &request) {
            let message = format!("OCI runtime exec failed: {e}: unknown");
            self.not_started(key, &StartFailure { message, exit_code: 126 });
        }
        None
    }

    fn exec_key(&self, id: &str) -> Option<u64> {
        self.tasks.iter().find(|t| t.exec.as_deref() == Some(id)).map(|t| t.key)
    }

    fn exec_resize(&mut self, id: &str, size: (u16, u16)) -> Reply {
        match self.exec_key(id) {
            Some(key) => self.resize(key, size),
            None => failed(Failure::NotFound, "no such exec"),
        }
    }

    fn exec_state(&self, id: &str) -> Reply {
        let record = is_exec_id(id).then(|| self.dir.read_exec(id).ok().flatten()).flatten();
        record.map_or_else(|| failed(Failure::NotFound, "no such exec"), Reply::ExecState)
    }

    fn bye(&mut self) -> Reply {
        match self.stage {
            Stage::Created | Stage::Exited => {
                self.dismissed = true;
                Reply::Done
            }
            Stage::Starting | Stage::Running => failed(Failure::Conflict, "the container runs"),
        }
    }
}

/// It names files.
fn is_exec_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn failed(failure: Failure, message: &str) -> Reply {
    Reply::Failed { failure, message: message.to_owned(), exit_code: None }
}

fn not_running() -> Reply {
    failed(Failure::NotRunning, "container is not running")
}

/// nix knows only the signals that have names.
fn send_realtime(pid: i32, number: i32) -> std::io::Result<()> {
    #[expect(unsafe_code, reason = "kill with a real-time signal")]
    // SAFETY: a system call on two numbers.
    let got = unsafe { libc::kill(pid, number) };
    if got == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
