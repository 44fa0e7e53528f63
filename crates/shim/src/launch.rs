//! Starting processes: the container's first and execs, both by the shim itself where it can, else through
//! the runtime, both without waiting for it. Output is read only once the runtime has succeeded: what a failed runtime prints
//! is not the container's.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use runtime::{
    StartFailure, cgroup,
    oci::{Invocation, exec_refused, start_refused},
    protocol::{Event, ExecBy, ExecRecord, ExecRequest, Failure, Reply, Stage},
};

use crate::{
    client::{Role, Stream},
    clock, detach,
    log::Log,
    native::{Outcome, Plan},
    record::{self, Durability},
    shim::Shim,
    stdio::{self, Console, Wanted},
    task::{By, INIT, Job},
};

/// How long a runtime may take to start a process before it is killed.
const START_PATIENCE: Duration = Duration::from_secs(120);

impl Job {
    fn new(by: By) -> Self {
        Self { by, deadline: Instant::now() + START_PATIENCE, timed_out: false }
    }
}

impl Shim {
    /// Starts the container.
    pub(crate) fn start_init(&mut self) -> io::Result<()> {
        self.stage = Stage::Starting;
        self.log = self.config.log.clone().map(Log::open);
        let wanted = Wanted { stdin: self.config.open_stdin, stdout: true, stderr: true };
        let plan = self.native.plan_start(&self.config);
        // Before there is anything that the runtime would have to know of.
        self.dir.note_started_by_shim(plan.is_some())?;
        self.started_here = plan.is_some();
        if let Some(plan) = plan {
            return self.begin(INIT, plan, wanted);
        }
        let log = self.dir.path().join("runtime.log");
        let _ = fs::remove_file(&log);
        let mut files = Invocation { log, pid_file: self.dir.pid_file(), console_socket: None };
        let (id, bundle) = (self.config.id.clone(), PathBuf::from(&self.config.bundle));
        let console = self.console(self.config.tty, "console.sock", &mut files)?;
        let command = self.runtime.run_detached(&id, &bundle, &files);
        self.spawn(INIT, command, files, console, wanted)
    }

