//! Runs: the values of their status, bounds of their texts, errors.

pub mod legacy;
pub mod metrics;
pub mod otlp;
pub mod page;

use thiserror::Error;

use crate::error::{Code, Fault};
use crate::interrupt;

/// Longest `skill`, `operation`, `agent_id`, `event_type` and `idempotency_key`, in characters.
pub const MAX_NAME: usize = 200;
/// Longest duration, about a hundred years.
pub const MAX_DURATION_MS: i64 = 3_155_760_000_000;
/// Most events in one call of `log_events`.
pub const MAX_EVENTS: usize = 10_000;

/// The `run_status` of the skill-system-postgres skill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl Status {
    /// Reads one of the five words or a synonym, in any case and with blanks around it.
    pub fn parse(word: &str) -> Result<Status, RunError> {
        let known: [(&[&str], Status); 5] = [
            (&["succeeded", "ok", "success", "completed"], Status::Succeeded),
            (&["failed", "error", "failure"], Status::Failed),
            (&["cancelled", "canceled"], Status::Cancelled),
            (&["running"], Status::Running),
            (&["queued"], Status::Queued),
        ];
        let word = word.trim();
        known
            .into_iter()
            .find(|(words, _)| words.iter().any(|known| word.eq_ignore_ascii_case(known)))
            .map(|(_, status)| status)
            .ok_or_else(|| RunError::UnknownStatus { given: crate::error::shorten(word) })
    }

    /// The label of `run_status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Running => "running",
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }

    /// The word in the payload of a step, which the skill-system-postgres skill's router writes as ok or error.
    pub fn step_word(self) -> &'static str {
        match self {
            Status::Succeeded => "ok",
            Status::Failed => "error",
            other => other.as_str(),
        }
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Status::Succeeded | Status::Failed | Status::Cancelled)
    }

    /// The event that a step in this state is.
    pub fn event_type(self) -> &'static str {
        if self.is_terminal() { "step_completed" } else { "step_started" }
    }

    /// The level of that event.
    pub fn level(self) -> &'static str {
        if self == Status::Failed { "error" } else { "info" }
    }
}

