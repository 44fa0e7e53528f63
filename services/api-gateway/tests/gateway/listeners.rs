//! The listeners themselves, bound, met by the unmodified docker CLI.

use std::{net::SocketAddr, path::Path, process::Command};

use api_gateway::Config;
use chassis::{CancellationToken, Common, Ctx, pki};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::world::{OpenProject, World};

/// A gateway on real ports.
struct Serving {
    plain: SocketAddr,
    tls: SocketAddr,
    metrics: Ctx,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Serving {
    async fn start(world: &World, files: &Path) -> Self {
        let authority = pki::Authority::create("a public authority").expect("an authority");
        let names = ["127.0.0.1".to_owned()];
        let issued = authority.issue_named("gateway.test", &[pki::Usage::Server], &names, 1);
        let (cert, key) = issued.expect("a certificate");
        std::fs::write(files.join("ca.pem"), authority.cert_pem()).expect("written");
        std::fs::write(files.join("server.pem"), cert).expect("written");
        std::fs::write(files.join("server.key"), key).expect("written");
        let text = format!(
            "listen = \"127.0.0.1:0\"\nscheduler = \"http://127.0.0.1:1\"\nimage = \"http://127.0.0.1:1\"\n\
             [database]\nurl = \"{}\"\n[tls]\nlisten = \"127.0.0.1:0\"\ncert = \"{dir}/server.pem\"\nkey = \"{dir}/server.key\"\n",
            world.database.gateway,
            dir = files.display(),
        );
        let (config, _) = chassis::config::parse::<Config>(&text, []).expect("a configuration");
        let ctx = Ctx::new("api-gateway", &Common::default());
        let app = api_gateway::build(config, ctx.clone()).await.expect("builds");
        let stop = CancellationToken::new();
        let (mut addresses, mut tasks) = (Vec::new(), Vec::new());
        for server in app.servers {
            let bound = server.bind(&ctx).await.expect("binds");
            addresses.push(bound.local_addr().expect("TCP"));
            tasks.push(tokio::spawn(bound.serve(stop.clone())));
        }
        let [plain, tls] = addresses[..] else { panic!("two listeners, not {addresses:?}") };
        Self { plain, tls, metrics: ctx, stop, tasks }
    }

    async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.expect("drains");
        }
    }
}

/// Runs the docker CLI with a configuration of its own.
async fn docker(home: &Path, host: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("docker");
    command.arg("--host").arg(host).args(arguments);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", home).env("DOCKER_CONFIG", home);
    let done = tokio::task::spawn_blocking(move || command.output().expect("the docker CLI is installed"))
        .await
        .expect("joins");
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.success(), text)
}

fn with_token(home: &Path, project: &OpenProject) {
    let config = json!({ "HttpHeaders": { "Authorization": format!("Bearer {}", project.token) } });
    std::fs::write(home.join("config.json"), config.to_string()).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_docker_cli_works_with_a_token_over_plain_http() {
    let world = World::new("cli_plain").await;
    let project = world.project("cli").await;
    let home = tempfile::tempdir().expect("a directory");
    let serving = Serving::start(&world, home.path()).await;
    let host = format!("tcp://{}", serving.plain);
    let (ok, text) = docker(home.path(), &host, &["version"]).await;
    assert!(!ok && text.contains("authentication required"), "{text}");
    with_token(home.path(), &project);
    for (arguments, expected) in [
        (&["version"][..], "API version:      1.53 (minimum version 1.24)"),
        (&["info"], "Server Version:"),
        (&["images"], "REPOSITORY"),
        (&["network", "ls"], "bridge"),
        (&["ps", "-a"], "CONTAINER ID"),
        (&["system", "df"], "Images"),
        (&["network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Subnet}}"], "/20"),
    ] {
        let (ok, text) = docker(home.path(), &host, arguments).await;
        assert!(ok && text.contains(expected), "{arguments:?}: {text}");
        assert!(!text.contains("WARNING"), "{arguments:?}: {text}");
    }
    let (ok, text) = docker(home.path(), &host, &["plugin", "ls"]).await;
    assert!(!ok && text.contains("not built yet in Wharfage"), "{text}");
    let metrics = serving.metrics.metrics().render();
    assert!(
        metrics.contains("/containers/json") && !metrics.contains("/v1.5"),
        "routes are told by template: {metrics}"
    );
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_docker_cli_works_with_a_client_certificate() {
    let world = World::new("cli_tls").await;
    let project = world.project("cli").await;
    let home = tempfile::tempdir().expect("a directory");
    let serving = Serving::start(&world, home.path()).await;
    let (cert, key) = pki::self_signed("service:gateway", 1).expect("a certificate of the tenant's own making");
    std::fs::write(home.path().join("cert.pem"), &cert).expect("written");
    std::fs::write(home.path().join("key.pem"), key).expect("written");
    let host = format!("tcp://{}", serving.tls);
    // The CLI takes ca.pem, cert.pem and key.pem of its configuration's directory.
    let arguments = ["--tlsverify", "images"];
    let (ok, text) = docker(home.path(), &host, &arguments).await;
    assert!(!ok && text.contains("authentication required"), "{text}");
    let path = format!("/api/v1/projects/{}/tokens", project.id);
    let made = world.operate("POST", &path, json!({ "kind": "certificate", "certificate_pem": cert })).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let (ok, text) = docker(home.path(), &host, &arguments).await;
    assert!(ok && text.contains("REPOSITORY"), "{text}");
    serving.stop().await;
}
