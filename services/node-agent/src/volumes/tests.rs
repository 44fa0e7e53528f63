//! Volumes on a real file system: needs root, loop devices and mkfs.ext4.

use std::{
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::PathBuf,
};

use contract::host::PlannedImage;
use model::{ContainerSpec, Desired, Digest, TmpfsOptions};

use super::*;

struct Host {
    dir: tempfile::TempDir,
    volumes: Volumes,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let volumes = Self::agent(dir.path());
        fs::create_dir(dir.path().join("image")).expect("an image's root");
        Self { dir, volumes }
    }

    fn agent(dir: &Path) -> Volumes {
        let places = Places::new(&dir.join("data"), &dir.join("run"));
        places.make().expect("places");
        let trash = Trash::open(places.trash()).expect("trash");
        Volumes::new(places, trash)
    }

    /// An agent that knows nothing of what the one before did.
    fn restart(&mut self) {
        self.volumes = Self::agent(self.dir.path());
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("data/volumes").join(project().to_string()).join(volume().as_str())
    }

    fn mounts(&self) -> usize {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        table.lines().filter(|line| line.contains(&*self.dir.path().to_string_lossy())).count()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.volumes.release(&container(1));
        let _ = self.volumes.release(&container(2));
        let _ = self.volumes.remove(project(), &volume());
    }
}

fn project() -> ProjectId {
    ProjectId(uuid::Uuid::nil())
}

fn volume() -> VolumeId {
    VolumeId::from_bytes([7; 32])
}

fn container(n: u8) -> ContainerId {
    ContainerId::from_bytes([n; 32])
}

fn mount(backing: VolumeBacking) -> VolumeMount {
    VolumeMount {
        volume: volume(),
        name: "data".parse().expect("a name"),
        backing,
        path: "/srv/data".into(),
        subpath: String::new(),
        read_only: false,
        no_copy: false,
        anonymous: false,
        shown_mode: String::new(),
    }
}

fn plan(n: u8, mounts: Vec<VolumeMount>) -> PlannedContainer {
    PlannedContainer {
        id: container(n),
        project: project(),
        name: "web".parse().expect("a name"),
        desired: Desired::Created,
        spec: ContainerSpec { volumes: mounts, ..ContainerSpec::default() },
        image: PlannedImage { id: Digest::sha256([0; 32]), layers: Vec::new() },
        endpoints: Vec::new(),
        uid_base: None,
        ports: Vec::new(),
        linked: Vec::new(),
    }
}

#[test]
fn an_empty_volume_gets_what_the_image_has_there_and_keeps_it() {
    let host = Host::new();
    let source = host.image().join("srv/data");
    fs::create_dir_all(source.join("deep/er")).expect("create");
    fs::write(source.join("deep/er/file"), "from the image").expect("write");
    fs::set_permissions(source.join("deep/er/file"), fs::Permissions::from_mode(0o4750)).expect("mode");
    symlink("/etc/shadow", source.join("link")).expect("link");
    chown(&source, Some(33), Some(44)).expect("owner");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o2770)).expect("mode");
    let one = plan(1, vec![mount(VolumeBacking::Directory)]);
    host.volumes.prepare(&one, None, &host.image(), true).expect("prepares");
    let staged = host.volumes.stage(&one, None).expect("stages");
    let root = &staged[0].source;
    assert_eq!(fs::read_to_string(root.join("deep/er/file")).expect("copied"), "from the image");
    assert_eq!(fs::metadata(root.join("deep/er/file")).expect("stat").mode() & 0o7777, 0o4750);
    assert_eq!(fs::read_link(root.join("link")).expect("a link"), PathBuf::from("/etc/shadow"));
    let dir = fs::metadata(root).expect("stat");
    assert_eq!((dir.uid(), dir.gid(), dir.mode() & 0o7777), (33, 44, 0o2770));
    // What is no longer empty is nobody's to fill, also with another image.
    fs::remove_file(root.join("link")).expect("remove");
    let two = plan(2, vec![mount(VolumeBacking::Directory)]);
    host.volumes.prepare(&two, None, &host.image(), true).expect("prepares");
    assert!(!root.join("link").exists());
    host.volumes.release(&container(1)).expect("releases");
    host.volumes.release(&container(1)).expect("again is fine");
    assert_eq!(host.mounts(), 0);
}

