//! The container's root, from what the stand-in has brought along: everything of the host's is held as a
//! mount that is nowhere, the host's own tree is left before anything of the image is looked at, and every
//! place in the image is held open before something is put there.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{FileStat, Mode, SFlag, fstat, major, minor},
    unistd::{chdir, fchdir, pivot_root, symlinkat, write},
};
use runtime::words;

use super::{
    configuration::{Kernels, Kind, Mount, Sandbox},
    document::Process,
    join::check,
    mounts,
    places::{self, Place, Shape},
};

/// What is bound from the host's `/dev`: a user namespace's root makes no nodes.
const DEVICES: [(&str, (u64, u64)); 6] =
    [("null", (1, 3)), ("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("urandom", (1, 9)), ("tty", (5, 0))];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Where the kernel has such a thing.
const CORE: (&str, &str) = ("core", "/proc/kcore");

/// What only the host's side can open: mounts that are nowhere yet.
pub(super) struct Brought {
    root: OwnedFd,
    /// By the number of the mount.
    binds: Vec<Option<(OwnedFd, Shape)>>,
    devices: Vec<(&'static str, OwnedFd)>,
    hierarchies: Vec<String>,
}

/// What is needed once more after the root is furnished.
pub(super) struct Furnished {
    dev: OwnedFd,
}

impl Brought {
    /// Takes what the sandbox names, on the host's side.
    pub(super) fn of(sandbox: &Sandbox) -> Result<Self, String> {
        let root = mounts::copy_of(&sandbox.rootfs, true)
            .and_then(|root| mounts::make_private(&root).map(|()| root))
            .map_err(|e| failed("error preparing rootfs", &e))?;
        let mut binds = Vec::with_capacity(sandbox.mounts.len());
        for mount in &sandbox.mounts {
            binds.push(if mount.kind == Kind::Bind { Some(bind(mount).map_err(|e| about(mount, &e))?) } else { None });
        }
        let devices = DEVICES.iter().map(|(name, number)| {
            let device = device(name, *number).map_err(|e| failed(&format!("error opening device /dev/{name}"), &e))?;
            Ok((*name, device))
        });
        Ok(Self {
            root,
            binds,
            devices: devices.collect::<Result<_, String>>()?,
            hierarchies: runtime::cgroup::hierarchies(),
        })
    }
}

fn bind(mount: &Mount) -> Result<(OwnedFd, Shape), String> {
    let source = Path::new(&mount.source);
    let copy = mounts::copy_of(source, false).map_err(|e| failed(&format!("stat {}", mount.source), &e))?;
    let restricted = mounts::make_private(&copy).and_then(|()| mounts::restrict(&copy, mount.attributes));
    restricted.map_err(|e| failed("restrict", &e))?;
    let stat = fstat(&copy).map_err(|e| failed("stat", &e.into()))?;
    Ok((copy, if places::is_directory(&stat) { Shape::Directory } else { Shape::File }))
}

fn device(name: &str, number: (u64, u64)) -> io::Result<OwnedFd> {
    let copy = mounts::copy_of(&Path::new("/dev").join(name), false)?;
    mounts::make_private(&copy)?;
    if is_device(&fstat(&copy)?, number) { Ok(copy) } else { Err(io::Error::from_raw_os_error(libc::ENODEV)) }
}

fn is_device(stat: &FileStat, number: (u64, u64)) -> bool {
    let is_character = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    is_character && (major(stat.st_rdev), minor(stat.st_rdev)) == number
}

fn failed(what: &str, e: &io::Error) -> String {
    format!("{what}: {}", words(e))
}

fn about(mount: &Mount, why: &str) -> String {
    format!("error mounting {:?} to rootfs at {:?}: {why}", mount.source, mount.at.display().to_string())
}

/// Makes the brought root this process's, and everything in it. This process is the first of new
/// namespaces of processes, mounts, IPC and cgroups, and root of their user namespace.
pub(super) fn furnish(sandbox: &Sandbox, brought: Brought, process: &Process) -> Result<Furnished, String> {
    let (terminal, cwd) = (process.terminal, process.cwd.as_str());
    // The kernel gives these two to who can see the host's, so they are made before the host's are left.
    let proc = made(&sandbox.mounts[0], "proc")?;
    let sys = made(&sandbox.mounts[3], "sysfs")?;
    leave_the_host(&brought.root).map_err(|e| failed("error jailing process inside rootfs", &e))?;
    let root = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| failed("open the root", &e.into()))?;
    let dev = made(&sandbox.mounts[1], "tmpfs")?;
    let mut binds = brought.binds.into_iter();
    for mount in &sandbox.mounts {
        let bind = binds.next().flatten();
        let done = match mount.kind {
            Kind::Proc => at_kernels_place(&proc, &root, "proc"),
            Kind::Sys => at_kernels_place(&sys, &root, "sys"),
            Kind::Dev => {
                at_kernels_place(&dev, &root, "dev").and_then(|()| devices(&dev, &proc, &brought.devices, terminal))
            }
            Kind::Terminals => made(mount, "devpts").and_then(|m| at_kernels_place(&m, &dev, "pts")),
            Kind::Queues => made(mount, "mqueue").and_then(|m| at_kernels_place(&m, &dev, "mqueue")),
            Kind::Cgroups => cgroups(mount, &sys, &brought.hierarchies),
            Kind::Tmpfs => tmpfs(mount, &root, &dev),
            Kind::Bind => bind.map_or(Ok(()), |(copy, shape)| {
                let place = places::of_tenant(&root, &mount.at, shape, &dev)?;
                let fits =
                    fstat(&place.fd).is_ok_and(|stat| places::is_directory(&stat) == (shape == Shape::Directory));
                // What the kernel calls invalid has another name for those who mount by path.
                let attached = if fits { mounts::attach(&copy, &place.fd) } else { Err(Errno::ENOTDIR.into()) };
                attached.map_err(|e| failed(&format!("mount {}:{}", mount.source, mount.at.display()), &e))
            }),
        };
        done.map_err(|e| about(mount, &e))?;
    }
    places::make_directory(&root, Path::new(cwd))?;
    set(&sandbox.sysctls, &proc)?;
    wall_off(sandbox, &proc, &sys, &dev)?;
    if sandbox.read_only {
        mounts::restrict(&root, libc::MOUNT_ATTR_RDONLY).map_err(|e| failed("error setting rootfs as readonly", &e))?;
    }
    Ok(Furnished { dev })
}

/// A file system as a mount asks for it.
fn made(mount: &Mount, kind: &str) -> Result<OwnedFd, String> {
    let mut options = mount.options.clone();
    if kind == "sysfs" && mount.attributes & libc::MOUNT_ATTR_RDONLY != 0 {
        options.push(("ro".to_owned(), None));
    }
    mounts::new(kind, &mount.source, &options, mount.attributes).map_err(|e| about(mount, &failed("mount", &e)))
}

/// From here on there is nothing of the host's tree but what is held open.
fn leave_the_host(root: &OwnedFd) -> io::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mounts::attach_over_root(root)?;
    fchdir(root)?;
    pivot_root(".", ".")?;
    // The old root lies over the new one now.
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(chdir("/")?)
}

fn at_kernels_place(mount: &OwnedFd, dir: &OwnedFd, name: &str) -> Result<(), String> {
    let place = places::of_kernel(dir, name).map_err(|e| failed(&format!("open /{name}"), &e))?;
    mounts::attach(mount, &place).map_err(|e| failed("mount", &e))
}

/// Into a tmpfs that is new: nothing of the image's is there.
fn devices(dev: &OwnedFd, proc: &OwnedFd, devices: &[(&str, OwnedFd)], terminal: bool) -> Result<(), String> {
    for (name, device) in devices {
        let place = places::new_file(dev, name).map_err(|e| failed(&format!("create /dev/{name}"), &e))?;
        mounts::attach(device, &place).map_err(|e| failed(&format!("mount /dev/{name}"), &e))?;
    }
    let core = places::within(proc, Path::new("kcore"), OFlag::O_PATH).ok().flatten().map(|_| CORE);
    for (name, target) in LINKS.into_iter().chain(core) {
        symlinkat(target, dev, name).map_err(|e| failed(&format!("symlink {target} /dev/{name}"), &e.into()))?;
    }
    if terminal {
        places::new_file(dev, "console").map_err(|e| failed("create /dev/console", &e))?;
    }
    Ok(())
}

fn cgroups(mount: &Mount, sys: &OwnedFd, hierarchies: &[String]) -> Result<(), String> {
    const WALLS: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let mode = [("mode".to_owned(), Some("755".to_owned()))];
    let group = mounts::new("tmpfs", "tmpfs", &mode, WALLS).map_err(|e| failed("mount", &e))?;
    let place = places::within(sys, Path::new("fs/cgroup"), OFlag::O_PATH | OFlag::O_DIRECTORY);
    let place = place.and_then(|place| place.ok_or_else(|| io::ErrorKind::NotFound.into()));
    place.and_then(|place| mounts::attach(&group, &place)).map_err(|e| failed("mount", &e))?;
    for name in hierarchies {
        let (source, option) = match name.as_str() {
            "systemd" => ("systemd", ("name".to_owned(), Some("systemd".to_owned()))),
            _ => ("cgroup", (String::new(), None)),
        };
        let mut options: Vec<_> = match option.1 {
            Some(_) => vec![option],
            None => name.split(',').map(|controller| (controller.to_owned(), None)).collect(),
        };
        if mount.attributes & libc::MOUNT_ATTR_RDONLY != 0 {
            options.push(("ro".to_owned(), None));
        }
        let hierarchy = mounts::new("cgroup", source, &options, mount.attributes)
            .and_then(|mount| mounts::attach(&mount, &places::of_kernel(&group, name)?));
        hierarchy.map_err(|e| failed(&format!("mount {name}"), &e))?;
        for controller in name.split(',').filter(|_| name.contains(',')) {
            symlinkat(name.as_str(), &group, controller).map_err(|e| failed("symlink", &e.into()))?;
        }
    }
    let read_only = mount.attributes & libc::MOUNT_ATTR_RDONLY;
    mounts::restrict(&group, read_only).map_err(|e| failed("remount", &e))
}

/// A directory that was there lends its mode, unless one is asked for.
fn tmpfs(mount: &Mount, root: &OwnedFd, dev: &OwnedFd) -> Result<(), String> {
    let Place { fd: place, is_new } = places::of_tenant(root, &mount.at, Shape::Directory, dev)?;
    let mut options = mount.options.clone();
    if !is_new && options.iter().all(|(name, _)| name != "mode") {
        let mode = fstat(&place).map_err(|e| failed("stat", &e.into()))?.st_mode & 0o7777;
        options.insert(0, ("mode".to_owned(), Some(format!("{mode:04o}"))));
    }
    let made = mounts::new("tmpfs", &mount.source, &options, mount.attributes);
    made.and_then(|tmpfs| mounts::attach(&tmpfs, &place)).map_err(|e| failed("mount", &e))
}

/// Through the procfs that was just made, whatever lies over it.
fn set(sysctls: &[super::configuration::Sysctl], proc: &OwnedFd) -> Result<(), String> {
    for sysctl in sysctls {
        let at = format!("/proc/{}", sysctl.path.display());
        let opened = places::within(proc, &sysctl.path, OFlag::O_WRONLY)
            .and_then(|file| file.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT)));
        let file = opened.map_err(|e| failed(&format!("open {at}"), &e))?;
        write(&file, sysctl.value.as_bytes()).map_err(|e| failed(&format!("write {at}"), &e.into()))?;
    }
    Ok(())
}

