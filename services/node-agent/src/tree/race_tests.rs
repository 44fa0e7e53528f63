//! A container that changes its files while they are copied: directories become links to the host and
//! back, as fast as the kernel renames. Nothing of the host may be read or touched. Needs root.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use model::LayerEncoding;
use rustix::fs::{CWD, RenameFlags, mkfifoat, renameat_with};
use tar::{EntryType, Header};

use super::{lookup, owners::Owners, pack::Packer, root::Root};
use crate::layers::{Extraction, Limits, Rules, extract};

const SECRET: &str = "a secret of the host";
const LIMITS: Limits = Limits {
    packed_bytes: u64::MAX,
    unpacked_bytes: 1 << 30,
    entries: 1_000_000,
    ratio: 250,
    ratio_free_bytes: 1 << 30,
    tree_bytes: 0,
};
const TIME: Duration = Duration::from_secs(4);

/// A root with a swapping directory in it, and the host's files beside it.
struct Ground {
    dir: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    swappers: Vec<JoinHandle<u64>>,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let host = dir.path().join("host");
        fs::create_dir_all(host.join("sub/deeper")).expect("create");
        for file in ["f", "sub/f", "sub/deeper/f"] {
            fs::write(host.join(file), SECRET).expect("write");
            fs::set_permissions(host.join(file), fs::Permissions::from_mode(0o600)).expect("mode");
        }
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/dir/sub/deeper")).expect("create");
        for file in ["f", "sub/f", "sub/deeper/f"] {
            fs::write(root.join("a/dir").join(file), "the container's").expect("write");
        }
        symlink(&host, root.join("a/absolute")).expect("link");
        symlink("../../host", root.join("a/climbing")).expect("link");
        symlink("../../../host/sub", root.join("a/dir/other")).expect("link");
        Self { dir, stop: Arc::default(), swappers: Vec::new() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Exchanges two names in a directory over and over.
    fn swap(&mut self, dir: &str, one: &'static str, other: &'static str) {
        let dir = fs::File::open(self.root().join(dir)).expect("open");
        let stop = self.stop.clone();
        self.swappers.push(std::thread::spawn(move || {
            let mut swaps = 0;
            while !stop.load(Ordering::Relaxed) {
                swaps += u64::from(renameat_with(&dir, one, &dir, other, RenameFlags::EXCHANGE).is_ok());
            }
            swaps
        }));
    }

    /// Ends the swapping; it must have swapped.
    fn settle(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for swapper in self.swappers.drain(..) {
            assert!(swapper.join().expect("ends") > 100, "nothing was swapped");
        }
    }

    fn host_is_untouched(&self) {
        let host = self.dir.path().join("host");
        let mut found = Vec::new();
        list(&host, &mut found);
        found.sort();
        assert_eq!(found, ["f", "sub", "sub/deeper", "sub/deeper/f", "sub/f"].map(|f| host.join(f)));
        for file in found.iter().filter(|f| f.is_file()) {
            let meta = fs::metadata(file).expect("stat");
            assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.nlink()), (0o600, 0, 1), "{}", file.display());
            assert_eq!(fs::read_to_string(file).expect("read"), SECRET);
        }
    }
}

fn list(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("read").flatten() {
        if entry.file_type().expect("type").is_dir() {
            list(&entry.path(), into);
        }
        into.push(entry.path());
    }
}

fn contains_secret(tar: &[u8]) -> bool {
    tar.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
}

#[test]
fn b08_a_swapping_container_is_packed_without_a_byte_of_the_host() {
    let mut ground = Ground::new();
    ground.swap("a", "dir", "absolute");
    ground.swap("a", "dir", "climbing");
    let (began, mut packed, mut naive) = (Instant::now(), 0_u64, 0_u64);
    while began.elapsed() < TIME {
        let root = Root::mounted(&ground.root(), Owners::IDENTITY, None).expect("opens");
        for path in ["/", "/a", "/a/dir", "/a/dir/", "/a/dir/.", "/a/dir/f", "/a/dir/sub/f", "/a/dir/sub/deeper/f"] {
            let _ = lookup::stat(&root, path);
            let Ok(found) = lookup::find(&root, path) else { continue };
            let mut tar = Vec::new();
            let mut packer = Packer::new(&mut tar, root.owners());
            let name = found.name();
            // A directory may vanish under the walk: then it ends early, and says so.
            if packer.resource(found.node, name.as_bytes()).and_then(|()| packer.finish()).is_ok() {
                packed += 1;
            }
            assert!(!contains_secret(&tar), "{path}: the host was read");
        }
        // The control: whoever goes by path does read the host.
        naive += u64::from(fs::read_to_string(ground.root().join("a/dir/f")).is_ok_and(|text| text == SECRET));
    }
    ground.settle();
    assert!(packed > 100 && naive > 0, "{packed} archives, {naive} reads by path");
    ground.host_is_untouched();
}