#[test]
fn a_copy_that_was_interrupted_is_done_again_by_the_same_container_only() {
    let host = Host::new();
    fs::create_dir_all(host.image().join("srv/data")).expect("create");
    fs::write(host.image().join("srv/data/file"), "whole").expect("write");
    fs::create_dir_all(host.home().join("_data")).expect("create");
    fs::write(host.home().join("_data/file"), "wh").expect("half");
    fs::write(host.home().join("filling"), format!("{} /srv/data", container(1))).expect("marker");
    let file = host.home().join("_data/file");
    host.volumes.prepare(&plan(2, vec![mount(VolumeBacking::Directory)]), None, &host.image(), true).expect("prepares");
    assert_eq!(fs::read_to_string(&file).expect("read"), "wh");
    host.volumes.prepare(&plan(1, vec![mount(VolumeBacking::Directory)]), None, &host.image(), true).expect("prepares");
    assert_eq!(fs::read_to_string(&file).expect("read"), "whole");
    assert!(!host.home().join("filling").exists());
}

#[test]
fn neither_image_nor_volume_can_lead_the_copy_astray() {
    let host = Host::new();
    let outside = host.dir.path().join("outside");
    fs::create_dir_all(outside.join("sub")).expect("create");
    fs::write(outside.join("secret"), "host's").expect("write");
    fs::create_dir_all(host.image().join("srv")).expect("create");
    // The image's path is a link out of the image.
    symlink(&outside, host.image().join("srv/data")).expect("link");
    let one = plan(1, vec![mount(VolumeBacking::Directory)]);
    host.volumes.prepare(&one, None, &host.image(), true).expect("there is nothing of that name inside the image");
    assert_eq!(fs::read_dir(host.home().join("_data")).expect("read").count(), 0);
    // Somebody in the volume replaces a directory by a link while it is filled.
    fs::remove_file(host.image().join("srv/data")).expect("remove");
    fs::create_dir_all(host.image().join("srv/data/sub")).expect("create");
    fs::write(host.image().join("srv/data/sub/planted"), "x").expect("write");
    symlink(outside.join("sub"), host.home().join("_data/sub")).expect("link");
    fs::write(host.home().join("filling"), format!("{} /srv/data", container(1))).expect("as if it were begun");
    assert!(host.volumes.prepare(&one, None, &host.image(), true).is_err());
    assert!(!outside.join("sub/planted").exists());
}

#[test]
fn a_sized_volume_is_full_at_its_size_and_is_mounted_while_it_is_held() {
    let mut host = Host::new();
    let sized = plan(1, vec![mount(VolumeBacking::Sized { size_bytes: 16 << 20 })]);
    host.volumes.prepare(&sized, None, &host.image(), true).expect("prepares");
    let staged = host.volumes.stage(&sized, None).expect("stages");
    assert_eq!(fs::read_dir(&staged[0].source).expect("read").count(), 0, "no lost+found");
    let mut file = fs::File::create(staged[0].source.join("big")).expect("create");
    let chunk = vec![1_u8; 1 << 20];
    let written = (0..20).take_while(|_| file.write_all(&chunk).is_ok()).count();
    drop(file);
    assert!((8..16).contains(&written), "{written} MiB fit into 16");
    fs::write(staged[0].source.join("kept"), "x").unwrap_or_default();
    fs::remove_file(staged[0].source.join("big")).expect("remove");
    fs::write(staged[0].source.join("kept"), "x").expect("there is room again");
    // kill -9, and nobody lives.
    host.restart();
    host.volumes.tidy(&BTreeSet::new(), true);
    assert_eq!(host.mounts(), 0);
    let staged = host.volumes.stage(&sized, None).expect("stages again");
    assert_eq!(fs::read_to_string(staged[0].source.join("kept")).expect("kept"), "x");
    host.volumes.release(&container(1)).expect("releases");
    assert_eq!(host.mounts(), 0);
}

#[test]
fn half_a_file_system_is_made_anew() {
    let host = Host::new();
    fs::create_dir_all(host.home()).expect("create");
    fs::write(host.home().join("image.new"), "rubbish of a killed agent").expect("write");
    let sized = plan(1, vec![mount(VolumeBacking::Sized { size_bytes: 16 << 20 })]);
    host.volumes.prepare(&sized, None, &host.image(), true).expect("prepares");
    assert_eq!(fs::metadata(host.home().join("image")).expect("stat").len(), 16 << 20);
}

