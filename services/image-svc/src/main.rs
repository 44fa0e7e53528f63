//! `image-svc`: images for the fleet.

fn main() -> std::process::ExitCode {
    chassis::main("image-svc", image_svc::build)
}
