//! The one OpenAPI 3.1 document of the public face, made from the routes themselves; and the page
//! to browse it. `openapi/api-gateway.json` is its checked-in copy (`UPDATE_EXPECT=1` rewrites it).

use axum::{Router, http::header, routing::get};
use utoipa::openapi::{
    Components, InfoBuilder, LicenseBuilder, OpenApi, RefOr, Schema, Server,
    path::Operation,
    schema::{ObjectBuilder, Type},
    security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{Gateway, docker, platform, registry};

/// The document.
#[must_use]
pub fn openapi() -> OpenApi {
    let (_, mut document) =
        OpenApiRouter::<Gateway>::default().merge(docker::documented()).merge(platform::documented()).split_for_parts();
    registry::documented(&mut document);
    document.info = InfoBuilder::new()
        .title("Wharfage")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "One Docker endpoint per project, over a fleet of hosts. Docker's own paths may be \
             prefixed with `/v1.24` to `/v1.53`; the platform API is under `/api/v1`, the hosted registry \
             (OCI distribution 1.1) under `/v2/`.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    document.servers = Some(vec![Server::new("/")]);
    let components = document.components.get_or_insert_with(Components::new);
    for (name, scheme) in [("bearer", HttpAuthScheme::Bearer), ("basic", HttpAuthScheme::Basic)] {
        components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
    }
    for item in document.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.head, &mut item.patch];
        operations.into_iter().flatten().for_each(secure);
    }
    document
}

/// Every operation takes either credential, unless it says of itself that it takes none.
fn secure(operation: &mut Operation) {
    let none: [&str; 0] = [];
    operation
        .security
        .get_or_insert_with(|| vec![SecurityRequirement::new("bearer", none), SecurityRequirement::new("basic", none)]);
}

/// `/openapi.json` and `/docs`, its assets inside the binary.
pub(crate) fn pages() -> Router<Gateway> {
    let document = openapi().to_json().unwrap_or_default();
    let config = Config::new(["/openapi.json"]).persist_authorization(false).try_it_out_enabled(true);
    Router::new().merge(SwaggerUi::new("/docs").config(config)).route(
        "/openapi.json",
        get(move || async move { ([(header::CONTENT_TYPE, "application/json")], document.clone()) }),
    )
}

/// The schema of a string.
pub(crate) fn text() -> RefOr<Schema> {
    RefOr::T(Schema::Object(ObjectBuilder::new().schema_type(Type::String).build()))
}

/// The names in `/a/{name}/b/{other}`.
pub(crate) fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// Puts a schema that only error answers refer to into a document.
pub(crate) fn add_schema<T: utoipa::ToSchema>(document: &mut OpenApi) {
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.insert(T::name().into_owned(), T::schema());
}
