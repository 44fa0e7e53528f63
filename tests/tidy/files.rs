//! How source files look.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the checkout");
    let mut found = Vec::new();
    for dir in ["crates", "services", "tests"] {
        walk(&root.join(dir), &mut found);
    }
    assert!(found.len() > 100, "the sources were not found");
    found
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_says_at_its_top_what_it_owns() {
    let silent: Vec<_> =
        sources().into_iter().filter(|path| !fs::read_to_string(path).expect("text").starts_with("//!")).collect();
    assert!(silent.is_empty(), "no //! at the top: {silent:#?}");
}

#[test]
fn no_file_is_longer_than_700_lines() {
    let long: Vec<_> =
        sources().into_iter().filter(|path| fs::read_to_string(path).expect("text").lines().count() > 700).collect();
    assert!(long.is_empty(), "which noun would cut them? {long:#?}");
}

#[test]
fn no_name_says_nothing() {
    let vague = ["util", "utils", "common", "helper", "helpers", "manager", "misc", "handler"];
    let found: Vec<_> = sources()
        .into_iter()
        .filter(|path| {
            path.components().any(|part| vague.contains(&part.as_os_str().to_string_lossy().trim_end_matches(".rs")))
        })
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn nothing_is_left_undone() {
    let marks = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME"), concat!("#[ig", "nore")];
    for path in sources() {
        let text = fs::read_to_string(&path).expect("text");
        for mark in marks {
            assert!(!text.contains(mark), "{mark} in {}", path.display());
        }
    }
}
