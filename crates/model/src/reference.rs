//! Image references as people write them: `busybox`, `library/busybox:1.36`, `host:5000/a/b@sha256:…`
//! (distribution reference grammar), normalised as Docker normalises them.

use std::{fmt, str::FromStr};

use crate::{Digest, Error};

/// A parsed, normalised reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    /// Registry host, with port if any. `docker.io` when none was written.
    pub registry: String,
    /// Repository path in it, `library/` added for Docker's official names.
    pub repository: String,
    /// Tag; `latest` when neither tag nor digest was written.
    pub tag: Option<String>,
    /// Digest, if pinned.
    pub digest: Option<Digest>,
}

/// The registry an unqualified name means.
pub const DEFAULT_REGISTRY: &str = "docker.io";

impl ImageReference {
    /// The name Docker shows: without `docker.io/` and `library/`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.registry == DEFAULT_REGISTRY {
            self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned()
        } else {
            format!("{}/{}", self.registry, self.repository)
        }
    }

    /// `name:tag` as Docker shows it; the name alone where there is no tag.
    #[must_use]
    pub fn familiar(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.familiar_name()),
            None => self.familiar_name(),
        }
    }

    /// The key the store uses: `registry/repository`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository with another tag.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar())?;
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for ImageReference {
    type Err = Error;

    fn from_str(written: &str) -> Result<Self, Error> {
        let bad = || Error::InvalidArgument(format!("invalid reference format: {written:?}"));
        if written.is_empty() || written.len() > 4096 {
            return Err(Error::InvalidArgument("invalid reference format".into()));
        }
        let (rest, digest) = match written.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|_| bad())?)),
            None => (written, None),
        };
        let (name, tag) = split_tag(rest);
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(bad());
        }
        let (registry, path) = split_registry(name);
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if !is_registry(registry) || repository.len() > 255 || !repository.split('/').all(is_path_component) {
            if repository.bytes().any(|b| b.is_ascii_uppercase()) {
                return Err(Error::InvalidArgument(format!(
                    "invalid reference format: repository name ({path}) must be lowercase"
                )));
            }
            return Err(bad());
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// A colon after the last slash starts a tag; one before it belongs to the registry's port.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((head, tag)) if !tag.contains('/') => (head, Some(tag)),
        _ => (name, None),
    }
}

/// The first component is a registry if it looks like a host (Docker's rule: a dot, a colon, or `localhost`).
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => (host, rest),
        _ => (DEFAULT_REGISTRY, name),
    }
}

pub(crate) fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_registry(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.len() <= 255 && name.split('.').all(label) && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

/// Lower-case alphanumerics joined by `.`, `_`, `__` or dashes.
pub(crate) fn is_path_component(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends_ok = component.bytes().next().is_some_and(alnum) && component.bytes().last().is_some_and(alnum);
    ends_ok
        && component.bytes().all(|b| alnum(b) || matches!(b, b'.' | b'_' | b'-'))
        && !component.contains("..")
        && !component.contains("___")
        && !component.contains("._")
        && !component.contains("_.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(s: &str) -> (String, String, Option<String>) {
        let r: ImageReference = s.parse().expect(s);
        (r.registry, r.repository, r.tag)
    }

    #[test]
    fn a_bare_name_is_docker_hubs_library_at_latest() {
        assert_eq!(parse("busybox"), ("docker.io".into(), "library/busybox".into(), Some("latest".into())));
    }

    #[test]
    fn a_port_is_not_a_tag() {
        assert_eq!(parse("127.0.0.1:5000/a/b"), ("127.0.0.1:5000".into(), "a/b".into(), Some("latest".into())));
        assert_eq!(parse("localhost/a:1"), ("localhost".into(), "a".into(), Some("1".into())));
    }

    #[test]
    fn hostile_references_are_refused() {
        for bad in ["", "A", "a/../b", "a//b", "a:", "a:-x", "a@sha256:12", "../etc", "a b", "a:\u{0}", "x/-y"] {
            assert!(bad.parse::<ImageReference>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn familiar_names_drop_the_defaults() {
        let r: ImageReference = "docker.io/library/busybox:1".parse().expect("valid");
        assert_eq!(r.familiar(), "busybox:1");
        let r: ImageReference = "r.example/x:1".parse().expect("valid");
        assert_eq!(r.familiar(), "r.example/x:1");
    }
}
