//! Rules: validation of versions, their review, and the difference between two versions.

use json_patch::PatchOperation;
use serde_json::Value;

use crate::error::{Code, Fault, shorten};
use crate::input::{canonical, invalid, optional, required};

/// The type of rules that apply only in the field that their `rule_data` names. All other types apply everywhere.
const FIELD_SPECIFIC: &str = "field_specific";
/// Decisions of a reviewer.
pub const DECISIONS: [&str; 2] = ["approved", "rejected"];

/// A version of a rule as a caller gives it.
#[derive(Debug, Clone, Copy, Default)]
pub struct RuleInput<'a> {
    pub rule_identifier: Option<&'a str>,
    pub rule_domain: Option<&'a str>,
    pub rule_data: Option<&'a Value>,
    pub source: Option<&'a str>,
    pub rule_type: Option<&'a str>,
    pub source_reference: Option<&'a str>,
    pub change_summary: Option<&'a str>,
    pub graph_node_id: Option<&'a str>,
    pub detected_by: Option<&'a str>,
}

/// A valid version of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule<'a> {
    pub rule_identifier: &'a str,
    pub rule_domain: &'a str,
    /// `rule_data` in the form that is hashed and compared.
    pub content: String,
    pub source: &'a str,
    pub rule_type: &'a str,
    pub source_reference: Option<&'a str>,
    pub change_summary: Option<&'a str>,
    pub graph_node_id: Option<&'a str>,
    pub detected_by: Option<&'a str>,
}

impl<'a> RuleInput<'a> {
    pub fn check(&self) -> Result<Rule<'a>, Fault> {
        let rule_identifier = required("rule_identifier", self.rule_identifier, 255)?;
        let rule_domain = required("rule_domain", self.rule_domain, 50)?;
        let data = self.rule_data.ok_or_else(|| invalid("rule_data must not be NULL"))?;
        if !data.is_object() {
            return Err(invalid("rule_data must be a JSON object"));
        }
        let rule = Rule {
            rule_identifier,
            rule_domain,
            content: canonical(data),
            source: required("source", self.source, 50)?,
            rule_type: required("rule_type", self.rule_type, 50)?,
            source_reference: optional("source_reference", self.source_reference, 500)?,
            change_summary: optional("change_summary", self.change_summary, 10_000)?,
            graph_node_id: optional("graph_node_id", self.graph_node_id, 255)?,
            detected_by: optional("actor_id", self.detected_by, 100)?,
        };
        if rule.rule_type == FIELD_SPECIFIC && !data["field"].is_string() {
            return Err(invalid("the rule_data of a field_specific rule must name its field")
                .hint("Add a member such as {\"field\": \"SPRABERRY (TREND AREA)\"}."));
        }
        Ok(rule)
    }
}

/// Refuses `action` on a version whose status is not the one it needs.
pub fn check_status(identifier: &str, version: i32, status: &str, needed: &str, action: &str) -> Result<(), Fault> {
    if status == needed {
        return Ok(());
    }
    Err(Fault::new(
        Code::NotInPrerequisiteState,
        format!("version {version} of {identifier} is {status}, so it cannot be {action}"),
    )
    .detail(format!("It must be {needed}."))
    .hint("propose_rule() creates a version for review; submit_rule() submits a draft."))
}

/// Refuses to withdraw a version that is or was in force, or is withdrawn.
pub fn check_withdrawal(identifier: &str, version: i32, status: &str, is_future: bool) -> Result<(), Fault> {
    if matches!(status, "draft" | "pending_review") || (status == "active" && is_future) {
        return Ok(());
    }
    let is = match status {
        "active" => "in force",
        other => other,
    };
    Err(Fault::new(
        Code::NotInPrerequisiteState,
        format!("version {version} of {identifier} is {is}, so it cannot be withdrawn"),
    )
    .detail("It must be a draft, pending_review, or active from a later day on.")
    .hint("publish_rule() puts the next version in force."))
}

/// The difference of two JSON values: a JSON Patch (RFC 6902) from the first to the
/// second, and the same in words.
pub fn difference(before: &Value, after: &Value) -> (Value, Vec<String>) {
    let patch = json_patch::diff(before, after);
    // Each path is of the value as the operations before it left it.
    let mut state = before.clone();
    let mut lines = Vec::new();
    for operation in &patch.0 {
        let old = state.pointer(operation.path().as_str()).map(show);
        let path = readable(operation.path().as_str());
        lines.push(match operation {
            PatchOperation::Add(add) => format!("{path}: added {}", show(&add.value)),
            PatchOperation::Remove(_) => format!("{path}: removed, was {}", old.unwrap_or_default()),
            PatchOperation::Replace(replace) => {
                format!("{path}: {} → {}", old.unwrap_or_default(), show(&replace.value))
            }
            // diff() creates no others.
            other => format!("{path}: {other}"),
        });
        if json_patch::patch(&mut state, std::slice::from_ref(operation)).is_err() {
            break;
        }
    }
    (serde_json::to_value(&patch).unwrap_or_default(), lines)
}

