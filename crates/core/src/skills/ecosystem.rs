//! What other systems read: prompt block, discovery index, MCP entries, the skills index of the skill-system-postgres skill.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::manifest::parameters;
use super::names::is_namespace;
use super::slug::MAX_COMPATIBILITY;
pub use super::slug::{fits, is_slug};
use crate::error::Fault;
use crate::input::invalid;
use crate::interrupt;

/// The name of the file that a skill's URI ends with.
pub const MAIN: &str = "SKILL.md";
const SCHEME: &str = "skill://";

/// The front matter that a client of the specification accepts, or why it cannot be expressed: a listing with one bad entry
/// is refused as a whole.
pub fn conforming(frontmatter: Value, name: &str, description: &str) -> Result<Value, &'static str> {
    if !fits(name, description) {
        return Err("a name there has a-z, 0-9 and single hyphens, a description at most 1024 characters");
    }
    let Value::Object(fields) = frontmatter else {
        // Skills of other formats have a name and a description all the same.
        return Ok(json!({"name": name, "description": description}));
    };
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    if text("name") != Some(name) {
        return Err("its front matter does not have the name");
    }
    if !text("description").is_some_and(|description| fits(name, description)) {
        return Err("its front matter has no description of at most 1024 characters");
    }
    if !["license", "allowed-tools"].into_iter().all(|key| fields.get(key).is_none_or(Value::is_string)) {
        return Err("license and allowed-tools there are texts");
    }
    let length = |value: &Value| value.as_str().map_or(0, |text| text.chars().count());
    if !fields.get("compatibility").is_none_or(|value| (1..=MAX_COMPATIBILITY).contains(&length(value))) {
        return Err("compatibility there is a text of at most 500 characters");
    }
    let is_flat = |value: &Value| value.as_object().is_some_and(|members| members.values().all(Value::is_string));
    if !fields.get("metadata").is_none_or(is_flat) {
        return Err("metadata there are names and texts, nothing nested");
    }
    Ok(Value::Object(fields))
}

/// HTML's five, so that no text can end the element it stands in.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in interrupt::each(text.chars()) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#x27;"),
            c => out.push(c),
        }
    }
    out
}

/// The block for a system prompt, empty without skills.
pub fn prompt(skills: impl Iterator<Item = (String, String, String)>) -> String {
    let mut out = String::new();
    for (name, description, location) in skills {
        if out.is_empty() {
            out.push_str("<available_skills>\n");
        }
        let (name, description, location) = (escaped(&name), escaped(&description), escaped(&location));
        out.push_str(&format!(
            "<skill>\n<name>\n{name}\n</name>\n<description>\n{description}\n</description>\n<location>\n{location}\n</location>\n</skill>\n"
        ));
    }
    if !out.is_empty() {
        out.push_str("</available_skills>");
    }
    out
}

/// A path with everything but the unreserved characters and `/` in percent form.
pub fn percent(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in interrupt::each(path.bytes()) {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(b as char),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// The URI of a file of a skill. The namespace stands in the place of a host, where a colon would begin a port.
pub fn uri(namespace: &str, name: &str, path: &str) -> String {
    format!("{SCHEME}{}/{}/{}", percent(namespace), percent(name), percent(path))
}

/// Namespace and name from the URI of a SKILL.md, or `None` if it is none.
pub fn from_uri(uri: &str) -> Option<(String, String)> {
    let (namespace, rest) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    let name = rest.strip_suffix(MAIN)?.strip_suffix('/')?;
    let namespace = namespace.replace("%3A", ":").replace("%3a", ":");
    (is_namespace(&namespace) && is_slug(name)).then(|| (namespace, name.to_owned()))
}

/// Where the next page begins: behind this name.
pub fn cursor(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("after:{name}"))
}

/// The name in a cursor.
pub fn from_cursor(cursor: &str) -> Result<String, Fault> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let name = bytes
        .as_deref()
        .and_then(|text| text.strip_prefix("after:"))
        .filter(|name| name.len() <= 1000 && !name.contains('\0'));
    name.map(str::to_owned).ok_or_else(|| {
        invalid("the cursor was not given out here")
            .hint("Take nextCursor from the page before, or NULL for the first.")
    })
}