/// What of the kernel's is read-only, and what is not to be seen. All of it is found on the mounts that
/// were just made, and covered with what was checked: never with what a path of the image's leads to.
fn wall_off(sandbox: &Sandbox, proc: &OwnedFd, sys: &OwnedFd, dev: &OwnedFd) -> Result<(), String> {
    let find = |path: &Kernels| match path {
        Kernels::Proc(path) => places::within(proc, path, OFlag::O_PATH),
        Kernels::Sys(path) => places::within(sys, path, OFlag::O_PATH),
    };
    for path in &sandbox.read_only_paths {
        let done = || -> io::Result<()> {
            let Some(place) = find(path)? else { return Ok(()) };
            let copy = mounts::copy_at(&place)?;
            mounts::restrict(&copy, libc::MOUNT_ATTR_RDONLY)?;
            mounts::attach(&copy, &place)
        };
        done().map_err(|e| failed(&format!("can't make {path} read-only"), &e))?;
    }
    let null = places::within_dev(dev, "null").map_err(|e| failed("open /dev/null", &e))?;
    if !fstat(&null).is_ok_and(|stat| is_device(&stat, (1, 3))) {
        return Err("/dev/null is not the null device".to_owned());
    }
    let mut empty: Option<OwnedFd> = None;
    for path in &sandbox.masked {
        let mut done = || -> io::Result<()> {
            let Some(place) = find(path)? else { return Ok(()) };
            if !places::is_directory(&fstat(&place)?) {
                return mounts::attach(&mounts::copy_at(&null)?, &place);
            }
            let cover = match &empty {
                Some(empty) => mounts::copy_at(empty)?,
                None => mounts::new("tmpfs", "tmpfs", &[("ro".to_owned(), None)], libc::MOUNT_ATTR_RDONLY)?,
            };
            mounts::attach(&cover, &place)?;
            empty.get_or_insert(cover);
            Ok(())
        };
        done().map_err(|e| failed(&format!("can't mask path {path}"), &e))?;
    }
    Ok(())
}

