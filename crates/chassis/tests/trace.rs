//! A trace through two services, exported to a collector stand-in that decodes real OTLP.

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use chassis::{
    Answer, Common,
    axum::{
        Json, Router,
        body::Bytes,
        extract::State,
        http::{HeaderMap, StatusCode},
        routing::{get, post},
    },
    client::Internal,
    telemetry,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    trace::v1::Span,
};
use prost::Message as _;
use support::start;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

type Received = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

async fn collect(State(received): State<Received>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
    if headers.get("content-type").is_none_or(|t| t != "application/x-protobuf") {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, Vec::new());
    }
    match ExportTraceServiceRequest::decode(body) {
        Ok(request) => {
            received.lock().expect("lock").push(request);
            (StatusCode::OK, ExportTraceServiceResponse::default().encode_to_vec())
        }
        Err(_) => (StatusCode::BAD_REQUEST, Vec::new()),
    }
}

async fn traceparent(headers: HeaderMap) -> Json<Option<String>> {
    Json(headers.get("traceparent").and_then(|v| v.to_str().ok()).map(str::to_owned))
}

async fn forward(State(next): State<Internal>) -> Answer<Json<Option<String>>> {
    Ok(Json(next.get("/second").await?))
}

fn spans(received: &Received, route: &str) -> Vec<Span> {
    let wanted = format!("GET {route}");
    let requests = received.lock().expect("lock");
    let resources = requests.iter().flat_map(|r| &r.resource_spans);
    let spans = resources.flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
    spans.filter(|s| s.name == wanted).cloned().collect()
}

#[test]
fn a_trace_goes_through_two_services_and_reaches_the_collector() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    chassis::tls::install_provider();
    let received = Received::default();
    let collector = Router::new().route("/v1/traces", post(collect)).with_state(received.clone());
    let collector = runtime.block_on(start("collector", collector, None));
    let common = Common {
        otlp_endpoint: Some(format!("http://{}", collector.address)),
        log: "info".to_owned(),
        ..Common::default()
    };
    let telemetry = telemetry::init("gateway", &common, runtime.handle()).expect("telemetry");

    let seen: Option<String> = runtime.block_on(async {
        let second = start("scheduler", Router::new().route("/second", get(traceparent)), None).await;
        let next = Internal::plain(&format!("http://{}", second.address)).expect("client");
        let first = start("gateway", Router::new().route("/first", get(forward)).with_state(next), None).await;
        let request = chassis::reqwest::Client::builder().no_proxy().build().expect("client");
        let answer = request
            .get(format!("http://{}/first", first.address))
            .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
            .timeout(Duration::from_secs(5))
            .send();
        answer.await.expect("answer").json().await.expect("json")
    });
    // As at the end of a process: what is not exported yet is flushed.
    telemetry.shutdown();

    let (first, second) = (spans(&received, "/first"), spans(&received, "/second"));
    assert_eq!((first.len(), second.len()), (1, 1), "one span for each request");
    assert_eq!(hex::encode(&first[0].trace_id), TRACE);
    assert_eq!(hex::encode(&first[0].parent_span_id), CALLER);
    assert_eq!(hex::encode(&second[0].trace_id), TRACE);
    assert_eq!(second[0].parent_span_id, first[0].span_id, "the second hangs under the first");
    assert_eq!(seen, Some(format!("00-{TRACE}-{}-01", hex::encode(&first[0].span_id))));
    let attributes: Vec<&str> = first[0].attributes.iter().map(|a| a.key.as_str()).collect();
    assert!(attributes.contains(&"request_id"), "{attributes:?}");
}
