//! The registry's operations in the OpenAPI document. Its paths hold names with slashes, which no
//! router of ours matches, so they are described here by hand; a test walks them.

use utoipa::openapi::{
    HttpMethod, OpenApi,
    path::{OperationBuilder, ParameterBuilder, ParameterIn, PathItem},
    response::ResponseBuilder,
    security::SecurityRequirement,
};

use crate::openapi;

/// Method, path, operation id, summary, status of success, what it answers.
type Operation = (HttpMethod, &'static str, &'static str, &'static str, &'static str, &'static str);

const OPERATIONS: &[Operation] = &[
    (HttpMethod::Get, "/v2/", "RegistryBase", "Whether the registry lets the caller in", "200", "It does"),
    (
        HttpMethod::Get,
        "/v2/_catalog",
        "RegistryCatalog",
        "List the repositories of the caller's project",
        "200",
        "Whole names in order; `n`, `last`, `Link`",
    ),
    (
        HttpMethod::Get,
        "/v2/{name}/tags/list",
        "RegistryTags",
        "List a repository's tags",
        "200",
        "Tags in order; `n`, `last`, `Link`",
    ),
    (
        HttpMethod::Get,
        "/v2/{name}/referrers/{digest}",
        "RegistryReferrers",
        "List what is about a manifest",
        "200",
        "An index, maybe empty; `artifactType`",
    ),
    (
        HttpMethod::Get,
        "/v2/{name}/manifests/{reference}",
        "RegistryManifestGet",
        "Read a manifest or index",
        "200",
        "As it was pushed",
    ),
    (
        HttpMethod::Head,
        "/v2/{name}/manifests/{reference}",
        "RegistryManifestHead",
        "Whether there is a manifest",
        "200",
        "Its type, length and digest",
    ),
    (
        HttpMethod::Put,
        "/v2/{name}/manifests/{reference}",
        "RegistryManifestPut",
        "Push a manifest or index",
        "201",
        "Kept; `OCI-Subject` if it is about another",
    ),
    (
        HttpMethod::Delete,
        "/v2/{name}/manifests/{reference}",
        "RegistryManifestDelete",
        "Delete a manifest with its tags, or a tag",
        "202",
        "Deleted",
    ),
    (
        HttpMethod::Get,
        "/v2/{name}/blobs/{digest}",
        "RegistryBlobGet",
        "Read a blob or a range of it",
        "200",
        "The blob",
    ),
    (HttpMethod::Head, "/v2/{name}/blobs/{digest}", "RegistryBlobHead", "Whether there is a blob", "200", "Its length"),
    (
        HttpMethod::Delete,
        "/v2/{name}/blobs/{digest}",
        "RegistryBlobDelete",
        "Delete a blob that no manifest needs",
        "202",
        "Deleted",
    ),
    (
        HttpMethod::Post,
        "/v2/{name}/blobs/uploads/",
        "RegistryUpload",
        "Begin an upload, upload at once (`digest`), or mount (`mount`, `from`)",
        "202",
        "Begun; 201 when there is nothing left to do",
    ),
    (
        HttpMethod::Get,
        "/v2/{name}/blobs/uploads/{id}",
        "RegistryUploadStatus",
        "Where an upload stands",
        "204",
        "`Range` says how much there is",
    ),
    (
        HttpMethod::Patch,
        "/v2/{name}/blobs/uploads/{id}",
        "RegistryUploadAppend",
        "Append to an upload",
        "202",
        "Appended",
    ),
    (
        HttpMethod::Put,
        "/v2/{name}/blobs/uploads/{id}",
        "RegistryUploadFinish",
        "Append what is left and finish",
        "201",
        "The blob is there",
    ),
    (
        HttpMethod::Delete,
        "/v2/{name}/blobs/uploads/{id}",
        "RegistryUploadCancel",
        "Cancel an upload",
        "204",
        "Cancelled",
    ),
    (
        HttpMethod::Get,
        "/v2/token",
        "RegistryToken",
        "A registry token for a token of Wharfage (Basic), or for nothing: public repositories",
        "200",
        "The token; `scope`, `service`",
    ),
    (HttpMethod::Post, "/v2/token", "RegistryTokenForm", "The same, as an OAuth2 form", "200", "The token"),
];

/// Adds them to a document.
pub(crate) fn documented(document: &mut OpenApi) {
    for (method, path, id, summary, status, answer) in OPERATIONS {
        let mut operation = OperationBuilder::new()
            .operation_id(Some(*id))
            .tag("Registry")
            .summary(Some(*summary))
            .response(*status, ResponseBuilder::new().description(*answer).build())
            .response("4XX", ResponseBuilder::new().description("An error of the distribution spec").build());
        if *path == "/v2/token" {
            operation = operation.securities(Some([SecurityRequirement::default()]));
        }
        for name in openapi::path_parameters(path) {
            let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
            operation = operation.parameter(parameter.schema(Some(openapi::text())).build());
        }
        let item = PathItem::new(method.clone(), operation);
        match document.paths.paths.get_mut(*path) {
            Some(existing) => existing.merge_operations(item),
            None => {
                document.paths.paths.insert((*path).to_owned(), item);
            }
        }
    }
}
