//! `USER` resolved inside an image's own `/etc/passwd` and `/etc/group`. The files are opened below
//! the rootfs (`openat2` with `RESOLVE_IN_ROOT`), read with a bound, and only if they are regular
//! files: a FIFO, a device or a giant one is the image's attempt on the host.

use std::{fs::File, io::Read as _, os::fd::OwnedFd, path::Path};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open},
    sys::stat::{FileStat, Mode, SFlag, fstat},
};

use crate::{Error, Result, root};

/// What is read of such a file at most.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Highest id the kernel and dockerd take.
const MAX_ID: u32 = i32::MAX as u32;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, the primary one among them (CVE-2022-36109).
    pub additional_gids: Vec<u32>,
}

impl ResolvedUser {
    /// Refuses ids that the container's user namespace does not have: the runtime would fail on them
    /// with words of its own.
    ///
    /// # Errors
    /// `Invalid` naming the id.
    pub fn refuse_beyond(&self, ids: u32) -> Result<()> {
        let groups = self.additional_gids.iter().map(|gid| ("gid", *gid));
        let mut all = [("uid", self.uid), ("gid", self.gid)].into_iter().chain(groups);
        match all.find(|(_, id)| *id >= ids) {
            Some((what, id)) => Err(Error::Invalid(format!("{what} {id} is not in the range 0-{}", ids - 1))),
            None => Ok(()),
        }
    }
}

/// Resolves `user[:group]` and the supplementary `group_add`.
///
/// # Errors
/// `Invalid` in dockerd's words when a name is unknown or a number is out of range.
pub fn resolve(rootfs: &Path, user: &str, group_add: &[String]) -> Result<ResolvedUser> {
    let passwd = read_in_root(rootfs, "etc/passwd")?;
    let group = read_in_root(rootfs, "etc/group")?;
    resolve_in(&passwd, &group, user, group_add)
}

/// The home directory of `uid`: runtimes tell it to a process that has no `HOME`. `/` for a stranger.
///
/// # Errors
/// `/etc/passwd` is something that is not read.
pub fn home(rootfs: &Path, uid: u32) -> Result<String> {
    let passwd = read_in_root(rootfs, "etc/passwd")?;
    let home = passwd_entries(&passwd).find(|entry| entry.uid == uid).map(|entry| entry.home);
    Ok(home.filter(|home| !home.is_empty()).unwrap_or("/").to_owned())
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn resolve_in(passwd: &str, group: &str, user: &str, group_add: &[String]) -> Result<ResolvedUser> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((u, g)) => (u, Some(g).filter(|g| !g.is_empty())),
        None => (user, None),
    };
    let number = number(user, "uid")?;
    let entry = passwd_entries(passwd).find(|e| match number {
        Some(uid) => e.uid == uid,
        None if user.is_empty() => e.uid == 0,
        None => e.name == user,
    });
    let uid = match (&entry, number) {
        (Some(e), _) => e.uid,
        (None, Some(uid)) => uid,
        (None, None) if user.is_empty() => 0,
        (None, None) => {
            return Err(Error::Invalid(format!("unable to find user {user}: no matching entries in passwd file")));
        }
    };
    let mut gids = Vec::new();
    let gid = match wanted_group {
        Some(name) => group_id(group, name)?,
        None => {
            // Group memberships count only when no group was named, as in moby/sys/user.
            if let Some(e) = &entry {
                gids.extend(memberships(group, e.name));
            }
            entry.as_ref().map_or(0, |e| e.gid)
        }
    };
    for name in group_add {
        gids.push(group_id(group, name)?);
    }
    gids.insert(0, gid);
    let mut seen = std::collections::BTreeSet::new();
    gids.retain(|g| seen.insert(*g));
    Ok(ResolvedUser { uid, gid, additional_gids: gids })
}

/// A number in range, `None` for a name. `0x0`, ` 0`, `+1` are names, which then are not found.
fn number(text: &str, what: &str) -> Result<Option<u32>> {
    let negative = text.strip_prefix('-').is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
    if !negative && (text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit())) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        Ok(_) | Err(_) => Err(Error::Invalid(format!("{what} {text} is not in the range 0-{MAX_ID}"))),
    }
}

fn group_id(group: &str, name: &str) -> Result<u32> {
    if let Some(gid) = number(name, "gid")? {
        return Ok(gid);
    }
    let found = group_entries(group).find(|(n, _, _)| *n == name).map(|(_, gid, _)| gid);
    found.ok_or_else(|| Error::Invalid(format!("unable to find group {name}: no matching entries in group file")))
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let uid = parse_id(fields.nth(1)?)?;
        let gid = parse_id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry { name, uid, gid, home })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid = parse_id(fields.nth(1)?)?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

