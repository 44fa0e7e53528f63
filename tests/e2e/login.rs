//! `docker login`: at the registry of this endpoint, and at others.

use tests::Suite;

#[test]
fn a_projects_token_logs_in_and_nothing_else_does() {
    let suite = Suite::here();
    let docker = suite.docker_as(suite.var("WHARFAGE_TOKEN"));
    let here = suite.var("DOCKER_HOST").trim_start_matches("tcp://");
    let token = suite.var("WHARFAGE_TOKEN");
    let granted = docker.run(&["login", "-u", "anybody", "-p", token, here]);
    assert_eq!((granted.code, granted.stdout.contains("Login Succeeded")), (0, true), "{granted:?}");
    let refused = docker.run(&["login", "-u", "anybody", "-p", "guess", here]);
    assert!(refused.code != 0 && refused.stderr.contains("failed with status: 401 Unauthorized"), "{refused:?}");
    let operator = docker.run(&["login", "-u", "anybody", "-p", suite.var("WHARFAGE_ADMIN_TOKEN"), here]);
    assert!(operator.code != 0, "an operator's token opens no project: {operator:?}");
}

#[test]
fn a_login_reaches_nothing_inside() {
    let suite = Suite::here();
    let docker = suite.docker_as(suite.var("WHARFAGE_TOKEN"));
    for inside in ["127.0.0.1:5432", "169.254.169.254", "localhost:7400"] {
        let refused = docker.run(&["login", "-u", "a", "-p", "b", inside]);
        assert!(refused.code != 0 && refused.stderr.contains("not a public address"), "{inside}: {refused:?}");
    }
}
