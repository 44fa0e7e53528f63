//! `POST /images/create?fromSrc=-`: an image of one tar. It passes through here to image-svc as it
//! comes; only its name and configuration are read.

use axum::body::Body;
use contract::image::{IMAGES, NewImage, NewImageReply, UPLOADS, UploadQuery};
use model::{Error, LayerDescriptor};
use serde_json::json;

use super::pull::streamed;
use crate::docker::{
    body::DockerResponse,
    call::Call,
    containers::{ContainerConfig, image_config, image_name},
    instructions,
};

/// Makes the image and tells its id as dockerd does, as one object of a stream.
pub(super) async fn import(call: &Call, body: Body) -> DockerResponse {
    let (image, query, project) = (&call.gateway.image, &call.query, call.scope.project());
    if query.text("fromSrc") != Some("-") {
        let text = "importing from an address is not supported: fetch it and pass it to `docker import -`";
        return Err(Error::NotImplemented(text.into()).into());
    }
    let name = image_name(query.get("repo").unwrap_or_default(), query.get("tag").unwrap_or_default())?;
    let mut config = ContainerConfig::default();
    instructions::apply(&mut config, query.all("changes"))?;
    let upload = UploadQuery { project };
    let layer: LayerDescriptor =
        image.upload(axum::http::Method::POST, UPLOADS, &upload, body.into_data_stream()).await?;
    let wanted = NewImage {
        project,
        parent: None,
        layer,
        config: image_config(&config),
        author: String::new(),
        comment: query.text("message").unwrap_or("Imported from -").to_owned(),
        created_by: String::new(),
        reference: name.map(|name| name.to_string()),
        platform: query.text("platform").map(str::to_owned),
    };
    let NewImageReply { id } = image.post(IMAGES, &wanted).await?;
    Ok(streamed(Body::from(format!("{}\r\n", json!({ "status": id })))))
}