fn memberships<'a>(group: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    group_entries(group).filter(move |(_, _, members)| members.split(',').any(|m| m == user)).map(|(_, gid, _)| gid)
}

/// A line with an id out of range does not count; it is never wrapped to another id (CVE-2024-40635).
fn parse_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

fn read_in_root(rootfs: &Path, inside: &str) -> Result<String> {
    let what = || format!("read /{inside} of the image");
    let fd = match open_in_root(rootfs, inside) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(String::new()),
        Err(e) => return Err(Error::io(what(), e)),
    };
    let stat = fstat(&fd).map_err(|e| Error::io(what(), e))?;
    if kind(&stat) != SFlag::S_IFREG {
        return Err(Error::Invalid(format!("/{inside} of the image is not a regular file")));
    }
    if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(Error::Invalid(format!("/{inside} of the image is larger than {MAX_FILE_BYTES} bytes")));
    }
    let mut bytes = Vec::new();
    File::from(fd).take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|e| Error::io(what(), e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Non-blocking, so that a FIFO does not hold us; no controlling terminal; links stay in the root.
fn open_in_root(rootfs: &Path, inside: &str) -> nix::Result<OwnedFd> {
    let root = open(rootfs, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    root::open_below(&root, Path::new(inside), how)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:100::/srv/web:/bin/sh\nbig:x:4294967296:0::/:\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nstaff:x:50:web,other\nwheel:x:10:web\n";

    fn who(user: &str) -> Result<ResolvedUser> {
        resolve_in(PASSWD, GROUP, user, &[])
    }

    #[test]
    fn a_name_brings_its_groups() {
        let web = who("web").expect("is known");
        assert_eq!((web.uid, web.gid), (1000, 100));
        assert_eq!(web.additional_gids, [100, 50, 10]);
    }

    #[test]
    fn a_named_group_replaces_the_memberships() {
        let web = who("web:wheel").expect("is known");
        assert_eq!((web.gid, web.additional_gids), (10, vec![10]));
    }

    #[test]
    fn nobody_is_root_and_numbers_need_no_entry() {
        assert_eq!(who("").expect("root").uid, 0);
        let stranger = who("4242:4343").expect("numbers");
        assert_eq!((stranger.uid, stranger.gid), (4242, 4343));
        assert_eq!(who("1000").expect("by number").gid, 100);
    }

    #[test]
    fn tricks_are_refused_not_wrapped() {
        for user in [
            "nobody",
            " root",
            "root ",
            "0x0",
            "+0",
            "-1",
            "2147483648",
            "4294967296",
            "18446744073709551616",
            "big",
            "web:nogroup",
            "0:-1",
            "0:4294967296",
            "0: 0",
        ] {
            assert!(matches!(who(user), Err(Error::Invalid(_))), "{user:?} was taken");
        }
    }

    #[test]
    fn ids_the_namespace_does_not_have_are_refused_by_number() {
        let who = who("4242:4343").expect("numbers");
        who.refuse_beyond(65_536).expect("are there");
        let error = who.refuse_beyond(4300).expect_err("one is not").to_string();
        assert_eq!(error, "gid 4343 is not in the range 0-4299");
        assert!(who.refuse_beyond(4242).expect_err("both are not").to_string().starts_with("uid 4242"));
    }

    #[test]
    fn added_groups_are_resolved_in_the_image() {
        let got = resolve_in(PASSWD, GROUP, "web:users", &["staff".into(), "77".into()]).expect("is known");
        assert_eq!(got.additional_gids, [100, 50, 77]);
    }

    #[test]
    fn files_that_are_no_files_are_refused_without_blocking() {
        let root = tempfile::tempdir().expect("temporary directory");
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).expect("create");
        mkfifo(&etc.join("passwd"), Mode::S_IRUSR).expect("fifo");
        assert!(matches!(resolve(root.path(), "root", &[]), Err(Error::Invalid(_))));
        std::fs::remove_file(etc.join("passwd")).expect("remove");
        File::create(etc.join("passwd")).expect("create").set_len(MAX_FILE_BYTES + 1).expect("grow");
        assert!(matches!(resolve(root.path(), "root", &[]), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_link_out_of_the_root_stays_inside() {
        let root = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(root.path().join("etc")).expect("create");
        // On the host this would be our own passwd, which knows root; inside the root it is a loop or absent.
        symlink("/../../../../../../etc/passwd", root.path().join("etc/passwd")).expect("link");
        symlink("/etc/hostname", root.path().join("etc/group")).expect("link");
        assert!(matches!(resolve(root.path(), "daemon", &[]), Err(Error::Invalid(_))));
    }
}
