//! Hostile and honest archives against the real unpacker, as directories and as images, in a directory with
//! a canary beside it. Needs root, as the agent does, and a kernel that mounts images.

use std::{
    cell::OnceCell,
    fs,
    io::Write as _,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
};

use model::LayerEncoding;
use tar::{EntryType, Header};

use super::*;
use crate::layers::Layer;

const LIMITS: Limits = Limits {
    packed_bytes: 64 << 20,
    unpacked_bytes: 64 << 20,
    entries: 10_000,
    ratio: 20,
    ratio_free_bytes: 1 << 20,
    tree_bytes: 16 << 20,
};
const FORMS: [Form; 2] = [Form::Directory, Form::Image];

/// Builds an archive byte by byte, with no idea of what is proper.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, kind: EntryType, path: &[u8], link: &[u8], mode: u32, body: &[u8], size: u64) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        let bytes = header.as_mut_bytes();
        bytes[..path.len().min(100)].copy_from_slice(&path[..path.len().min(100)]);
        bytes[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, body: &str) -> Self {
        self.raw(EntryType::Regular, path.as_bytes(), b"", 0o644, body.as_bytes(), body.len() as u64)
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        self.raw(EntryType::Directory, path.as_bytes(), b"", mode, b"", 0)
    }

    fn symlink(self, path: &str, to: &str) -> Self {
        self.raw(EntryType::Symlink, path.as_bytes(), to.as_bytes(), 0o777, b"", 0)
    }

    fn hardlink(self, path: &str, to: &str) -> Self {
        self.raw(EntryType::Link, path.as_bytes(), to.as_bytes(), 0o644, b"", 0)
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        let size = body.len() as u64;
        self.raw(EntryType::XHeader, b"PaxHeader", b"", 0o644, &body, size)
    }

    fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::sha256(chassis::ids::sha256(bytes))
}

struct Ground {
    dir: tempfile::TempDir,
    form: Form,
    layer: OnceCell<Layer>,
}

impl Ground {
    fn new(form: Form) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir_all(dir.path().join("stage/fs")).expect("create");
        fs::write(dir.path().join("canary"), "untouched").expect("write");
        fs::set_permissions(dir.path().join("canary"), fs::Permissions::from_mode(0o600)).expect("mode");
        Self { dir, form, layer: OnceCell::new() }
    }

    fn stage(&self) -> PathBuf {
        self.dir.path().join("stage")
    }

    /// What came of it.
    fn fs(&self) -> PathBuf {
        let layer = self.layer.get_or_init(|| match self.form {
            Form::Directory => Layer::of_directory(self.stage().join("fs")),
            Form::Image => Layer::of_image(self.stage()).expect("mounts"),
        });
        layer.path()
    }

    fn outside_is_untouched(&self) {
        let canary = self.dir.path().join("canary");
        assert_eq!(fs::read_to_string(&canary).expect("canary"), "untouched");
        let meta = fs::metadata(&canary).expect("canary");
        assert_eq!((meta.mode() & 0o7777, meta.nlink()), (0o600, 1));
        let mut names: Vec<_> = fs::read_dir(self.dir.path()).expect("read").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, ["canary", "stage"]);
        let stage: Vec<_> = fs::read_dir(self.dir.path().join("stage")).expect("read").flatten().collect();
        assert!(stage.iter().all(|e| ["fs", "junk", "image"].iter().any(|name| e.file_name() == *name)));
    }

    fn blob(&self, blob: &[u8], tar: &[u8], encoding: LayerEncoding, limits: Limits) -> Result<(), UnpackError> {
        let layer =
            LayerDescriptor { digest: sha256(blob), diff_id: sha256(tar), size_bytes: blob.len() as u64, encoding };
        unpack(Source { blob, layer: &layer, limits }, &self.stage(), self.form)
    }

    fn tar(&self, tar: &[u8]) -> Result<(), UnpackError> {
        self.blob(tar, tar, LayerEncoding::Tar, LIMITS)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("compresses");
    out.finish().expect("compresses")
}