/// Errors of the run log.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RunError {
    /// Neither a status nor a synonym of one.
    #[error("invalid value for status of a run: \"{given}\"")]
    UnknownStatus {
        /// The word as given.
        given: String,
    },
    /// `finish_run` with a status that does not end a run.
    #[error("cannot finish a run as {given}")]
    NotTerminal { given: &'static str },
    /// A required argument is NULL.
    #[error("{what} must not be NULL")]
    Missing { what: &'static str },
    /// A text is empty or too long.
    #[error("{what} must have 1 to {MAX_NAME} characters")]
    BadLength {
        what: &'static str,
        /// How many it has.
        length: usize,
    },
    /// A negative duration, or one beyond [`MAX_DURATION_MS`].
    #[error("duration_ms must be between 0 and {MAX_DURATION_MS}")]
    BadDuration { given: f64 },
    /// JSON of another kind.
    #[error("{what} must be a JSON {wanted}")]
    WrongKind { what: &'static str, wanted: &'static str },
    /// Over [`MAX_EVENTS`].
    #[error("more than {MAX_EVENTS} events in one call")]
    TooManyEvents { given: usize },
    /// An element of `log_events`.
    #[error("event {number} is malformed")]
    BadEvent { number: usize, why: String },
    /// No such run in this tenant.
    #[error("run {run_id} does not exist")]
    Unknown { run_id: i64 },
    /// The idempotency key belongs to a call with other arguments.
    #[error("idempotency_key \"{key}\" was used for another run")]
    OtherContent { key: String, run_id: i64 },
    /// The run has ended.
    #[error("cannot {action}: run {run_id} has ended")]
    Final {
        run_id: i64,
        status: String,
        /// What was attempted.
        action: String,
    },
}

impl From<RunError> for Fault {
    fn from(error: RunError) -> Fault {
        let message = error.to_string();
        let invalid = |message| Fault::new(Code::InvalidParameterValue, message);
        match error {
            RunError::UnknownStatus { .. } => invalid(message).hint(
                "Use queued, running, succeeded, failed or cancelled; ok, success and completed mean succeeded, error and failure mean failed, canceled means cancelled.",
            ),
            RunError::NotTerminal { .. } => invalid(message).hint("Finish it as succeeded, failed or cancelled."),
            RunError::OtherContent { run_id, .. } => invalid(message)
                .detail(format!("Run {run_id} was written by a call with other arguments."))
                .hint("Repeat a call with the same arguments, and use a new key for each new call."),
            RunError::Missing { .. } | RunError::WrongKind { .. } => invalid(message),
            RunError::BadLength { length, .. } => invalid(message).detail(format!("It has {length} characters.")),
            RunError::BadDuration { given } => {
                invalid(message).detail(format!("It is {given:?}.")).hint("Give milliseconds, or NULL if unknown.")
            }
            RunError::TooManyEvents { given } => Fault::new(Code::ProgramLimitExceeded, message)
                .detail(format!("The array has {given} events."))
                .hint("Send them in several calls."),
            RunError::BadEvent { why, .. } => invalid(message)
                .detail(why)
                .hint("An event is {\"event_type\": text, \"level\"?: text, \"payload\"?: object, \"ts\"?: time}."),
            RunError::Unknown { .. } => Fault::new(Code::UndefinedObject, message)
                .hint("Use the id that start_run() returned, in the same tenant."),
            RunError::Final { run_id, status, .. } => Fault::new(Code::NotInPrerequisiteState, message)
                .detail(format!("Run {run_id} is {status}."))
                .hint("Start another run with start_run(), or add an event to this one with log_event()."),
        }
    }
}

/// A text of 1 to [`MAX_NAME`] characters.
pub fn name<'a>(text: Option<&'a str>, what: &'static str) -> Result<&'a str, RunError> {
    let text = text.ok_or(RunError::Missing { what })?;
    // The length in bytes is never below that in characters, and nearly always settles it.
    if text.is_empty() || text.len() > MAX_NAME && text.chars().count() > MAX_NAME {
        return Err(RunError::BadLength { what, length: text.chars().count() });
    }
    Ok(text)
}

/// The same, or nothing.
pub fn optional_name<'a>(text: Option<&'a str>, what: &'static str) -> Result<Option<&'a str>, RunError> {
    text.map(|text| name(Some(text), what)).transpose()
}

/// A duration in milliseconds, rounded to whole ones, or nothing.
pub fn duration(given: Option<f64>) -> Result<Option<i64>, RunError> {
    match given {
        Some(given) if !(0.0..=MAX_DURATION_MS as f64).contains(&given) => Err(RunError::BadDuration { given }),
        given => Ok(given.map(|given| given.round() as i64)),
    }
}

/// Events of this type belong to a step, which a run that has ended cannot have.
pub fn is_step(event_type: &str) -> bool {
    event_type.starts_with("step_")
}

/// What the argument of `log_events` has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    pub count: usize,
    pub has_step: bool,
    pub has_time: bool,
}

