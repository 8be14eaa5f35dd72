//! OSCAL assessment results (NIST, model version 1.0.4 and later).

use serde_json::{Value, json};
use uuid::Uuid;

/// Model version that the document follows.
pub const VERSION: &str = "1.0.4";
/// Namespace of the extension's properties.
const NAMESPACE: &str = "https://skill-system.invalid/ns/oscal";

/// Evidence for a cell.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Evidence {
    pub id: String,
    pub name: String,
    pub media_type: Option<String>,
    /// Where it is, when it is a file.
    pub path: Option<String>,
    /// `sha256:<hex>`
    pub digest: String,
}

/// One cell of the matrix with what is known about it.
#[derive(Debug, Clone)]
pub struct Cell {
    pub entity_id: String,
    pub entity_type: String,
    pub entity_name: Option<String>,
    pub domain: String,
    /// Status of the cell, now.
    pub status: String,
    pub deadline: Option<String>,
    /// When it was assessed, RFC 3339.
    pub assessed_at: String,
    pub checklist_id: Option<String>,
    pub evidence: Vec<Evidence>,
    /// The frozen rules as `identifier version`.
    pub rules: Vec<String>,
}

/// Metadata of the document.
#[derive(Debug, Clone)]
pub struct About<'a> {
    pub title: &'a str,
    pub tenant: &'a str,
    /// When it is created, RFC 3339.
    pub at: &'a str,
    /// Whether cells were left out.
    pub truncated: bool,
}

/// A name-based UUID, because OSCAL takes versions 4 and 5 only.
fn name_uuid(tenant: &str, parts: &[&str]) -> String {
    let mut name = tenant.to_owned();
    for part in parts {
        name.push('\u{1f}');
        name.push_str(part);
    }
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
}

/// A text as the OSCAL data type token.
fn token(text: &str) -> String {
    let mut out: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' }).collect();
    if !out.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        out.insert(0, '_');
    }
    out
}

/// A text as the OSCAL data type string: nothing but blanks is none, ends are trimmed.
fn line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() { "-".into() } else { text }
}

pub fn assessment_results(about: &About<'_>, cells: &[Cell]) -> Value {
    let id = |parts: &[&str]| name_uuid(about.tenant, parts);
    let plan = id(&["plan"]);
    let mut resources = vec![
        json!({"uuid": plan, "title": "Checklist templates", "description": "The templates that the filings were made from."}),
    ];
    let (mut observations, mut findings) = (Vec::new(), Vec::new());
    let mut domains: Vec<String> = Vec::new();
    for cell in cells {
        let key = [cell.entity_id.as_str(), cell.domain.as_str()];
        let name = line(cell.entity_name.as_deref().unwrap_or(&cell.entity_id));
        let observation = id(&["observation", key[0], key[1]]);
        let mut props = vec![json!({"name": "status", "ns": NAMESPACE, "value": cell.status})];
        let mut prop = |name: &str, value: Option<&String>| {
            props.extend(value.map(|value| json!({"name": name, "ns": NAMESPACE, "value": line(value)})));
        };
        prop("deadline", cell.deadline.as_ref());
        prop("checklist", cell.checklist_id.as_ref());
        for rule in &cell.rules {
            prop("frozen-rule", Some(rule));
        }
        let mut told = json!({
            "uuid": observation, "description": format!("{name}: {} is {}.", cell.domain, cell.status.replace('_', " ")), "props": props,
            "methods": ["EXAMINE"], "collected": cell.assessed_at,
            "subjects": [{"subject-uuid": id(&["entity", key[0]]), "type": "inventory-item", "title": format!("{} {}", line(&cell.entity_type), name)}],
        });
        if !cell.evidence.is_empty() {
            told["relevant-evidence"] = cell.evidence.iter().map(|evidence| json!({"href": format!("#{}", id(&["evidence", &evidence.id])), "description": line(&evidence.name)})).collect();
        }
        resources.extend(cell.evidence.iter().map(|evidence| resource(evidence, id(&["evidence", &evidence.id]))));
        observations.push(told);
        let (state, reason, remarks) = match cell.status.as_str() {
            "compliant" => ("satisfied", "pass", "The filing is done."),
            "not_applicable" => ("satisfied", "other", "The requirement does not apply."),
            "in_review" => ("not-satisfied", "other", "The filing is with the reviewers."),
            "overdue" => ("not-satisfied", "fail", "The deadline has passed."),
            _ => ("not-satisfied", "fail", "The filing is not done."),
        };
        findings.push(json!({
            "uuid": id(&["finding", key[0], key[1]]), "title": format!("{} of {name}", cell.domain), "description": remarks,
            "target": {"type": "objective-id", "target-id": token(&cell.domain), "status": {"state": state, "reason": reason, "remarks": remarks}},
            "related-observations": [{"observation-uuid": observation}],
        }));
        if !domains.contains(&cell.domain) {
            domains.push(cell.domain.clone());
        }
    }
    let selection = if domains.is_empty() {
        json!({"include-all": {}})
    } else {
        json!({"include-controls": domains.iter().map(|domain| json!({"control-id": token(domain)})).collect::<Vec<_>>()})
    };
    let mut result = json!({
        "uuid": id(&["result", about.at]), "title": line(about.title),
        "description": if about.truncated { "The state of compliance; only a part of the matrix is told." } else { "The state of compliance." },
        "start": about.at, "reviewed-controls": {"control-selections": [selection]},
    });
    // OSCAL has no empty lists.
    if !cells.is_empty() {
        result["observations"] = observations.into();
        result["findings"] = findings.into();
    }
    json!({"assessment-results": {
        "uuid": id(&["document", about.title, about.at]),
        "metadata": {"title": line(about.title), "last-modified": about.at, "version": about.at, "oscal-version": VERSION},
        "import-ap": {"href": format!("#{plan}")},
        "results": [result],
        "back-matter": {"resources": resources},
    }})
}

fn resource(evidence: &Evidence, uuid: String) -> Value {
    let href = evidence.path.clone().unwrap_or_else(|| format!("urn:uuid:{}", evidence.id));
    // A URI reference has no blanks and the like.
    let href: String = href
        .bytes()
        .map(|b| {
            if b.is_ascii_graphic() && !b"\"<>\\^`{|}%".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect();
    let mut link = json!({"href": href, "hashes": [{"algorithm": "SHA-256", "value": evidence.digest.trim_start_matches("sha256:")}]});
    if let Some(media_type) = evidence.media_type.as_ref().filter(|kind| kind.contains('/')) {
        link["media-type"] = line(media_type).into();
    }
    json!({"uuid": uuid, "title": line(&evidence.name), "rlinks": [link]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(token("rule_37"), "rule_37");
        assert_eq!(token("37 é"), "_37--");
        assert_eq!(token(""), "_");
        assert_eq!(line(" a\n b "), "a b");
        assert_eq!(line("\n"), "-");
        assert_eq!(name_uuid("t", &["a", "b"]), name_uuid("t", &["a", "b"]));
        assert_ne!(name_uuid("t", &["ab"]), name_uuid("t", &["a", "b"]));
    }
}
