//! Log lines as JSON: `ts`, `level`, `service`, `target`, `message`, then the fields of the event
//! and of every span around it, innermost first. Flat, so that a line can be searched by field.

use std::{fmt, io::Write};

use serde::ser::{SerializeMap as _, Serializer as _};
use serde_json::Value;
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

/// Few enough that looking through them is quicker than any index.
type Fields = Vec<(&'static str, Value)>;

/// A span's fields, kept with the span.
struct SpanFields(Fields);

/// Collects fields; recording one anew replaces it.
struct Collect<'a> {
    into: &'a mut Fields,
}

impl Collect<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        // For exporters only.
        if field.name().starts_with("otel.") {
            return;
        }
        match self.into.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, former)) => *former = value,
            None => self.into.push((field.name(), value)),
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
            let mut fields = Fields::new();
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
        let mut fields = Fields::new();
        event.record(&mut Collect { into: &mut fields });
        let mut text = Vec::with_capacity(512);
        let spans = || context.event_scope(event).into_iter().flatten();
        // Whatever was written until an error is a line all the same.
        let _ = write(&mut text, self.service, event, fields, |put| {
            for span in spans() {
                if let Some(SpanFields(fields)) = span.extensions().get::<SpanFields>() {
                    fields.iter().try_for_each(|(name, value)| put(name, value))?;
                }
            }
            Ok(())
        });
        text.push(b'\n');
        // One write, so that lines of several threads do not mix. If stderr is gone, so is the log.
        let _ = (self.writer)().write_all(&text);
    }
}

/// What every line begins with.
const OURS: [&str; 5] = ["ts", "level", "service", "target", "message"];

/// One object: what is ours, the event's fields (none shadows one of ours), and those of the spans
/// that nothing further in has.
fn write(
    text: &mut Vec<u8>,
    service: &str,
    event: &Event<'_>,
    mut fields: Fields,
    spans: impl FnOnce(&mut dyn FnMut(&'static str, &Value) -> serde_json::Result<()>) -> serde_json::Result<()>,
) -> serde_json::Result<()> {
    let message = fields.iter().position(|(name, _)| *name == "message").map(|at| fields.remove(at).1);
    let mut serializer = serde_json::Serializer::new(text);
    let mut line = serializer.serialize_map(None)?;
    line.serialize_entry("ts", &OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default())?;
    line.serialize_entry("level", event.metadata().level().as_str())?;
    line.serialize_entry("service", service)?;
    line.serialize_entry("target", event.metadata().target())?;
    line.serialize_entry("message", &message.unwrap_or_default())?;
    let mut written: Vec<&'static str> = OURS.to_vec();
    for (name, value) in &fields {
        if OURS.contains(name) {
            line.serialize_entry(&format!("field_{name}"), value)?;
        } else {
            line.serialize_entry(name, value)?;
            written.push(name);
        }
    }
    spans(&mut |name, value| {
        if written.contains(&name) {
            return Ok(());
        }
        written.push(name);
        line.serialize_entry(name, value)
    })?;
    line.end()
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