/// Both ways, and both for the same reason.
fn refused(tar: Tar) -> String {
    let tar = tar.done();
    let [directory, image] = FORMS.map(|form| {
        let ground = Ground::new(form);
        let error = ground.tar(&tar).expect_err("was taken");
        ground.outside_is_untouched();
        assert!(matches!(error, UnpackError::Refused(..)), "{error}");
        error.to_string()
    });
    let kind = |text: &str| text.rsplit_once(": ").map_or(text, |(kind, _)| kind).to_owned();
    assert_eq!(kind(&directory), kind(&image));
    directory
}

/// Both ways.
fn taken(tar: Tar) -> [Ground; 2] {
    let tar = tar.done();
    FORMS.map(|form| {
        let ground = Ground::new(form);
        ground.tar(&tar).expect("is honest");
        ground.outside_is_untouched();
        ground
    })
}

#[test]
fn an_honest_layer_keeps_modes_owners_times_links_and_attributes() {
    let both = taken(
        Tar::default()
            .dir("./", 0o755)
            .dir("bin/", 0o755)
            .raw(EntryType::Regular, b"bin/su", b"", 0o4755, b"x", 1)
            .hardlink("bin/sudo", "bin/su")
            .symlink("sbin", "/bin")
            .pax(&[
                ("uid", b"100000"),
                ("mtime", b"1.5"),
                ("SCHILY.xattr.user.note", b"hi"),
                ("SCHILY.xattr.security.selinux", b"l"),
            ])
            .file("sbin/owned", "o")
            .pax(&[("path", "long/".repeat(60).as_bytes())])
            .dir("x", 0o700)
            .raw(EntryType::Fifo, b"pipe", b"", 0o622, b"", 0),
    );
    for ground in both {
        let meta = |path: &str| fs::symlink_metadata(ground.fs().join(path)).expect("is there");
        assert_eq!((meta("bin/su").mode() & 0o7777, meta("bin/su").nlink()), (0o4755, 2));
        assert_eq!(fs::read_link(ground.fs().join("sbin")).expect("link"), PathBuf::from("/bin"));
        let owned = meta("bin/owned");
        assert_eq!((owned.uid(), owned.mtime(), owned.mtime_nsec()), (100_000, 1, 500_000_000));
        assert_eq!(meta("bin").mtime(), 1_000_000_000);
        assert!(meta(&"long/".repeat(60)).is_dir());
        assert!(meta("pipe").file_type().is_fifo() && meta("pipe").mode() & 0o7777 == 0o622);
        let mut value = [0_u8; 8];
        let n = rustix::fs::getxattr(ground.fs().join("bin/owned"), "user.note", &mut value).expect("attribute");
        assert_eq!(&value[..n], b"hi");
        assert!(rustix::fs::getxattr(ground.fs().join("bin/owned"), "security.selinux", &mut value).is_err());
    }
}

#[test]
fn names_that_climb_are_refused() {
    for path in ["../canary", "a/../../canary", "/../canary", "a/..", "..", "./../x"] {
        assert!(refused(Tar::default().file(path, "x")).contains("outside of its root"), "{path}");
        refused(Tar::default().dir(path, 0o777));
        refused(Tar::default().symlink(path, "x"));
    }
    refused(Tar::default().pax(&[("path", b"../canary")]).file("innocent", "x"));
    refused(Tar::default().raw(EntryType::GNULongName, b"././@LongLink", b"", 0, b"../../canary\0", 13).file("a", "x"));
}

#[test]
fn an_absolute_name_lands_inside() {
    for ground in taken(Tar::default().file("/etc/passwd", "root")) {
        assert_eq!(fs::read_to_string(ground.fs().join("etc/passwd")).expect("inside"), "root");
    }
}

#[test]
fn writing_through_a_link_stays_inside() {
    let up = "../".repeat(20);
    for target in ["/".to_owned(), up.clone(), format!("{up}tmp"), "/proc/self/cwd".into(), "/proc/self/root".into()] {
        let tar = Tar::default().symlink("out", &target).file("out/planted", "x").dir("out/planted-dir", 0o777).done();
        for ground in FORMS.map(Ground::new) {
            // Either refused (a link to nowhere) or made inside; never outside.
            let _ = ground.tar(&tar);
            ground.outside_is_untouched();
        }
        assert!(!PathBuf::from("/planted").exists() && !PathBuf::from("/tmp/planted").exists());
    }
}

