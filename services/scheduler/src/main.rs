//! `scheduler`: what runs where, and the hosts' door.

fn main() -> std::process::ExitCode {
    chassis::main("scheduler", scheduler::build)
}
