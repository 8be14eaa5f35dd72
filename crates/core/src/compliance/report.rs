//! The compliance report: JSON, or HTML and Markdown from templates.

use minijinja::value::{Serde, Value as Told};
use minijinja::{AutoEscape, State};
use serde_json::Value;

use crate::error::Fault;
use crate::input::parse_choice;
use crate::interrupt;
use crate::page::{broken, environment};

/// Formats of a report.
pub const FORMATS: [&str; 3] = ["html", "markdown", "json"];
/// Most rows of each list.
pub const MAX_ROWS: i32 = 1000;

/// Escapes a value for Markdown, so that it is plain text whatever it contains.
fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in interrupt::each(text.chars()) {
        match c {
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '+' | '!' | '|' | '~' | '$' | '@'
            | ':' | '/' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn write_value(
    out: &mut minijinja::Output<'_>,
    state: &mut State<'_, '_>,
    value: &Told,
) -> Result<(), minijinja::Error> {
    if matches!(state.auto_escape(), AutoEscape::Custom(_)) && !value.is_safe() {
        let text = if value.is_none() { String::new() } else { value.to_string() };
        out.write_str(&markdown(&text)).map_err(minijinja::Error::from)
    } else {
        minijinja::escape_formatter(out, state, value)
    }
}

/// Places the deadlines on a line from 0 to 1000, with the months as ticks.
fn time_line(data: &mut Value) {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let now = number(&data["now_epoch"]);
    let times: Vec<f64> =
        data["deadlines"].as_array().map(|all| all.iter().map(|d| number(&d["epoch"])).collect()).unwrap_or_default();
    let first = times.iter().copied().fold(now, f64::min);
    let span = (times.iter().copied().fold(now, f64::max) - first).max(86_400.0);
    let place = |time: f64| ((time - first) / span * 960.0 + 20.0).round();
    if let Some(all) = data["deadlines"].as_array_mut() {
        for (i, deadline) in all.iter_mut().enumerate() {
            deadline["x"] = place(times[i]).into();
            // Neighbours do not hide each other.
            deadline["y"] = (24 + (i % 4) * 16).into();
        }
    }
    data["now_x"] = place(now).into();
    // The ends of the line: a deadline, or today.
    let today = data["generated_at"].as_str().unwrap_or_default().get(..10).unwrap_or_default().to_owned();
    let end = |at: Option<usize>, beyond: bool| match at {
        Some(i) if !beyond => data["deadlines"][i]["deadline"].clone(),
        _ => today.as_str().into(),
    };
    let from = end(Some(0), times.first().is_none_or(|time| *time > now));
    let to = end(times.len().checked_sub(1), times.last().is_none_or(|time| *time < now));
    data["from"] = from;
    data["to"] = to;
}

pub fn render(format: Option<&str>, mut data: Value) -> Result<String, Fault> {
    let format = parse_choice("format", format, &FORMATS)?;
    if format == "json" {
        return Ok(data.to_string());
    }
    time_line(&mut data);
    let mut environment = environment()?;
    environment.set_auto_escape_callback(|name| {
        if name == "html" { AutoEscape::Html } else { AutoEscape::Custom("markdown".into()) }
    });
    environment.set_formatter(write_value);
    environment.add_template("html", include_str!("report.html.j2")).map_err(broken)?;
    environment.add_template("markdown", include_str!("report.md.j2")).map_err(broken)?;
    let statuses = ["overdue", "action_needed", "in_review", "compliant", "not_applicable"];
    let context = minijinja::context! { r => Told::from(Serde(&data)), statuses => Told::from(Serde(statuses)) };
    environment.get_template(format).and_then(|template| template.render(context)).map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOSTILE: &str = "</title><script>alert(1)</script>|`x`[a](javascript:1)\n# \"'&";

    fn data() -> Value {
        json!({
            "title": HOSTILE, "tenant": HOSTILE, "generated_at": "2026-11-21 00:00 UTC", "now_epoch": 1000.0, "entities": 1, "cells": 2, "rows": 10,
            "counts": {"overdue": 1, "action_needed": 0, "in_review": 0, "compliant": 1, "not_applicable": 0},
            "domains": [HOSTILE], "districts": [{"district": HOSTILE, "cells": [{"open": 1, "overdue": 1, "total": 2, "level": 2}]}],
            "matrix": [{"entity_id": HOSTILE, "entity_name": HOSTILE, "entity_type": HOSTILE, "entity_district": null, "statuses": ["overdue"]}],
            "deadlines": [{"entity_id": HOSTILE, "entity_name": null, "domain": HOSTILE, "status": "overdue", "deadline": "2026-01-01", "days": -3, "epoch": 5.0}],
            "stale": [{"entity_id": HOSTILE, "domain": HOSTILE, "rule": HOSTILE, "frozen": 1, "current": 2, "lines": [HOSTILE]}],
            "evidence": [{"name": HOSTILE, "type": "pdf", "entity_id": HOSTILE, "domain": HOSTILE, "digest": "sha256:00", "size": 7, "created": "2026-01-01", "expires": null}],
        })
    }

    #[test]
    fn every_value_is_escaped() {
        let html = render(Some("html"), data()).unwrap();
        assert!(!html.contains("<script") && !html.contains("</title><script") && html.contains("&lt;script&gt;"));
        let text = render(Some("markdown"), data()).unwrap();
        assert!(
            !text.contains("<script") && !text.contains("[a](") && !text.contains("\n# \"") && text.contains("\\|")
        );
        // The rows of a table stay rows.
        assert!(text.lines().filter(|line| line.starts_with('|')).all(|line| line.ends_with('|')));
        assert_eq!(serde_json::from_str::<Value>(&render(Some("json"), data()).unwrap()).unwrap(), data());
        assert!(render(Some("pdf"), data()).is_err() && render(None, data()).is_err());
    }
}
