//! Archives through the whole service: what is saved is loaded as the same image, and what lies leaves
//! nothing that a project sees.

use std::io::Write as _;

use contract::image::{LOAD, PullProgress, SAVE};
use model::ProjectId;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::{image::sha256, stage::Stage};

/// A tar as files and links.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn empty() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn file(mut self, name: &str, body: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_size(body.len() as u64);
        self.0.append_data(&mut header, name, body).expect("appends");
        self
    }

    fn link(mut self, name: &str, target: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        self.0.append_link(&mut header, name, target).expect("appends");
        self
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().expect("ends")
    }
}

fn config(diff_ids: &[&[u8]]) -> Vec<u8> {
    json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids.iter().map(|layer| sha256(layer)).collect::<Vec<_>>()},
    })
    .to_string()
    .into_bytes()
}

async fn load(stage: &Stage, project: ProjectId, archive: Vec<u8>) -> Vec<PullProgress> {
    let url = format!("{}{LOAD}?project={project}", stage.base);
    let answer = stage.gateway.post(url).body(archive).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.expect("a body");
    text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
}

fn error(lines: &[PullProgress]) -> String {
    lines.last().and_then(|line| line.error.clone()).unwrap_or_default()
}

async fn save(stage: &Stage, project: ProjectId, names: &[&str]) -> (u16, Vec<u8>) {
    let request = json!({"project": project, "names": names});
    let answer = stage.gateway.post(format!("{}{SAVE}", stage.base)).json(&request).send().await.expect("an answer");
    (answer.status().as_u16(), answer.bytes().await.expect("a body").to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_archives_with_linked_layers_are_loaded_and_saved_for_another_project() {
    let stage = Stage::set(&[], "").await;
    let (one, other) = (stage.project("one").await, stage.project("other").await);
    let (base, top) = (vec![7; 4096], vec![9; 1024]);
    let config = config(&[&base, &top, &base]);
    let manifest = json!([{
        "Config": "c.json", "RepoTags": ["old/app:1", "old/app:2"],
        "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"],
    }]);
    let archive = Archive::empty()
        .file("a/VERSION", b"1.0")
        .file("a/layer.tar", &base)
        .file("b/layer.tar", &top)
        .link("c/layer.tar", "../a/layer.tar")
        .file("c.json", &config)
        .file("manifest.json", manifest.to_string().as_bytes());
    let lines = load(&stage, one, archive.done()).await;
    let said: Vec<&str> = lines.iter().filter_map(|line| line.stream.as_deref()).collect();
    assert_eq!(said, ["Loaded image: old/app:1\n", "Loaded image: old/app:2\n"], "{lines:?}");
    assert!(lines.iter().any(|line| line.status.as_deref() == Some("Loading layer")));
    let foreign = save(&stage, other, &["old/app:1"]).await;
    assert_eq!(foreign.0, 404);

    let (status, saved) = save(&stage, one, &["old/app"]).await;
    assert_eq!((status, save(&stage, one, &["old/app"]).await.1 == saved), (200, true), "the same bytes each time");
    let moved = load(&stage, other, saved).await;
    assert_eq!(error(&moved), "");
    let ids: Vec<(String,)> =
        sqlx::query_as("SELECT DISTINCT id FROM images").fetch_all(&stage.owner).await.expect("rows");
    assert_eq!(ids, [(sha256(&config),)], "one image in both projects");
    let links: (i64,) =
        sqlx::query_as("SELECT count(*) FROM image_layers").fetch_one(&stage.owner).await.expect("a count");
    assert_eq!(links.0, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_lies_leaves_no_image() {
    let stage = Stage::set(&[], "").await;
    let project = stage.project("a").await;
    let before = stage.rows().await;
    let layer = vec![1; 2048];
    let with = |config: &[u8], layers: Value| {
        let manifest = json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": layers}]).to_string();
        Archive::empty().file("l.tar", &layer).file("c.json", config).file("manifest.json", manifest.as_bytes())
    };
    let honest = config(&[&layer]);
    let privileged = String::from_utf8(honest.clone())
        .expect("text")
        .replace("\"Cmd\":[\"sh\"]", "\"WorkingDir\":\"/proc/self/fd/8\"");
    for (archive, why) in [
        (with(&config(&[b"another"]), json!(["l.tar"])), "invalid diffID for layer 0"),
        (with(&honest, json!(["l.tar", "l.tar"])), "1 diff_ids for 2 layers"),
        (with(&honest, json!(["../../etc/shadow"])), "leads out"),
        (with(privileged.as_bytes(), json!(["l.tar"])), "leads out of the container"),
        (with(b"no config", json!(["l.tar"])), "invalid image config"),
        (Archive::empty().link("manifest.json", "/etc/passwd"), "leads out"),
        (Archive::empty().file("x", b"y"), "does not contain a manifest.json"),
    ] {
        let lines = load(&stage, project, archive.done()).await;
        assert!(error(&lines).contains(why), "{why}: {lines:?}");
    }
    let whole = with(&honest, json!(["l.tar"])).done();
    for cut in [0, 100, 1000, 3000] {
        assert_ne!(error(&load(&stage, project, whole[..cut].to_vec()).await), "", "cut at {cut}");
    }
    let seen = |rows: &[(&'static str, i64)]| {
        rows.iter().filter(|row| row.0 != "blobs" && row.0 != "blob_origins").copied().collect::<Vec<_>>()
    };
    assert_eq!(seen(&stage.rows().await), seen(&before), "a project sees nothing of it");
    let staged = std::fs::read_dir(stage.data_dir.join("staging")).expect("a directory").count();
    assert_eq!(staged, 0, "nothing is left beside the store");
    assert_eq!(error(&load(&stage, project, whole).await), "");
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).expect("options");
    out.write_all(bytes).expect("packs");
    out.finish().expect("packs")
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    out.write_all(bytes).expect("packs");
    out.finish().expect("packs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_packed_as_a_whole_is_loaded_and_one_that_was_tampered_with_is_not() {
    let stage = Stage::set(&[], "").await;
    let layer: Vec<u8> = (0..8_192_u32).map(|n| ((n * n) >> 7) as u8).collect();
    let config = config(&[&layer]);
    let manifest = json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l.tar"]}]).to_string();
    let archive =
        Archive::empty().file("l.tar", &layer).file("c.json", &config).file("manifest.json", manifest.as_bytes());
    let archive = archive.done();
    for (name, packed) in [("xz", xz(&archive)), ("bzip2", bzip2(&archive))] {
        let project = stage.project(name).await;
        for cut in [10, packed.len() / 2] {
            assert_ne!(error(&load(&stage, project, packed[..cut].to_vec()).await), "", "{name} cut at {cut}");
        }
        let mut changed = packed.clone();
        changed[packed.len() / 2] ^= 1;
        assert_ne!(error(&load(&stage, project, changed).await), "", "{name}");
        let lines = load(&stage, project, packed).await;
        assert_eq!(lines.last().and_then(|line| line.stream.as_deref()), Some("Loaded image: x:1\n"), "{lines:?}");
    }
}
