//! `/var/run/docker.sock` inside a container: its own project's API, whoever asks in the container, and
//! nothing beyond; as long as the project allows it and the container runs.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::json;
use tests::{Inside, Suite, Terminal, eventually, unique};

/// The socket as the container sees it, from the host's side of `/proc`.
fn connect(suite: &Suite, name: &str) -> std::io::Result<UnixStream> {
    let pid = suite.docker().ok(&["inspect", "-f", "{{.State.Pid}}", name]);
    UnixStream::connect(format!("/proc/{pid}/root/var/run/docker.sock"))
}

/// One request over the container's socket, with any head; the whole answer.
fn ask(suite: &Suite, name: &str, head: &str) -> String {
    let mut stream = connect(suite, name).expect("it listens");
    write!(stream, "{head}\r\nHost: docker\r\nConnection: close\r\n\r\n").expect("takes it");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answers");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_container_with_the_socket_is_a_client_of_its_own_project() {
    let suite = Suite::here();
    let docker = suite.docker();
    let inside = Inside::start(&docker, &[]);
    let seen = inside.ok("docker ps --no-trunc --format '{{.ID}}'");
    let own = docker.ok(&["inspect", "-f", "{{.Id}}", &inside.name]);
    assert!(seen.contains(&own), "{seen}");
    assert_eq!(inside.ok("docker run --rm busybox echo hi"), "hi");
    assert_eq!(inside.ok("echo typed | docker run -i --rm busybox cat"), "typed", "half-closed");
    assert_eq!(inside.sh("docker run --rm busybox sh -c 'exit 7'").code, 7);
    assert_eq!(inside.ok(&format!("docker exec {} hostname", inside.name)), own[..12]);
    assert_eq!(inside.ok("docker logs -f $(docker run -d busybox sh -c 'echo one; sleep 0.3; echo two')"), "one\ntwo");
    let ls = inside.ok("stat -c '%F %u:%g %a' /var/run/docker.sock");
    assert_eq!(ls, "socket 0:0 666");
    // Anybody in the container, root or not.
    let other = docker.ok(&["exec", "-u", "1000:1000", &inside.name, "docker", "ps", "-q", "--no-trunc"]);
    assert!(other.contains(&own), "{other}");
}

#[test]
fn a_terminal_works_through_the_socket() {
    let suite = Suite::here();
    let docker = suite.docker();
    let inside = Inside::start(&docker, &[]);
    let command = docker.command(&["exec", "-it", &inside.name, "docker", "exec", "-it", &inside.name, "sh"]);
    let mut terminal = Terminal::open(command, 24, 80);
    terminal.type_in("echo $((40+2)) $(tty)\n");
    let _ = terminal.expect("42 /dev/pts/");
    terminal.type_in("exit 3\n");
    assert_eq!(terminal.exit_code(), 3);
}

#[test]
fn the_mount_is_shown_as_it_was_asked_for() {
    let docker = Suite::here().docker();
    let (bind, mount, from) = (unique("bind"), unique("mount"), unique("from"));
    let _ = docker.ok(&["create", "--name", &bind, "-v", "/var/run/docker.sock:/tmp/d.sock:ro", "busybox", "true"]);
    let asked = "type=bind,source=/run/docker.sock,target=/run/docker.sock,readonly";
    let _ = docker.ok(&["create", "--name", &mount, "--mount", asked, "busybox", "true"]);
    let _ = docker.ok(&["run", "-d", "--name", &from, "--volumes-from", &bind, "busybox", "sleep", "600"]);
    let shown = |name: &str| {
        docker.ok(&[
            "inspect",
            "-f",
            "{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.Mode}} {{.RW}}{{end}}",
            name,
        ])
    };
    assert_eq!(shown(&bind), "bind /var/run/docker.sock /tmp/d.sock ro false");
    assert_eq!(docker.ok(&["inspect", "-f", "{{.HostConfig.Binds}}", &bind]), "[/var/run/docker.sock:/tmp/d.sock:ro]");
    assert_eq!(shown(&mount), "bind /run/docker.sock /run/docker.sock  false");
    assert_eq!(shown(&from), "bind /var/run/docker.sock /tmp/d.sock ro false");
    assert_eq!(docker.ok(&["exec", &from, "stat", "-c", "%F", "/tmp/d.sock"]), "socket");
    // What is beside it stays the host's.
    for source in
        ["/var/run", "/run", "/var/run/docker.sock/..", "/var/run//docker.sock", "/run/containerd/containerd.sock"]
    {
        let refused = docker.run(&["create", "-v", &format!("{source}:/x"), "busybox", "true"]);
        assert!(refused.stderr.contains("host paths are not available"), "{source}: {refused:?}");
    }
    docker.remove(&[&bind, &mount, &from]);
}

