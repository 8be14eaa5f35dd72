//! Checklists: which status may follow which, and what their items look like.

use serde_json::{Map, Value, json};

use crate::error::{Code, Fault};
use crate::input::{canonical, invalid, required};
use crate::interrupt;

/// Most items of a template.
const MAX_ITEMS: usize = 500;
/// Largest content or data of one item, in bytes.
const MAX_ITEM_DATA: usize = 64 << 10;

/// Statuses of an item.
pub const ITEM_STATUSES: [&str; 5] = ["pending", "in_progress", "complete", "blocked", "not_applicable"];

/// Statuses of a filing that has not ended.
pub const OPEN: [&str; 6] = ["draft", "in_progress", "ready_for_review", "in_review", "approved", "rejected"];
/// Statuses of a filing that takes evidence: nobody has approved it.
pub const UNDECIDED: [&str; 5] = ["draft", "in_progress", "ready_for_review", "in_review", "rejected"];
/// Statuses in which a filing is worked on.
pub const EDITABLE: [&str; 3] = ["draft", "in_progress", "rejected"];
/// Statuses of a filing under review or reviewed: a new copy of a rule makes the review void.
pub const REVIEWED: [&str; 3] = ["ready_for_review", "in_review", "approved"];
/// Decisions of a reviewer.
pub const DECISIONS: [&str; 3] = ["approved", "rejected", "in_review"];

const TRANSITIONS_HINT: &str = "SELECT * FROM skill_system.checklist_transitions();";

/// One change of status that a checklist can make.
pub struct Transition {
    /// Function that makes it.
    pub action: &'static str,
    pub from: &'static str,
    pub to: &'static str,
    /// When it is allowed.
    pub condition: &'static str,
}

const fn transition(action: &'static str, from: &'static str, to: &'static str, condition: &'static str) -> Transition {
    Transition { action, from, to, condition }
}

const EDIT: &str = "no other change since expected_version";
const SUBMIT: &str = "every required item is complete";
const REASON: &str = "with a reason";
const WITHDRAW: &str = "by its author, or by a reviewer with a reason";
const WITHDRAW_APPROVED: &str = "by a reviewer, with a reason";
const REFRESH: &str = "a stale rule is replaced, so the review is void";

/// All of them; nothing else is allowed.
pub const TRANSITIONS: [Transition; 26] = [
    transition("update_checklist_item", "draft", "in_progress", EDIT),
    transition("update_checklist_item", "in_progress", "in_progress", EDIT),
    transition("update_checklist_item", "rejected", "in_progress", EDIT),
    transition("submit_checklist", "draft", "ready_for_review", SUBMIT),
    transition("submit_checklist", "in_progress", "ready_for_review", SUBMIT),
    transition("review_checklist", "ready_for_review", "in_review", "somebody is at it"),
    transition("review_checklist", "ready_for_review", "approved", "by a reviewer"),
    transition("review_checklist", "ready_for_review", "rejected", "by a reviewer"),
    transition("review_checklist", "in_review", "approved", "by a reviewer"),
    transition("review_checklist", "in_review", "rejected", "by a reviewer"),
    transition("file_checklist", "approved", "filed", "no frozen rule is stale and unacknowledged"),
    transition("refresh_snapshot", "ready_for_review", "in_progress", REFRESH),
    transition("refresh_snapshot", "in_review", "in_progress", REFRESH),
    transition("refresh_snapshot", "approved", "in_progress", REFRESH),
    transition("mark_exception", "draft", "exception", REASON),
    transition("mark_exception", "in_progress", "exception", REASON),
    transition("mark_exception", "ready_for_review", "exception", REASON),
    transition("mark_exception", "in_review", "exception", REASON),
    transition("mark_exception", "approved", "exception", REASON),
    transition("mark_exception", "rejected", "exception", REASON),
    transition("withdraw_checklist", "draft", "withdrawn", WITHDRAW),
    transition("withdraw_checklist", "in_progress", "withdrawn", WITHDRAW),
    transition("withdraw_checklist", "ready_for_review", "withdrawn", WITHDRAW),
    transition("withdraw_checklist", "in_review", "withdrawn", WITHDRAW),
    transition("withdraw_checklist", "approved", "withdrawn", WITHDRAW_APPROVED),
    transition("withdraw_checklist", "rejected", "withdrawn", WITHDRAW),
];

