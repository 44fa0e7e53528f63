//! Execs: further processes inside running containers.

mod create;
mod inspect;
mod start;

use contract::agent::ExecStart;
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::Gateway;

/// What create stores of an exec.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredExec {
    /// What the host shall run.
    start: ExecStart,
    /// The client's own keys, as written.
    #[serde(default)]
    detach_keys: String,
}

/// Every operation on execs.
pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .routes(routes!(create::create))
        .routes(routes!(start::start))
        .routes(routes!(inspect::resize))
        .routes(routes!(inspect::inspect))
}

/// Docker's text of an exec in events: program, a blank, arguments.
fn action(word: &str, exec: &ExecStart) -> String {
    let (program, arguments) = exec.cmd.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
    format!("{word}: {program} {}", arguments.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_action_ends_with_a_blank_when_there_are_no_arguments() {
        let exec = |cmd: &[&str]| -> ExecStart {
            let container = "a".repeat(64);
            serde_json::from_value(serde_json::json!({"container": container, "cmd": cmd})).expect("an exec")
        };
        assert_eq!(action("exec_create", &exec(&["true"])), "exec_create: true ");
        assert_eq!(action("exec_start", &exec(&["/bin/sh", "-c", "true"])), "exec_start: /bin/sh -c true");
    }
}
