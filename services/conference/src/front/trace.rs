//! One span and one measurement per HTTP request, by route template: paths and queries hold names and tokens.

use std::time::Instant;

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::{Method, header::HeaderMap},
    middleware::Next,
};
use opentelemetry::{KeyValue, propagation::Extractor};
use tracing::{Instrument, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{metrics::instruments, telemetry};

pub async fn observe<B: MessageBody>(request: ServiceRequest, next: Next<B>) -> Result<ServiceResponse<B>, Error> {
    let started = Instant::now();
    let method = method_name(request.method());
    let span = tracing::info_span!(
        "http.request",
        otel.kind = "server",
        http.request.method = method,
        http.route = Empty,
        http.response.status_code = Empty,
    );
    // Without telemetry behind it there is no trace to belong to.
    let _ = span.set_parent(telemetry::remote_context(&Headers(request.headers())));
    let active = Active::begin();
    let outcome = next.call(request).instrument(span.clone()).await;
    drop(active);

    let (route, status) = match &outcome {
        Ok(response) => (response.request().match_pattern(), response.status().as_u16()),
        Err(error) => (None, error.as_response_error().status_code().as_u16()),
    };
    let route = route.unwrap_or_else(|| "unmatched".into());
    span.record("http.route", route.as_str()).record("http.response.status_code", status);
    let labels = [
        KeyValue::new("http.request.method", method),
        KeyValue::new("http.route", route),
        KeyValue::new("http.response.status_code", i64::from(status)),
    ];
    instruments().http_duration.record(started.elapsed().as_secs_f64(), &labels);
    outcome
}

/// Counts down even where the client goes away before the answer.
struct Active;

impl Active {
    fn begin() -> Self {
        instruments().http_active.add(1, &[]);
        Self
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        instruments().http_active.add(-1, &[]);
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// The semantic conventions' closed set: anybody can invent a method.
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}