/// The status an action leads to; `decision` chooses among several.
pub fn next(action: &str, from: &str, decision: Option<&str>) -> Result<&'static str, Fault> {
    let found =
        TRANSITIONS.iter().find(|t| t.action == action && t.from == from && decision.is_none_or(|to| t.to == to));
    found.map(|t| t.to).ok_or_else(|| {
        let mut wanted: Vec<&str> = TRANSITIONS
            .iter()
            .filter(|t| t.action == action && decision.is_none_or(|to| t.to == to))
            .map(|t| t.from)
            .collect();
        wanted.dedup();
        Fault::new(Code::NotInPrerequisiteState, format!("{action} is not possible: the checklist is {from}"))
            .detail(format!("It must be {}.", wanted.join(" or ")))
            .hint(TRANSITIONS_HINT)
    })
}

/// The event in the audit log that records an action.
pub fn event_type(action: &str) -> &'static str {
    match action {
        "update_checklist_item" => "filing.item_updated",
        "submit_checklist" => "filing.submitted",
        "review_checklist" => "filing.reviewed",
        "file_checklist" => "filing.filed",
        "mark_exception" => "filing.exception",
        "withdraw_checklist" => "filing.withdrawn",
        _ => "filing.reopened",
    }
}

/// Refuses what is possible in some statuses only and changes none.
pub fn check_status(status: &str, possible: &[&str]) -> Result<(), Fault> {
    if possible.contains(&status) {
        return Ok(());
    }
    Err(Fault::new(Code::NotInPrerequisiteState, format!("the checklist is {status}"))
        .detail(format!("It must be {}.", possible.join(" or ")))
        .hint(TRANSITIONS_HINT))
}

/// Refuses a change when the checklist is not at the expected version.
pub fn check_version(version: i32, expected: Option<i32>) -> Result<(), Fault> {
    match expected {
        Some(expected) if expected != version => Err(Fault::new(
            Code::SerializationFailure,
            format!("the checklist was changed concurrently: it has version {version}, not {expected}"),
        )
        .hint("Read the checklist again and repeat the change.")),
        _ => Ok(()),
    }
}

/// Refuses an UPDATE of a checklist's row that no action could have made.
pub fn check_row_change(from: &str, to: &str, changed_columns: &[String]) -> Result<(), Fault> {
    const FIXED: [&str; 7] =
        ["id", "tenant_id", "entity_id", "compliance_domain", "template_id", "created_by", "created_at"];
    let refused = |message| Err(Fault::new(Code::NotInPrerequisiteState, message).hint(TRANSITIONS_HINT));
    if !OPEN.contains(&from) {
        return refused(format!("the checklist is {from} and cannot be changed"));
    }
    if let Some(column) = changed_columns.iter().find(|column| FIXED.contains(&column.as_str())) {
        return refused(format!("column {column} of a checklist cannot be changed"));
    }
    if from != to && !may_follow(from, to) {
        return refused(format!("a checklist that is {from} cannot become {to}"));
    }
    Ok(())
}

/// Refuses the index of an item that the checklist does not have.
pub fn check_item_index(items: &Value, index: i32) -> Result<(), Fault> {
    let count = items.as_array().map_or(0, Vec::len);
    if usize::try_from(index).is_ok_and(|index| index < count) {
        return Ok(());
    }
    Err(Fault::new(Code::UndefinedObject, format!("item {index} of the checklist does not exist"))
        .detail(format!("It has {count} items, counted from 0.")))
}

/// Some action leads from one status to the other.
pub fn may_follow(from: &str, to: &str) -> bool {
    TRANSITIONS.iter().any(|t| t.from == from && t.to == to)
}

/// Refuses a template whose items or required indexes are malformed.
pub fn check_template(items: &Value, required_items: &Value) -> Result<(), Fault> {
    let items = items.as_array().ok_or_else(|| invalid("items must be a JSON array"))?;
    if items.is_empty() || items.len() > MAX_ITEMS {
        return Err(
            invalid(format!("items must have 1 to {MAX_ITEMS} elements")).detail(format!("It has {}.", items.len()))
        );
    }
    for (i, item) in interrupt::each(items).enumerate() {
        let label = item.as_object().and_then(|item| item.get("label")).and_then(Value::as_str);
        required("label", label, 500).map_err(|fault| {
            invalid(format!("item {i} is malformed"))
                .detail(format!("{}.", fault.message))
                .hint("Each item is an object such as {\"label\": \"Plat\"}.")
        })?;
        if canonical(item).len() > MAX_ITEM_DATA {
            return Err(Fault::new(
                Code::ProgramLimitExceeded,
                format!("item {i} is larger than {MAX_ITEM_DATA} bytes"),
            ));
        }
    }
    indexes(required_items)
        .filter(|indexes| {
            indexes.iter().enumerate().all(|(i, index)| *index < items.len() && !indexes[..i].contains(index))
        })
        .map(|_| ())
        .ok_or_else(|| {
            invalid("min_required_items must be an array of different indexes of items")
                .detail(format!("Indexes go from 0 to {}.", items.len() - 1))
        })
}

