//! The images: what is in them and how they are named.

use anyhow::Result;
use serde_json::{Value, json};

use super::layer::{Layer, Packing, Tree, sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const CREATED: &str = "2024-01-01T00:00:00Z";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything that [`all`] publishes.
pub(super) const NAMES: [(&str, &str); 12] = [
    ("library/busybox", "latest"),
    ("library/busybox", "1.35"),
    ("library/busybox", "multi"),
    ("library/busybox", "zstd"),
    ("library/busybox", "tar"),
    ("library/hello-world", "latest"),
    ("library/hello-world", "linux"),
    ("library/httpd", "latest"),
    // Stand-ins under the names that other people's test suites use.
    ("library/alpine", "latest"),
    ("library/alpine", "3.10"),
    ("library/ubuntu", "latest"),
    ("fussybeaver/uhttpd", "latest"),
];

/// Who lives in an image of Alpine; other people's suites run programs as `postgres`.
const ALPINE_USERS: &str = "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1:bin:/bin:/sbin/nologin\n\
     daemon:x:2:2:daemon:/sbin:/sbin/nologin\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n\
     nobody:x:65534:65534:nobody:/:/sbin/nologin\n";
const ALPINE_GROUPS: &str = "root:x:0:root\nbin:x:1:root,bin,daemon\ndaemon:x:2:root,bin,daemon\n\
     postgres:x:70:\nnobody:x:65534:\n";

const HELLO: &str = r#"#!/bin/busybox sh
cat <<'END'

Hello from Wharfage!
This message shows that your installation appears to be working correctly.

To generate this message:
 1. The docker client asked the gateway, which found out who you are.
 2. The image service pulled "hello-world" from its upstream and verified every digest.
 3. The scheduler chose a host, and wrote down why.
 4. The host's agent unpacked the image, made a container of it with its own network
    address, and ran the program that prints this text.
 5. The output came back over the same connection, and the container is gone if you
    said --rm.

To try something more ambitious:
 $ docker run -it busybox sh
 $ docker run -d -p 8080:80 httpd

END
"#;

/// A document with its media type.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) media_type: &'static str,
    pub(super) body: Vec<u8>,
}

/// One image, ready to be sent.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) repository: String,
    pub(super) tags: Vec<&'static str>,
    /// What the tags name.
    pub(super) named: Document,
    /// What `named` names, if it is an index.
    pub(super) manifests: Vec<Document>,
    /// Configs and layers.
    pub(super) blobs: Vec<Vec<u8>>,
}

/// One platform's image.
struct Platform {
    manifest: Document,
    blobs: Vec<Vec<u8>>,
}

/// All images of [`NAMES`].
pub(super) fn all(busybox: &[u8], applets: &[String]) -> Result<Vec<Image>> {
    let base = busybox_layer(busybox, applets, Packing::Gzip)?;
    let shell = json!({"Env": [PATH], "Cmd": ["sh"]});
    let labelled = |packing: &str| json!({"Env": [PATH], "Cmd": ["sh"], "Labels": {"packing": packing}});
    let latest = platform("amd64", &shell, std::slice::from_ref(&base));
    let other = platform("arm64", &shell, &[dummy_layer()?]);
    let zstd = busybox_layer(busybox, applets, Packing::Zstd)?;
    let tar = busybox_layer(busybox, applets, Packing::Tar)?;
    let website = json!({
        "Env": [PATH],
        "Cmd": ["httpd", "-f", "-vv", "-p", "80", "-h", "/var/www"],
        "ExposedPorts": {"80/tcp": {}},
        "WorkingDir": "/var/www",
        // As PID 1 it would not notice the usual SIGTERM.
        "StopSignal": "SIGKILL",
    });
    let hello = json!({"Env": [PATH], "Cmd": ["/hello"]});
    Ok(vec![
        single("busybox", &["latest", "1.35"], platform("amd64", &shell, std::slice::from_ref(&base))),
        index("busybox", &["multi"], vec![("amd64", latest), ("arm64", other)]),
        single("busybox", &["zstd"], platform("amd64", &labelled("zstd"), &[zstd])),
        single("busybox", &["tar"], platform("amd64", &labelled("tar"), &[tar])),
        single("hello-world", &["latest"], platform("amd64", &hello, &[hello_layer(busybox, HELLO)?])),
        // Some suites compare the greeting with that of the image whose place this takes.
        single("hello-world", &["linux"], platform("amd64", &hello, &[hello_layer(busybox, &docker_hello())?])),
        single("httpd", &["latest"], platform("amd64", &website, &[base.clone(), website_layer()?])),
        // Each tag is an image of its own: removing one must not untag another.
        single("alpine", &["latest"], platform("amd64", &shell, &[base.clone(), alpine_layer("3.20.0")?])),
        single("alpine", &["3.10"], platform("amd64", &shell, &[base.clone(), alpine_layer("3.10.9")?])),
        single("ubuntu", &["latest"], platform("amd64", &shell, &[base.clone(), ubuntu_layer()?])),
        single("fussybeaver/uhttpd", &["latest"], platform("amd64", &website, &[base, uhttpd_layer()?])),
    ])
}

