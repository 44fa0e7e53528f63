//! Docker's rules for a path inside a container, and what is told of the object it names. Text is
//! cleaned here; what it leads to is the kernel's to say ([`super::root`]).

use std::collections::VecDeque;

use contract::agent::PathStat;
use model::{Error, Result};
use rustix::fs::FileType;
use time::OffsetDateTime;

use super::{
    root::{Node, Root},
    told,
};

/// The kernel takes no more.
const MAX_PATH_BYTES: usize = 4_000;
/// Links followed for the text of a link's end, as in dockerd.
const MAX_LINKS: usize = 255;

/// What a path names.
pub(super) struct Found {
    pub(super) node: Node,
    /// The path from the root, cleaned; a slash or dot at its end is kept.
    path: String,
}

impl Found {
    /// What the top entry of its archive is called.
    pub(super) fn name(&self) -> String {
        base(&self.path).to_owned()
    }
}

/// Finds what a path names; a link at its end is the link.
pub(super) fn find(root: &Root, asked: &str) -> Result<Found> {
    let path = absolute(asked)?;
    let node = root.find(path.as_bytes()).map_err(|e| not_found(asked, &path, &e))?;
    Ok(Found { node, path })
}

/// Why a path leads to nothing, in dockerd's words.
pub(super) fn not_found(asked: &str, path: &str, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        return told(asked, error);
    }
    Error::Failed(format!("lstat {path}: {}", words(error)))
}

/// What is told of a path.
pub(super) fn stat(root: &Root, asked: &str) -> Result<PathStat> {
    describe(root, &find(root, asked)?)
}

/// What is told of an object.
pub(super) fn describe(root: &Root, found: &Found) -> Result<PathStat> {
    let stat = &found.node.stat;
    let link = found.node.kind() == FileType::Symlink;
    let nanos = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    Ok(PathStat {
        name: base(&found.path).to_owned(),
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        modified_at: OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH),
        link_target: if link { end_of_link(root, &found.path)? } else { String::new() },
    })
}

/// A path from the root without `.`, `..` and double slashes; a slash or `/.` at its end says something
/// and stays.
pub(super) fn absolute(asked: &str) -> Result<String> {
    if asked.len() > MAX_PATH_BYTES || asked.contains('\0') {
        return Err(Error::invalid("path", "is longer than 4000 bytes or has a zero byte"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in asked.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    let mut path = format!("/{}", parts.join("/"));
    let trimmed = asked.trim_end_matches('/');
    if trimmed == "." || trimmed.ends_with("/.") {
        if !path.ends_with('/') {
            path.push('/');
        }
        path.push('.');
    }
    if asked.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    Ok(path)
}

/// The last element as Go's `filepath.Base` gives it.
fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit_once('/') {
        Some((_, last)) => last,
        None if trimmed.is_empty() => "/",
        None => trimmed,
    }
}

/// Where a link leads in the end, as a path from the root; what does not exist is taken by its name.
/// Only a text for the client, who asks again with it: nothing is opened by it.
fn end_of_link(root: &Root, path: &str) -> Result<String> {
    let mut rest: VecDeque<String> = names(path).collect();
    let mut at: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        at.push(name);
        let here = format!("/{}", at.join("/"));
        let Ok(node) = root.find(here.as_bytes()) else { continue };
        if node.kind() != FileType::Symlink {
            continue;
        }
        links += 1;
        let target = node.link().map_err(|e| Error::Failed(format!("readlink {here}: {}", words(&e))))?;
        let target = String::from_utf8_lossy(&target).into_owned();
        if links > MAX_LINKS || here.len() + target.len() > 4 * MAX_PATH_BYTES {
            return Err(Error::Failed(format!("evalSymlinks: too many links in {path}")));
        }
        at.pop();
        if target.starts_with('/') {
            at.clear();
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            rest.push_front(name);
        }
    }
    Ok(format!("/{}", at.join("/")))
}

fn names(path: &str) -> impl Iterator<Item = String> + '_ {
    path.split('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned)
}

/// An error in the kernel's own words, as Go writes them.
pub(super) fn words(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::{super::owners::Owners, *};

    #[test]
    fn a_path_is_cleaned_and_keeps_what_its_end_says() {
        for (asked, path, name) in [
            ("", "/", "/"),
            ("/", "/", "/"),
            ("/.", "/.", "."),
            (".", "/.", "."),
            ("etc", "/etc", "etc"),
            ("/etc/", "/etc/", "etc"),
            ("/etc/.", "/etc/.", "."),
            ("/etc/./", "/etc/./", "."),
            ("//a/./b//c", "/a/b/c", "c"),
            ("../../etc/passwd", "/etc/passwd", "passwd"),
            ("/a/../..", "/", "/"),
        ] {
            let cleaned = absolute(asked).expect("a path");
            assert_eq!((cleaned.as_str(), base(&cleaned)), (path, name), "{asked:?}");
        }
        assert!(absolute(&"a/".repeat(3_000)).is_err());
        assert!(absolute("a\0b").is_err());
    }

    #[test]
    fn a_link_is_told_with_its_end_and_never_leads_out() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("usr/bin")).expect("create");
        fs::write(at("usr/bin/busybox"), "x").expect("write");
        symlink("usr/bin", at("bin")).expect("link");
        symlink("../bin/busybox", at("usr/sh")).expect("link");
        symlink("/../../../etc/passwd", at("out")).expect("link");
        symlink("/nowhere/at/all", at("dangling")).expect("link");
        symlink("loop", at("loop")).expect("link");
        let root = Root::mounted(dir.path(), Owners::IDENTITY, None).expect("opens");
        let target = |path: &str| stat(&root, path).expect("is there").link_target;
        assert_eq!(target("/usr/sh"), "/usr/bin/busybox");
        assert_eq!(target("/bin"), "/usr/bin");
        assert_eq!(target("/out"), "/etc/passwd");
        assert_eq!(target("/dangling"), "/nowhere/at/all");
        assert!(stat(&root, "/loop").expect_err("ends").to_string().contains("too many links"));
        assert_eq!(target("/bin/"), "", "a slash goes through the link");
        assert!(matches!(stat(&root, "/nope"), Err(Error::NotFound(_))));
        let through = stat(&root, "/usr/bin/busybox/").expect_err("is no directory").to_string();
        assert_eq!(through, "lstat /usr/bin/busybox/: not a directory");
    }
}