fn show(value: &Value) -> String {
    shorten(&value.to_string())
}

/// `/a~1b/0` as `a/b.0`.
fn readable(pointer: &str) -> String {
    match pointer.strip_prefix('/') {
        None => "(all)".into(),
        Some(path) => {
            path.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect::<Vec<_>>().join(".")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn versions() {
        let data = json!({"field": "SPRABERRY", "b": 1});
        let input = RuleInput {
            rule_identifier: Some("swr37"),
            rule_domain: Some("spacing"),
            rule_data: Some(&data),
            source: Some("manual"),
            rule_type: Some("field_specific"),
            ..RuleInput::default()
        };
        assert_eq!(input.check().unwrap().content, r#"{"b":1,"field":"SPRABERRY"}"#);
        for bad in [
            RuleInput { rule_identifier: Some(""), ..input },
            RuleInput { rule_domain: None, ..input },
            RuleInput { rule_data: None, ..input },
            RuleInput { rule_data: Some(&json!([])), ..input },
            RuleInput { rule_data: Some(&json!({"field": 1})), ..input },
            RuleInput { source: None, ..input },
            RuleInput { rule_type: Some(" "), ..input },
            RuleInput { rule_type: Some(&"x".repeat(51)), ..input },
            RuleInput { detected_by: Some(" "), ..input },
        ] {
            assert_eq!(bad.check().unwrap_err().code, Code::InvalidParameterValue, "{bad:?}");
        }
        assert!(RuleInput { rule_data: Some(&json!({})), rule_type: Some("notice"), ..input }.check().is_ok());
    }

    #[test]
    fn a_decision_needs_a_status() {
        assert!(check_status("swr37", 2, "draft", "draft", "submitted").is_ok());
        let fault = check_status("swr37", 2, "active", "pending_review", "approved").unwrap_err();
        assert_eq!(fault.message, "version 2 of swr37 is active, so it cannot be approved");
        assert_eq!(fault.detail.unwrap(), "It must be pending_review.");
    }

    #[test]
    fn what_is_in_force_is_not_withdrawn() {
        for (status, is_future) in [("draft", false), ("draft", true), ("pending_review", false), ("active", true)] {
            assert!(check_withdrawal("swr37", 2, status, is_future).is_ok());
        }
        for (status, is_future, is) in
            [("active", false, "in force"), ("superseded", true, "superseded"), ("withdrawn", true, "withdrawn")]
        {
            let fault = check_withdrawal("swr37", 2, status, is_future).unwrap_err();
            assert_eq!(fault.code, Code::NotInPrerequisiteState);
            assert_eq!(fault.message, format!("version 2 of swr37 is {is}, so it cannot be withdrawn"));
        }
    }

    #[test]
    fn lines() {
        let before = json!({"min_distance_ft": 467, "acres": 40, "a/b": [1, 2], "gone": true});
        let after = json!({"min_distance_ft": 330, "acres": 40, "a/b": [1, 3, 4], "new": {"x": 1}});
        let (patch, mut lines) = difference(&before, &after);
        lines.sort();
        assert_eq!(
            lines,
            [
                "a/b.1: 2 → 3",
                "a/b.2: added 4",
                "gone: removed, was true",
                "min_distance_ft: 467 → 330",
                "new: added {\"x\":1}"
            ]
        );
        let mut patched = before;
        json_patch::patch(&mut patched, &serde_json::from_value::<json_patch::Patch>(patch).unwrap()).unwrap();
        assert_eq!(patched, after);
        assert_eq!(difference(&json!({"a": 1}), &json!({"a": 1})), (json!([]), vec![]));
        assert_eq!(difference(&json!(1), &json!(2)).1, ["(all): 1 → 2"]);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c/~]{0,3}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c/~]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_patch_leads_from_one_to_the_other(before in any_json(), after in any_json()) {
            let (patch, lines) = difference(&before, &after);
            let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
            prop_assert_eq!(patch.0.len(), lines.len());
            let mut state = before;
            json_patch::patch(&mut state, &patch).unwrap();
            prop_assert_eq!(state, after);
        }
    }
}
