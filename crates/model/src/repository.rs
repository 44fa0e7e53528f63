//! Names of the hosted registry (OCI distribution spec): `tenant/project/path…`, and what a manifest
//! is asked for by.

use std::{fmt, str::FromStr};

use crate::{
    Digest, Error, Slug,
    reference::{is_path_component, is_tag},
};

/// A repository of the hosted registry: whose it is, and its name in that project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName {
    /// The tenant, by name.
    pub tenant: Slug,
    /// Its project, by name.
    pub project: Slug,
    /// What follows: one or more components.
    pub path: String,
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.project, self.path)
    }
}

impl FromStr for RepositoryName {
    type Err = Error;

    /// `InvalidArgument` for what no repository can be called, `NotFound` for a name that cannot be one here.
    fn from_str(written: &str) -> Result<Self, Error> {
        if written.len() > 255 || !written.split('/').all(is_path_component) {
            return Err(Error::InvalidArgument("invalid repository name".into()));
        }
        let unknown = || Error::NotFound("repository name not known to registry".into());
        let mut parts = written.splitn(3, '/');
        let (Some(tenant), Some(project), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(unknown());
        };
        let slug = |text: &str| text.parse::<Slug>().map_err(|_| unknown());
        Ok(Self { tenant: slug(tenant)?, project: slug(project)?, path: path.to_owned() })
    }
}

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ManifestReference {
    /// A tag.
    Tag(String),
    /// A digest.
    Digest(Digest),
}

impl ManifestReference {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag,
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

impl FromStr for ManifestReference {
    type Err = Error;
    fn from_str(written: &str) -> Result<Self, Error> {
        if written.contains(':') {
            return written.parse().map(Self::Digest);
        }
        if is_tag(written) {
            Ok(Self::Tag(written.to_owned()))
        } else {
            Err(Error::invalid("reference", "is neither a tag nor a digest"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_by_tenant_project_and_path() {
        let name: RepositoryName = "acme/web/team/app".parse().expect("a name");
        assert_eq!((name.tenant.as_str(), name.project.as_str(), name.path.as_str()), ("acme", "web", "team/app"));
        assert_eq!(name.to_string(), "acme/web/team/app");
        for invalid in ["", "A/b/c", "a//c", "a/b/", "/a/b/c", "a/b/c_", "a/b/..", "a/b/c d", &"a/".repeat(200)] {
            assert!(matches!(invalid.parse::<RepositoryName>(), Err(Error::InvalidArgument(_))), "{invalid}");
        }
        for unknown in ["a", "a/b", "a.b/c/d", "a_b/c/d"] {
            assert!(matches!(unknown.parse::<RepositoryName>(), Err(Error::NotFound(_))), "{unknown}");
        }
    }

    #[test]
    fn a_manifest_is_asked_for_by_tag_or_digest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert!(matches!(digest.parse(), Ok(ManifestReference::Digest(_))));
        assert!(matches!("v1.0_x-y".parse(), Ok(ManifestReference::Tag(_))));
        for bad in ["", ".x", "-x", "a b", "sha256:12", &"a".repeat(129)] {
            assert!(bad.parse::<ManifestReference>().is_err(), "{bad}");
        }
    }
}
