//! Logs, traces and metrics: set up first, flushed last.
//!
//! Logs go to standard error, as text on a terminal and as JSON with the trace id otherwise. Traces and metrics go out
//! by OTLP where the standard `OTEL_EXPORTER_OTLP_*` variables name an endpoint; metrics are besides always there for
//! the scrape page. The exporters keep threads of their own and never block a caller.

mod json;
mod scrape;

use std::io::IsTerminal;

use opentelemetry::{
    Context, global,
    propagation::{Extractor, Injector},
    trace::TracerProvider as _,
};
use opentelemetry_otlp::{MetricExporter, SpanExporter};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    propagation::TraceContextPropagator,
    trace::SdkTracerProvider,
};
use tracing::{Level, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, filter::Targets, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

use crate::{
    config::{Log, LogFormat},
    events::Panicked,
    metrics,
};

pub use scrape::scrape_server;

/// Keep it until the end; then [`Telemetry::shutdown`].
#[derive(Debug)]
pub struct Telemetry {
    tracer: SdkTracerProvider,
    meter: SdkMeterProvider,
    registry: prometheus::Registry,
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log.filter: {0}; write for instance `info,plenary=debug`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("OTLP export: {0}; check the OTEL_EXPORTER_OTLP_ variables")]
    Export(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("metrics: {0}")]
    Metrics(#[from] opentelemetry_sdk::error::OTelSdkError),
    #[error("logging was set up before: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

impl Telemetry {
    /// Once per process.
    pub fn start(log: &Log) -> Result<Self, TelemetryError> {
        let resource = Resource::builder().with_service_name(SERVICE).build();
        let registry = prometheus::Registry::new();
        let meter = meter_provider(&registry, resource.clone())?;
        let tracer = tracer_provider(resource)?;

        global::set_text_map_propagator(TraceContextPropagator::new());
        global::set_meter_provider(meter.clone());
        metrics::instruments();
        let filter = EnvFilter::builder().parse(&log.filter)?;
        let spans = tracing_opentelemetry::layer().with_tracer(tracer.tracer(SERVICE)).with_location(false);
        // What is logged and what is traced are two settings: a quiet log must not cost the traces.
        let ours = Targets::new().with_target(SERVICE, Level::DEBUG);
        let subscriber = tracing_subscriber::registry().with(spans.with_filter(ours));
        subscriber.with(lines(log.format).with_filter(filter)).try_init()?;
        report_panics();
        Ok(Self { tracer, meter, registry })
    }

    /// What the scrape page shows.
    pub fn registry(&self) -> &prometheus::Registry {
        &self.registry
    }

    /// Sends what is left. It may wait some seconds for an endpoint that does not answer.
    pub fn shutdown(self) {
        for outcome in [self.tracer.shutdown(), self.meter.shutdown()] {
            if let Err(error) = outcome {
                tracing::warn!(%error, "telemetry could not be flushed");
            }
        }
    }
}

/// The trace that a request belongs to, from its W3C `traceparent`.
pub fn remote_context(headers: &dyn Extractor) -> Context {
    global::get_text_map_propagator(|propagator| propagator.extract(headers))
}

/// A span as others may continue it, in W3C's `traceparent`; none where nothing is traced.
pub fn trace_parent(span: &tracing::Span) -> Option<String> {
    let mut written = Written(None);
    let context = span.context();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut written));
    written.0
}

/// What [`trace_parent`] wrote.
pub fn continued(trace_parent: Option<&str>) -> Context {
    remote_context(&Written(trace_parent.map(Into::into)))
}

struct Written(Option<String>);

impl Injector for Written {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACE_PARENT {
            self.0 = Some(value);
        }
    }
}

impl Extractor for Written {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.as_deref().filter(|_| key == TRACE_PARENT)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACE_PARENT]
    }
}

const TRACE_PARENT: &str = "traceparent";
const SERVICE: &str = "plenary";

fn meter_provider(registry: &prometheus::Registry, resource: Resource) -> Result<SdkMeterProvider, TelemetryError> {
    let scrape =
        opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false).build()?;
    let mut provider = SdkMeterProvider::builder().with_resource(resource).with_reader(scrape);
    if export_is_wanted("METRICS") {
        let exporter = MetricExporter::builder().with_http().build()?;
        provider = provider.with_reader(PeriodicReader::builder(exporter).build());
    }
    Ok(provider.build())
}

fn tracer_provider(resource: Resource) -> Result<SdkTracerProvider, TelemetryError> {
    // Without an exporter spans still give every log line its trace id.
    let provider = SdkTracerProvider::builder().with_resource(resource);
    if !export_is_wanted("TRACES") {
        return Ok(provider.build());
    }
    Ok(provider.with_batch_exporter(SpanExporter::builder().with_http().build()?).build())
}

/// The SDK reads its variables itself; only whether there are any is asked here, because its default is to export.
fn export_is_wanted(signal: &str) -> bool {
    let given = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let off = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"))
        || std::env::var(format!("OTEL_{signal}_EXPORTER")).is_ok_and(|value| value == "none");
    !off && (given("OTEL_EXPORTER_OTLP_ENDPOINT") || given(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")))
}

fn lines<S: Subscriber + for<'span> LookupSpan<'span>>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync> {
    let as_text = match format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if as_text {
        lines.with_ansi(std::io::stderr().is_terminal()).boxed()
    } else {
        json::layer(std::io::stderr).boxed()
    }
}

/// Whatever catches the panic afterwards, it is logged here, once.
fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("(no text)");
        let thread = std::thread::current();
        Panicked { thread: thread.name().unwrap_or("(unnamed)"), place: &place, message }.emit();
    }));
}
