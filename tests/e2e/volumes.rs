//! Volumes by the docker CLI: made, shared, filled, bounded, refused, removed.

use serde_json::json;
use tests::{Docker, Suite, unique};

fn run(docker: &Docker, options: &[&str], script: &str) -> tests::Outcome {
    let args = [&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat();
    docker.run(&args)
}

#[test]
fn a_named_volume_outlives_its_containers_and_is_shared() {
    let docker = Suite::here().docker();
    let (volume, holder) = (unique("data"), unique("holder"));
    assert_eq!(docker.ok(&["volume", "create", "--label", "a=b", &volume]), volume);
    let mount = format!("{volume}:/data");
    assert_eq!(run(&docker, &["-v", &mount], "echo kept > /data/file").code, 0);
    assert_eq!(run(&docker, &["-v", &mount], "cat /data/file").stdout, "kept\n");
    let read_only = run(&docker, &["-v", &format!("{mount}:ro")], "touch /data/x");
    assert!(read_only.stderr.contains("Read-only file system"), "{read_only:?}");
    let _ = docker.ok(&["run", "-d", "--name", &holder, "-v", &mount, "busybox", "sleep", "600"]);
    assert_eq!(run(&docker, &["-v", &mount], "echo both > /data/file").code, 0);
    assert_eq!(docker.ok(&["exec", &holder, "cat", "/data/file"]), "both");
    let format =
        "{{range .Mounts}}{{.Type}} {{.Name}} {{.Source}} {{.Destination}} {{.Driver}} {{.Mode}} {{.RW}}{{end}}";
    let shown = format!("volume {volume} /var/lib/docker/volumes/{volume}/_data /data local z true");
    assert_eq!(docker.ok(&["inspect", "-f", format, &holder]), shown);
    let filter = format!("volume={volume}");
    assert_eq!(docker.ok(&["ps", "--filter", &filter, "--format", "{{.Names}}"]), holder);
    let refused = docker.run(&["volume", "rm", &volume]);
    let id = docker.ok(&["inspect", "-f", "{{.Id}}", &holder]);
    assert!(refused.stderr.contains(&format!("remove {volume}: volume is in use - [{id}]")), "{refused:?}");
    docker.remove(&[&holder]);
    assert_eq!(docker.ok(&["volume", "rm", &volume]), volume);
    let gone = docker.run(&["volume", "inspect", &volume]);
    assert!(gone.stderr.contains(&format!("get {volume}: no such volume")), "{gone:?}");
    let _ = docker.ok(&["volume", "rm", "-f", &volume]);
}

#[test]
fn an_empty_volume_gets_what_the_image_has_unless_it_is_told_not_to() {
    let docker = Suite::here().docker();
    let (filled, empty) = (unique("filled"), unique("empty"));
    let listed = run(&docker, &["-v", &format!("{filled}:/etc")], "true");
    assert_eq!(listed.code, 0, "{listed:?}");
    let script = "ls /v | grep -x passwd; stat -c %u:%g:%a /v/passwd";
    assert_eq!(run(&docker, &["-v", &format!("{filled}:/v")], script).stdout, "passwd\n0:0:644\n");
    let _ = run(&docker, &["-v", &format!("{empty}:/etc:nocopy")], "true");
    assert_eq!(run(&docker, &["-v", &format!("{empty}:/v")], "ls /v | grep -c passwd").stdout, "0\n");
    let _ = docker.ok(&["volume", "rm", &filled, &empty]);
}

#[test]
fn anonymous_volumes_go_with_their_container_where_that_is_asked_for() {
    let docker = Suite::here().docker();
    let (one, two) = (unique("anon"), unique("anon"));
    let _ =
        docker.ok(&["run", "-d", "--name", &one, "-v", "/data", "busybox", "sh", "-c", "echo x > /data/x; sleep 600"]);
    let name = docker.ok(&["inspect", "-f", "{{(index .Mounts 0).Name}}", &one]);
    assert_eq!(name.len(), 64, "{name}");
    let labels = docker.ok(&["volume", "inspect", "-f", "{{json .Labels}}", &name]);
    assert_eq!(labels, r#"{"com.docker.volume.anonymous":""}"#);
    let _ =
        docker.ok(&["run", "-d", "--name", &two, "--volumes-from", &format!("{one}:ro"), "busybox", "sleep", "600"]);
    assert_eq!(docker.ok(&["exec", &two, "cat", "/data/x"]), "x");
    assert_ne!(docker.run(&["exec", &two, "touch", "/data/y"]).code, 0);
    let _ = docker.ok(&["rm", "-fv", &one]);
    assert_eq!(docker.run(&["volume", "inspect", &name]).code, 0, "the other one has it");
    let _ = docker.ok(&["rm", "-fv", &two]);
    assert_ne!(docker.run(&["volume", "inspect", &name]).code, 0);
    let before = docker.ok(&["volume", "ls", "-q"]);
    assert_eq!(run(&docker, &["-v", "/scratch"], "touch /scratch/x").code, 0);
    tests::eventually("--rm takes its anonymous volume along", std::time::Duration::from_secs(5), || {
        docker.ok(&["volume", "ls", "-q"]).lines().filter(|l| l.len() == 64 && !before.contains(l)).count() == 0
    });
}

#[test]
fn a_sized_volume_is_full_at_its_size_and_memory_forgets() {
    let docker = Suite::here().docker();
    let (sized, memory) = (unique("sized"), unique("memory"));
    let _ = docker.ok(&["volume", "create", "-o", "size=16m", &sized]);
    let full = run(&docker, &["-v", &format!("{sized}:/s")], "dd if=/dev/zero of=/s/big bs=1M count=32");
    assert!(full.stderr.contains("No space left on device"), "{full:?}");
    let options =
        ["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=7,mode=700", &memory];
    let _ = docker.ok(&options);
    let mount = format!("{memory}:/m");
    assert_eq!(run(&docker, &["-v", &mount], "touch /m/x; stat -c %u:%a /m").stdout, "7:700\n");
    assert_eq!(run(&docker, &["-v", &mount], "ls /m | wc -l").stdout.trim(), "0");
    let usage = docker.ok(&["system", "df", "-v", "--format", "{{json .Volumes}}"]);
    assert!(usage.contains(&sized), "{usage}");
    let _ = docker.ok(&["volume", "rm", &sized, &memory]);
}

#[test]
fn a_part_of_a_volume_can_be_mounted_and_none_of_the_host() {
    let docker = Suite::here().docker();
    let volume = unique("parts");
    let whole = format!("{volume}:/v");
    let _ = run(&docker, &["-v", &whole], "mkdir -p /v/a/b; echo deep > /v/a/b/f; ln -s /etc /v/out; ln -s /a/b /v/in");
    let part = |subpath: &str| format!("type=volume,src={volume},dst=/p,volume-subpath={subpath}");
    assert_eq!(run(&docker, &["--mount", &part("a/b")], "cat /p/f").stdout, "deep\n");
    assert_eq!(run(&docker, &["--mount", &part("in")], "cat /p/f").stdout, "deep\n");
    for outside in ["out", "nope"] {
        let refused = run(&docker, &["--mount", &part(outside)], "ls /p");
        assert!(refused.stderr.contains(&format!("cannot access path {outside}")), "{refused:?}");
    }
    let climbing = run(&docker, &["--mount", &part("../..")], "true");
    assert!(climbing.stderr.contains("subpath must be a relative path within the volume"), "{climbing:?}");
    let host = run(&docker, &["-v", "/var/run:/var/run"], "true");
    assert!(host.stderr.contains("host paths are not available on Wharfage"), "{host:?}");
    for options in [["-o", "type=nfs", "-o", "device=:/x"], ["-o", "o=bind", "-o", "device=/"]] {
        let refused = docker.run(&[&["volume", "create"], &options[..]].concat());
        assert!(refused.stderr.contains("not available on Wharfage"), "{refused:?}");
    }
    let _ = docker.ok(&["volume", "rm", &volume]);
}

#[test]
fn creating_again_is_fine_and_asking_for_something_else_is_not() {
    let suite = Suite::here();
    let (docker, rest) = (suite.docker(), suite.rest());
    let volume = unique("again");
    for _ in 0..2 {
        let reply = rest.post("/volumes/create", &json!({"Name": volume, "Labels": {"k": "v"}}));
        assert_eq!((reply.status, reply.json()["Labels"]["k"].as_str()), (201, Some("v")), "{reply:?}");
    }
    let other = rest.post("/volumes/create", &json!({"Name": volume, "DriverOpts": {"size": "64m"}}));
    assert_eq!(other.status, 409, "{other:?}");
    assert_eq!(rest.post("/volumes/create", &json!({"Name": volume, "Driver": "rexray"})).status, 404);
    assert_eq!(rest.send("PUT", &format!("/volumes/{volume}?version=1"), Some(&json!({}))).status, 503);
    let listed = |filters: &str| {
        let list = docker.ok(&["volume", "ls", "-q", "--filter", filters]);
        list.lines().any(|line| line == volume)
    };
    assert!(
        listed("dangling=true") && listed("label=k=v") && listed(&format!("name={volume}")) && listed("driver=local")
    );
    assert!(!listed("dangling=false") && !listed("label=k=w") && !listed("driver=other"));
    let label = format!("label=k={}", unique("never"));
    let _ = docker.ok(&["volume", "prune", "-f", "-a", "--filter", &label]);
    assert!(listed("dangling=true"), "pruned what the filter left out");
    let _ = docker.ok(&["volume", "prune", "-f", "--filter", "label=k=v"]);
    assert!(listed("dangling=true"), "a named one is pruned only with --all");
    let pruned = docker.ok(&["volume", "prune", "-f", "-a", "--filter", "label=k=v"]);
    assert!(pruned.contains(&volume), "{pruned}");
}

#[test]
fn the_history_has_every_step_of_a_volume() {
    let docker = Suite::here().docker();
    let volume = unique("history");
    let since = docker.ok(&["info", "-f", "{{.SystemTime}}"]);
    let _ = run(&docker, &["-v", &format!("{volume}:/data")], "true");
    let _ = docker.ok(&["volume", "rm", &volume]);
    let until = docker.ok(&["info", "-f", "{{.SystemTime}}"]);
    let filter = format!("volume={volume}");
    let args = [
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        "type=volume",
        "--filter",
        &filter,
        "--format",
        "{{.Action}}",
    ];
    let told = docker.ok(&args);
    assert_eq!(told.lines().collect::<Vec<_>>(), ["create", "mount", "unmount", "destroy"]);
}

#[test]
fn two_projects_have_a_volume_of_the_same_name_and_each_its_own() {
    let suite = Suite::here();
    let (one, two) = (suite.docker(), suite.docker_as(suite.var("WHARFAGE_TOKEN_2")));
    let volume = unique("same");
    let mount = format!("{volume}:/v");
    assert_eq!(run(&one, &["-v", &mount], "echo one > /v/f").code, 0);
    let missing = two.run(&["volume", "inspect", &volume]);
    assert!(missing.stderr.contains("no such volume"), "{missing:?}");
    assert_eq!(run(&two, &["-v", &mount], "ls /v | wc -l").stdout.trim(), "0");
    assert_eq!(run(&two, &["-v", &mount], "echo two > /v/f").code, 0);
    let _ = two.ok(&["volume", "rm", &volume]);
    assert_eq!(run(&one, &["-v", &mount], "cat /v/f").stdout, "one\n");
    let holder = unique("holder");
    let _ = one.ok(&["create", "--name", &holder, "-v", &mount, "busybox"]);
    let foreign = run(&two, &["--volumes-from", &holder], "true");
    assert!(foreign.stderr.contains(&format!("No such container: {holder}")), "{foreign:?}");
    one.remove(&[&holder]);
    let _ = one.ok(&["volume", "rm", &volume]);
}

#[test]
fn what_a_tenant_leaves_in_a_volume_gives_nobody_rights() {
    let docker = Suite::here().docker();
    let volume = unique("rights");
    let mount = format!("{volume}:/v");
    // What is executed from it is tried in isolation/privileges.rs.
    let script = "mknod /v/disk b 254 0 2>/dev/null && echo made; grep ' /v ' /proc/mounts";
    let options = run(&docker, &["-v", &mount], script);
    assert!(
        !options.stdout.contains("made") && options.stdout.contains("nosuid") && options.stdout.contains("nodev"),
        "{options:?}"
    );
    let _ = docker.ok(&["volume", "rm", &volume]);
}

#[test]
fn a_container_ends_and_is_gone_before_the_volumes_that_were_made_for_it() {
    let docker = Suite::here().docker();
    let name = unique("order");
    let since = docker.ok(&["info", "-f", "{{.SystemTime}}"]);
    let _ = docker.ok(&["run", "-d", "--name", &name, "-v", "/made", "busybox", "sleep", "600"]);
    let volume = docker.ok(&["inspect", "-f", "{{(index .Mounts 0).Name}}", &name]);
    let _ = docker.ok(&["rm", "-fv", &name]);
    let missing = docker.run(&["volume", "inspect", &volume]);
    assert!(missing.stderr.contains("no such volume"), "{missing:?}");
    let until = docker.ok(&["info", "-f", "{{.SystemTime}}"]);
    let format = "{{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}";
    let told = docker.ok(&["events", "--since", &since, "--until", &until, "--format", format]);
    let at = |wanted: &dyn Fn(&str) -> bool| told.lines().position(wanted).unwrap_or_else(|| panic!("{told}"));
    let of_container =
        |action: &str| at(&|line| line.starts_with(&format!("container {action} ")) && line.ends_with(&name));
    let order = [
        of_container("kill"),
        of_container("die"),
        of_container("destroy"),
        at(&|line| line.starts_with(&format!("volume destroy {volume}"))),
    ];
    assert!(order.is_sorted(), "{order:?} in {told}");
}
