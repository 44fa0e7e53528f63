//! What nearly every handler begins with: an operator, or a project about itself; and the id of a path.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
    response::{IntoResponse as _, Response},
};
use chassis::Problem;
use model::{Error, Result};
use serde::de::DeserializeOwned;
use store::{OperatorScope, OperatorTx, Principal, ProjectScope, ProjectTx};

use super::input::id;
use crate::{
    Gateway,
    auth::{Caller, Operator},
};

/// A request of an operator.
pub(crate) struct Administration {
    pub(crate) gateway: Gateway,
    pub(crate) operator: OperatorScope,
}

impl Administration {
    pub(crate) async fn tx(&self) -> Result<OperatorTx> {
        self.gateway.store.operator_tx(&self.operator).await
    }
}

impl FromRequestParts<Gateway> for Administration {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> std::result::Result<Self, Response> {
        let Operator(operator) = Operator::from_request_parts(parts, gateway).await?;
        Ok(Self { gateway: gateway.clone(), operator })
    }
}

/// A request of a project about itself.
pub(crate) struct OwnCall {
    pub(crate) gateway: Gateway,
    pub(crate) scope: ProjectScope,
}

impl OwnCall {
    pub(crate) async fn tx(&self) -> Result<ProjectTx> {
        self.gateway.store.project_tx(&self.scope).await
    }
}

impl FromRequestParts<Gateway> for OwnCall {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> std::result::Result<Self, Response> {
        let why = match Caller::from_request_parts(parts, gateway).await?.0 {
            Principal::Project(scope) => return Ok(Self { gateway: gateway.clone(), scope }),
            Principal::Operator(_) => "an operator's credential opens no project",
            Principal::Container(..) => "a container opens the Docker API and nothing else",
        };
        Err(Problem::from(Error::Forbidden(why.into())).into_response())
    }
}

/// The id in a path. What is no id at all names nothing.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: std::str::FromStr<Err = Error>, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> std::result::Result<Self, Problem> {
        let text: String = segments(parts, state).await?;
        Ok(Self(id(&text)?))
    }
}

/// The two ids in a path: the owner's and its own.
pub(crate) struct Ids<A, B>(pub(crate) A, pub(crate) B);

impl<A, B, S> FromRequestParts<S> for Ids<A, B>
where
    A: std::str::FromStr<Err = Error>,
    B: std::str::FromStr<Err = Error>,
    S: Send + Sync,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> std::result::Result<Self, Problem> {
        let (owner, own): (String, String) = segments(parts, state).await?;
        Ok(Self(id(&owner)?, id(&own)?))
    }
}

async fn segments<T: DeserializeOwned + Send, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<T> {
    let found = Path::<T>::from_request_parts(parts, state).await;
    found.map(|Path(text)| text).map_err(|_| Error::NotFound("no such path".into()))
}