#[test]
fn the_socket_opens_the_docker_api_of_its_project_and_nothing_else() {
    let suite = Suite::here();
    let (docker, other) = (suite.docker(), suite.docker_as(suite.var("WHARFAGE_TOKEN_2")));
    let inside = Inside::start(&docker, &[]);
    let hidden = unique("hidden");
    let _ = other.ok(&["run", "-d", "--name", &hidden, "busybox", "sleep", "600"]);
    let foreign = other.ok(&["inspect", "-f", "{{.Id}}", &hidden]);
    assert!(!inside.ok("docker ps -a --no-trunc").contains(&foreign));
    let missing = inside.sh(&format!("docker rm -f {foreign}; docker inspect {foreign}; docker exec {foreign} true"));
    assert!(missing.stderr.contains("No such container") && missing.code != 0, "{missing:?}");
    // A credential that is brought along counts for nothing: neither another project's, nor an operator's.
    let own = inside.ok("docker info --format '{{.ID}}'");
    for token in [suite.var("WHARFAGE_TOKEN_2"), suite.var("WHARFAGE_ADMIN_TOKEN"), "whf_wrong"] {
        let answer = ask(&suite, &inside.name, &format!("GET /info HTTP/1.1\r\nAuthorization: Bearer {token}"));
        assert!(answer.contains(&format!("\"ID\":\"{own}\"")), "{answer}");
    }
    let claimed = format!("GET /info HTTP/1.1\r\nX-Wharfage-Container: {foreign} 1 0");
    assert!(ask(&suite, &inside.name, &claimed).contains(&format!("\"ID\":\"{own}\"")));
    // On the public door the claim means nothing.
    assert_eq!(suite.rest_as(None).get("/info").status, 401);
    for path in ["/api/v1/project", "/api/v1/hosts", "/v2/", "/docs", "/openapi.json"] {
        let answer = ask(&suite, &inside.name, &format!("GET {path} HTTP/1.1"));
        assert!(answer.starts_with("HTTP/1.1 403"), "{path}: {answer}");
    }
    for path in ["/containers/../api/v1/hosts", "/v1.43//info", "/api/../info"] {
        let answer = ask(&suite, &inside.name, &format!("GET {path} HTTP/1.1"));
        assert!(!answer.starts_with("HTTP/1.1 2") || answer.contains(&own), "{path}: {answer}");
    }
    other.remove(&[&hidden]);
}

#[test]
fn what_the_policy_does_not_allow_is_refused_and_taken_back_at_once() {
    let suite = Suite::here();
    let (other, rest) = (suite.docker_as(suite.var("WHARFAGE_TOKEN_2")), suite.rest_2());
    let allow = |on: bool| {
        let reply = rest.send("PATCH", "/api/v1/project", Some(&json!({ "docker_socket": on })));
        assert_eq!((reply.status, &reply.json()["policy"]["docker_socket"]), (200, &json!(on)), "{reply:?}");
    };
    assert_eq!(rest.get("/api/v1/project").json()["policy"]["docker_socket"], json!(false), "off by default");
    let refused = other.run(&["create", "-v", "/var/run/docker.sock:/var/run/docker.sock", "busybox", "true"]);
    assert!(
        refused.stderr.contains("its policy does not allow it. Allow it with PATCH /api/v1/project"),
        "{refused:?}"
    );
    allow(true);
    let inside = Inside::start(&other, &[]);
    let _ = inside.ok("docker ps");
    let pid = other.ok(&["inspect", "-f", "{{.State.Pid}}", &inside.name]);
    let mut events = UnixStream::connect(format!("/proc/{pid}/root/var/run/docker.sock")).expect("it listens");
    events.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    write!(events, "GET /events HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n").expect("takes it");
    let mut head = [0; 12];
    events.read_exact(&mut head).expect("it is admitted");
    assert_eq!(&head, b"HTTP/1.1 200");
    allow(false);
    for command in ["docker ps", "docker run --rm busybox true", "docker version"] {
        let now = inside.sh(command);
        assert!(now.code != 0 && now.stderr.contains("its policy does not allow it"), "{command}: {now:?}");
    }
    // A stream that was open is cut soon after.
    events.read_to_end(&mut Vec::new()).expect("it ends");
    allow(true);
    let _ = inside.ok("docker ps");
    allow(false);
}

#[test]
fn the_socket_ends_with_its_run_and_leaves_nothing() {
    let suite = Suite::here();
    let docker = suite.docker();
    let inside = Inside::start(&docker, &["--restart", "on-failure"]);
    // A descriptor that somebody outside of the container was given.
    let mut kept = connect(&suite, &inside.name).expect("it listens");
    let mut events = connect(&suite, &inside.name).expect("it listens");
    write!(events, "GET /events HTTP/1.1\r\nHost: docker\r\n\r\n").expect("takes it");
    let id = docker.ok(&["inspect", "-f", "{{.Id}}", &inside.name]);
    let _ = docker.ok(&["restart", "-t", "0", &inside.name]);
    assert_eq!(inside.ok("docker run --rm busybox echo again"), "again", "the next run has one too");
    let mut rest = Vec::new();
    events.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    events.read_to_end(&mut rest).expect("a stream of the run that is over ends");
    let _ = write!(kept, "GET /info HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    kept.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let _ = kept.read_to_string(&mut answer);
    assert!(!answer.starts_with("HTTP/1.1 2"), "the run of that connection is over: {answer}");
    // Told to go away from inside: the answer may be cut, the deed is done.
    let _ = inside.sh(&format!("docker rm -f {id}"));
    eventually("it removed itself", Duration::from_secs(10), || docker.run(&["inspect", &id]).code != 0);
    eventually("nothing of it is left", Duration::from_secs(10), || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let sockets = std::fs::read_to_string("/proc/net/unix").expect("sockets");
        !mounts.contains(&id) && !sockets.contains(&id)
    });
}
