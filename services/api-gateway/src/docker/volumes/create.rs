//! `POST /volumes/create`, and the volumes a container brings along. Creating what is there already
//! is fine, as with dockerd, unless it asks for something else than what is there.

use std::collections::BTreeMap;

use axum::{extract::State, http::StatusCode};
use contract::wake::Topic;
use model::{Error, Result, VolumeBacking, VolumeId, VolumeName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{NewVolume, ProjectTx};
use utoipa::ToSchema;

use super::{backing, find, record, shown};
use crate::{
    Gateway,
    auth::Project,
    docker::{
        body::{DockerResponse, JsonBody, json as reply},
        containers::typed,
        error::ErrorResponse,
    },
};

/// Marks a volume nobody named; dockerd's.
const ANONYMOUS: &str = "com.docker.volume.anonymous";
/// Bytes of all labels and options of one volume.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Labels of this prefix are ours.
const RESERVED_LABELS: &str = "io.wharfage.";
/// Attempts when somebody else creates or removes the name at the same moment.
const TRIES: u32 = 8;

/// What create takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
#[schema(as = VolumeCreateRequest)]
pub(crate) struct VolumeCreateBody {
    name: String,
    driver: String,
    driver_opts: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    #[schema(value_type = Option<Object>)]
    cluster_volume_spec: Option<Value>,
}

/// A volume that shall be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WantedVolume {
    /// `None`: a new one that nobody names.
    pub(crate) name: Option<VolumeName>,
    /// As given.
    pub(crate) labels: BTreeMap<String, String>,
    /// Driver options, as given.
    pub(crate) options: BTreeMap<String, String>,
    /// What they mean.
    pub(crate) backing: VolumeBacking,
}

/// A volume that is there now.
#[derive(Clone, Debug)]
pub(crate) struct FoundVolume {
    pub(crate) id: VolumeId,
    pub(crate) name: VolumeName,
    pub(crate) backing: VolumeBacking,
    /// It was not there before.
    pub(crate) is_new: bool,
}

impl WantedVolume {
    /// Checks what was given.
    pub(crate) fn new(name: &str, labels: BTreeMap<String, String>, options: BTreeMap<String, String>) -> Result<Self> {
        let name = if name.is_empty() { None } else { Some(name.parse()?) };
        if let Some(key) = labels.keys().find(|key| key.starts_with(RESERVED_LABELS)) {
            let text = format!("label {key:?}: labels that begin with {RESERVED_LABELS} are the platform's");
            return Err(Error::Forbidden(text));
        }
        let texts = labels.iter().chain(&options).flat_map(|(key, value)| [key, value]);
        if texts.clone().any(|text| text.contains('\0')) {
            return Err(Error::InvalidArgument("text contains a NUL character".into()));
        }
        if texts.map(String::len).sum::<usize>() > TEXT_BYTES_MAX {
            return Err(Error::InvalidArgument("labels and options of a volume are larger than 64 KiB".into()));
        }
        let backing = backing(&options)?;
        Ok(Self { name, labels, options, backing })
    }
}

/// dockerd's text for a driver that is not `local`.
pub(crate) fn no_such_driver(name: &str) -> Error {
    Error::NotFound(format!("error looking up volume plugin {name}: plugin \"{name}\" not found"))
}

/// Create a volume
#[utoipa::path(post, path = "/volumes/create", operation_id = "VolumeCreate", tag = "Volume",
    request_body = VolumeCreateBody,
    responses((status = 201, description = "It is there, as Docker describes it", body = Object),
        (status = 400, description = "A name or an option is wrong", body = ErrorResponse),
        (status = 403, description = "An option reaches out to a host", body = ErrorResponse),
        (status = 404, description = "No such driver", body = ErrorResponse),
        (status = 409, description = "It is there with other options", body = ErrorResponse)))]
pub(crate) async fn create(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    JsonBody(body): JsonBody<Value>,
) -> DockerResponse {
    let body: VolumeCreateBody = typed(body.unwrap_or_else(|| json!({})))?;
    if body.cluster_volume_spec.is_some() {
        return Err(Error::Unavailable("cluster volumes need a swarm, and swarm mode is off".into()).into());
    }
    if !matches!(body.driver.as_str(), "" | "local") {
        return Err(no_such_driver(&body.driver).into());
    }
    let wanted = WantedVolume::new(&body.name, body.labels, body.driver_opts)?;
    let mut tx = gateway.store.project_tx(&scope).await?;
    let found = find_or_make(&gateway, &mut tx, &wanted).await?;
    let volume = find(&mut tx, found.name.as_str()).await?;
    if found.is_new {
        created(&gateway, &mut tx, &found.name).await?;
        tx.commit().await?;
        gateway.bus.publish(&Topic::Project(scope.project()));
    }
    reply(StatusCode::CREATED, &shown(&volume.name, volume.created_at, volume.labels.as_ref(), volume.options.as_ref()))
}

/// Tells the history of a new volume; do it last in the transaction.
pub(crate) async fn created(gateway: &Gateway, tx: &mut ProjectTx, name: &VolumeName) -> Result<()> {
    record(gateway, tx, name, "create").await
}

/// The volume of that name, or a new one.
pub(crate) async fn find_or_make(gateway: &Gateway, tx: &mut ProjectTx, wanted: &WantedVolume) -> Result<FoundVolume> {
    let id = VolumeId::from_bytes(chassis::ids::random_hex_id());
    let anonymous = wanted.name.is_none();
    let name = match &wanted.name {
        Some(name) => name.clone(),
        None => id.as_str().parse()?,
    };
    for _ in 0..TRIES {
        if let Some(there) = tx.volumes(Some(name.as_str())).await?.pop() {
            if !wanted.options.is_empty() && there.options.as_ref() != Some(&wanted.options) {
                let text = format!("a volume named {name} already exists with other options; remove it first");
                return Err(Error::Conflict(text));
            }
            return Ok(FoundVolume { id: there.id, name, backing: there.backing, is_new: false });
        }
        let mut labels = wanted.labels.clone();
        if anonymous {
            labels.insert(ANONYMOUS.to_owned(), String::new());
        }
        let new = NewVolume {
            id: &id,
            name: &name,
            labels: Some(&labels).filter(|labels| !labels.is_empty()),
            options: Some(&wanted.options).filter(|options| !options.is_empty()),
            backing: &wanted.backing,
            anonymous,
            created_at: gateway.clock.now(),
        };
        if tx.insert_volume(new).await? {
            return Ok(FoundVolume { id, name, backing: wanted.backing.clone(), is_new: true });
        }
    }
    Err(Error::Unavailable(format!("volume {name} comes and goes; try again")))
}