#[test]
fn memory_lasts_while_a_container_has_it() {
    let host = Host::new();
    let options = TmpfsOptions { size_bytes: Some(1 << 20), uid: 7, mode: Some(0o700), ..TmpfsOptions::default() };
    let backing = VolumeBacking::Tmpfs(options);
    let (one, two) = (plan(1, vec![mount(backing.clone())]), plan(2, vec![mount(backing)]));
    let first = host.volumes.stage(&one, None).expect("stages");
    fs::write(first[0].source.join("x"), "shared").expect("write");
    let root = fs::metadata(&first[0].source).expect("stat");
    assert_eq!((root.uid(), root.mode() & 0o7777), (7, 0o700));
    let second = host.volumes.stage(&two, None).expect("stages");
    host.volumes.release(&container(1)).expect("releases");
    assert_eq!(fs::read_to_string(second[0].source.join("x")).expect("still there"), "shared");
    host.volumes.release(&container(2)).expect("releases");
    assert_eq!(host.mounts(), 0);
    let third = host.volumes.stage(&one, None).expect("stages");
    assert!(!third[0].source.join("x").exists());
}

#[test]
fn a_subpath_stays_inside_its_volume() {
    let host = Host::new();
    let data = host.home().join("_data");
    fs::create_dir_all(data.join("a/b")).expect("create");
    fs::create_dir_all(host.dir.path().join("outside")).expect("create");
    fs::write(data.join("a/b/file"), "inside").expect("write");
    symlink("/a/b", data.join("absolute")).expect("link");
    symlink(host.dir.path().join("outside"), data.join("out")).expect("link");
    let at = |subpath: &str| plan(1, vec![VolumeMount { subpath: subpath.into(), ..mount(VolumeBacking::Directory) }]);
    let staged = host.volumes.stage(&at("absolute"), None).expect("a link is followed inside");
    assert_eq!(fs::read_to_string(staged[0].source.join("file")).expect("read"), "inside");
    let staged = host.volumes.stage(&at("a/b/file"), None).expect("a file is mounted as a file");
    assert_eq!(fs::read_to_string(&staged[0].source).expect("read"), "inside");
    for gone in ["out", "nope", "../../../outside"] {
        let error = host.volumes.stage(&at(gone), None).expect_err(gone).to_string();
        assert!(error.starts_with("volume data: cannot access path"), "{error}");
    }
}

#[test]
fn what_is_mounted_cannot_be_used_to_gain_rights() {
    let host = Host::new();
    let read_only = VolumeMount { read_only: true, ..mount(VolumeBacking::Directory) };
    let staged = host.volumes.stage(&plan(1, vec![read_only]), None).expect("stages");
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let path = staged[0].source.to_string_lossy().into_owned();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(&path)).expect("is mounted");
    let options = line.split(' ').nth(5).unwrap_or_default();
    assert!(["ro", "nosuid", "nodev"].iter().all(|o| options.split(',').any(|x| x == *o)), "{options}");
    assert!(fs::write(staged[0].source.join("x"), "").is_err());
}

#[test]
fn a_removed_volume_is_gone_and_a_late_preparation_does_not_bring_it_back() {
    let host = Host::new();
    let one = plan(1, vec![mount(VolumeBacking::Sized { size_bytes: 16 << 20 })]);
    host.volumes.prepare(&one, None, &host.image(), true).expect("prepares");
    assert_eq!(host.volumes.on_disk(), [(project(), volume())]);
    host.volumes.release(&container(1)).expect("releases");
    host.volumes.remove(project(), &volume()).expect("removes");
    host.volumes.remove(project(), &volume()).expect("again is fine");
    assert!(host.volumes.on_disk().is_empty() && !host.home().exists() && host.mounts() == 0);
    assert!(host.volumes.prepare(&one, None, &host.image(), true).is_err());
    assert!(!host.home().exists());
}

#[test]
fn one_can_look_into_the_volumes_of_a_container_that_does_not_run() {
    let host = Host::new();
    let root = host.dir.path().join("private");
    fs::create_dir_all(root.join("srv")).expect("create");
    // A target that leads out of the root when it is not resolved inside.
    symlink("/srv", root.join("link")).expect("link");
    let inner = VolumeMount { path: "/link/data".into(), ..mount(VolumeBacking::Sized { size_bytes: 16 << 20 }) };
    let one = plan(1, vec![inner]);
    let look = host.volumes.look(&one, None).expect("holds");
    look.mount_under(&root).expect("mounts");
    fs::write(root.join("srv/data/x"), "seen").expect("through the volume");
    rustix::mount::unmount(root.join("srv/data"), rustix::mount::UnmountFlags::DETACH).expect("unmounts");
    drop(look);
    assert_eq!(host.mounts(), 0);
}
