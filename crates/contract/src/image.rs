//! image-svc's internal API. The gateway asks for pulls and for images of layers it passes on; hosts fetch the layers of images in their
//! own plan, and nothing else.

use std::collections::BTreeMap;

use model::{Digest, LayerDescriptor, ProjectId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST` [`PullRequest`]; answer: NDJSON stream of [`PullProgress`], at once. A failure before the
/// first line is a real status with a [`model::Error`]; after it, a line with `error`.
pub const PULL: &str = "/internal/v1/pulls";
/// `GET {LAYERS}/{digest}`, host certificate: the blob, with `Content-Length`; `Range` honoured.
pub const LAYERS: &str = "/hosts/v1/layers";

/// `POST` [`PushRequest`]; answered as [`PULL`] is.
pub const PUSH: &str = "/internal/v1/pushes";

/// Take an image of a project to a registry.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PushRequest {
    /// The project.
    pub project: ProjectId,
    /// Its name here, which says where to.
    pub reference: String,
    /// Every tag of that name, and not the reference's alone.
    #[serde(default)]
    pub all_tags: bool,
    /// `os/arch[/variant]` that the image must be of.
    #[serde(default)]
    pub platform: Option<String>,
    /// Credentials of a registry that is not the hosted one, used for this push only, never stored or logged.
    #[serde(default)]
    pub auth: Option<RegistryAuth>,
}

/// Bring an image into a project.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PullRequest {
    /// The project.
    pub project: ProjectId,
    /// Reference as the user wrote it, tag or digest included.
    pub reference: String,
    /// `os/arch[/variant]`; the fleet's own when absent.
    #[serde(default)]
    pub platform: Option<String>,
    /// Every tag of the repository instead; the reference has none then.
    #[serde(default)]
    pub all_tags: bool,
    /// Credentials for the upstream, used for this pull only, never stored or logged.
    #[serde(default)]
    pub auth: Option<RegistryAuth>,
}

/// `POST` [`RegistryAuth`], answered with [`LoginReply`]: does that registry take them? They are used
/// for this and never stored or logged.
pub const LOGINS: &str = "/internal/v1/logins";

/// What a registry says to credentials.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LoginReply {
    /// Why it does not take them; it does if absent.
    #[serde(default)]
    pub refused: Option<String>,
}

/// Credentials of a registry (`X-Registry-Auth`).
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password or access token.
    pub password: String,
    /// OAuth2 refresh token, instead of a password.
    #[serde(rename = "identitytoken")]
    pub identity_token: String,
    /// Bearer token to use as it is.
    #[serde(rename = "registrytoken")]
    pub registry_token: String,
    /// The registry they are for.
    #[serde(rename = "serveraddress")]
    pub server_address: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}

/// One line of a pull's progress: Docker's `jsonmessage`, which the gateway passes on as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PullProgress {
    /// Text for people, as it is: `Loaded image: busybox:latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// `Pulling fs layer`, `Downloading`, `Pull complete`, `Digest: …`, `Status: …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Layer's short id, or the tag on the first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Bytes so far and in all.
    #[serde(default, rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// The pull failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The same, structured.
    #[serde(default, rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<BTreeMap<String, String>>,
    /// What came of a push, for programs: tag, digest, size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub aux: Option<serde_json::Value>,
}

/// See [`PullProgress::progress_detail`].
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ProgressDetail {
    /// Bytes so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// Bytes in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// `POST` [`DistributionRequest`], answered with [`DistributionReply`]: what a registry has under a name.
pub const DISTRIBUTION: &str = "/internal/v1/distributions";
/// `POST` [`SearchRequest`], answered with a list of [`SearchHit`].
pub const SEARCH: &str = "/internal/v1/searches";

/// Ask a registry about an image.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DistributionRequest {
    /// The project.
    pub project: ProjectId,
    /// Reference as the user wrote it.
    pub reference: String,
    /// Credentials for the registry, used for this only, never stored or logged.
    #[serde(default)]
    pub auth: Option<RegistryAuth>,
}

/// What it says.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DistributionReply {
    /// Of the index or manifest that the name means.
    pub descriptor: OciDescriptor,
    /// Those it is for.
    pub platforms: Vec<OciPlatform>,
}

/// OCI image spec, "Content Descriptors".
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OciDescriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// OCI image spec, "Image Index", platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OciPlatform {
    /// `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v8`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Find images by a part of their names.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SearchRequest {
    /// Who asks.
    pub project: ProjectId,
    /// The part, maybe behind the name of a registry.
    pub term: String,
    /// Answers at most.
    pub limit: u16,
}

/// An image that is found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SearchHit {
    /// What it is pulled by.
    pub name: String,
    /// It is one of Docker's official library.
    pub is_official: bool,
}

/// `POST` [`SaveRequest`]; answer: a tar that is an OCI layout and a `docker save` archive at once.
pub const SAVE: &str = "/internal/v1/archives/saved";
/// `POST {LOAD}?…` [`LoadQuery`] with an archive in the body; answered as [`PULL`] is, while it is read.
pub const LOAD: &str = "/internal/v1/archives";

/// Pack images of a project.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SaveRequest {
    /// The project.
    pub project: ProjectId,
    /// Names, ids or prefixes of ids; a name without tag means all of its tags.
    pub names: Vec<String>,
    /// Platforms that every image must be of, `os/arch[/variant]`.
    #[serde(default)]
    pub platforms: Vec<String>,
}

/// How an archive is taken.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LoadQuery {
    /// The project.
    pub project: ProjectId,
    /// No lines about layers.
    #[serde(default)]
    pub quiet: bool,
    /// Which platform of an index, `os/arch[/variant]`; the fleet's own when absent.
    #[serde(default)]
    pub platform: Option<String>,
}

/// Path of a layer.
#[must_use]
pub fn layer_path(digest: &Digest) -> String {
    format!("{LAYERS}/{digest}")
}

/// `POST {UPLOADS}?project=…` with a tar in the body (plain, gzip or zstd): stores it as a layer and
/// answers its [`model::LayerDescriptor`]. No image has it yet.
pub const UPLOADS: &str = "/internal/v1/layers";
/// `POST` [`NewImage`], answered with [`NewImageReply`]: makes an image of layers that are stored.
pub const IMAGES: &str = "/internal/v1/images";

/// Whose layer it is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UploadQuery {
    /// The project.
    pub project: ProjectId,
}

/// An image to be made: a commit, an import.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewImage {
    /// The project.
    pub project: ProjectId,
    /// The image it is made from, whose layers and history it goes on with.
    #[serde(default)]
    pub parent: Option<Digest>,
    /// The layer on top. One without entries becomes a step of the history alone.
    pub layer: LayerDescriptor,
    /// `config` of the OCI image config: how its containers run.
    #[schema(value_type = Object)]
    pub config: serde_json::Value,
    /// Who made it.
    #[serde(default)]
    pub author: String,
    /// Why.
    #[serde(default)]
    pub comment: String,
    /// The command that made the layer, for the history.
    #[serde(default)]
    pub created_by: String,
    /// Its name, tag included; none leaves it dangling.
    #[serde(default)]
    pub reference: Option<String>,
    /// `os/arch[/variant]` of one without a parent; the fleet's own when absent.
    #[serde(default)]
    pub platform: Option<String>,
}

/// See [`IMAGES`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewImageReply {
    /// Its id.
    pub id: Digest,
}
