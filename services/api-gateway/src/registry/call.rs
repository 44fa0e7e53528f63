//! The paths of the distribution spec, read from their end: a repository's name may hold any word.

use axum::http::Method;
use percent_encoding::percent_decode_str;

/// What a path is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// `/v2/`
    Root,
    /// `/v2/token`
    Token,
    /// `/v2/_catalog`
    Catalog,
    /// Something in the repository of this name, which is not checked yet.
    In(String, Target),
}

/// Something in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `tags/list`
    Tags,
    /// `referrers/<digest>`
    Referrers(String),
    /// `manifests/<reference>`
    Manifest(String),
    /// `blobs/<digest>`
    Blob(String),
    /// `blobs/uploads/`
    Uploads,
    /// `blobs/uploads/<id>`
    Upload(String),
}

/// What somebody wants to do to a repository, in the words of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Pull,
    Push,
    Delete,
}

impl Action {
    pub(super) const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

impl Target {
    /// What a method on it does; none if it knows no such method.
    pub(super) fn action(&self, method: &Method) -> Option<Action> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match self {
            Self::Tags | Self::Referrers(_) => (*method == Method::GET).then_some(Action::Pull),
            Self::Manifest(_) if *method == Method::PUT => Some(Action::Push),
            Self::Manifest(_) | Self::Blob(_) if reads => Some(Action::Pull),
            Self::Manifest(_) | Self::Blob(_) => (*method == Method::DELETE).then_some(Action::Delete),
            Self::Uploads => (*method == Method::POST).then_some(Action::Push),
            Self::Upload(_) => {
                let known = matches!(*method, Method::GET | Method::PATCH | Method::PUT | Method::DELETE);
                known.then_some(Action::Push)
            }
        }
    }
}

impl Call {
    /// Reads a canonical path below `/v2`; `None` if it is none of the spec's.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let path = percent_decode_str(path).decode_utf8().ok()?;
        let rest = path.strip_prefix("/v2")?.trim_start_matches('/');
        match rest {
            "" => return Some(Self::Root),
            "token" => return Some(Self::Token),
            "_catalog" => return Some(Self::Catalog),
            _ => {}
        }
        if let Some(name) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
            return Some(Self::In(name.to_owned(), Target::Uploads));
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Some(Self::In(name.to_owned(), Target::Tags));
        }
        let (before, last) = rest.rsplit_once('/')?;
        if last.is_empty() {
            return None;
        }
        if let Some(name) = before.strip_suffix("/blobs/uploads") {
            return Some(Self::In(name.to_owned(), Target::Upload(last.to_owned())));
        }
        let (name, kind) = before.rsplit_once('/')?;
        let target = match kind {
            "blobs" => Target::Blob(last.to_owned()),
            "manifests" => Target::Manifest(last.to_owned()),
            "referrers" => Target::Referrers(last.to_owned()),
            _ => return None,
        };
        Some(Self::In(name.to_owned(), target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_from_its_end() {
        let within = |path: &str| match Call::parse(path) {
            Some(Call::In(name, target)) => (name, target),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(within("/v2/a/b/c/tags/list"), ("a/b/c".into(), Target::Tags));
        assert_eq!(within("/v2/a/blobs/uploads/"), ("a".into(), Target::Uploads));
        assert_eq!(within("/v2/a/blobs/uploads/1"), ("a".into(), Target::Upload("1".into())));
        assert_eq!(within("/v2/a/blobs/b/blobs/sha256%3Aab"), ("a/blobs/b".into(), Target::Blob("sha256:ab".into())));
        assert_eq!(within("/v2/a/manifests/manifests/v1"), ("a/manifests".into(), Target::Manifest("v1".into())));
        assert_eq!(within("/v2/a/referrers/x"), ("a".into(), Target::Referrers("x".into())));
        assert_eq!(Call::parse("/v2"), Some(Call::Root));
        assert_eq!(Call::parse("/v2/"), Some(Call::Root));
        assert_eq!(Call::parse("/v2/_catalog"), Some(Call::Catalog));
        for none in ["/v2/a", "/v2/a/b", "/v2/a/manifests/", "/v2/a/things/x"] {
            assert_eq!(Call::parse(none), None, "{none}");
        }
    }

    #[test]
    fn a_method_means_one_right() {
        let manifest = Target::Manifest("x".into());
        assert_eq!(manifest.action(&Method::HEAD), Some(Action::Pull));
        assert_eq!(manifest.action(&Method::PUT), Some(Action::Push));
        assert_eq!(manifest.action(&Method::DELETE), Some(Action::Delete));
        assert_eq!(manifest.action(&Method::POST), None);
        assert_eq!(Target::Upload("1".into()).action(&Method::GET), Some(Action::Push));
        assert_eq!(Target::Uploads.action(&Method::GET), None);
        assert_eq!(Target::Tags.action(&Method::HEAD), None);
    }
}
