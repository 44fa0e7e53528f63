//! Images made of containers and tarballs, and what containers weigh.

use tests::{Suite, unique};

#[test]
fn a_committed_container_runs_again_with_what_was_changed() {
    let docker = Suite::here().docker();
    let (name, image) = (unique("commit"), format!("{}:v1", unique("committed")));
    let script = "echo new >/new; rm /etc/group; rm -r /home; mkdir /home; echo x >/home/x; touch -d @1 /home/x";
    let _ = docker.ok(&["run", "--name", &name, "-e", "FROM_RUN=1", "busybox", "sh", "-c", script]);
    let changes = ["ENV ADDED=2", "WORKDIR /home", "LABEL a=b", r#"CMD ["cat", "/new", "x"]"#, "EXPOSE 80"];
    let mut args = vec!["commit", "-a", "me", "-m", "why"];
    args.extend(changes.iter().flat_map(|change| ["-c", change]));
    args.extend([name.as_str(), image.as_str()]);
    let id = docker.ok(&args);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(docker.ok(&["run", "--rm", &image]), "new\nx");
    let script = "echo $FROM_RUN $ADDED $PWD; ls /etc/group /home; stat -c %Y /home/x";
    let seen = docker.run(&["run", "--rm", &image, "sh", "-c", script]);
    assert_eq!(seen.stdout, "1 2 /home\n/home:\nx\n1\n", "{seen:?}");
    let shown =
        docker.ok(&["inspect", "-f", "{{.Author}} {{.Comment}} {{.Config.Labels.a}} {{len .RootFS.Layers}}", &image]);
    assert_eq!(shown, "me why b 2");
    let history = docker.ok(&["history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", &image]);
    let newest = history.lines().next().expect("a step");
    assert!(newest.starts_with("sh -c echo new") && newest.ends_with("|why"), "{history}");
    // A commit of a commit.
    let again = unique("commit-again");
    let _ = docker.ok(&["run", "--name", &again, &image, "sh", "-c", "rm /new"]);
    let second = docker.ok(&["commit", &again]);
    assert_eq!(docker.run(&["run", "--rm", &second, "ls", "/new"]).code, 1);
    docker.remove(&[&name, &again]);
    let _ = docker.ok(&["rmi", &image, &second]);
}

#[test]
fn a_running_container_is_committed_and_runs_on() {
    let docker = Suite::here().docker();
    let (name, image) = (unique("commit-running"), unique("committed-running"));
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sh", "-c", "echo live >/live; sleep 600"]);
    tests::eventually("the file is there", std::time::Duration::from_secs(5), || {
        docker.run(&["exec", &name, "cat", "/live"]).stdout == "live\n"
    });
    let _ = docker.ok(&["commit", &name, &image]);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.Status}}", &name]), "running");
    assert_eq!(docker.ok(&["exec", &name, "echo", "on"]), "on");
    assert_eq!(docker.ok(&["run", "--rm", &image, "cat", "/live"]), "live");
    // What the run needed for itself is in no image.
    let listed = docker.ok(&["run", "--rm", &image, "sh", "-c", "ls -A / | grep -c dockerenv; true"]);
    assert_eq!(listed, "0");
    docker.remove(&[&name]);
    let _ = docker.ok(&["rmi", &image]);
}

#[test]
fn a_commit_that_cannot_be_is_refused_by_name() {
    let suite = Suite::here();
    let (docker, name) = (suite.docker(), unique("commit-refused"));
    let script = "mknod /dev-node b 8 0 || exit 9; sleep 600";
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sh", "-c", script]);
    let rest = suite.rest();
    let told = |query: &str| rest.send("POST", &format!("/commit?container={name}&{query}"), None);
    assert_eq!(told("changes=RUN%20true").status, 400);
    assert_eq!(told("repo=UPPER").status, 400);
    assert_eq!(rest.send("POST", "/commit?container=nope-nope", None).status, 404);
    assert_eq!(suite.rest_2().send("POST", &format!("/commit?container={name}"), None).status, 404);
    docker.remove(&[&name]);
}

#[test]
fn an_exported_container_is_imported_as_an_image_of_one_layer() {
    let docker = Suite::here().docker();
    let (name, image) = (unique("import"), format!("{}:flat", unique("imported")));
    let _ = docker.ok(&["run", "--name", &name, "busybox", "sh", "-c", "echo flat >/flat"]);
    let tar = docker.command(&["export", &name]).output().expect("the docker CLI is installed").stdout;
    let outcome =
        docker.run_with_input(&["import", "-c", "CMD [\"cat\", \"/flat\"]", "-m", "flattened", "-", &image], &tar);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.starts_with("sha256:"), "{outcome:?}");
    assert_eq!(docker.ok(&["run", "--rm", &image]), "flat");
    assert_eq!(docker.ok(&["inspect", "-f", "{{len .RootFS.Layers}} {{.Comment}}", &image]), "1 flattened");
    docker.remove(&[&name]);
    let _ = docker.ok(&["rmi", &image]);
}

#[test]
fn sizes_are_measured_where_the_container_is() {
    let suite = Suite::here();
    let (docker, name) = (suite.docker(), unique("sized"));
    let _ = docker.ok(&["run", "--name", &name, "busybox", "sh", "-c", "head -c 300000 /dev/zero >/made"]);
    let inspected = suite.rest().get(&format!("/containers/{name}/json?size=1")).json();
    assert_eq!(inspected["SizeRw"], 300_000, "{inspected}");
    assert!(inspected["SizeRootFs"].as_u64().expect("a number") > 300_000);
    let plain = suite.rest().get(&format!("/containers/{name}/json")).json();
    assert!(plain.get("SizeRw").is_none());
    let listed = docker.ok(&["ps", "-as", "--filter", &format!("name={name}"), "--format", "{{.Size}}"]);
    assert!(listed.starts_with("300kB (virtual "), "{listed}");
    let df = suite.rest().get("/v1.51/system/df?type=container").json();
    let ours = df["Containers"].as_array().expect("a list").iter().find(|c| c["Names"][0] == format!("/{name}"));
    assert_eq!(ours.expect("it is there")["SizeRw"], 300_000);
    docker.remove(&[&name]);
}
