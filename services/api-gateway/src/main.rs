//! `api-gateway`: the public door.

fn main() -> std::process::ExitCode {
    chassis::main("api-gateway", api_gateway::build)
}