#[test]
fn a_file_over_a_link_replaces_the_link() {
    for ground in FORMS.map(Ground::new) {
        let canary = ground.dir.path().join("canary");
        let tar = Tar::default().symlink("a", canary.to_str().expect("text")).file("a", "mine").done();
        ground.tar(&tar).expect("is fine");
        ground.outside_is_untouched();
        assert_eq!(fs::read_to_string(ground.fs().join("a")).expect("a file now"), "mine");
    }
}

#[test]
fn a_directory_swapped_for_a_link_and_back_leads_nowhere() {
    for ground in FORMS.map(Ground::new) {
        let outside = ground.dir.path().to_str().expect("text").to_owned();
        let tar = Tar::default()
            .dir("d", 0o755)
            .file("d/one", "1")
            .symlink("d", &outside)
            .file("d/canary", "owned")
            .dir("d", 0o777)
            .file("d/two", "2")
            .done();
        // The path of the link is looked up inside the root, where it does not exist.
        let _ = ground.tar(&tar);
        ground.outside_is_untouched();
    }
}

#[test]
fn a_mode_is_never_set_through_a_link() {
    for ground in FORMS.map(Ground::new) {
        let canary = ground.dir.path().join("canary");
        let tar = Tar::default().symlink("l", canary.to_str().expect("text")).dir("l", 0o777).done();
        ground.tar(&tar).expect("the link is replaced");
        ground.outside_is_untouched();
        assert!(ground.fs().join("l").is_dir());
    }
}

#[test]
fn hard_links_reach_nothing_outside() {
    let ground = Ground::new(Form::Directory);
    let canary = ground.dir.path().join("canary").to_str().expect("text").to_owned();
    for link in ["../../canary", &canary, "/etc/passwd", "nowhere", "", "/"] {
        refused(Tar::default().hardlink("h", link));
    }
    refused(Tar::default().symlink("s", "/etc").hardlink("h", "s/passwd"));
    refused(Tar::default().dir("d", 0o755).hardlink("h", "d"));
    // To a link itself, not through it.
    for ground in taken(Tar::default().symlink("s", &canary).hardlink("h", "s")) {
        assert!(fs::symlink_metadata(ground.fs().join("h")).expect("is there").is_symlink());
    }
}

#[test]
fn whiteouts_become_overlays_own_and_cannot_climb() {
    let tar =
        Tar::default().file("d/.wh.gone", "").file("e/.wh..wh..opq", "").file("e/.wh..wh.plnk", "").file("e/kept", "");
    for ground in taken(tar) {
        let gone = fs::symlink_metadata(ground.fs().join("d/gone")).expect("whiteout");
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        let mut value = [0_u8; 4];
        let n = rustix::fs::getxattr(ground.fs().join("e"), "trusted.overlay.opaque", &mut value).expect("attribute");
        assert_eq!(&value[..n], b"y");
        assert!(!ground.fs().join("e/.wh..wh.plnk").exists());
    }
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
        refused(Tar::default().file(name, ""));
    }
}

#[test]
fn device_nodes_are_refused_by_name() {
    for kind in [EntryType::Char, EntryType::Block] {
        let told = refused(Tar::default().raw(kind, b"dev/sda", b"", 0o666, b"", 0));
        assert!(told.contains("contains a device node: dev/sda"), "{told}");
    }
}

#[test]
fn overlay_attributes_are_refused() {
    for name in ["trusted.overlay.redirect", "trusted.overlay.opaque", "user.overlay.metacopy"] {
        let record = format!("SCHILY.xattr.{name}");
        assert!(refused(Tar::default().pax(&[(&record, b"/x")]).file("a", "x")).contains(name));
        refused(Tar::default().pax(&[(&record, b"/x")]).dir("a", 0o755));
        refused(Tar::default().pax(&[(&record, b"/x")]).symlink("a", "x"));
    }
}

