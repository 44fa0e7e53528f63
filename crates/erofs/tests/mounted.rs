//! Images as the kernel sees them: written, mounted and read back. Needs root and a kernel with EROFS on
//! files.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use erofs::{Attributes, Image, Made, NodeId, Tree};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

/// An image in a file, mounted nowhere.
struct Mounted {
    _dir: tempfile::TempDir,
    root: OwnedFd,
}

impl Mounted {
    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.root.as_raw_fd()).into()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }
}

fn mount(build: impl FnOnce(&mut Image, &mut Tree)) -> Mounted {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("image");
    write(&path, build);
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).expect("the kernel has EROFS");
    fsconfig_set_string(context.as_fd(), "source", &path).expect("source");
    fsconfig_set_flag(context.as_fd(), "ro").expect("read-only");
    if let Err(error) = fsconfig_create(context.as_fd()) {
        let mut said = [0; 512];
        let n = rustix::io::read(&context, &mut said).unwrap_or(0);
        panic!("{error}: {}", String::from_utf8_lossy(&said[..n]));
    }
    let root = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY);
    Mounted { _dir: dir, root: root.expect("mounts") }
}

fn write(path: &Path, build: impl FnOnce(&mut Image, &mut Tree)) {
    let mut image = Image::begin(File::create_new(path).expect("create")).expect("begins");
    let mut tree = Tree::new(attributes(0o755));
    build(&mut image, &mut tree);
    image.finish(&tree, [7; 16]).expect("finishes");
}

fn attributes(mode: u16) -> Attributes {
    Attributes { mode, ..Attributes::default() }
}

fn file(image: &mut Image, tree: &mut Tree, dir: NodeId, name: &str, content: &[u8]) -> NodeId {
    let content = image.content(&mut &*content, content.len() as u64).expect("content");
    tree.add(dir, name.as_bytes(), Made::File(content), attributes(0o644)).expect("adds")
}

#[test]
fn everything_a_node_has_is_read_back() {
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
    let mounted = mount(|image, tree| {
        let content = image.content(&mut &b"hello"[..], 5).expect("content");
        let xattrs: BTreeMap<Box<str>, Box<[u8]>> = BTreeMap::from([
            ("user.note".into(), b"hi".as_slice().into()),
            ("user.long".into(), vec![b'x'; 9_000].into()),
            (
                "security.capability".into(),
                [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].as_slice().into(),
            ),
        ]);
        let all = Attributes { mode: 0o4751, uid: 100_000, gid: 70_000, mtime: (-3, 250_000_000), xattrs };
        let dir = tree.add(Tree::ROOT, b"dir", Made::Directory, attributes(0o1777)).expect("adds");
        let su = tree.add(dir, b"su", Made::File(content), all).expect("adds");
        tree.link(Tree::ROOT, b"again", su).expect("links");
        file(image, tree, dir, "large", &large);
        file(image, tree, dir, "empty", b"");
        tree.add(dir, b"link", Made::Symlink(b"../again".as_slice().into()), attributes(0o777)).expect("adds");
        let far: Vec<u8> = [b"/".as_slice(), &b"x/".repeat(2_040)].concat();
        tree.add(dir, b"far", Made::Symlink(far.into()), attributes(0o777)).expect("adds");
        tree.add(dir, b"pipe", Made::Fifo, attributes(0o622)).expect("adds");
        tree.add(dir, b"gone", Made::Whiteout, attributes(0)).expect("adds");
        let hiding = Attributes {
            xattrs: BTreeMap::from([("trusted.overlay.opaque".into(), b"y".as_slice().into())]),
            ..attributes(0o700)
        };
        tree.add(Tree::ROOT, b"opaque", Made::Directory, hiding).expect("adds");
        tree.add(Tree::ROOT, b"dropped", Made::Directory, attributes(0o700)).expect("adds");
        tree.unlink(Tree::ROOT, b"dropped");
    });
    let meta = |path: &str| fs::symlink_metadata(mounted.at(path)).expect(path);
    let su = meta("dir/su");
    assert_eq!((su.mode(), su.uid(), su.gid()), (0o104_751, 100_000, 70_000));
    assert_eq!((su.mtime(), su.mtime_nsec(), su.nlink(), su.len()), (-3, 250_000_000, 2, 5));
    assert_eq!(su.ino(), meta("again").ino());
    assert_eq!(fs::read(mounted.at("again")).expect("read"), b"hello");
    assert_eq!(fs::read(mounted.at("dir/large")).expect("read"), large);
    assert_eq!(fs::read(mounted.at("dir/empty")).expect("read"), b"");
    assert_eq!(fs::read_link(mounted.at("dir/link")).expect("link"), PathBuf::from("../again"));
    assert_eq!(fs::read_link(mounted.at("dir/far")).expect("link").as_os_str().len(), 4_081);
    assert!(meta("dir/pipe").file_type().is_fifo() && meta("dir/pipe").mode() & 0o7777 == 0o622);
    let gone = meta("dir/gone");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!((meta("").nlink(), meta("dir").nlink(), meta("dir").mode()), (4, 2, 0o041_777));
    let mut names: Vec<_> =
        fs::read_dir(mounted.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["again", "dir", "opaque"]);
    let attribute = |path: &str, name: &str| {
        let mut value = [0; 16 << 10];
        let n = rustix::fs::getxattr(mounted.at(path), name, &mut value).expect(name);
        value[..n].to_vec()
    };
    assert_eq!(attribute("dir/su", "user.note"), b"hi");
    assert_eq!(attribute("dir/su", "user.long"), vec![b'x'; 9_000]);
    assert_eq!(attribute("dir/su", "security.capability").len(), 20);
    assert_eq!(attribute("opaque", "trusted.overlay.opaque"), b"y");
}

