//! Who gets through: certificates in both directions, over real connections.

mod support;

use chassis::{
    Answer, Caller, ClientAuth,
    axum::{Json, Router, middleware, routing::get},
    http, pki,
};
use model::Error;
use support::{Pki, start};

fn whoami() -> Router {
    async fn identity(caller: Caller) -> Json<(Option<String>, Option<String>)> {
        let fingerprint = caller.certificate.as_ref().map(|c| c.sha256_fingerprint.clone());
        Json((caller.identity().map(str::to_owned), fingerprint))
    }
    async fn gateway_only(caller: Caller) -> Answer<Json<&'static str>> {
        caller.require("service:gateway")?;
        Ok(Json("welcome"))
    }
    Router::new().route("/whoami", get(identity)).route("/gateway", get(gateway_only))
}

type Identity = (Option<String>, Option<String>);

#[tokio::test]
async fn both_sides_know_each_other_by_common_name() {
    let pki = Pki::new();
    let server = start("scheduler", whoami(), Some(pki.mutual("service:scheduler"))).await;
    let gateway = pki.dial(server.address, "service:gateway", "service:scheduler");
    let (identity, fingerprint): Identity = gateway.get("/whoami").await.expect("answer");
    assert_eq!(identity.as_deref(), Some("service:gateway"));
    assert_eq!(fingerprint.map(|f| f.len()), Some(64));
    assert_eq!(gateway.get::<String>("/gateway").await, Ok("welcome".to_owned()));
    let image = pki.dial(server.address, "service:image", "service:scheduler");
    assert!(matches!(image.get::<String>("/gateway").await, Err(Error::Unauthenticated(_))));
}

#[tokio::test]
async fn a_server_with_anothers_certificate_is_not_spoken_to() {
    let pki = Pki::new();
    let server = start("image", whoami(), Some(pki.mutual("service:image"))).await;
    let client = pki.dial(server.address, "service:gateway", "service:scheduler");
    let refused = client.get::<Identity>("/whoami").await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_spoken_to() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let tls = theirs.server("service:scheduler", ClientAuth::None);
    let server = start("scheduler", whoami(), Some(tls)).await;
    let client = ours.dial_with(server.address, None, "service:scheduler");
    assert!(matches!(client.get::<Identity>("/whoami").await, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn a_client_without_our_certificate_does_not_get_in() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let server = start("scheduler", whoami(), Some(ours.mutual("service:scheduler"))).await;
    let nobody = ours.dial_with(server.address, None, "service:scheduler");
    assert!(matches!(nobody.get::<Identity>("/whoami").await, Err(Error::Unavailable(_))));
    let stranger = ours.dial_with(server.address, Some(theirs.issue("service:gateway")), "service:scheduler");
    assert!(matches!(stranger.get::<Identity>("/whoami").await, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn where_a_certificate_is_optional_nobody_is_nobody() {
    let pki = Pki::new();
    let tls = pki.server("service:scheduler", ClientAuth::Optional { ca: pki.ca() });
    let server = start("scheduler", whoami(), Some(tls)).await;
    let nobody = pki.dial_with(server.address, None, "service:scheduler");
    assert_eq!(nobody.get::<Identity>("/whoami").await, Ok((None, None)));
    let host = pki.dial(server.address, "host:1", "service:scheduler");
    let (identity, _) = host.get::<Identity>("/whoami").await.expect("answer");
    assert_eq!(identity.as_deref(), Some("host:1"));
}

#[tokio::test]
async fn a_self_signed_certificate_is_a_fingerprint_and_no_name() {
    let pki = Pki::new();
    let server = start("gateway", whoami(), Some(pki.server("service:gateway", ClientAuth::AnyCertificate))).await;
    // It calls itself the gateway: that must not help.
    let own = pki.write(&pki::self_signed("service:gateway", 1).expect("certificate"));
    let client = pki.dial_with(server.address, Some(own), "service:gateway");
    let (identity, fingerprint) = client.get::<Identity>("/whoami").await.expect("answer");
    assert_eq!(identity, None);
    assert_eq!(fingerprint.map(|f| f.len()), Some(64));
    assert!(matches!(client.get::<String>("/gateway").await, Err(Error::Unauthenticated(_))));
    let nobody = pki.dial_with(server.address, None, "service:gateway");
    assert_eq!(nobody.get::<Identity>("/whoami").await, Ok((None, None)));
}

#[tokio::test]
async fn a_joined_host_serves_and_dials_with_its_signed_request() {
    let pki = Pki::new();
    let (csr, key) = pki::new_csr().expect("request");
    let cert = pki.authority.sign_csr(&csr, "host:7", 30).expect("sign");
    let (cert, key) = pki.write(&(cert, key));
    let tls = chassis::ServerTls {
        cert: cert.clone(),
        key: key.clone(),
        client_auth: ClientAuth::Required { ca: pki.ca() },
        http2: false,
    };
    let server = start("agent", whoami(), Some(tls)).await;
    let client = pki.dial_with(server.address, Some((cert, key)), "host:7");
    let (identity, _) = client.get::<Identity>("/whoami").await.expect("answer");
    assert_eq!(identity.as_deref(), Some("host:7"));
}

#[tokio::test]
async fn a_layer_guards_every_route_below_it() {
    let pki = Pki::new();
    let router = whoami().layer(middleware::from_fn(http::only(&["service:gateway", "host:"])));
    let server = start("agent", router, Some(pki.mutual("host:1"))).await;
    let call = async |whom: &str| pki.dial(server.address, whom, "host:1").get::<Identity>("/whoami").await;
    assert!(call("service:gateway").await.is_ok());
    assert!(call("host:2").await.is_ok());
    assert!(matches!(call("service:image").await, Err(Error::Unauthenticated(_))));
}