#[test]
fn headers_that_lie_are_refused() {
    // A second archive hidden in a body that only one reader sees.
    let hidden = Tar::default().file("hidden", "x").done();
    let outer = Tar::default().pax(&[("size", b"0")]).raw(
        EntryType::Regular,
        b"outer",
        b"",
        0o644,
        &hidden,
        hidden.len() as u64,
    );
    assert!(refused(outer).contains("different sizes"));
    let mut broken = Tar::default().file("a", "x").done();
    broken[0] = b'b';
    FORMS.iter().for_each(|form| assert!(Ground::new(*form).tar(&broken).is_err()));
    for records in [&b"9999 path=x\n"[..], b"6 a=\n", b"-1 path=x\n", b"11 path=abcd", b" path=x\n", b"2 \n"] {
        let tar = Tar::default().raw(EntryType::XHeader, b"p", b"", 0, records, records.len() as u64).file("a", "");
        refused(tar);
    }
    refused(Tar::default().raw(EntryType::GNULongName, b"l", b"", 0, b"", 1 << 40));
    refused(Tar::default().raw(EntryType::Directory, b"d", b"", 0o755, b"", 512));
    refused(Tar::default().raw(EntryType::GNUSparse, b"s", b"", 0o644, b"", 0));
    refused(Tar::default().pax(&[("uid", b"4294967295")]).file("a", ""));
    refused(Tar::default().raw(EntryType::Regular, b"short", b"", 0o644, b"x", 1 << 30));
}

#[test]
fn endless_and_deep_things_are_refused() {
    let deep = "d/".repeat(300);
    assert!(refused(Tar::default().pax(&[("path", deep.as_bytes())]).dir("x", 0o755)).contains("more than 256"));
    refused(Tar::default().pax(&[("path", &[b'a'; 5000])]).file("x", ""));
    refused(Tar::default().pax(&[("path", &[b'a'; 300])]).file("x", ""));
    let many = (0..50).fold(Tar::default(), |tar, n| tar.file(&n.to_string(), "")).done();
    for ground in FORMS.map(Ground::new) {
        let limits = Limits { entries: 49, ..LIMITS };
        let error = ground.blob(&many, &many, LayerEncoding::Tar, limits).expect_err("too many");
        assert!(error.to_string().contains("more than 49 entries"));
    }
    let loops = Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "");
    refused(loops);
}

#[test]
fn bombs_stop_early_and_say_which_bound() {
    let zeroes = "\0".repeat(8 << 20);
    let tar = Tar::default().file("zeroes", &zeroes).done();
    for (packed, encoding) in
        [(gzip(&tar), LayerEncoding::Gzip), (zstd::encode_all(tar.as_slice(), 3).expect("packs"), LayerEncoding::Zstd)]
    {
        for form in FORMS {
            let try_with = |limits| Ground::new(form).blob(&packed, &tar, encoding, limits);
            let error = try_with(LIMITS).expect_err("a bomb");
            assert!(error.to_string().contains("more than 20 times"), "{error}");
            let error = try_with(Limits { unpacked_bytes: 4096, ..LIMITS }).expect_err("too large");
            assert!(error.to_string().contains("more than 4096 bytes"), "{error}");
            try_with(Limits { ratio: 1_000_000, ..LIMITS }).expect("within bounds");
        }
    }
}

#[test]
fn several_gzip_members_are_one_layer_and_trailing_or_missing_bytes_none() {
    let tar = Tar::default().file("a", "x").done();
    let try_as = |packed: &[u8], tar: &[u8], encoding, limits| {
        let [directory, image] = FORMS.map(|form| Ground::new(form).blob(packed, tar, encoding, limits));
        assert_eq!(directory.is_ok(), image.is_ok());
        directory
    };
    let (first, second) = tar.split_at(700);
    let members = [gzip(first), gzip(second)].concat();
    try_as(&members, &tar, LayerEncoding::Gzip, LIMITS).expect("two members");
    let junk = [members.as_slice(), b"junk"].concat();
    assert!(try_as(&junk, &tar, LayerEncoding::Gzip, LIMITS).is_err());
    let cut = &members[..members.len() - 5];
    assert!(try_as(cut, &tar, LayerEncoding::Gzip, LIMITS).is_err());
    let zstd = zstd::encode_all(tar.as_slice(), 1).expect("packs");
    assert!(try_as(&zstd[..zstd.len() - 3], &tar, LayerEncoding::Zstd, LIMITS).is_err());
}

