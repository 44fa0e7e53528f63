//! What Postgres says of a request before it is answered. A request with a registry token costs one
//! question, in which everything is read from one snapshot: that the credential behind the token is good,
//! whose the name is, and, of what is only read, whether it is there.

use axum::http::{Method, request::Parts};
use model::{RepositoryName, TokenId};
use store::{Found, LookedFor, RepositoryAccess};

use super::{
    Refused,
    call::{Call, Target},
    holder::{self, Holder},
};
use crate::Gateway;

/// What is asked: on behalf of whom, of which repository, what for.
pub(crate) type Question = (Option<TokenId>, RepositoryName, LookedFor);

/// What is known of a repository's name and of something in it.
pub(super) struct Known {
    /// What the asker may know of the name.
    pub(super) access: Option<RepositoryAccess>,
    /// What was looked for, and what was found.
    pub(super) looked: Option<(LookedFor, Option<Found>)>,
}

impl Known {
    /// A name alone.
    pub(super) fn of(access: Option<RepositoryAccess>) -> Self {
        Self { access, looked: None }
    }
}

/// Who asks, and what that question said besides.
pub(super) async fn known(
    gateway: &Gateway,
    parts: &Parts,
    call: Option<&Call>,
) -> Result<(Holder, Option<Known>), Refused> {
    let claims = holder::claims(gateway, parts).await?;
    let (Some(claims), Some(Call::In(name, target))) = (&claims, call) else {
        return Ok((holder::identify(gateway, parts, claims).await?, None));
    };
    let Ok(name) = name.parse::<RepositoryName>() else {
        return Ok((holder::identify(gateway, parts, Some(claims.clone())).await?, None));
    };
    let (made_from, wanted) = (claims.made_from(), wanted(target, &parts.method));
    let question = (made_from, name.clone(), wanted.clone());
    let look = gateway.looks.ask(question, |_| gateway.store.registry_look(made_from, &name, &wanted)).await?;
    let look = look.ok_or_else(holder::unauthorized)?;
    let looked = (wanted != LookedFor::Access).then_some((wanted, look.found));
    Ok((Holder::of_token(claims.clone(), look.scope), Some(Known { access: look.access, looked })))
}

/// What can be answered from one look; the rest is image-svc's.
fn wanted(target: &Target, method: &Method) -> LookedFor {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return LookedFor::Access;
    }
    match target {
        Target::Manifest(reference) => reference.parse().map_or(LookedFor::Access, LookedFor::Manifest),
        Target::Blob(digest) => digest.parse().map_or(LookedFor::Access, LookedFor::Blob),
        Target::Tags | Target::Referrers(_) | Target::Uploads | Target::Upload(_) => LookedFor::Access,
    }
}