/// Checks the argument of `log_events`.
pub fn check_events(events: &serde_json::Value) -> Result<Events, RunError> {
    use serde_json::Value;
    let Value::Array(events) = events else {
        return Err(RunError::WrongKind { what: "events", wanted: "array" });
    };
    if events.len() > MAX_EVENTS {
        return Err(RunError::TooManyEvents { given: events.len() });
    }
    let mut found = Events { count: events.len(), has_step: false, has_time: false };
    for (i, event) in interrupt::each(events).enumerate() {
        let bad = |why: String| RunError::BadEvent { number: i + 1, why };
        let Value::Object(event) = event else {
            return Err(bad("It is not an object.".into()));
        };
        for (key, value) in interrupt::each(event) {
            match (key.as_str(), value) {
                ("event_type" | "level", Value::String(text)) if name(Some(text), "").is_ok() => {}
                ("event_type" | "level", _) => {
                    return Err(bad(format!("{key} is not a text of 1 to {MAX_NAME} characters.")));
                }
                ("payload", Value::Object(_)) | ("ts", Value::String(_)) => {}
                ("payload", _) => return Err(bad("payload is not an object.".into())),
                ("ts", _) => return Err(bad("ts is not a text.".into())),
                _ => return Err(bad(format!("It has the unknown key \"{}\".", crate::error::shorten(key)))),
            }
        }
        let event_type = event.get("event_type").and_then(Value::as_str);
        let event_type = event_type.ok_or_else(|| bad("It has no event_type.".into()))?;
        found.has_step |= is_step(event_type);
        found.has_time |= event.contains_key("ts");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_words_and_synonyms() {
        for (word, status) in [
            ("queued", Status::Queued),
            ("running", Status::Running),
            ("succeeded", Status::Succeeded),
            ("ok", Status::Succeeded),
            ("Success", Status::Succeeded),
            (" completed ", Status::Succeeded),
            ("failed", Status::Failed),
            ("ERROR", Status::Failed),
            ("failure", Status::Failed),
            ("cancelled", Status::Cancelled),
            ("canceled", Status::Cancelled),
        ] {
            assert_eq!(Status::parse(word), Ok(status), "{word}");
            assert_eq!(Status::parse(status.as_str()), Ok(status));
            assert_eq!(Status::parse(status.step_word()), Ok(status));
        }
        for word in ["", "done", "okay", "suc", "okok", "null"] {
            let fault = Fault::from(Status::parse(word).unwrap_err());
            assert_eq!(fault.code, Code::InvalidParameterValue);
            let hint = fault.hint.unwrap_or_default();
            for known in ["queued", "running", "succeeded", "failed", "cancelled", "ok", "canceled", "failure"] {
                assert!(hint.contains(known), "{known} is not listed");
            }
        }
    }

    #[test]
    fn only_the_ends_are_terminal() {
        let terminal = [Status::Succeeded, Status::Failed, Status::Cancelled];
        for status in [Status::Queued, Status::Running, Status::Succeeded, Status::Failed, Status::Cancelled] {
            assert_eq!(status.is_terminal(), terminal.contains(&status));
            assert_eq!(status.event_type() == "step_completed", status.is_terminal());
            assert_eq!(status.level() == "error", status == Status::Failed);
        }
    }

    #[test]
    fn names_count_characters_not_bytes() {
        assert_eq!(name(Some(&"ä".repeat(200)), "goal").map(str::len), Ok(400));
        assert_eq!(name(Some(&"ä".repeat(201)), "goal"), Err(RunError::BadLength { what: "goal", length: 201 }));
        assert_eq!(name(Some(""), "goal"), Err(RunError::BadLength { what: "goal", length: 0 }));
        assert_eq!(name(None, "goal"), Err(RunError::Missing { what: "goal" }));
        assert_eq!(optional_name(None, "goal"), Ok(None));
        assert!(optional_name(Some(""), "goal").is_err());
    }

    #[test]
    fn durations_are_bounded() {
        assert_eq!(duration(None), Ok(None));
        assert_eq!(duration(Some(-0.0)), Ok(Some(0)));
        assert_eq!(duration(Some(117.5)), Ok(Some(118)));
        assert_eq!(duration(Some(MAX_DURATION_MS as f64)), Ok(Some(MAX_DURATION_MS)));
        for given in [-0.001, f64::MIN, MAX_DURATION_MS as f64 + 1.0, f64::INFINITY, f64::NAN] {
            assert!(matches!(duration(Some(given)), Err(RunError::BadDuration { .. })));
        }
    }

    #[test]
    fn events_are_looked_at_before_they_are_written() {
        assert_eq!(check_events(&json!([])), Ok(Events { count: 0, has_step: false, has_time: false }));
        let steps = check_events(&json!([{"event_type": "step_completed"}])).unwrap();
        assert!(steps.has_step && !steps.has_time);
        let good =
            json!([{"event_type": "a"}, {"event_type": "b", "level": "warn", "payload": {"x": 1}, "ts": "2026-01-01"}]);
        assert_eq!(check_events(&good), Ok(Events { count: 2, has_step: false, has_time: true }));
        assert_eq!(check_events(&json!({})), Err(RunError::WrongKind { what: "events", wanted: "array" }));
        for bad in [
            json!(1),
            json!({}),
            json!({"event_type": ""}),
            json!({"event_type": 1}),
            json!({"event_type": "a", "payload": []}),
            json!({"event_type": "a", "ts": 5}),
            json!({"event_type": "a", "level": null}),
            json!({"event_type": "a", "run_id": 7}),
        ] {
            let result = check_events(&json!([{"event_type": "good"}, bad]));
            assert!(matches!(result, Err(RunError::BadEvent { number: 2, .. })), "{bad}: {result:?}");
        }
        let many = vec![json!({"event_type": "a"}); MAX_EVENTS + 1];
        assert_eq!(check_events(&json!(many)), Err(RunError::TooManyEvents { given: MAX_EVENTS + 1 }));
    }
}
