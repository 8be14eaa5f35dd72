//! A run as OTLP/JSON: one trace, the run as its root span, a child span per step.
//!
//! Attribute names are those of the OpenTelemetry GenAI conventions (snapshot of
//! October 2026, all of them in development there) and the extension's `skill_system.*`.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::interrupt;

/// A row of `runs`. Times are microseconds since 1970 UTC.
#[derive(Debug, Clone, Default)]
pub struct Run {
    pub tenant: String,
    pub id: i64,
    pub goal: Option<String>,
    pub agent_id: Option<String>,
    /// A word of `run_status`.
    pub status: String,
    pub error: Option<String>,
    /// When it began, or was recorded.
    pub started_at: i64,
    pub ended_at: Option<i64>,
    /// `metrics`
    pub metrics: Value,
    /// `effective_policy`
    pub effective_policy: Value,
    /// Events that are not in the trace, because it would be too large.
    pub events_left_out: i64,
}

/// A row of `run_events`.
#[derive(Debug, Clone, Default)]
pub struct Event {
    pub id: i64,
    /// When, in microseconds since 1970 UTC.
    pub ts: i64,
    pub level: String,
    pub event_type: String,
    pub payload: Value,
    /// Members of the payload that are not in `payload`, because it would be too large.
    pub dropped_members: i64,
}

/// The members of a step's payload that tell what it was.
pub const STEP_MEMBERS: &[&str] = &["skill", "operation", "status", "duration_ms", "metrics", "error", "error_type"];

const UNSET: u8 = 0;
const OK: u8 = 1;
const ERROR: u8 = 2;
/// SPAN_KIND_INTERNAL: the agent runs outside the database.
const INTERNAL: u8 = 1;

/// The export of one run with its events in order.
pub fn export(run: &Run, events: &[Event], version: &str) -> Value {
    let trace = id(16, "trace", &run.tenant, run.id);
    let root = id(8, "run", &run.tenant, run.id);
    let last = events.iter().map(|event| event.ts).max().unwrap_or(run.started_at);
    // OTLP has no unfinished spans: until a run ends, its span reaches to its last event.
    let end = run.ended_at.unwrap_or(last).max(run.started_at);
    let (steps, others): (Vec<&Event>, Vec<&Event>) =
        events.iter().partition(|event| event.event_type == "step_completed");

    let mut attributes = Attributes::default();
    attributes.add("gen_ai.operation.name", &json!("invoke_agent"));
    if let Some(agent) = &run.agent_id {
        attributes.add("gen_ai.agent.id", &json!(agent));
        attributes.add("gen_ai.agent.name", &json!(agent));
    }
    attributes.add("skill_system.run.id", &json!(run.id));
    attributes.add("skill_system.run.status", &json!(run.status));
    if let Some(goal) = &run.goal {
        attributes.add("skill_system.run.goal", &json!(goal));
    }
    for key in ["policy", "version", "hash"] {
        if let Some(value) = run.effective_policy.get(key) {
            attributes.add(
                if key == "policy" { "skill_system.policy.name".into() } else { format!("skill_system.policy.{key}") },
                value,
            );
        }
    }
    if run.status == "failed" {
        attributes.add("error.type", &json!("_OTHER"));
    }
    if run.events_left_out > 0 {
        attributes.add("skill_system.run.events_left_out", &json!(run.events_left_out));
    }
    attributes.add_all("skill_system.run.", &run.metrics);
    let status = match run.status.as_str() {
        "succeeded" => json!({"code": OK}),
        "failed" => json!({"code": ERROR, "message": run.error.as_deref().unwrap_or("failed")}),
        _ => json!({"code": UNSET}),
    };
    let name = run.agent_id.as_ref().map_or_else(|| "invoke_agent".to_owned(), |agent| format!("invoke_agent {agent}"));
    let mut spans = vec![json!({
        "traceId": trace, "spanId": root, "name": name, "kind": INTERNAL,
        "startTimeUnixNano": nanos(run.started_at), "endTimeUnixNano": nanos(end),
        "attributes": attributes.list,
        "events": others.iter().map(|event| span_event(event)).collect::<Vec<_>>(),
        "status": status,
    })];
    spans.extend(steps.iter().map(|step| step_span(step, run, &trace, &root)));

    let mut resource = Attributes::default();
    resource.add("service.name", &json!("skill_system"));
    resource.add("service.version", &json!(version));
    resource.add("skill_system.tenant", &json!(run.tenant));
    json!({"resourceSpans": [{
        "resource": {"attributes": resource.list},
        "scopeSpans": [{"scope": {"name": "skill_system", "version": version}, "spans": spans}],
    }]})
}

