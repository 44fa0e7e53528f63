//! The image of the cold start: three gzip layers of this machine's own files, the same in every run on
//! it, packed once. Each image made of them begins each layer with a file of its own in a gzip member of
//! its own, so that no layer of it was ever anywhere.

use std::{
    fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;

const ROOTS: [&str; 2] = ["/usr/lib", "/usr/share"];
const FILES: usize = 4_230;
const LAYERS: usize = 3;
/// Most bytes of an image are in few files: those of at least `LARGE_BYTES` are taken up to this many bytes,
/// the rest of the files from among the smaller ones.
const BYTES_IN_LARGE: u64 = 268 << 20;
const LARGE_BYTES: u64 = 256 << 10;
const LARGEST_BYTES: u64 = 8 << 20;

/// What all images of a run share.
pub(crate) struct Content {
    layers: Vec<Packed>,
    files: usize,
    bytes: u64,
}

struct Packed {
    tar: Vec<u8>,
    gzip: Vec<u8>,
}

impl Content {
    pub(crate) fn of_this_machine() -> Self {
        let mut candidates = Vec::new();
        ROOTS.iter().for_each(|root| collect(Path::new(root), &mut candidates));
        // From everywhere, and the same ones in every run.
        candidates.sort_by_cached_key(|(path, _)| sha256(&[path.as_os_str().as_encoded_bytes()]));
        let (large, small): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|(_, size)| *size >= LARGE_BYTES);
        let mut in_large = 0;
        let large = large.into_iter().take_while(|(_, size)| {
            in_large += size;
            in_large <= BYTES_IN_LARGE
        });
        let mut files: Vec<(PathBuf, u64)> = large.chain(small).take(FILES).collect();
        files.sort();
        let bytes = files.iter().map(|(_, size)| size).sum();
        let files: Vec<PathBuf> = files.into_iter().map(|(path, _)| path).collect();
        let parts = files.chunks(files.len().div_ceil(LAYERS)).enumerate();
        let layers = parts.map(|(n, part)| pack(part, n == 0).expect("this machine's files are readable")).collect();
        Self { layers, files: files.len(), bytes }
    }

    /// An image as an OCI layout.
    pub(crate) fn write_image(&self, tag: &str, dir: &Path) -> io::Result<()> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let put = |parts: &[&[u8]]| -> io::Result<(String, usize)> {
            let name = sha256(parts);
            let mut file = fs::File::create(blobs.join(&name))?;
            parts.iter().try_for_each(|part| file.write_all(part))?;
            Ok((format!("sha256:{name}"), parts.iter().map(|part| part.len()).sum()))
        };
        let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
        for (n, layer) in self.layers.iter().enumerate() {
            let mark = mark(&format!("{tag}-{n}"))?;
            let (digest, size) = put(&[&gzip(&mark)?, &layer.gzip])?;
            diff_ids.push(format!("sha256:{}", sha256(&[&mark, &layer.tar])));
            descriptors.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size,
            }));
        }
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let (digest, size) = put(&[config.to_string().as_bytes()])?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size},
            "layers": descriptors,
        });
        let (digest, size) = put(&[manifest.to_string().as_bytes()])?;
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
        }]});
        fs::write(dir.join("index.json"), index.to_string())?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packed: usize = self.layers.iter().map(|layer| layer.gzip.len()).sum();
        let layers = self.layers.len();
        write!(f, "{} MiB in {} files, {layers} gzip layers of {} MiB", self.bytes >> 20, self.files, packed >> 20)
    }
}

fn collect(dir: &Path, into: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            collect(&entry.path(), into);
        } else if meta.is_file() && (1..=LARGEST_BYTES).contains(&meta.len()) {
            into.push((entry.path(), meta.len()));
        }
    }
}

fn pack(files: &[PathBuf], with_busybox: bool) -> io::Result<Packed> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.mode(tar::HeaderMode::Deterministic);
    if with_busybox {
        tar.append_path_with_name("/bin/busybox", "bin/busybox")?;
        for name in ["true", "sh"] {
            let mut link = tar::Header::new_gnu();
            link.set_entry_type(tar::EntryType::Symlink);
            link.set_size(0);
            link.set_mode(0o777);
            tar.append_link(&mut link, format!("bin/{name}"), "busybox")?;
        }
    }
    let mut made: Vec<PathBuf> = Vec::new();
    for file in files {
        let name = file.strip_prefix("/").map_err(io::Error::other)?;
        let above: Vec<&Path> = name.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).collect();
        for dir in above.into_iter().rev() {
            if made.iter().rev().all(|known| known != dir) {
                tar.append_dir(dir, Path::new("/").join(dir))?;
                made.push(dir.to_owned());
            }
        }
        tar.append_path_with_name(file, name)?;
    }
    let tar = tar.into_inner()?;
    Ok(Packed { gzip: gzip(&tar)?, tar })
}

/// A file of its own, without the archive's end.
fn mark(text: &str) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_path(format!("mark/{text}"))?;
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut tar = [header.as_bytes().as_slice(), text.as_bytes()].concat();
    tar.resize(tar.len().next_multiple_of(512), 0);
    Ok(tar)
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bytes)?;
    packed.finish()
}

fn sha256(parts: &[&[u8]]) -> String {
    let mut sum = ring::digest::Context::new(&ring::digest::SHA256);
    parts.iter().for_each(|part| sum.update(part));
    sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
