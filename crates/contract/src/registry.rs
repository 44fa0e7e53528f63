//! The hosted registry (OCI distribution spec 1.1) between gateway and image-svc. The gateway knows who
//! asks and what they may; image-svc knows what is there. Answers are final: the gateway passes status,
//! headers and body on as they come.

use model::{Digest, ProjectId, RepositoryId, UploadId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// `GET`, `HEAD`, `DELETE {BLOBS}/{digest}`.
pub const BLOBS: &str = "/internal/v1/registry/blobs";
/// `POST`: begin an upload, or the whole of one. `GET`, `PATCH`, `PUT`, `DELETE {UPLOADS}/{id}`.
pub const UPLOADS: &str = "/internal/v1/registry/uploads";
/// `GET`, `HEAD`, `PUT`, `DELETE {MANIFESTS}/{reference}`.
pub const MANIFESTS: &str = "/internal/v1/registry/manifests";
/// `GET`: tags of a repository.
pub const TAGS: &str = "/internal/v1/registry/tags";
/// `GET {REFERRERS}/{digest}`.
pub const REFERRERS: &str = "/internal/v1/registry/referrers";
/// `GET`: repositories of a project.
pub const CATALOG: &str = "/internal/v1/registry/catalog";

/// Largest manifest (the distribution spec's own advice).
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Which repository a call is about, as the gateway has authorized it, and what its caller wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct RegistryQuery {
    /// The project the repository belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// The repository; absent if nothing was pushed there yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryId>,
    /// Its whole name, for locations: `tenant/project/path`; of a catalog `tenant/project`.
    pub name: String,
    /// Its name in its project.
    pub path: String,
    /// Digest that an upload shall have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Digest of a blob to mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// Project of the repository to mount from, which the caller may read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_project: Option<ProjectId>,
    /// The repository to mount from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_repository: Option<RepositoryId>,
    /// No source was named: any repository of the project will do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub from_anywhere: bool,
    /// Entries of a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// Where a list goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// Referrers of this kind only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// Path of a blob.
#[must_use]
pub fn blob_path(digest: &Digest) -> String {
    format!("{BLOBS}/{digest}")
}

/// Where a blob's file is below image-svc's directory: `blobs/sha256/ab/<hex>`. Sharded by the first byte, so
/// that no directory grows without bound. Such a file is whole, and never changes; it may be gone any time.
#[must_use]
pub fn blob_file(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("blobs/{}/{}/{hex}", digest.algorithm().as_str(), &hex[..2])
}

/// Path of an upload.
#[must_use]
pub fn upload_path(id: UploadId) -> String {
    format!("{UPLOADS}/{id}")
}

/// An error code of the distribution spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the spec's own words")]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    RangeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    Unavailable,
    Unknown,
}

impl Code {
    /// As it stands in an error body.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The status that goes with it.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestBlobUnknown
            | Self::ManifestInvalid
            | Self::NameInvalid => 400,
            Self::Unauthorized => 401,
            Self::Denied => 403,
            Self::BlobUnknown | Self::BlobUploadUnknown | Self::ManifestUnknown | Self::NameUnknown => 404,
            Self::Unsupported => 405,
            Self::SizeInvalid => 413,
            Self::RangeInvalid => 416,
            Self::TooManyRequests => 429,
            Self::Unknown => 500,
            Self::Unavailable => 503,
        }
    }
}

/// A registry's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for programs.
    pub code: Code,
    /// Why, for people.
    pub message: String,
}

impl Refusal {
    /// A no.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// There is no such repository, or not for this caller: one text for both.
    #[must_use]
    pub fn name_unknown() -> Self {
        Self::new(Code::NameUnknown, "repository name not known to registry")
    }

    /// The repository does not link such a blob, whoever else does.
    #[must_use]
    pub fn blob_unknown() -> Self {
        Self::new(Code::BlobUnknown, "blob unknown to registry")
    }

    /// The repository has no such manifest.
    #[must_use]
    pub fn manifest_unknown() -> Self {
        Self::new(Code::ManifestUnknown, "manifest unknown to registry")
    }

    /// The error body.
    #[must_use]
    pub fn body(&self) -> String {
        let entry = serde_json::json!({ "code": self.code.as_str(), "message": self.message });
        format!("{}\n", serde_json::json!({ "errors": [entry] }))
    }
}

impl From<&model::Error> for Refusal {
    fn from(error: &model::Error) -> Self {
        use model::Error as E;
        let code = match error {
            E::NotFound(_) => Code::NameUnknown,
            E::InvalidArgument(_) | E::NotModified => Code::Unsupported,
            E::Conflict(_) => Code::Denied,
            E::Unauthenticated(_) => Code::Unauthorized,
            E::Forbidden(_) => Code::Denied,
            E::LimitExceeded(_) => Code::TooManyRequests,
            E::NoCapacity(_) | E::Unavailable(_) => Code::Unavailable,
            E::NotImplemented(_) => Code::Unsupported,
            E::Failed(_) | E::Internal(_) => Code::Unknown,
        };
        Self::new(code, error.public_message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_body_is_a_list_of_codes_and_messages() {
        let refusal = Refusal::new(Code::DigestInvalid, "no \"digest\"");
        assert_eq!(refusal.body(), "{\"errors\":[{\"code\":\"DIGEST_INVALID\",\"message\":\"no \\\"digest\\\"\"}]}\n");
    }
}