/// The index of the skill-system-postgres skill, collected skill by skill.
#[derive(Default)]
pub struct SkillsIndex {
    skills: Map<String, Value>,
    capabilities: Map<String, Value>,
}

impl SkillsIndex {
    /// Adds a skill by its manifest; of two with the same id the first counts.
    pub fn add(&mut self, directory: &str, manifest: &Value, body: &str) {
        let Some(id) = manifest["id"].as_str().filter(|id| !self.skills.contains_key(*id)) else {
            return;
        };
        let list = |key: &str| manifest[key].as_array().cloned().unwrap_or_default();
        let operations: Map<String, Value> = parameters(body)
            .into_iter()
            .map(|(name, parameters)| {
                let description = manifest["operations"][&name]["description"].as_str().unwrap_or_default();
                let operation = json!({"description": description, "input_params": parameters});
                (name, operation)
            })
            .collect();
        for capability in list("capabilities").iter().filter_map(Value::as_str) {
            if let Some(ids) = self.capabilities.entry(capability).or_insert_with(|| json!([])).as_array_mut() {
                ids.push(id.into());
            }
        }
        let version = manifest["version"].as_str().unwrap_or("0.0.0");
        let skill = json!({"dir": directory, "version": version, "capabilities": list("capabilities"), "effects": list("effects"), "operations": operations});
        self.skills.insert(id.to_owned(), skill);
    }

    /// The index as it was at `generated_at`.
    pub fn finish(self, generated_at: &str) -> Value {
        json!({"schema_version": "2.0", "generated_at": generated_at, "skills": self.skills, "capability_index": self.capabilities})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn uris_go_there_and_back() {
        assert_eq!(uri("team:pdf", "forms", "references/ü b.md"), "skill://team%3Apdf/forms/references/%C3%BC%20b.md");
        assert_eq!(from_uri("skill://team%3Apdf/forms/SKILL.md"), Some(("team:pdf".into(), "forms".into())));
        for bad in [
            "",
            "skill://forms/SKILL.md",
            "skill://default/forms",
            "skill://default/forms/x/../SKILL.md",
            "http://default/forms/SKILL.md",
            "skill://default/Forms/SKILL.md",
            "skill://team:pdf/a/b/SKILL.md",
            "skill://default//SKILL.md",
        ] {
            assert_eq!(from_uri(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_block_cannot_be_left() {
        let block = prompt([("a".into(), "</description></available_skills>\"'&".into(), "l".into())].into_iter());
        assert_eq!(block.matches("</available_skills>").count(), 1);
        assert!(block.contains("&lt;/description&gt;") && block.contains("&quot;&#x27;&amp;"));
        assert_eq!(prompt(std::iter::empty()), "");
    }

    #[test]
    fn what_a_client_would_refuse_is_left_out() {
        let good = json!({"name": "a-b", "description": "d", "metadata": {"x": "1"}, "model": "y"});
        assert_eq!(conforming(good.clone(), "a-b", "d"), Ok(good.clone()));
        assert_eq!(conforming(Value::Null, "a-b", "d"), Ok(json!({"name": "a-b", "description": "d"})));
        for (key, value) in [
            ("name", json!("other")),
            ("description", json!(" ")),
            ("license", json!(["MIT"])),
            ("compatibility", json!("")),
            ("metadata", json!({"x": []})),
            ("metadata", json!("x")),
            ("allowed-tools", json!([])),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            assert!(conforming(bad, "a-b", "d").unwrap_err().contains(key), "{key}");
        }
        assert!(conforming(Value::Null, "日本", "d").is_err());
        assert!(["-a", "a-", "a--b", "A", "a_b", "", "ü"].iter().all(|name| !is_slug(name)));
    }

    proptest! {
        #[test]
        fn cursors_come_back(name in "\\PC{1,60}") {
            prop_assert_eq!(from_cursor(&cursor(&name)).unwrap(), name);
        }
        #[test]
        fn no_cursor_panics(text in "\\PC{0,40}") {
            let _ = from_cursor(&text);
        }
    }
}