impl Furnished {
    /// Streams that are the host's null device become the container's own: a descriptor tells where its file
    /// lies.
    pub(super) fn own_null_device(&self) -> Result<(), String> {
        for number in 0..3 {
            #[expect(unsafe_code, reason = "streams are known by number")]
            // SAFETY: 0 to 2 are open until the program is executed.
            let stream = unsafe { BorrowedFd::borrow_raw(number) };
            if !fstat(stream).is_ok_and(|stat| is_device(&stat, (1, 3))) {
                continue;
            }
            let null = openat(&self.dev, "null", OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
            let null = null.map_err(|e| failed("open /dev/null", &e.into()))?;
            check(|| {
                #[expect(unsafe_code, reason = "the streams are numbers")]
                // SAFETY: 0 to 2 are this process's streams, and are replaced as such.
                unsafe {
                    libc::dup2(null.as_raw_fd(), number)
                }
            })
            .map_err(|e| failed("take /dev/null", &e))?;
        }
        Ok(())
    }

    /// Shows the terminal on descriptor 0 as `/dev/console` too.
    pub(super) fn console(&self, terminal: &impl AsFd) -> Result<(), String> {
        let place = places::within_dev(&self.dev, "console");
        let copied = place.and_then(|place| mounts::attach(&mounts::copy_at(terminal)?, &place));
        copied.map_err(|e| failed("mount /dev/console", &e))
    }
}