fn indexes(list: &Value) -> Option<Vec<usize>> {
    match list {
        Value::Null => Some(Vec::new()),
        _ => {
            list.as_array()?.iter().map(|index| index.as_u64().and_then(|index| usize::try_from(index).ok())).collect()
        }
    }
}

/// The items of a new checklist: those of the template, all pending.
pub fn instantiate(items: &Value) -> Value {
    let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
    let begin = |(i, item): (usize, &Value)| {
        let mut item = item.as_object().cloned().unwrap_or_default();
        item.insert("index".into(), i.into());
        item.insert("status".into(), "pending".into());
        Value::Object(item)
    };
    items.iter().enumerate().map(begin).collect()
}

/// What is new about an item.
pub struct ItemChange<'a> {
    pub status: &'a str,
    /// A note; `None` leaves it.
    pub note: Option<&'a str>,
    /// What was entered; `None` leaves it.
    pub data: Option<&'a Value>,
    pub by: &'a str,
    pub at: &'a str,
}

/// Changes item `index` in place and returns its label and the status it had.
pub fn change_item(items: &mut Value, index: i32, change: &ItemChange<'_>) -> Result<(String, String), Fault> {
    check_item_index(items, index)?;
    let item = items
        .get_mut(index as usize)
        .and_then(Value::as_object_mut)
        .ok_or_else(|| Fault::new(Code::DataCorrupted, format!("item {index} of the checklist is not an object")))?;
    let text =
        |item: &Map<String, Value>, key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let was = (text(item, "label"), text(item, "status"));
    item.insert("status".into(), change.status.into());
    if let Some(note) = change.note {
        item.insert("note".into(), note.into());
    }
    if let Some(data) = change.data {
        item.insert("data".into(), data.clone());
    }
    item.insert("updated_by".into(), change.by.into());
    item.insert("updated_at".into(), change.at.into());
    if canonical(&Value::Object(item.clone())).len() > MAX_ITEM_DATA {
        return Err(Fault::new(
            Code::ProgramLimitExceeded,
            format!("item {index} would be larger than {MAX_ITEM_DATA} bytes"),
        )
        .hint("Add large content with add_artifact()."));
    }
    Ok(was)
}

/// An item that must be complete and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub index: i32,
    pub label: String,
    pub status: String,
}

