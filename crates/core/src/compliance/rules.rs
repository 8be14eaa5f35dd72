//! Rules: the difference between two versions.

use json_patch::PatchOperation;
use serde_json::Value;

use crate::policy::effect::shorten;

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
            // diff() makes no others.
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
