//! What tenants are told of what went wrong on their host. Runtimes and the kernel name the paths they
//! worked with; a path of the host says nothing to a tenant and is nobody's business. So before a failure
//! becomes part of an answer, each path in it is told as what it is to the container: one below its root
//! as the container sees it, a file we mount as its target, all else as what it stands for.

use std::path::{Path, PathBuf};

use model::{ContainerId, Exit};

use crate::{host::Host, keeper::machine::Event};

/// What a path of the host stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The container's own root: what is below has its path there.
    Root,
    /// This, whatever is below.
    Named(&'static str),
}

/// The paths that one container's failures may name.
#[derive(Clone, Debug)]
pub(crate) struct Words(Vec<(String, Meaning)>);

impl Host {
    /// The text as a tenant may read it.
    pub(crate) fn told(&self, id: &ContainerId, text: &str) -> String {
        Words::of(self, id).told(text)
    }

    /// The event with its text as a tenant may read it.
    pub(crate) fn told_event(&self, id: &ContainerId, event: Event) -> Event {
        let mut event = event;
        if let Event::Exited { exit: Exit { error: text, .. }, .. }
        | Event::PrepareFailed(text)
        | Event::Undermined(text) = &mut event
        {
            *text = self.told(id, text);
        }
        event
    }
}

impl Words {
    fn of(host: &Host, id: &ContainerId) -> Self {
        let (places, config) = (&host.places, &host.config);
        let files = places.container(id).join("files");
        let mut known = vec![
            (places.rootfs(id), Meaning::Root),
            (files.join("hosts"), Meaning::Named("/etc/hosts")),
            (files.join("resolv.conf"), Meaning::Named("/etc/resolv.conf")),
            (files.join("hostname"), Meaning::Named("/etc/hostname")),
            (places.run_dir(id).docker_socket(), Meaning::Named("/var/run/docker.sock")),
            (places.all_staging(), Meaning::Named("volume")),
            (places.volumes(), Meaning::Named("volume")),
            (places.layers(), Meaning::Named("layer")),
            (places.namespaces(), Meaning::Named("namespace")),
            (places.netns(id), Meaning::Named("namespace")),
            (places.uts(id), Meaning::Named("namespace")),
            (places.pidns(id), Meaning::Named("namespace")),
            (places.ipcns(id), Meaning::Named("namespace")),
            (places.shm(id), Meaning::Named("shm")),
            (places.data_dir().to_owned(), Meaning::Named("host")),
            (config.run_dir.clone(), Meaning::Named("host")),
            (config.shim_path.clone(), Meaning::Named("host")),
        ];
        known.extend(config.init_path.clone().map(|path| (path, Meaning::Named("init"))));
        known.extend(host.net.namespace_of(id).map(|path| (path, Meaning::Named("namespace"))));
        // netd keeps its things where its socket is, unless that is a directory of everybody's.
        let beside = config.netd_socket.parent().filter(|dir| dir.components().count() > 2);
        known.extend(beside.map(|dir| (dir.to_owned(), Meaning::Named("host"))));
        Self::new(known)
    }

    fn new(known: Vec<(PathBuf, Meaning)>) -> Self {
        let mut rules = Vec::new();
        for (path, meaning) in known {
            // The kernel and runtimes name a path as it is once links are followed.
            let real = real(&path).filter(|real| *real != path);
            for name in [Some(path), real].into_iter().flatten() {
                rules.push((name.to_string_lossy().trim_end_matches('/').to_owned(), meaning));
            }
        }
        rules.retain(|(path, _)| !path.is_empty());
        // Of two that fit the longer one says more.
        rules.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Self(rules)
    }

