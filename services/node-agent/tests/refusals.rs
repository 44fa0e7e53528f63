//! What tenants read when their container cannot be started: dockerd's words, and nothing of where
//! things are on the host.

mod support;

use contract::{agent::ExecStart, host::PlannedContainer};
use model::{Error, ExecId, LayerEncoding, Phase, TmpfsMount, VolumeBacking, VolumeId, VolumeMount};
use support::{World, busybox, shell};

/// Packs a layer of one entry.
fn layer(world: &World, path: &str, kind: tar::EntryType) -> model::LayerDescriptor {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(0);
    tar.append_data(&mut header, path, &[][..]).expect("appends");
    let tar = tar.into_inner().expect("finishes");
    world.control.add_layer(&tar, tar.clone(), LayerEncoding::Tar)
}

/// What is told of a start that is refused.
async fn refused(world: &World, container: PlannedContainer) -> String {
    let id = container.id.clone();
    world.control.want(container);
    world
        .control
        .until(&id, "ready, or why not", |o| o.progress.phase == Phase::Created || o.prepare_error.is_some())
        .await;
    if let Some(why) = world.control.last(&id).prepare_error {
        return why;
    }
    world.control.want_state(&id, model::Desired::Running { run: 1 });
    world.control.until_phase(&id, 1, Phase::Exited).await.exit.expect("told").error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_no_path_of_the_host() {
    let mut world = World::begin("refusals").await;
    let image = busybox(&world.control);
    let root = world.path("").display().to_string();
    let root = root.trim_end_matches('/').to_owned();
    let plain = || shell(&image, "true");
    let with = |change: &dyn Fn(&mut PlannedContainer)| {
        let mut container = plain();
        change(&mut container);
        container
    };
    let over = |path: &str, kind| {
        let mut container = plain();
        container.image.layers.push(layer(&world, path, kind));
        container
    };
    let tmpfs = |path: &str| TmpfsMount { path: path.into(), ..TmpfsMount::default() };
    let volume = |path: &str, subpath: &str| VolumeMount {
        volume: VolumeId::from_bytes(chassis::ids::random_hex_id()),
        name: "data".parse().expect("a name"),
        backing: VolumeBacking::default(),
        path: path.into(),
        subpath: subpath.into(),
        read_only: false,
        no_copy: false,
        anonymous: false,
        shown_mode: String::new(),
    };
    let cases = [
        ("a missing program", "nope", with(&|c| c.spec.cmd = vec!["nope".into()])),
        ("a program that is none", "/etc/passwd", with(&|c| c.spec.cmd = vec!["/etc/passwd".into()])),
        ("a working directory that is a file", "/etc/passwd", with(&|c| c.spec.working_dir = "/etc/passwd".into())),
        ("a target below a file", "/etc/passwd", with(&|c| c.spec.tmpfs = vec![tmpfs("/etc/passwd/x")])),
        ("a target that is a file", "/etc/passwd", with(&|c| c.spec.tmpfs = vec![tmpfs("/etc/passwd")])),
        (
            "an unknown setting",
            "net/nothing",
            with(&|c| drop(c.spec.sysctls.insert("net.nothing.here".into(), "1".into()))),
        ),
        (
            "a setting's bad value",
            "ip_forward",
            with(&|c| drop(c.spec.sysctls.insert("net.ipv4.ip_forward".into(), "many".into()))),
        ),
        ("a user nobody knows", "nobody-here", with(&|c| c.spec.user = "nobody-here".into())),
        ("no place for devices", "/dev", over("dev", tar::EntryType::Regular)),
        (
            "a volume's target below a file",
            "/etc/passwd",
            with(&|c| c.spec.volumes = vec![volume("/etc/passwd/x", "")]),
        ),
        (
            "a volume's target that is a file",
            "/etc/passwd",
            with(&|c| c.spec.volumes = vec![volume("/etc/passwd", "")]),
        ),
        (
            "a part of a volume that is not there",
            "nothing-here",
            with(&|c| c.spec.volumes = vec![volume("/data", "nothing-here")]),
        ),
        ("no place for /proc", "/proc", over("proc", tar::EntryType::Regular)),
        ("a directory where hosts goes", "/etc/hosts", over("etc/hosts", tar::EntryType::Directory)),
    ];
    for (name, names, container) in cases {
        let told = refused(&world, container).await;
        println!("{name}: {told}");
        assert!(!told.is_empty(), "{name} was started");
        assert!(!told.contains(&root), "{name}: {told}");
        assert!(told.contains(names), "{name} does not say what is wrong: {told}");
    }

    let running = shell(&image, "sleep 1000");
    let id = running.id.clone();
    world.control.want(running);
    world.control.want_state(&id, model::Desired::Running { run: 1 });
    world.control.until_phase(&id, 1, Phase::Running).await;
    for (program, working_dir, user) in
        [("nope", "", ""), ("/etc/passwd", "", ""), ("true", "/etc/passwd", ""), ("true", "", "nobody-here")]
    {
        let start = ExecStart {
            container: id.clone(),
            cmd: vec![program.into()],
            env: Vec::new(),
            working_dir: working_dir.into(),
            user: user.into(),
            tty: false,
            attach_stdin: false,
            attach_stdout: false,
            attach_stderr: false,
            detach: true,
            console_size: None,
        };
        let exec = ExecId::from_bytes(chassis::ids::random_hex_id());
        let answer = world.gateway().post::<_, ()>(&format!("/execs/v1/{exec}/start"), &start).await;
        let Err(Error::Failed(told) | Error::InvalidArgument(told)) = answer else { panic!("{program}: {answer:?}") };
        println!("exec of {program}: {told}");
        assert!(!told.contains(&root), "{told}");
    }
}