fn busybox_layer(busybox: &[u8], applets: &[String], packing: Packing) -> Result<Layer> {
    let mut tree = Tree::new();
    for (path, mode) in
        [("bin", 0o755), ("dev", 0o755), ("etc", 0o755), ("home", 0o755), ("proc", 0o555), ("root", 0o700)]
    {
        tree.directory(path, mode)?;
    }
    for (path, mode) in [("run", 0o755), ("sys", 0o555), ("tmp", 0o1777), ("usr", 0o755), ("usr/bin", 0o755)] {
        tree.directory(path, mode)?;
    }
    for (path, mode) in [("var", 0o755), ("var/spool", 0o755), ("var/tmp", 0o1777)] {
        tree.directory(path, mode)?;
    }
    tree.file("bin/busybox", 0o755, busybox)?;
    for applet in applets {
        tree.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    tree.symlink("usr/bin/env", "../../bin/env")?;
    let users = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
                 www-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
    tree.file("etc/passwd", 0o644, users.as_bytes())?;
    tree.file("etc/group", 0o644, b"root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnogroup:x:65534:\n")?;
    tree.file("etc/nsswitch.conf", 0o644, b"passwd: files\ngroup: files\nhosts: files dns\n")?;
    tree.pack(packing)
}

fn docker_hello() -> String {
    HELLO.replace("Hello from Wharfage!", "Hello from Docker!")
}

fn hello_layer(busybox: &[u8], program: &str) -> Result<Layer> {
    let mut tree = Tree::new();
    tree.directory("bin", 0o755)?;
    tree.file("bin/busybox", 0o755, busybox)?;
    tree.symlink("bin/cat", "busybox")?;
    tree.symlink("bin/sh", "busybox")?;
    tree.file("hello", 0o755, program.as_bytes())?;
    tree.pack(Packing::Gzip)
}

fn website_layer() -> Result<Layer> {
    let mut tree = Tree::new();
    tree.directory("var", 0o755)?;
    tree.directory("var/www", 0o755)?;
    tree.file("var/www/index.html", 0o644, b"<html><body><h1>It works!</h1></body></html>\n")?;
    tree.pack(Packing::Gzip)
}

fn alpine_layer(release: &str) -> Result<Layer> {
    let mut tree = Tree::new();
    for path in ["etc", "var", "var/lib", "var/lib/postgresql", "var/opt"] {
        tree.directory(path, 0o755)?;
    }
    tree.file("etc/alpine-release", 0o644, format!("{release}\n").as_bytes())?;
    tree.file("etc/passwd", 0o644, ALPINE_USERS.as_bytes())?;
    tree.file("etc/group", 0o644, ALPINE_GROUPS.as_bytes())?;
    tree.pack(Packing::Gzip)
}

fn ubuntu_layer() -> Result<Layer> {
    let mut tree = Tree::new();
    tree.directory("etc", 0o755)?;
    tree.file("etc/lsb-release", 0o644, b"DISTRIB_ID=Ubuntu\n")?;
    tree.pack(Packing::Gzip)
}

/// A web server under the path and with the options that its namesake has.
fn uhttpd_layer() -> Result<Layer> {
    let mut tree = Tree::new();
    for path in ["etc", "etc/config", "usr", "usr/sbin", "var", "var/www", "www"] {
        tree.directory(path, 0o755)?;
    }
    tree.file("usr/sbin/run_uhttpd", 0o755, b"#!/bin/sh\nexec httpd \"$@\"\n")?;
    tree.file("etc/config/uhttpd", 0o644, b"\nconfig uhttpd main\n\toption home /www\n")?;
    tree.file("www/index.html", 0o644, b"<html><body>uhttpd</body></html>\n")?;
    tree.pack(Packing::Gzip)
}

/// Something else than the fleet's platform, so that an index has a choice to make.
fn dummy_layer() -> Result<Layer> {
    let mut tree = Tree::new();
    tree.file("README", 0o644, b"This platform is here for the index only.\n")?;
    tree.pack(Packing::Gzip)
}

fn platform(architecture: &str, config: &Value, layers: &[Layer]) -> Platform {
    let history: Vec<Value> = layers
        .iter()
        .map(|layer| json!({"created": CREATED, "created_by": format!("wharfage seed: ADD {} /", &layer.diff_id[7..19])}))
        .chain([json!({"created": CREATED, "created_by": format!("CMD {}", config["Cmd"]), "empty_layer": true})])
        .collect();
    let config = json!({
        "created": CREATED, "architecture": architecture, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| &l.diff_id).collect::<Vec<_>>()},
        "history": history,
    })
    .to_string()
    .into_bytes();
    let layer_descriptors: Vec<Value> = layers.iter().map(|l| descriptor(l.packing.media_type(), &l.blob)).collect();
    let body = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config), "layers": layer_descriptors,
    });
    let manifest = Document { media_type: MANIFEST, body: body.to_string().into_bytes() };
    let blobs = std::iter::once(config).chain(layers.iter().map(|l| l.blob.clone())).collect();
    Platform { manifest, blobs }
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(content), "size": content.len()})
}

fn single(name: &str, tags: &[&'static str], platform: Platform) -> Image {
    Image {
        repository: if name.contains('/') { name.to_owned() } else { format!("library/{name}") },
        tags: tags.to_vec(),
        named: platform.manifest,
        manifests: Vec::new(),
        blobs: platform.blobs,
    }
}

fn index(name: &str, tags: &[&'static str], platforms: Vec<(&str, Platform)>) -> Image {
    let (mut entries, mut manifests, mut blobs) = (Vec::new(), Vec::new(), Vec::new());
    for (architecture, platform) in platforms {
        let mut entry = descriptor(MANIFEST, &platform.manifest.body);
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        entries.push(entry);
        manifests.push(platform.manifest);
        blobs.extend(platform.blobs);
    }
    let body = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string().into_bytes();
    let named = Document { media_type: INDEX, body };
    Image { repository: format!("library/{name}"), tags: tags.to_vec(), named, manifests, blobs }
}
