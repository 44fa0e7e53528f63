//! What a process may: capabilities, groups, users, and files that would raise it (B16, B17, B18, B24).

use tests::{Cell, Suite, unique};

/// Docker's fourteen.
const FOURTEEN: &str = "a80425fb";

/// Effective user and group, then inheritable, permitted, effective, bounding and ambient capabilities.
fn who(cell: &Cell, user: &str, program: &str) -> String {
    cell.sh_as(user, &format!("{program} who"))
}

/// Copies of the attempt that would raise: set-user-id, able to bind low ports, to administrate, to trace.
fn raisers(cell: &Cell, dir: &str) {
    let prepare = format!(
        "for f in root port admin trace; do cp /attempt {dir}/$f; done; chmod 4755 {dir}/root; \
         /attempt setcap {dir}/port 400; /attempt setcap {dir}/admin 200000; /attempt setcap {dir}/trace 80000"
    );
    assert_eq!(cell.sh(&prepare), "ok 0\nok 0\nok 0", "{dir}");
}

#[test]
fn b16_nobody_gets_more_than_the_fourteen_whatever_file_he_executes() {
    let docker = Suite::here().docker();
    let cell = Cell::start(&docker, &["--cap-add", "ALL"]);
    raisers(&cell, "/bin");
    assert_eq!(who(&cell, "0", "/attempt"), format!("0:0 ,{FOURTEEN},{FOURTEEN},{FOURTEEN},"));
    assert_eq!(who(&cell, "1000", "/attempt"), format!("1000:0 ,,,{FOURTEEN},"));
    // The controls: a set-user-id program raises, and so does a capability that is among the fourteen.
    assert_eq!(who(&cell, "1000", "/bin/root"), format!("0:0 ,{FOURTEEN},{FOURTEEN},{FOURTEEN},"));
    assert_eq!(who(&cell, "1000", "/bin/port"), format!("1000:0 ,400,400,{FOURTEEN},"));
    for beyond in ["/bin/admin", "/bin/trace"] {
        let told = who(&cell, "1000", beyond);
        assert!(told.contains("Operation not permitted"), "{beyond}: {told}");
    }
    // Without new privileges none of them raises anybody.
    let kept = Cell::start(&docker, &["--security-opt", "no-new-privileges"]);
    raisers(&kept, "/bin");
    for program in ["/bin/root", "/bin/port"] {
        assert_eq!(who(&kept, "1000", program), format!("1000:0 ,,,{FOURTEEN},"), "{program}");
    }
}

#[test]
fn b17_the_primary_group_stays_after_it_was_exchanged() {
    let cell = Cell::start(&Suite::here().docker(), &[]);
    // Everybody but group 1000 may read it; a set-group-id program takes the primary group away.
    let prepare = "echo private >/file; chown 0:1000 /file; chmod 604 /file; \
        cp /attempt /grouped; chgrp 50 /grouped; chmod 2755 /grouped";
    assert_eq!(cell.sh(prepare), "");
    let read = |user: &str, program: &str| cell.sh_as(user, &format!("{program} read /file"));
    assert_eq!(read("1000:1000", "/attempt"), "errno 13");
    assert!(who(&cell, "1000:1000", "/grouped").starts_with("1000:50 "), "it was exchanged");
    assert_eq!(read("1000:1000", "/grouped"), "errno 13");
    assert_eq!(read("1000:2000", "/grouped"), "ok private", "the control: another group may");
}

#[test]
fn b18_users_that_are_tricks_are_refused_and_never_become_root() {
    let docker = Suite::here().docker();
    for user in [
        "2147483648",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "-1",
        "-0",
        "+0",
        "0x0",
        "00x",
        " root",
        "root ",
        "root\t",
        "nobody-here",
        "0:4294967296",
        "0:-1",
        "root:nogroup-here",
        ":",
        ":0:0",
        "a:b:c",
        "\u{a0}0",
        "٠",
        "1e3",
        "1.0",
        "root\u{200b}",
    ] {
        let outcome = docker.run(&["run", "--rm", "-u", user, "busybox", "id", "-u"]);
        assert!(
            outcome.code != 0 || outcome.stdout.trim() != "0" || user.trim_matches([':', '0']).is_empty(),
            "{user:?}: {outcome:?}"
        );
    }
    // The controls: how root and others are written.
    for (user, id) in [("0", "0"), ("root", "0"), ("0:0", "0"), ("1000", "1000"), ("nobody", "65534")] {
        assert_eq!(docker.ok(&["run", "--rm", "-u", user, "busybox", "id", "-u"]), id, "{user}");
    }
}

#[test]
fn b24_nothing_in_a_volume_raises_anybody() {
    let docker = Suite::here().docker();
    let volume = unique("raise");
    let cell = Cell::start(&docker, &["-v", &format!("{volume}:/v"), "--tmpfs", "/t:exec"]);
    for dir in ["/v", "/t", "/bin"] {
        raisers(&cell, dir);
        let told = ["root", "port"].map(|program| who(&cell, "1000", &format!("{dir}/{program}")));
        let nobody = format!("1000:0 ,,,{FOURTEEN},");
        // The control: in the container's own root they raise.
        let raised = [format!("0:0 ,{FOURTEEN},{FOURTEEN},{FOURTEEN},"), format!("1000:0 ,400,400,{FOURTEEN},")];
        assert_eq!(told, if dir == "/bin" { raised } else { [nobody.clone(), nobody] }, "{dir}");
    }
    drop(cell);
    let _ = docker.ok(&["volume", "rm", &volume]);
}