fn step_span(step: &Event, run: &Run, trace: &str, root: &str) -> Value {
    let text = |key: &str| step.payload.get(key).and_then(Value::as_str);
    let tool = match (text("skill"), text("operation")) {
        (Some(skill), Some(operation)) => Some(format!("{skill}/{operation}")),
        (one, other) => one.or(other).map(str::to_owned),
    };
    let mut attributes = Attributes::default();
    attributes.add("gen_ai.operation.name", &json!("execute_tool"));
    attributes.add("gen_ai.tool.type", &json!("function"));
    if let Some(tool) = &tool {
        attributes.add("gen_ai.tool.name", &json!(tool));
    }
    if let Some(skill) = text("skill") {
        attributes.add("gen_ai.skill.name", &json!(skill));
    }
    let failed =
        text("status").is_some_and(|word| matches!(crate::runs::Status::parse(word), Ok(crate::runs::Status::Failed)));
    let succeeded = text("status")
        .is_some_and(|word| matches!(crate::runs::Status::parse(word), Ok(crate::runs::Status::Succeeded)));
    if failed {
        attributes.add("error.type", &json!(text("error_type").unwrap_or("_OTHER")));
    }
    attributes.add("skill_system.level", &json!(step.level));
    if let Some(metrics) = step.payload.get("metrics") {
        attributes.add_all("skill_system.step.", metrics);
    }
    if let Value::Object(payload) = &step.payload {
        for (key, value) in interrupt::each(payload) {
            if !["skill", "operation", "metrics", "duration_ms"].contains(&key.as_str()) {
                attributes.add(format!("skill_system.payload.{key}"), value);
            }
        }
    }
    // An agent may have written anything there.
    let millis =
        step.payload.get("duration_ms").and_then(Value::as_f64).filter(|ms| (0.0..=1e14).contains(ms)).unwrap_or(0.0);
    let status = match (succeeded, failed) {
        (true, _) => json!({"code": OK}),
        (_, true) => json!({"code": ERROR, "message": text("error").unwrap_or("failed")}),
        _ => json!({"code": UNSET}),
    };
    with_dropped(
        step,
        json!({
            "traceId": trace, "spanId": id(8, "event", &run.tenant, step.id), "parentSpanId": root,
            "name": tool.map_or_else(|| "execute_tool".to_owned(), |tool| format!("execute_tool {tool}")),
            "kind": INTERNAL,
            "startTimeUnixNano": nanos(step.ts.saturating_sub((millis * 1000.0) as i64)), "endTimeUnixNano": nanos(step.ts),
            "attributes": attributes.list, "events": [], "status": status,
        }),
    )
}

fn span_event(event: &Event) -> Value {
    let mut attributes = Attributes::default();
    attributes.add("skill_system.level", &json!(event.level));
    attributes.add_all("skill_system.payload.", &event.payload);
    with_dropped(
        event,
        json!({"timeUnixNano": nanos(event.ts), "name": event.event_type, "attributes": attributes.list}),
    )
}

fn with_dropped(event: &Event, mut span: Value) -> Value {
    if event.dropped_members > 0 {
        span["droppedAttributesCount"] = event.dropped_members.into();
    }
    span
}

/// Attributes in the order they came; OTLP forbids a key twice, so the first one stays.
#[derive(Default)]
struct Attributes {
    list: Vec<Value>,
    keys: std::collections::HashSet<String>,
}

