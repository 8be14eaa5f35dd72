//! Import of rules from a schema of the skill-system-postgres skill.

use serde_json::{Value, json};

use crate::error::Fault;
use crate::policy::Profile;

/// The highest id that is imported: what a double holds exactly, and far from the end of the sequences of new ids.
pub const MAX_IMPORTED_ID: i64 = (1 << 53) - 1;

/// Sorts the rules of a legacy profile's list: those that a profile may have are returned, the others are added to
/// `refused` with the reason. `put` places a list where it belongs in a profile.
pub fn keep_valid_rules(
    rules: Vec<Option<String>>,
    column: &str,
    put: fn(Vec<String>) -> Profile,
    refused: &mut Vec<Value>,
) -> Vec<String> {
    let mut kept = Vec::new();
    for rule in rules {
        match check_rule(rule.as_deref(), put) {
            Ok(valid) => kept.push(valid),
            Err(why) => refused.push(json!({"column": column, "rule": rule, "why": why})),
        }
    }
    kept
}

fn check_rule(rule: Option<&str>, put: fn(Vec<String>) -> Profile) -> Result<String, String> {
    let rule = rule.ok_or("it is NULL")?.to_owned();
    let profile = Profile { name: "legacy".into(), ..put(vec![rule.clone()]) };
    profile.validate().map(|()| rule).map_err(|error| {
        let fault = Fault::from(error);
        fault.detail.unwrap_or(fault.message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_rules_stay_and_others_are_reported() {
        let mut refused = Vec::new();
        let list = ["db.read", "not an effect"].map(|rule| Some(rule.to_owned())).into_iter().chain([None]).collect();
        let put = |allowed_effects| Profile { allowed_effects, ..Profile::default() };
        assert_eq!(keep_valid_rules(list, "allowed_effects", put, &mut refused), ["db.read"]);
        assert_eq!(refused.len(), 2);
        assert_eq!((&refused[0]["rule"], &refused[0]["column"]), (&json!("not an effect"), &json!("allowed_effects")));
        assert!(refused[0]["why"].as_str().is_some_and(|why| !why.is_empty()));
        assert_eq!(refused[1], json!({"column": "allowed_effects", "rule": null, "why": "it is NULL"}));
    }
}