/// Archives that write, replace, link, delete and change modes below `prefix`; one entry each, because
/// most meet a swap.
fn hostile(prefix: &str) -> Vec<Vec<u8>> {
    let linked = format!("{prefix}sub/deeper/f");
    let entries: [(EntryType, &str, &str, &[u8]); 9] = [
        (EntryType::Regular, "f", "", b"planted"),
        (EntryType::Directory, "sub", "", b""),
        (EntryType::Regular, "sub/f", "", b"planted"),
        (EntryType::Regular, "sub/new/f", "", b"planted"),
        (EntryType::Fifo, "sub/fifo", "", b""),
        (EntryType::Symlink, "sub/link", "/etc", b""),
        (EntryType::Link, "hard", &linked, b""),
        (EntryType::Regular, "sub/deeper", "", b"a file instead of a directory"),
        (EntryType::Directory, "sub/deeper", "", b""),
    ];
    let archive = |(kind, path, link, body): (EntryType, &str, &str, &[u8])| {
        let (mut builder, mut header) = (tar::Builder::new(Vec::new()), Header::new_gnu());
        header.set_entry_type(kind);
        header.set_mode(0o4777);
        header.set_size(body.len() as u64);
        let path = format!("{prefix}{path}");
        if link.is_empty() {
            builder.append_data(&mut header, path, body).expect("appends");
        } else {
            builder.append_link(&mut header, path, link).expect("appends");
        }
        builder.into_inner().expect("an archive")
    };
    entries.into_iter().map(archive).collect()
}

#[test]
fn b08_a_swapping_container_is_written_to_without_touching_the_host() {
    let mut ground = Ground::new();
    ground.swap("a", "dir", "absolute");
    ground.swap("a", "dir", "climbing");
    let archives = [("/", hostile("a/dir/")), ("/a/dir", hostile("")), ("/a", hostile("dir/"))];
    let (began, mut extracted, mut naive) = (Instant::now(), 0_u64, 0_u64);
    while began.elapsed() < TIME {
        let root = Root::mounted(&ground.root(), Owners::IDENTITY, None).expect("opens");
        for (path, archive) in archives.iter().flat_map(|(path, all)| all.iter().map(move |archive| (path, archive))) {
            let Ok(dir) = root.directory(path.as_bytes()) else { continue };
            let below = |parent: &[u8]| root.directory(&[path.as_bytes(), b"/", parent].concat());
            let rules = Rules { whiteouts: false, keep_kinds: None, owner: None, owners: Owners::IDENTITY, junk: None };
            let extraction = Extraction { dir, below: &below, rules, limits: LIMITS };
            extracted += u64::from(extract(extraction, archive.as_slice(), LayerEncoding::Tar).is_ok());
        }
        naive += u64::from(fs::read_to_string(ground.root().join("a/dir/f")).is_ok_and(|text| text == SECRET));
    }
    ground.settle();
    assert!(extracted > 100 && naive > 0, "{extracted} archives, {naive} reads by path");
    ground.host_is_untouched();
}

#[test]
fn a_fifo_a_device_and_a_socket_are_neither_opened_nor_waited_for() {
    let ground = Ground::new();
    let at = |name: &str| ground.root().join(name);
    mkfifoat(CWD, at("fifo"), rustix::fs::Mode::RUSR).expect("fifo");
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("socket");
    let device = rustix::fs::makedev(1, 5);
    rustix::fs::mknodat(CWD, at("zero"), rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::RUSR, device)
        .expect("device");
    let root = Root::mounted(&ground.root(), Owners::IDENTITY, None).expect("opens");
    let mut tar = Vec::new();
    let mut packer = Packer::new(&mut tar, root.owners());
    packer.children(root.top().expect("pins"), b"").expect("packs");
    packer.finish().expect("packs");
    let mut archive = tar::Archive::new(tar.as_slice());
    let kinds: Vec<(String, EntryType, u64)> = archive
        .entries()
        .expect("reads")
        .map(|entry| entry.expect("reads"))
        .map(|e| (String::from_utf8_lossy(&e.path_bytes()).into_owned(), e.header().entry_type(), e.size()))
        .filter(|(name, ..)| !name.starts_with("a/"))
        .collect();
    let expected = [("fifo", EntryType::Fifo, 0), ("zero", EntryType::Char, 0)];
    assert_eq!(kinds, expected.map(|(name, kind, size)| (name.to_owned(), kind, size)));
}

#[test]
fn kernel_file_systems_are_empty_directories_and_nothing_in_them_is_found() {
    let ground = Ground::new();
    let proc = ground.root().join("proc");
    fs::create_dir(&proc).expect("create");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("proc"), &proc, Some("proc"), flags, None::<&str>).expect("mounts");
    symlink("/proc/self/root", ground.root().join("escape")).expect("link");
    let root = Root::mounted(&ground.root(), Owners::IDENTITY, None).expect("opens");
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let found = lookup::find(&root, "/proc").expect("the directory itself");
        let mut tar = Vec::new();
        let mut packer = Packer::new(&mut tar, root.owners());
        packer.resource(found.node, b"proc").expect("packs");
        packer.finish().expect("packs");
        assert_eq!(tar::Archive::new(tar.as_slice()).entries().expect("reads").count(), 1);
        for path in ["/proc/1/environ", "/proc/kallsyms", "/proc/self/root", "/proc/self/fd/0", "/proc/sys", "/escape/"]
        {
            assert!(lookup::find(&root, path).is_err(), "{path} was found");
            assert!(root.directory(path.as_bytes()).is_err(), "{path} was entered");
        }
    }));
    nix::mount::umount(&proc).expect("unmounts");
    outcome.expect("as asserted");
}