impl Attributes {
    fn add(&mut self, key: impl Into<String>, value: &Value) {
        let key = key.into();
        if !value.is_null() && self.keys.insert(key.clone()) {
            self.list.push(object([("key", key.into()), ("value", any_value(value))]));
        }
    }

    /// The members of an object: names with a dot are those of a convention and stay, others get the prefix.
    fn add_all(&mut self, prefix: &str, object: &Value) {
        match object {
            Value::Object(members) => {
                for (key, value) in interrupt::each(members) {
                    let key = if key.contains('.') { key.clone() } else { format!("{prefix}{key}") };
                    self.add(key, value);
                }
            }
            other => self.add(prefix.trim_end_matches('.'), other),
        }
    }
}

/// AnyValue of opentelemetry/proto/common/v1; 64-bit integers are strings in proto JSON.
fn any_value(value: &Value) -> Value {
    interrupt::check();
    match value {
        Value::Null => json!({}),
        Value::Bool(flag) => json!({"boolValue": flag}),
        Value::String(text) => json!({"stringValue": text}),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => json!({"intValue": whole.to_string()}),
            None => json!({"doubleValue": number}),
        },
        Value::Array(values) => list("arrayValue", values.iter().map(any_value).collect()),
        Value::Object(members) => {
            let pair = |(key, value): (&String, _)| object([("key", key.clone().into()), ("value", any_value(value))]);
            list("kvlistValue", members.iter().map(pair).collect())
        }
    }
}

fn list(kind: &str, values: Vec<Value>) -> Value {
    object([(kind, object([("values", Value::Array(values))]))])
}

/// As `json!`, which would copy the values: all that is in them once for each level.
fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The field is a fixed64 and so never negative.
fn nanos(micros: i64) -> String {
    (i128::from(micros.max(0)) * 1000).min(i128::from(u64::MAX)).to_string()
}

