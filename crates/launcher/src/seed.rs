//! Fills the upstream registry with small real images, built from Debian packages' files on this
//! machine. The same files give the same bytes: seeding again changes nothing and is quick.

mod layer;
mod push;
mod recipe;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};

use push::Registry;
use recipe::Image;

/// Goes up when a recipe changes, so that a registry seeded by an older one is seeded again.
const RECIPES: u32 = 2;
const BUSYBOX: &str = "/bin/busybox";
const REGISTRY_WITHIN: Duration = Duration::from_secs(10);

/// Seeds the registry at `host:port`. `work_dir` keeps a mark of what was seeded.
pub(crate) async fn seed_upstream(registry: &str, work_dir: &Path) -> Result<()> {
    let registry = Registry::connect(registry, REGISTRY_WITHIN).await?;
    let busybox = std::fs::read(BUSYBOX).with_context(|| format!("{BUSYBOX}: install busybox-static"))?;
    if !busybox.starts_with(b"\x7fELF") {
        bail!("{BUSYBOX} is not a program");
    }
    let mark = format!("{RECIPES} {}\n", layer::sha256(&busybox));
    let mark_file = work_dir.join("seeded");
    if std::fs::read_to_string(&mark_file).is_ok_and(|found| found == mark) && all_there(&registry).await? {
        return Ok(());
    }
    let applets = applets()?;
    for image in recipe::all(&busybox, &applets)? {
        publish(&registry, &image).await.with_context(|| format!("{}:{}", image.repository, image.tags.join(",")))?;
    }
    std::fs::create_dir_all(work_dir)?;
    std::fs::write(mark_file, mark)?;
    Ok(())
}

async fn all_there(registry: &Registry) -> Result<bool> {
    for (repository, tag) in recipe::NAMES {
        if !registry.has_manifest(repository, tag).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Blobs first, then the manifests that name them, then the index that names those.
async fn publish(registry: &Registry, image: &Image) -> Result<()> {
    for blob in &image.blobs {
        registry.put_blob(&image.repository, blob).await?;
    }
    for manifest in &image.manifests {
        registry.put_manifest(&image.repository, &layer::sha256(&manifest.body), manifest).await?;
    }
    for tag in &image.tags {
        registry.put_manifest(&image.repository, tag, &image.named).await?;
    }
    Ok(())
}

fn applets() -> Result<Vec<String>> {
    let listed = std::process::Command::new(BUSYBOX).arg("--list").output().context("busybox --list")?;
    let text = String::from_utf8(listed.stdout).context("busybox --list")?;
    let names: Vec<String> =
        text.lines().filter(|name| *name != "busybox" && !name.contains('/')).map(Into::into).collect();
    if !names.iter().any(|name| name == "sh") {
        bail!("this busybox has no shell: install busybox-static");
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