    /// Starts an exec; its task has key `key`.
    pub(crate) fn start_exec(&mut self, key: u64, request: &ExecRequest) -> io::Result<()> {
        let attached = !request.detach;
        let wanted = Wanted {
            stdin: attached && request.stdin,
            stdout: attached && request.stdout,
            stderr: attached && request.stderr,
        };
        if let Some(plan) = self.plan(request) {
            return self.begin(key, plan, wanted);
        }
        if self.started_here {
            let why = match cgroup::is_frozen(&self.config.cgroup_path) {
                true => "cannot exec in a paused container",
                false => "the shim does not know how, and the OCI runtime does not know the container",
            };
            return Err(io::Error::other(why));
        }
        let scratch = |kind: &str| self.dir.execs().join(format!("{}.{kind}", request.id));
        let process = scratch("process");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&process)?;
        file.write_all(&serde_json::to_vec(&request.process)?)?;
        let mut files = Invocation { log: scratch("log"), pid_file: scratch("pid"), console_socket: None };
        let console = self.console(request.tty, &format!("console-{key}.sock"), &mut files)?;
        let command = self.runtime.exec(&self.config.id, &process, &files);
        self.spawn(key, command, files, console, wanted)
    }

    /// How the shim makes the exec itself, if it is to and can.
    fn plan(&mut self, request: &ExecRequest) -> Option<Plan> {
        if self.config.runtime.exec != ExecBy::Shim {
            return None;
        }
        let init = self.task(INIT).and_then(|task| task.pid)?;
        self.native.plan_exec(&self.config, init, &request.process)
    }

    fn begin(&mut self, key: u64, plan: Plan, wanted: Wanted) -> io::Result<()> {
        let wanted = if self.task(key).is_some_and(|task| task.tty) { Wanted::default() } else { wanted };
        let (ends, streams) = stdio::streams(wanted, self.config.root_id)?;
        let underway = plan.begin(streams)?;
        self.with_task(key, |task| {
            task.stdin = ends.stdin;
            task.outputs = ends.outputs;
            task.job = Some(Job::new(By::Shim(underway)));
        });
        Ok(())
    }

    /// The new process has something to tell, or nobody is left to.
    pub(crate) fn take_underway(&mut self, key: u64) {
        let mut outcome = None;
        let pid_file = self.dir.pid_file();
        self.with_task(key, |task| {
            if let Some(Job { by: By::Shim(underway), .. }) = &mut task.job {
                outcome = underway.take(|pid| fs::write(&pid_file, pid.to_string()));
            }
        });
        let Some(outcome) = outcome else { return };
        let refused = if key == INIT { start_refused } else { exec_refused };
        let mut late = false;
        self.with_task(key, |task| late = task.job.take().is_some_and(|job| job.timed_out));
        match outcome {
            Outcome::Started(pid, terminal) if !late => {
                if let Some(master) = terminal {
                    self.give_terminal(key, master);
                }
                self.started(key, pid);
            }
            Outcome::Started(..) => {
                self.not_started(key, &refused(&format!("the process did not start in {START_PATIENCE:?}")));
            }
            Outcome::Refused(why) => self.not_started(key, &refused(&why)),
        }
    }

    fn console(&self, tty: bool, name: &str, files: &mut Invocation) -> io::Result<Option<Console>> {
        if !tty {
            return Ok(None);
        }
        let console = Console::bind(self.dir.path(), &self.dir_fd, name)?;
        files.console_socket = Some(console.short_path());
        Ok(Some(console))
    }

    fn spawn(
        &mut self,
        key: u64,
        mut command: Command,
        files: Invocation,
        console: Option<Console>,
        wanted: Wanted,
    ) -> io::Result<()> {
        let mut ends = stdio::Ends::default();
        if console.is_some() {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        } else {
            ends = stdio::pipes(&mut command, wanted, self.config.root_id)?;
        }
        detach::unblock_signals(&mut command);
        detach::usual_umask(&mut command);
        let child = command.spawn()?;
        // The command holds the process's ends of the pipes; without them gone there is no end of file.
        drop(command);
        self.with_task(key, |task| {
            task.console = console;
            task.stdin = ends.stdin;
            task.outputs = ends.outputs;
            task.job = Some(Job::new(By::Runtime { pid: child.id(), log: files.log, pid_file: files.pid_file }));
        });
        Ok(())
    }

    /// The runtime has sent a terminal's master.
    pub(crate) fn take_console(&mut self, key: u64) {
        let mut master = None;
        self.with_task(key, |task| {
            let received = match task.console.as_ref().map(Console::receive) {
                Some(Ok(Some(master))) => master,
                Some(Ok(None)) | None => return,
                Some(Err(e)) => {
                    eprintln!("terminal: {e}");
                    task.console = None;
                    return;
                }
            };
            task.console = None;
            master = Some(received);
        });
        if let Some(master) = master {
            self.give_terminal(key, master);
        }
    }

    fn give_terminal(&mut self, key: u64, master: OwnedFd) {
        self.with_task(key, |task| {
            if let Err(e) = stdio::set_nonblocking(&master) {
                eprintln!("terminal: {e}");
            }
            if let Some(size) = task.size {
                let _ = stdio::set_size(&master, size);
            }
            if task.open_stdin {
                task.stdin = stdio::duplicate(&master).ok().map(stdio::Stdin::new);
            }
            task.outputs[0] = Some(master);
        });
    }

    /// The runtime has done its part for task `key`.
    pub(crate) fn job_done(&mut self, key: u64, code: i32) {
        self.take_console(key);
        let mut job = None;
        self.with_task(key, |task| {
            task.console = None;
            job = task.job.take();
        });
        let Some(Job { by: By::Runtime { log: log_file, pid_file, .. }, timed_out, .. }) = job else { return };
        let pid = stdio::read_text(&pid_file).trim().parse::<u32>().ok();
        match pid.filter(|_| code == 0) {
            Some(pid) => self.started(key, pid),
            None => {
                let log = stdio::read_text(&log_file);
                let mut failure =
                    if key == INIT { self.runtime.start_failure(&log) } else { self.runtime.exec_failure(&log) };
                if timed_out {
                    failure.message = format!("the OCI runtime did not start the process in {START_PATIENCE:?}");
                }
                self.not_started(key, &failure);
            }
        }
        let _ = fs::remove_file(&log_file);
        if key != INIT {
            let _ = fs::remove_file(&pid_file);
            let _ = fs::remove_file(pid_file.with_extension("process"));
        }
    }

    fn started(&mut self, key: u64, pid: u32) {
        let now = clock::now_ns();
        let (mut waiting, mut exec, mut detached, mut lifeline) = (Vec::new(), None, false, false);
        self.with_task(key, |task| {
            task.pid = Some(pid);
            task.started_at_ns = Some(now);
            waiting = std::mem::take(&mut task.waiting);
            exec.clone_from(&task.exec);
            (detached, lifeline) = (task.detached, task.lifeline);
        });
        let reply = if let Some(id) = exec {
            if !lifeline {
                self.write_exec_record(&ExecRecord {
                    id,
                    run: self.config.run,
                    running: true,
                    pid: Some(pid),
                    exit_code: None,
                    error: String::new(),
                    finished_at_ns: None,
                });
            }
            Reply::ExecStarted { pid }
        } else {
            self.stage = Stage::Running;
            self.oom.begin(&self.config.cgroup_path);
            self.broadcast(&Event::Started { pid, started_at_ns: now });
            Reply::Started { pid, started_at_ns: now }
        };
        self.answer(&waiting, &reply, key, detached);
        if let Some(at) = self.strays.iter().position(|(stray, _)| *stray == pid) {
            let (_, code) = self.strays.swap_remove(at);
            self.ended(key, code);
        }
    }

    /// Tells those who wait, and makes an attached exec's connection its stream.
    fn answer(&mut self, waiting: &[u64], reply: &Reply, key: u64, detached: bool) {
        let mut streams = 0;
        for id in waiting {
            let stream = self.stream_of(key).filter(|_| !detached);
            let Some(client) = self.client(*id) else { continue };
            client.send_line(reply);
            client.role = Role::Requests;
            if let (Some(stream), Reply::ExecStarted { .. }) = (stream, reply) {
                client.role = Role::Stream(stream);
                streams += 1;
                let early = std::mem::take(&mut client.inbox);
                if stream.stdin && !early.is_empty() {
                    self.with_task(key, |task| task.offer_input(&early));
                }
            }
        }
        if key != INIT && streams == 0 {
            // Its client has gone, or never had a stream: nobody will ever end its input.
            self.with_task(key, |task| if task.lifeline { task.kill() } else { task.input_ended() });
        }
    }

    fn stream_of(&self, key: u64) -> Option<Stream> {
        let task = self.task(key)?;
        task.exec.as_ref()?;
        let outputs = [task.outputs[0].is_some(), task.outputs[1].is_some()];
        Some(Stream { task: key, stdin: task.stdin.is_some(), outputs, raw: task.tty })
    }

    /// The runtime refused, or could not be run.
    pub(crate) fn not_started(&mut self, key: u64, failure: &StartFailure) {
        let (mut waiting, mut exec, mut lifeline) = (Vec::new(), None, false);
        self.with_task(key, |task| {
            waiting = std::mem::take(&mut task.waiting);
            exec.clone_from(&task.exec);
            lifeline = task.lifeline;
            task.stdin = None;
            task.outputs = [None, None];
        });
        if exec.is_some() && lifeline {
            self.tasks.retain(|t| t.key != key);
        } else if let Some(id) = exec {
            self.write_exec_record(&ExecRecord {
                id,
                run: self.config.run,
                running: false,
                pid: None,
                exit_code: Some(failure.exit_code),
                error: failure.message.clone(),
                finished_at_ns: Some(clock::now_ns()),
            });
            self.tasks.retain(|t| t.key != key);
        } else {
            self.finish_init(failure.exit_code, clock::now_ns(), &failure.message);
        }
        let reply = Reply::Failed {
            failure: Failure::Runtime,
            message: failure.message.clone(),
            exit_code: Some(failure.exit_code),
        };
        self.answer(&waiting, &reply, key, true);
    }

    pub(crate) fn write_exec_record(&self, record: &ExecRecord) {
        let path = self.dir.exec_record(&record.id);
        if let Err(e) = record::write(&path, record, Durability::Memory) {
            eprintln!("write {}: {e}", path.display());
        }
    }
}