#[test]
fn names_of_a_large_directory_are_all_found_and_no_others() {
    // Around `.` and `..` in the order of bytes, and many blocks of them.
    let mut names: Vec<String> = (0..5_000).map(|n| format!("{n:0width$}", width = n % 200 + 1)).collect();
    names.extend(["-", "-a", "...", "..a", ".a", "~"].map(String::from));
    names.sort();
    names.dedup();
    let mounted = mount(|image, tree| {
        let dir = tree.add(Tree::ROOT, b"d", Made::Directory, attributes(0o755)).expect("adds");
        for name in &names {
            file(image, tree, dir, name, name.as_bytes());
        }
    });
    for name in &names {
        assert_eq!(fs::read_to_string(mounted.at("d").join(name)).expect(name), *name);
        assert!(!mounted.at("d").join(format!("{name}!")).exists());
    }
    let mut listed: Vec<_> = fs::read_dir(mounted.at("d"))
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
        .collect();
    listed.sort();
    assert_eq!(listed, names);
}

#[test]
fn directories_lead_up_and_down_however_deep() {
    let mounted = mount(|image, tree| {
        let mut dir = Tree::ROOT;
        for _ in 0..400 {
            dir = tree.add(dir, b"d", Made::Directory, attributes(0o755)).expect("adds");
        }
        file(image, tree, dir, "bottom", b"here");
    });
    let bottom = mounted.at(&"d/".repeat(400));
    assert_eq!(fs::read(bottom.join("bottom")).expect("read"), b"here");
    assert!(bottom.join("../".repeat(399)).join("d").exists());
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let images = ["one", "two"].map(|name| {
        let path = dir.path().join(name);
        write(&path, |image, tree| {
            for n in 0..300 {
                file(image, tree, Tree::ROOT, &format!("f{n}"), &vec![1; n]);
            }
        });
        fs::read(path).expect("read")
    });
    assert!(images[0] == images[1] && images[0].len() % 4096 == 0);
}

#[test]
fn what_is_no_name_and_what_is_too_much_is_refused() {
    let mut tree = Tree::new(attributes(0o755));
    let mut add = |name: &[u8], attributes| tree.add(Tree::ROOT, name, Made::Fifo, attributes);
    for name in [b"".as_slice(), b".", b"..", b"a/b", b"a\0b", &[b'a'; 256]] {
        add(name, attributes(0)).expect_err("no name");
    }
    add(b"a", attributes(0)).expect("a name");
    add(b"a", attributes(0)).expect_err("not free");
    for (name, bytes) in
        [("user.", 1), ("system.posix_acl_access", 1), ("user.a", 66_000), (&format!("user.{}", "a".repeat(256)), 1)]
    {
        let xattrs = BTreeMap::from([(name.into(), vec![0; bytes].into())]);
        add(b"b", Attributes { xattrs, ..attributes(0) }).expect_err(name);
    }
}