    fn told(&self, text: &str) -> String {
        let mut told = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((at, path, meaning)) = self.first(rest) {
            told.push_str(&rest[..at]);
            rest = &rest[at + path..];
            match meaning {
                Meaning::Root if rest.starts_with('/') => {}
                Meaning::Root => told.push('/'),
                Meaning::Named(name) => {
                    told.push_str(name);
                    rest = &rest[rest.find(ends_a_path).unwrap_or(rest.len())..];
                }
            }
        }
        told.push_str(rest);
        told
    }

    /// Where the first of them is, how long it is written, and what it stands for.
    fn first(&self, text: &str) -> Option<(usize, usize, Meaning)> {
        let of = |(path, meaning): &(String, Meaning)| {
            let found = text.match_indices(path.as_str()).map(|(at, _)| at);
            let whole = |at: &usize| text[at + path.len()..].chars().next().is_none_or(|c| c == '/' || ends_a_path(c));
            found.into_iter().find(whole).map(|at| (at, path.len(), *meaning))
        };
        let found = self.0.iter().filter_map(of);
        found.min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length)))
    }
}

/// The path with its links followed as far as it exists.
fn real(path: &Path) -> Option<PathBuf> {
    let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)))?;
    Some(there.1.join(path.strip_prefix(there.0).ok()?))
}

fn ends_a_path(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ':' | ',' | ';' | ')' | ']' | '}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        let of = |path: &str, meaning| (PathBuf::from(path), meaning);
        Words::new(vec![
            of("/nowhere/data", Meaning::Named("host")),
            of("/nowhere/run", Meaning::Named("host")),
            of("/nowhere/run/roots/c1/fs", Meaning::Root),
            of("/nowhere/run/volumes", Meaning::Named("volume")),
            of("/nowhere/data/containers/c1/files/hosts", Meaning::Named("/etc/hosts")),
        ])
    }

    #[test]
    fn a_path_below_the_root_is_told_as_the_container_has_it() {
        assert_eq!(
            words().told("mkdir /nowhere/run/roots/c1/fs/etc/passwd/x: not a directory"),
            "mkdir /etc/passwd/x: not a directory"
        );
        assert_eq!(words().told("chdir to \"/nowhere/run/roots/c1/fs\" failed"), "chdir to \"/\" failed");
        assert_eq!(words().told("/nowhere/run/roots/c1/fs2: x"), "host: x", "another name is another directory");
    }

    #[test]
    fn what_is_mounted_is_told_as_what_it_is() {
        let told = words().told(
            "error mounting \"/nowhere/run/volumes/c1/0\" to rootfs at \"/data\": mount \
             src=/nowhere/run/volumes/c1/0, dst=/data, dstFd=/proc/thread-self/fd/8: not a directory",
        );
        let expected = "error mounting \"volume\" to rootfs at \"/data\": mount src=volume, dst=/data, \
                        dstFd=/proc/thread-self/fd/8: not a directory";
        assert_eq!(told, expected);
        assert_eq!(words().told("(/nowhere/data/containers/c1/files/hosts)"), "(/etc/hosts)");
    }

    #[test]
    fn nothing_of_the_hosts_directories_is_left_wherever_it_stands() {
        for text in [
            "open /nowhere/data/containers/c1/plan.json: x",
            "x/nowhere/data",
            "unix:///nowhere/run/a.sock, again /nowhere/run/b",
            "/nowhere/data\n/nowhere/run/",
        ] {
            let told = words().told(text);
            assert!(!told.contains("/nowhere"), "{told}");
        }
        assert_eq!(
            words().told("exec: \"nope\": executable file not found"),
            "exec: \"nope\": executable file not found"
        );
    }

    #[test]
    fn a_path_is_known_by_its_real_name_too() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("real")).expect("made");
        std::os::unix::fs::symlink(dir.path().join("real"), dir.path().join("link")).expect("linked");
        let words = Words::new(vec![(dir.path().join("link/fs"), Meaning::Root)]);
        let told = words.told(&format!("open {}: gone", dir.path().join("real/fs/etc/x").display()));
        assert_eq!(told, "open /etc/x: gone");
    }
}
