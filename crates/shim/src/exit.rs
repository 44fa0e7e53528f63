//! Ends: children reaped, output drained, the record written, everyone told, the runtime's remains
//! removed. In that order: whoever hears of the end can read the record, and whoever has said
//! goodbye after it can use the container's name again.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use runtime::protocol::{Event, ExecRecord, ExitRecord, Stage};

use crate::{
    client::{Client, Role},
    clock,
    record::{self, Durability},
    shim::Shim,
    task::{Ended, INIT},
};

/// How long output is waited for that a process left behind holds open; dockerd's number.
const DRAIN: Duration = Duration::from_secs(2);

impl Shim {
    pub(crate) fn take_signals(&mut self) {
        // What was sent does not matter: the only one we act on is SIGCHLD, and children tell themselves.
        while let Ok(Some(_)) = self.signals().read_signal() {}
        while let Ok(status) = waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            let (pid, code) = match status {
                WaitStatus::Exited(pid, code) => (pid, code),
                WaitStatus::Signaled(pid, signal, _) => (pid, 128 + signal as i32),
                WaitStatus::StillAlive => break,
                WaitStatus::Stopped(..)
                | WaitStatus::PtraceEvent(..)
                | WaitStatus::PtraceSyscall(_)
                | WaitStatus::Continued(_) => continue,
            };
            if let Ok(pid) = u32::try_from(pid.as_raw()) {
                self.reaped(pid, code);
            }
        }
    }

    fn reaped(&mut self, pid: u32, code: i32) {
        if self.tasks.iter().filter_map(|t| t.job.as_ref()).any(|j| j.is_stand_in(pid)) {
            return;
        }
        let job = self.tasks.iter().find(|t| t.job.as_ref().is_some_and(|j| j.is_runtime(pid))).map(|t| t.key);
        if let Some(key) = job {
            return self.job_done(key, code);
        }
        let task = self.tasks.iter().find(|t| t.pid == Some(pid) && t.ended.is_none()).map(|t| t.key);
        if let Some(key) = task {
            return self.ended(key, code);
        }
        // A short process can be gone before the runtime is: its end is kept until we know whose it is.
        if self.tasks.iter().any(|t| t.job.is_some()) {
            self.strays.push((pid, code));
        }
    }

    /// Task `key`'s process has been waited for.
    pub(crate) fn ended(&mut self, key: u64, code: i32) {
        let ended = Ended { code, at_ns: clock::now_ns(), drain_until: Instant::now() + DRAIN };
        self.with_task(key, |task| {
            task.ended = Some(ended);
            task.stdin = None;
        });
    }

    /// Runtimes that take too long are killed; their end is then seen like any other.
    pub(crate) fn settle_jobs(&mut self, now: Instant) {
        for job in self.tasks.iter_mut().filter_map(|t| t.job.as_mut()) {
            if job.deadline <= now && !job.timed_out {
                job.timed_out = true;
                job.kill();
            }
        }
        if self.tasks.iter().all(|t| t.job.is_none()) {
            self.strays.clear();
        }
    }

    /// Processes that have ended and have nothing more to say.
    pub(crate) fn settle_ended(&mut self, now: Instant) {
        let mut over = Vec::new();
        for task in &self.tasks {
            if let Some(ended) = task.ended {
                let waited = ended.drain_until <= now && !self.is_held_back(task.key);
                if task.is_silent() || waited {
                    over.push((task.key, ended));
                }
            }
        }
        for (key, ended) in over {
            if key == INIT {
                if self.exit.is_none() {
                    self.with_task(INIT, |task| task.outputs = [None, None]);
                    self.finish_init(ended.code, ended.at_ns, "");
                }
            } else {
                self.finish_exec(key, ended);
            }
        }
    }

    fn finish_exec(&mut self, key: u64, ended: Ended) {
        let Some(at) = self.tasks.iter().position(|t| t.key == key) else { return };
        let task = self.tasks.remove(at);
        let listened = |c: &Client| matches!(c.role, Role::Stream(s) if s.task == key) && !c.hung_up;
        let unwanted = task.lifeline && !self.clients.iter().any(listened);
        let record = ExecRecord {
            id: task.exec.unwrap_or_default(),
            run: self.config.run,
            running: false,
            pid: task.pid,
            exit_code: Some(ended.code),
            error: String::new(),
            finished_at_ns: Some(ended.at_ns),
        };
        if !unwanted {
            self.write_exec_record(&record);
        }
        self.note_oom();
        self.broadcast(&Event::ExecExited(record));
        self.end_streams(key);
    }

    /// The run is over, or never was.
    pub(crate) fn finish_init(&mut self, exit_code: i32, finished_at_ns: i64, error: &str) {
        if let Some(log) = &mut self.log {
            log.finish();
        }
        let oom_killed = self.note_oom();
        self.oom.rest();
        let (pid, started_at_ns) = self.task(INIT).map_or((None, None), |t| (t.pid, t.started_at_ns));
        let record = ExitRecord {
            run: self.config.run,
            restart: self.config.restart,
            exit_code,
            oom_killed,
            error: error.to_owned(),
            pid,
            started_at_ns,
            finished_at_ns,
        };
        let path = self.dir.exit_record();
        if let Err(e) = record::write(&path, &record, Durability::Disk) {
            // The agent that is connected still hears it, and a later one asks the state.
            eprintln!("write {}: {e}", path.display());
        }
        self.stage = Stage::Exited;
        self.exit = Some(record.clone());
        self.broadcast(&Event::Exited(record));
        self.end_streams(INIT);
        self.with_task(INIT, |task| task.pid = None);
        self.clean_up();
    }

    /// Was the OOM killer at it, now or before?
    pub(crate) fn note_oom(&mut self) -> bool {
        if let Some(kills) = self.oom.count(&self.config.cgroup_path) {
            self.broadcast(&Event::Oom { kills });
        }
        self.oom.kills() > 0
    }

    fn end_streams(&mut self, key: u64) {
        for client in &mut self.clients {
            if matches!(client.role, Role::Stream(s) if s.task == key) {
                client.close_when_sent();
            }
        }
    }

    fn clean_up(&mut self) {
        let _ = fs::remove_file(self.dir.pid_file());
        let id = &self.config.id;
        if let Err(e) = self.runtime.forget(id, &self.config.cgroup_path) {
            eprintln!("remove what the runtime left: {e}");
            if let Err(e) = self.runtime.delete(id).output() {
                eprintln!("runtime delete: {e}");
            }
        }
    }
}
