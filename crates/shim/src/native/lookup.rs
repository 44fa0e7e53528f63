//! Where a program is, by the `PATH` it will have, looked up as the user it will run as: Go's
//! `exec.LookPath`, whose errors users know.

use std::{io, os::unix::fs::MetadataExt as _};

use runtime::words;

/// The path to execute. The shim's own program is none, but for the path that the host has put it at.
pub(super) fn find(name: &str, env: &[String], own: Option<&str>) -> Result<String, String> {
    if own == Some(name) {
        return Ok(name.to_owned());
    }
    let refused = |why: &str| format!("exec: {name:?}: {why}");
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Refusal::Missing(e)) => Err(refused(&format!("stat {name}: {}", words(&e)))),
            Err(Refusal::NotAllowed) => Err(refused("permission denied")),
        };
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    for dir in path.split(':').filter(|_| !path.is_empty()) {
        let candidate = match dir {
            "" | "." => name.to_owned(),
            dir => format!("{}/{name}", dir.trim_end_matches('/')),
        };
        if !name.is_empty() && executable(&candidate).is_ok() {
            if candidate.starts_with('/') {
                return Ok(candidate);
            }
            return Err(refused("cannot run executable found relative to current directory"));
        }
    }
    Err(refused("executable file not found in $PATH"))
}

enum Refusal {
    Missing(io::Error),
    NotAllowed,
}

fn executable(path: &str) -> Result<(), Refusal> {
    let found = std::fs::metadata(path).map_err(Refusal::Missing)?;
    // What runs here until then is the host's, and no program of the container's.
    let is_ours = std::fs::metadata("/proc/self/exe").is_ok_and(|o| (o.dev(), o.ino()) == (found.dev(), found.ino()));
    if is_ours || found.is_dir() || found.mode() & 0o111 == 0 {
        return Err(Refusal::NotAllowed);
    }
    // Whether this user may is execve's to tell.
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(path: &str) -> Vec<String> {
        vec!["A=1".to_owned(), format!("PATH={path}")]
    }

    #[test]
    fn a_program_is_found_along_the_path_and_told_about_in_gos_words() {
        assert_eq!(find("sh", &env("/nowhere:/bin"), None), Ok("/bin/sh".to_owned()));
        assert_eq!(find("/bin/sh", &[], None), Ok("/bin/sh".to_owned()));
        let told = |name, path| find(name, &env(path), None).expect_err("is not found");
        assert_eq!(told("nope", "/bin"), "exec: \"nope\": executable file not found in $PATH");
        assert_eq!(told("", "/bin"), "exec: \"\": executable file not found in $PATH");
        assert_eq!(told("sh", ""), "exec: \"sh\": executable file not found in $PATH");
        assert_eq!(told("/no/pe", "/bin"), "exec: \"/no/pe\": stat /no/pe: no such file or directory");
        assert_eq!(told("/etc", "/bin"), "exec: \"/etc\": permission denied");
        assert_eq!(told("/etc/passwd", "/bin"), "exec: \"/etc/passwd\": permission denied");
        assert_eq!(told("/proc/self/exe", "/bin"), "exec: \"/proc/self/exe\": permission denied");
        assert_eq!(find("/proc/self/exe", &[], Some("/proc/self/exe")), Ok("/proc/self/exe".to_owned()));
    }
}