#[test]
fn a_layer_may_be_named_by_its_sha512() {
    let tar = Tar::default().file("a", "x").done();
    let long = |bytes: &[u8]| {
        let sum = ring::digest::digest(&ring::digest::SHA512, bytes);
        Digest::sha512(sum.as_ref().try_into().expect("64 bytes"))
    };
    let ground = Ground::new(Form::Image);
    let layer = LayerDescriptor {
        digest: long(&gzip(&tar)),
        diff_id: sha256(&tar),
        size_bytes: gzip(&tar).len() as u64,
        encoding: LayerEncoding::Gzip,
    };
    unpack(Source { blob: gzip(&tar).as_slice(), layer: &layer, limits: LIMITS }, &ground.stage(), Form::Image)
        .expect("unpacks");
    assert_eq!(fs::read_to_string(ground.fs().join("a")).expect("a file"), "x");
    let other = LayerDescriptor { digest: long(&tar), ..layer };
    let packed = gzip(&tar);
    let source = Source { blob: packed.as_slice(), layer: &other, limits: LIMITS };
    let error = unpack(source, &Ground::new(Form::Image).stage(), Form::Image);
    assert!(error.expect_err("refused").to_string().contains("digest"));
}

#[test]
fn content_that_does_not_match_its_digests_is_refused() {
    let tar = Tar::default().file("a", "x").done();
    let layer = LayerDescriptor {
        digest: sha256(&tar),
        diff_id: sha256(b"another"),
        size_bytes: tar.len() as u64,
        encoding: LayerEncoding::Tar,
    };
    let try_with = |layer: &LayerDescriptor| {
        let [directory, image] = FORMS.map(|form| {
            let source = Source { blob: tar.as_slice(), layer, limits: LIMITS };
            unpack(source, &Ground::new(form).stage(), form).expect_err("refused").to_string()
        });
        assert_eq!(directory, image);
        directory
    };
    assert!(try_with(&layer).contains("unpacks to"));
    assert!(
        try_with(&LayerDescriptor { digest: sha256(b"b"), diff_id: sha256(&tar), ..layer.clone() }).contains("digest")
    );
    assert!(try_with(&LayerDescriptor { size_bytes: 1, diff_id: sha256(&tar), ..layer }).contains("long"));
}

#[test]
fn a_full_disk_is_the_hosts_error_not_the_layers() {
    for ground in FORMS.map(Ground::new) {
        let small = if ground.form == Form::Directory { ground.stage().join("fs") } else { ground.stage() };
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &small, Some("tmpfs"), flags, Some("size=64k")).expect("mounts");
        let body = "x".repeat(4 << 20);
        let outcome = ground.tar(&Tar::default().file("big", &body).done());
        nix::mount::umount(&small).expect("unmounts");
        let error = outcome.expect_err("does not fit");
        assert!(matches!(error, UnpackError::Failed(..)), "{error}");
        assert!(error.to_string().contains("No space left on device"), "{error}");
    }
}

#[test]
fn a_tree_beyond_its_memory_is_no_image_and_may_be_a_directory() {
    let limits = Limits { tree_bytes: 64 << 10, ..LIMITS };
    let many = (0..2_000).fold(Tar::default(), |tar, n| tar.file(&format!("a-long-name-{n}"), "")).done();
    let attributes = (0..20).fold(Tar::default(), |tar, n| {
        tar.pax(&[("SCHILY.xattr.user.note", &[b'x'; 8 << 10])]).file(&n.to_string(), "")
    });
    for tar in [many.clone(), attributes.done()] {
        let error = Ground::new(Form::Image).blob(&tar, &tar, LayerEncoding::Tar, limits).expect_err("too large");
        assert!(matches!(error, UnpackError::TooLargeForImage(..)), "{error}");
    }
    Ground::new(Form::Directory).blob(&many, &many, LayerEncoding::Tar, limits).expect("a directory");
    Ground::new(Form::Image).blob(&many, &many, LayerEncoding::Tar, LIMITS).expect("within bounds");
}

mod any_archive {
    use std::{cell::Cell, collections::BTreeMap, path::Path};

    use proptest::{prelude::*, test_runner::TestRunner};

    use super::*;

    /// Names from a tiny alphabet, so that entries meet each other.
    fn name() -> impl Strategy<Value = String> {
        let part =
            prop_oneof![Just("a"), Just("b"), Just(".."), Just("."), Just(""), Just(".wh.a"), Just(".wh..wh..opq")];
        proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
    }

