//! Further processes in a container that runs: started by its shim, remembered by records in its run
//! directory, so that their exit codes outlive this agent. A record goes when the scheduler has taken
//! note of the end it tells of; until then every agent that finds it tells it.

use chassis::axum::response::{IntoResponse as _, Response};
use contract::{
    agent::{ExecStart, ExecState, ResizeRequest},
    host::ExecReport,
};
use model::{ContainerId, Error, ExecId, Result};
use runtime::{
    ExecProcess, RunDir,
    protocol::{ExecRecord, ExecRequest, Failure, Reply, Request},
};

use super::{Upgrade, splice};
use crate::{host::SharedHost, keeper::Handle, shims};

/// Code of an exec that could not be started, where nobody says another.
const NOT_STARTED: i32 = 126;

/// Starts it; with an upgrade the answer is its stream, without (`detach`) it is 204.
pub(crate) async fn start(
    host: &SharedHost,
    keeper: &Handle,
    id: &ExecId,
    start: ExecStart,
    upgrade: Option<Upgrade>,
) -> Result<Response> {
    let started = attempt(host, keeper, id, start, upgrade).await;
    if started.is_err() {
        // It has had its one start.
        let record = host.places.run_dir(&keeper.id).read_exec(id.as_str()).ok().flatten();
        if record.as_ref().is_none_or(|record| !record.running) {
            let exit_code = record.and_then(|record| record.exit_code).unwrap_or(NOT_STARTED);
            let ended = ExecReport { id: id.clone(), container: keeper.id.clone(), exit_code, ran: false };
            host.reports.exec_ended(ended);
        }
    }
    started
}

async fn attempt(
    host: &SharedHost,
    keeper: &Handle,
    id: &ExecId,
    start: ExecStart,
    upgrade: Option<Upgrade>,
) -> Result<Response> {
    let plan = keeper.plan().ok_or_else(|| Error::NotFound(format!("no such container: {}", keeper.id)))?;
    let run_dir = host.places.run_dir(&keeper.id);
    let mut shim = shims::connect(&run_dir)?;
    let bundle = host.places.bundle(&keeper.id);
    let wanted = ExecProcess {
        argv: start.cmd.clone(),
        env: start.env.clone(),
        cwd: start.working_dir.clone(),
        user: start.user.clone(),
        group_add: plan.spec.security.group_add.clone(),
        tty: start.tty,
        console_size: start.console_size,
    };
    let made = tokio::task::spawn_blocking(move || runtime::exec_process(&bundle, &wanted)).await;
    let process = match made.map_err(Error::internal)? {
        Ok(process) => process,
        Err(runtime::Error::Invalid(why)) => return Err(refuse(&run_dir, id, keeper, &why)),
        Err(e) => return Err(e.into()),
    };
    let detach = start.detach || upgrade.is_none();
    let request = ExecRequest {
        id: id.to_string(),
        process,
        stdin: start.attach_stdin && !detach,
        stdout: start.attach_stdout,
        stderr: start.attach_stderr,
        detach,
        tty: start.tty,
        console_size: start.console_size,
        lifeline: false,
    };
    match shim.ask(&Request::Exec(request)).await.map_err(shims::broken)? {
        Reply::ExecStarted { .. } => {}
        Reply::Failed { failure, message, .. } => {
            return Err(shims::refused(failure, host.told(&keeper.id, &message)));
        }
        other @ (Reply::Done | Reply::Started { .. } | Reply::State(_) | Reply::ExecState(_)) => {
            return Err(Error::Internal(format!("the shim answered an exec with {other:?}")));
        }
    }
    Ok(match upgrade {
        Some(upgrade) => upgrade.accept(async move |client| splice(client, shim, start.attach_stdin).await),
        None => chassis::axum::http::StatusCode::NO_CONTENT.into_response(),
    })
}

