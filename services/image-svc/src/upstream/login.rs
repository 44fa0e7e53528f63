//! Whether a registry takes somebody's credentials, as dockerd finds out for `docker login`: its base
//! is asked for, the challenge met without any scope, and the base asked for again.

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{HeaderMap, HeaderValue},
};

use super::{
    UpstreamError,
    auth::{Credentials, authorize},
    challenge,
    http::{Http, Outgoing},
};

/// What a registry says to credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It takes them, or wants none.
    Accepted,
    /// It does not; dockerd's words for it.
    Refused(String),
}

/// Asks the registry at `base`.
pub(super) async fn login(http: &Http, base: &Url, credentials: &Credentials) -> Result<Verdict, UpstreamError> {
    let url =
        base.join("v2/").map_err(|_| UpstreamError::Invalid(format!("{base} is not the address of a registry")))?;
    let failed = |status: StatusCode| {
        let word = status.canonical_reason().unwrap_or_default();
        format!("login attempt to {url} failed with status: {} {word}", status.as_u16())
    };
    let first = ask(http, &url, None).await?;
    let asked = first.status() == StatusCode::UNAUTHORIZED && first.url().origin() == base.origin();
    if !asked {
        return verdict(&first, failed);
    }
    let Some(challenge) = challenge::parse(first.headers()) else {
        return Ok(Verdict::Refused(failed(StatusCode::UNAUTHORIZED)));
    };
    let answer = match authorize(http, &challenge, base, None, &[], Some(credentials)).await {
        Ok(header) => ask(http, &url, Some(header)).await?,
        Err(UpstreamError::Unauthorized(why)) => {
            return Ok(Verdict::Refused(format!("Get \"{url}\": unauthorized: {why}")));
        }
        Err(UpstreamError::Denied) => return Ok(Verdict::Refused(failed(StatusCode::UNAUTHORIZED))),
        Err(other) => return Err(other),
    };
    verdict(&answer, failed)
}

async fn ask(http: &Http, url: &Url, authorization: Option<HeaderValue>) -> Result<Response, UpstreamError> {
    let outgoing = Outgoing {
        method: Method::GET,
        url: url.clone(),
        headers: HeaderMap::new(),
        authorization,
        form: None,
        body: None,
        operators: None,
    };
    http.send(outgoing).await
}

fn verdict(answer: &Response, failed: impl Fn(StatusCode) -> String) -> Result<Verdict, UpstreamError> {
    match answer.status() {
        StatusCode::OK => Ok(Verdict::Accepted),
        StatusCode::TOO_MANY_REQUESTS => Err(UpstreamError::RateLimited("the registry's limit is reached".into())),
        status if status.is_client_error() => Ok(Verdict::Refused(failed(status))),
        status => Err(UpstreamError::Unreachable(failed(status))),
    }
}
