//! A run as a page: its steps on a time line, what they cost, and what else happened.

use serde_json::Value;

use crate::error::Fault;
use crate::page;

/// Most steps, events and denials of a page.
pub const MAX_ROWS: i64 = 500;

/// A duration in seconds, as people read it.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        s if s < 59.95 => format!("{s:.1} s"),
        s => {
            let whole = s.round() as u64;
            match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60) {
                (0, 0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
                (0, hours, minutes, _) => format!("{hours} h {minutes:02} min"),
                (days, hours, ..) => format!("{days} d {hours} h"),
            }
        }
    }
}

/// The page of a run, given with times as seconds since 1970 (`begin`, `end` or `now`, and of each step and event `at`) and
/// durations in milliseconds.
pub fn render(mut run: Value) -> Result<String, Fault> {
    let number = |value: &Value| value.as_f64().filter(|number| number.is_finite());
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let now = number(&run["now"]).unwrap_or_default();
    let begin = number(&run["begin"]).unwrap_or(now);
    let end = number(&run["end"]).unwrap_or(now).max(begin);
    let mut steps = list(&run["steps"]);
    let took = |step: &Value| number(&step["duration_ms"]).unwrap_or_default() / 1000.0;
    let ended = |step: &Value| number(&step["at"]).unwrap_or(begin);
    // Agents state durations: a step may have begun before its run.
    let first = steps.iter().map(|step| ended(step) - took(step)).fold(begin, f64::min);
    let span = (steps.iter().map(ended).fold(end, f64::max) - first).max(0.001);
    let percent = |seconds: f64| format!("{:.2}", (seconds / span * 100.0).clamp(0.0, 100.0));
    for step in &mut steps {
        let (at, took) = (ended(step), took(step));
        step["left"] = percent((at - took - first).min(span * 0.99)).into();
        step["width"] = percent(took).into();
        step["from"] = duration((at - took - first).max(0.0)).into();
        step["duration"] = step["duration_ms"].is_number().then(|| duration(took)).into();
    }
    run["steps"] = steps.into();
    for name in ["events", "denials"] {
        if let Some(rows) = run[name].as_array_mut() {
            for row in rows {
                row["after"] = number(&row["at"]).map(|at| duration((at - begin).max(0.0))).into();
            }
        }
    }
    run["span"] = duration(span).into();
    run["duration"] = duration(end - begin).into();
    page::render(include_str!("page.html.j2"), &run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_have_the_unit_that_fits() {
        for (seconds, text) in [
            (0.0, "0 ms"),
            (0.0005, "0 ms"),
            (0.9994, "999 ms"),
            (0.9996, "1.0 s"),
            (59.94, "59.9 s"),
            (59.96, "1 min 00 s"),
            (3599.6, "1 h 00 min"),
            (90_000.0, "1 d 1 h"),
            (1e15, "11574074074 d 1 h"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    fn run(step: Value) -> Value {
        json!({
            "id": 7, "tenant": "t", "goal": "<script>", "agent_id": null, "status": "succeeded", "error": null, "begun": "then",
            "ended": "later", "now": 100.0, "begin": 10.0, "end": 20.0, "policy": null, "denials": null,
            "totals": {"steps": 1, "failed": 0, "events": 0, "input_tokens": null, "output_tokens": null, "cost_usd": null},
            "steps": [step], "events": [],
        })
    }

    fn step(at: Value, duration_ms: Value) -> Value {
        json!({"at": at, "duration_ms": duration_ms, "skill": "<b>", "operation": null, "model": null, "status": "succeeded",
            "input_tokens": null, "output_tokens": null, "cost_usd": null})
    }

    #[test]
    fn a_bar_lies_where_its_step_was() {
        let page = render(run(step(json!(20.0), json!(5000)))).unwrap();
        assert!(page.contains("margin-left: 50.00%; width: 50.00%") && page.contains("<span>10.0 s</span>"));
        assert!(!page.contains("<script>") && !page.contains("<b><") && page.contains("&lt;script&gt;"));
        // It says to have begun before its run.
        let page = render(run(step(json!(20.0), json!(20_000)))).unwrap();
        assert!(page.contains("margin-left: 0.00%; width: 100.00%") && page.contains("<span>20.0 s</span>"));
        // Nothing is known of it.
        let page = render(run(step(json!(null), json!(null)))).unwrap();
        assert!(page.contains("margin-left: 0.00%; width: 0.00%"));
    }
}
