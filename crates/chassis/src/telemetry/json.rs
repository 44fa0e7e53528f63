//! Log lines as JSON: `ts`, `level`, `service`, `target`, `message`, then the fields of the event
//! and of every span around it, innermost first. Flat, so that a line can be searched by field.

use std::{fmt, io::Write};

use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

/// The layer. `W` is called for every line.
pub(super) struct JsonLines<W> {
    service: &'static str,
    writer: W,
}

impl<W> JsonLines<W> {
    pub(super) fn new(service: &'static str, writer: W) -> Self {
        Self { service, writer }
    }
}

/// A span's fields, kept with the span.
struct SpanFields(Map<String, Value>);

/// Collects fields; recording one anew replaces it.
struct Collect<'a> {
    into: &'a mut Map<String, Value>,
}

impl Collect<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        // For exporters only.
        if !field.name().starts_with("otel.") {
            self.into.insert(field.name().to_owned(), value);
        }
    }
}

impl Visit for Collect<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.put(field, text.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

impl<S, W, O> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn() -> O + 'static,
    O: Write,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Map::new();
            attributes.record(&mut Collect { into: &mut fields });
            span.extensions_mut().replace(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanFields(fields)) = span.extensions_mut().get_mut::<SpanFields>()
        {
            values.record(&mut Collect { into: fields });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Map::new();
        event.record(&mut Collect { into: &mut fields });
        let mut line = Map::new();
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        line.insert("ts".to_owned(), now.into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        line.insert("service".to_owned(), self.service.into());
        line.insert("target".to_owned(), event.metadata().target().into());
        line.insert("message".to_owned(), fields.shift_remove("message").unwrap_or_default());
        line.extend(fields.into_iter().map(|(name, value)| (free(&line, name), value)).collect::<Vec<_>>());
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(SpanFields(fields)) = span.extensions().get::<SpanFields>() {
                for (name, value) in fields {
                    line.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        // One write, so that lines of several threads do not mix. If stderr is gone, so is the log.
        let _ = (self.writer)().write_all(&text);
    }
}

/// A name that does not shadow one of ours.
fn free(line: &Map<String, Value>, name: String) -> String {
    if line.contains_key(&name) { format!("field_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_the_fields_of_the_event_and_of_its_spans_flat() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::registry().with(JsonLines::new("netd", move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let outer = tracing::info_span!("request", request_id = "r1", status = tracing::field::Empty);
            let _outer = outer.enter();
            outer.record("status", 204);
            let _inner = tracing::info_span!("step", otel.name = "hidden", n = 2).entered();
            tracing::warn!(level = "mine", "cannot {}", "fly");
        });
        let line: Value = serde_json::from_slice(&sink.0.lock().expect("lock")).expect("one line of JSON");
        assert_eq!(line["service"], "netd");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["field_level"], "mine");
        assert_eq!(line["message"], "cannot fly");
        assert_eq!((&line["request_id"], &line["status"], &line["n"]), (&"r1".into(), &204.into(), &2.into()));
        assert!(line.get("otel.name").is_none());
        assert!(OffsetDateTime::parse(line["ts"].as_str().expect("text"), &Rfc3339).is_ok());
    }
}
