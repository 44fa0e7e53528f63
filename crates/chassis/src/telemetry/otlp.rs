//! Export of spans over OTLP/HTTP with protobuf. The batch processor has a thread of its own; its
//! requests are made on our runtime, by our client.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use axum::http::{Request, Response};
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::Handle;

const EXPORT_TIME: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct OnRuntime {
    runtime: Handle,
    client: reqwest::Client,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(reqwest::Request::try_from(request)?).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let mut response = Response::new(answer.bytes().await?);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok::<_, reqwest::Error>(response)
        });
        Ok(sent.await??)
    }
}

/// A provider that exports to `endpoint` (its base address; `/v1/traces` is added).
pub(super) fn provider(service: &'static str, endpoint: &str, runtime: &Handle) -> anyhow::Result<SdkTracerProvider> {
    let client = reqwest::Client::builder().no_proxy().timeout(EXPORT_TIME).build().context("client for OTLP")?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT_TIME)
        .with_http_client(OnRuntime { runtime: runtime.clone(), client })
        .build()
        .with_context(|| format!("OTLP export to {endpoint}"))?;
    let resource = Resource::builder()
        .with_service_name(format!("wharfage-{service}"))
        .with_attribute(KeyValue::new("service.namespace", "wharfage"))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}