    /// The same, and nothing that is refused at once.
    fn honest_name() -> impl Strategy<Value = String> {
        let part = prop_oneof![4 => Just("a"), 4 => Just("b"), 2 => Just("c"), 1 => Just("."), 1 => Just(".wh.a")];
        proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
    }

    fn target() -> impl Strategy<Value = String> {
        prop_oneof![
            name(),
            Just("/".into()),
            Just("../../../..".into()),
            Just("/proc/self/fd/3".into()),
            Just("../../canary".into())
        ]
    }

    fn archive(entries: &[(u8, String, String)]) -> Tar {
        entries.iter().fold(Tar::default(), |tar, (kind, name, target)| match kind {
            0 => tar.dir(name, 0o777),
            1 => tar.symlink(name, target),
            2 => tar.hardlink(name, target),
            3 => tar.pax(&[("path", target.as_bytes())]).file(name, "x"),
            4 => tar.raw(EntryType::Fifo, name.as_bytes(), b"", 0o666, b"", 0),
            5 => tar.pax(&[("uid", b"7"), ("SCHILY.xattr.user.note", target.as_bytes())]).dir(name, 0o1750),
            _ => tar.file(name, target),
        })
    }

    /// All there is to know of what is below, by path.
    fn known(root: &Path) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut ahead = vec![PathBuf::new()];
        while let Some(path) = ahead.pop() {
            let at = root.join(&path);
            let at = if path.as_os_str().is_empty() { root.join(".") } else { at };
            let meta = fs::symlink_metadata(&at).expect("is there");
            let attribute = |name: &str| {
                let mut value = [0_u8; 256];
                let read = rustix::fs::lgetxattr(&at, name, &mut value);
                read.ok().map(|n| String::from_utf8_lossy(&value[..n]).into_owned())
            };
            let (mode, owner, links) = (meta.mode(), (meta.uid(), meta.gid()), meta.nlink());
            let mut told = format!("{mode:o} {owner:?} {} {links}", meta.rdev());
            told += &format!(" {:?} {:?}", attribute("user.note"), attribute("trusted.overlay.opaque"));
            if meta.is_dir() {
                ahead.extend(fs::read_dir(&at).expect("list").map(|e| path.join(e.expect("entry").file_name())));
            } else {
                // Of a mark there is no time to be told.
                let time = if meta.file_type().is_char_device() { 0 } else { meta.mtime() };
                let content = if meta.is_file() { fs::read(&at).expect("read") } else { Vec::new() };
                told += &format!(" {time} {content:?} {:?}", fs::read_link(&at).ok());
            }
            found.insert(path, told);
        }
        found
    }

    /// Whether it was taken.
    fn is_the_same_both_ways(entries: &[(u8, String, String)]) -> bool {
        let tar = archive(entries).done();
        let [directory, image] = FORMS.map(|form| {
            let ground = Ground::new(form);
            let outcome = ground.tar(&tar).map(|()| known(&ground.fs()));
            ground.outside_is_untouched();
            outcome
        });
        match (directory, image) {
            (Ok(directory), Ok(image)) => {
                assert_eq!(directory, image);
                true
            }
            (Err(UnpackError::Refused(..)), Err(UnpackError::Refused(..))) => false,
            (directory, image) => panic!("{directory:?} and {image:?}"),
        }
    }

    const CASES: u32 = 250;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(CASES))]
        #[test]
        fn touches_nothing_outside_and_is_the_same_as_a_directory_and_as_an_image(
            entries in proptest::collection::vec((0_u8..7, name(), target()), 1..12)
        ) {
            is_the_same_both_ways(&entries);
        }
    }

    #[test]
    fn what_is_taken_is_the_same_as_a_directory_and_as_an_image() {
        let kind = prop_oneof![12 => prop_oneof![Just(0_u8), Just(4), Just(5), Just(6)], 3 => Just(1), 1 => Just(2)];
        let entries = proptest::collection::vec((kind, honest_name(), honest_name()), 1..12);
        let (taken, mut runner) = (Cell::new(0), TestRunner::new(ProptestConfig::with_cases(CASES)));
        let outcome = runner.run(&entries, |entries| {
            taken.set(taken.get() + u32::from(is_the_same_both_ways(&entries)));
            Ok(())
        });
        outcome.expect("they differ");
        assert!(taken.get() > CASES / 4, "only {} of {CASES} were taken", taken.get());
    }
}