/// The shim never hears of it, so its record is written here: dockerd's code for it is 126.
fn refuse(run_dir: &RunDir, id: &ExecId, keeper: &Handle, why: &str) -> Error {
    let message = format!("OCI runtime exec failed: exec failed: {why}: unknown");
    let record = ExecRecord {
        id: id.to_string(),
        run: keeper.observed().borrow().progress.run,
        running: false,
        pid: None,
        exit_code: Some(NOT_STARTED),
        error: message.clone(),
        finished_at_ns: None,
    };
    let written = serde_json::to_vec(&record)
        .map_err(std::io::Error::from)
        .and_then(|bytes| std::fs::write(run_dir.exec_record(id.as_str()), bytes));
    if let Err(error) = written {
        tracing::warn!(%error, "an exec's record could not be written");
    }
    Error::Failed(message)
}

/// What became of it.
pub(crate) fn state(host: &SharedHost, container: &ContainerId, id: &ExecId) -> Result<ExecState> {
    let run_dir = host.places.run_dir(container);
    let unknown = || Error::NotFound(format!("No such exec instance: {id}"));
    let record = run_dir.read_exec(id.as_str()).map_err(Error::internal)?.ok_or_else(unknown)?;
    // A record that says "runs" is only as good as the shim that keeps it.
    let running = record.running && shims::Shim::connect(&run_dir).is_ok();
    Ok(ExecState {
        id: id.clone(),
        running,
        exit_code: record.exit_code.or((record.running && !running).then_some(137)),
        pid: record.pid.filter(|_| running).unwrap_or(0),
    })
}

/// Tells of the end that a record is about. Probes have records too, and are nobody's execs.
pub(crate) fn tell(host: &SharedHost, container: &ContainerId, record: &ExecRecord) {
    let Ok(id) = record.id.parse::<ExecId>() else { return };
    let Some(exit_code) = record.exit_code.filter(|_| !record.running) else { return };
    let ended = ExecReport { id, container: container.clone(), exit_code, ran: record.pid.is_some() };
    host.reports.exec_ended(ended);
}

/// Tells of every end there is a record of. Where no shim lives, whatever ran has ended.
pub(crate) fn tell_all(host: &SharedHost, container: &ContainerId) {
    let run_dir = host.places.run_dir(container);
    // Most containers never had one.
    let Ok(found) = std::fs::read_dir(run_dir.execs()) else { return };
    let names = found.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let ids: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect();
    let records = ids.iter().filter_map(|id| run_dir.read_exec(id).ok().flatten()).collect::<Vec<_>>();
    let lost = records.iter().any(|record| record.running) && run_dir.connect().is_err();
    for mut record in records {
        if lost && record.running {
            // It may have come to its own end since it was read.
            record = run_dir.read_exec(&record.id).ok().flatten().unwrap_or(record);
            record = ExecRecord { running: false, exit_code: record.exit_code.or(Some(137)), ..record };
        }
        tell(host, container, &record);
    }
}

/// Its end has been taken note of.
pub(crate) fn forget(host: &SharedHost, container: &ContainerId, id: &ExecId) {
    match std::fs::remove_file(host.places.run_dir(container).exec_record(id.as_str())) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%container, exec = %id, %error, "the record of an exec stays");
        }
        Ok(()) | Err(_) => {}
    }
}

/// The terminal's size.
pub(crate) async fn resize(host: &SharedHost, container: &ContainerId, id: &ExecId, to: ResizeRequest) -> Result<()> {
    let request = Request::ExecResize { id: id.to_string(), height: to.height, width: to.width };
    let mut shim = shims::connect(&host.places.run_dir(container))?;
    match shim.ask(&request).await.map_err(shims::broken)? {
        Reply::Failed { failure: Failure::NotFound, .. } => {
            Err(Error::NotFound(format!("No such exec instance: {id}")))
        }
        Reply::Failed { failure, message, .. } => Err(shims::refused(failure, message)),
        Reply::Done | Reply::Started { .. } | Reply::State(_) | Reply::ExecStarted { .. } | Reply::ExecState(_) => {
            Ok(())
        }
    }
}

/// The container an exec is in, from the records on this host.
pub(crate) fn container_of(host: &SharedHost, id: &ExecId) -> Option<ContainerId> {
    let found = std::fs::read_dir(host.places.run_containers()).ok()?.flatten();
    found
        .filter_map(|entry| entry.file_name().to_str()?.parse::<ContainerId>().ok())
        .find(|container| host.places.run_dir(container).exec_record(id.as_str()).exists())
}
