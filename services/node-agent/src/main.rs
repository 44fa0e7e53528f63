//! The node-agent's process: `node-agent --config <file>`, or `node-agent purge --config <file>`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    if arguments.nth(1).as_deref() == Some("purge") {
        return node_agent::purge::main(arguments);
    }
    chassis::main("node-agent", node_agent::build)
}