/// The required items that are not complete.
pub fn missing(items: &Value, required_items: &Value) -> Vec<Missing> {
    let text = |item: Option<&Value>, key: &str| {
        item.and_then(|item| item.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut wanted = indexes(required_items).unwrap_or_default();
    wanted.sort_unstable();
    wanted
        .into_iter()
        .map(|index| Missing {
            index: index as i32,
            label: text(items.get(index), "label"),
            status: text(items.get(index), "status"),
        })
        .filter(|item| item.status != "complete")
        .collect()
}

/// Refuses to submit while items are missing.
pub fn check_complete(items: &Value, required_items: &Value) -> Result<(), Fault> {
    let missing = missing(items, required_items);
    if missing.is_empty() {
        return Ok(());
    }
    let named = missing
        .iter()
        .map(|item| format!("{} \"{}\" is {}", item.index, item.label, item.status))
        .collect::<Vec<_>>()
        .join("; ");
    Err(Fault::new(Code::NotInPrerequisiteState, format!("{} required item(s) are not complete", missing.len()))
        .detail(format!("{named}."))
        .hint("Complete them with update_checklist_item(checklist_id, item_index, 'complete')."))
}

/// Adds a decision to the reviews in a checklist's metadata.
pub fn add_review(metadata: &mut Value, decision: &str, by: &str, comment: Option<&str>, at: &str) {
    if let Some(metadata) = metadata.as_object_mut() {
        let reviews = metadata.entry("reviews").or_insert_with(|| json!([]));
        if !reviews.is_array() {
            *reviews = json!([]);
        }
        if let Some(reviews) = reviews.as_array_mut() {
            reviews.push(json!({"decision": decision, "by": by, "comment": comment, "at": at}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUSES: [&str; 9] = [
        "draft",
        "in_progress",
        "ready_for_review",
        "in_review",
        "approved",
        "rejected",
        "filed",
        "exception",
        "withdrawn",
    ];

    #[test]
    fn transitions() {
        for t in &TRANSITIONS {
            assert!(STATUSES.contains(&t.from) && STATUSES.contains(&t.to));
            assert_eq!(next(t.action, t.from, Some(t.to)).unwrap(), t.to);
        }
        // What has ended stays so, and only what was approved is filed.
        for status in STATUSES {
            assert!(["filed", "exception", "withdrawn"].iter().all(|ended| !may_follow(ended, status)));
            assert_eq!(may_follow(status, "withdrawn"), OPEN.contains(&status));
            assert_eq!(may_follow(status, "filed"), status == "approved");
        }
        assert_eq!(OPEN, *STATUSES.first_chunk().unwrap());
        assert!(EDITABLE.iter().chain(&REVIEWED).all(|status| OPEN.contains(status)));
        let fault = next("file_checklist", "in_review", None).unwrap_err();
        assert_eq!((fault.code, fault.detail.as_deref()), (Code::NotInPrerequisiteState, Some("It must be approved.")));
        assert_eq!(
            next("review_checklist", "draft", Some("approved")).unwrap_err().detail.unwrap(),
            "It must be ready_for_review or in_review."
        );
    }

    #[test]
    fn changes_of_a_row() {
        let changed = |column: &str| [column.to_owned()];
        assert!(check_row_change("draft", "in_progress", &changed("status")).is_ok());
        assert!(check_row_change("draft", "draft", &changed("items")).is_ok());
        for (from, to, column) in
            [("filed", "filed", "items"), ("draft", "draft", "entity_id"), ("draft", "filed", "status")]
        {
            let fault = check_row_change(from, to, &changed(column)).unwrap_err();
            assert_eq!(fault.code, Code::NotInPrerequisiteState, "{from} {to} {column}");
        }
    }

    #[test]
    fn statuses_and_versions() {
        assert!(check_status("draft", &EDITABLE).is_ok() && check_status("filed", &OPEN).is_err());
        assert!(check_version(3, None).is_ok() && check_version(3, Some(3)).is_ok());
        assert_eq!(check_version(3, Some(2)).unwrap_err().code, Code::SerializationFailure);
        for action in TRANSITIONS.map(|t| t.action) {
            assert_eq!(event_type(action) == "filing.reopened", action == "refresh_snapshot", "{action}");
        }
    }

    #[test]
    fn templates() {
        let items = json!([{"label": "Plat"}, {"label": "Notice", "item_type": "letter"}]);
        for good in [json!(null), json!([]), json!([0]), json!([1, 0])] {
            assert!(check_template(&items, &good).is_ok(), "{good}");
        }
        for bad in [json!([2]), json!([-1]), json!([0, 0]), json!(["0"]), json!({}), json!([0.5])] {
            assert!(check_template(&items, &bad).is_err(), "{bad}");
        }
        for bad in
            [json!({}), json!([]), json!([1]), json!([{"label": ""}]), json!([{"name": "x"}]), json!([{"label": 7}])]
        {
            assert!(check_template(&bad, &json!([])).is_err(), "{bad}");
        }
        assert_eq!(
            check_template(&json!([{"label": "a"}, {"labl": "b"}]), &json!([])).unwrap_err().message,
            "item 1 is malformed"
        );
    }

    #[test]
    fn items() {
        let mut items = instantiate(&json!([{"label": "Plat", "status": "complete", "index": 9}, {"label": "Notice"}]));
        assert_eq!(items[0], json!({"label": "Plat", "status": "pending", "index": 0}));
        let change = ItemChange { status: "complete", note: Some("done"), data: None, by: "ann", at: "now" };
        assert_eq!(change_item(&mut items, 1, &change).unwrap(), ("Notice".into(), "pending".into()));
        assert_eq!(
            items[1],
            json!({"label": "Notice", "index": 1, "status": "complete", "note": "done", "updated_by": "ann", "updated_at": "now"})
        );
        for index in [-1, 2, i32::MAX] {
            assert_eq!(change_item(&mut items, index, &change).unwrap_err().code, Code::UndefinedObject);
        }
        let large = json!("x".repeat(MAX_ITEM_DATA));
        assert_eq!(
            change_item(&mut items, 0, &ItemChange { data: Some(&large), ..change }).unwrap_err().code,
            Code::ProgramLimitExceeded
        );
        let fault = check_complete(&instantiate(&json!([{"label": "Plat"}])), &json!([0])).unwrap_err();
        assert_eq!(fault.detail.unwrap(), "0 \"Plat\" is pending.");
        assert!(check_complete(&items, &json!([1])).is_ok() && check_complete(&items, &json!(null)).is_ok());
    }
}