/// The same number gives the same id in every export, and another one in another tenant.
fn id(bytes: usize, kind: &str, tenant: &str, number: i64) -> String {
    let mut hash = Sha256::new();
    hash.update(b"skill_system/otlp/v1\0");
    hash.update(kind.as_bytes());
    hash.update([0]);
    hash.update(number.to_be_bytes());
    hash.update(tenant.as_bytes());
    hex::encode(&hash.finalize()[..bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            tenant: "acme".into(),
            id: 7,
            goal: Some("file W-1".into()),
            agent_id: Some("coder".into()),
            status: "failed".into(),
            error: Some("boom".into()),
            started_at: 1_000_000,
            ended_at: Some(3_000_000),
            metrics: json!({"steps": 2, "gen_ai.usage.input_tokens": 9007199254740993i64, "cost_usd": 0.5, "gen_ai.operation.name": "forged"}),
            effective_policy: json!({"policy": "dev", "version": 3, "hash": "sha256:00", "mode": "enforce"}),
            events_left_out: 0,
        }
    }

    fn step(id: i64, payload: Value) -> Event {
        Event {
            id,
            ts: 2_000_000,
            level: "info".into(),
            event_type: "step_completed".into(),
            payload,
            dropped_members: 0,
        }
    }

    fn attribute<'a>(span: &'a Value, key: &str) -> Vec<&'a Value> {
        span["attributes"].as_array().unwrap().iter().filter(|a| a["key"] == key).map(|a| &a["value"]).collect()
    }

    #[test]
    fn root_and_steps() {
        let note = Event {
            id: 3,
            ts: 1_500_000,
            level: "warn".into(),
            event_type: "note".into(),
            payload: json!({"a": [1, null, {"b": true}]}),
            dropped_members: 0,
        };
        let good = step(
            1,
            json!({"skill": "s", "operation": "o", "status": "ok", "duration_ms": 250, "metrics": {"gen_ai.usage.output_tokens": 5}}),
        );
        let bad = step(2, json!({"skill": "s", "status": "error", "error": "no"}));
        let out = export(&run(), &[good, bad, note], "0.1.0");
        let spans = out["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        assert_eq!(spans.len(), 3);
        let root = &spans[0];
        assert_eq!(root["name"], "invoke_agent coder");
        assert_eq!(root["traceId"].as_str().unwrap().len(), 32);
        assert_eq!(root["spanId"].as_str().unwrap().len(), 16);
        assert!(root.get("parentSpanId").is_none());
        assert_eq!(
            (&root["startTimeUnixNano"], &root["endTimeUnixNano"]),
            (&json!("1000000000"), &json!("3000000000"))
        );
        assert_eq!(root["status"], json!({"code": 2, "message": "boom"}));
        assert_eq!(attribute(root, "gen_ai.usage.input_tokens"), [&json!({"intValue": "9007199254740993"})]);
        assert_eq!(attribute(root, "skill_system.run.cost_usd"), [&json!({"doubleValue": 0.5})]);
        assert_eq!(attribute(root, "skill_system.policy.name"), [&json!({"stringValue": "dev"})]);
        // A metric cannot take the place of what the run is.
        assert_eq!(attribute(root, "gen_ai.operation.name"), [&json!({"stringValue": "invoke_agent"})]);
        assert_eq!(root["events"][0]["name"], "note");
        let nested = attribute(&root["events"][0], "skill_system.payload.a")[0];
        assert_eq!(nested["arrayValue"]["values"][1], json!({}));
        assert_eq!(
            nested["arrayValue"]["values"][2]["kvlistValue"]["values"][0],
            json!({"key": "b", "value": {"boolValue": true}})
        );

        assert_eq!(spans[1]["name"], "execute_tool s/o");
        assert_eq!(spans[1]["startTimeUnixNano"], "1750000000");
        assert_eq!(spans[1]["status"], json!({"code": 1}));
        assert_eq!(spans[2]["status"], json!({"code": 2, "message": "no"}));
        assert_eq!(attribute(&spans[2], "error.type"), [&json!({"stringValue": "_OTHER"})]);
        for span in &spans[1..] {
            assert_eq!(span["traceId"], root["traceId"]);
            assert_eq!(span["parentSpanId"], root["spanId"]);
        }
        assert_ne!(spans[1]["spanId"], spans[2]["spanId"]);
    }

    #[test]
    fn ids_are_stable_and_belong_to_a_tenant() {
        let ids = |run: &Run| export(run, &[], "1")["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"].clone();
        assert_eq!(ids(&run()), ids(&run()));
        assert_ne!(ids(&run()), ids(&Run { tenant: "other".into(), ..run() }));
        assert_ne!(ids(&run()), ids(&Run { id: 8, ..run() }));
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let large = Event { dropped_members: 3, ..step(1, json!({"skill": "s"})) };
        let note = Event { event_type: "note".into(), ..large.clone() };
        let out = export(&Run { events_left_out: 2, ..run() }, &[large, note], "1");
        let spans = out["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        assert_eq!(attribute(&spans[0], "skill_system.run.events_left_out"), [&json!({"intValue": "2"})]);
        assert_eq!(
            (&spans[0]["events"][0]["droppedAttributesCount"], &spans[1]["droppedAttributesCount"]),
            (&json!(3), &json!(3))
        );
    }

    #[test]
    fn unfinished_and_odd_runs() {
        let open = Run { status: "running".into(), ended_at: None, agent_id: None, ..run() };
        let out = export(
            &open,
            &[step(1, json!("text")), step(2, json!({"duration_ms": "long"})), step(3, json!({"duration_ms": 1e300}))],
            "1",
        );
        let spans = out["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        assert_eq!(spans[0]["name"], "invoke_agent");
        assert_eq!(spans[0]["endTimeUnixNano"], "2000000000");
        assert_eq!(spans[0]["status"], json!({"code": 0}));
        for span in &spans[1..] {
            assert_eq!(span["name"], "execute_tool");
            assert_eq!(span["startTimeUnixNano"], span["endTimeUnixNano"]);
        }
        assert_eq!(nanos(-5), "0");
        assert_eq!(nanos(i64::MAX), u64::MAX.to_string());
    }
}
