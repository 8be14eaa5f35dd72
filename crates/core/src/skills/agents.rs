//! What agents see of skills, in three tiers, and whether what they name is there.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::names::{DEFAULT_NAMESPACE, Reference, is_namespace};
use crate::error::Fault;
use crate::error::shorten;
use crate::input::{invalid, required};
use crate::policy::MAX_EFFECTS;
use crate::policy::effect::Effect;

/// Longest id of an agent, an artifact or a conversation, in characters.
pub const MAX_ID: usize = 100;
/// Most domain tags of a skill.
pub const MAX_TAGS: usize = 100;
/// Most artifacts that a skill refers to.
pub const MAX_REFS: usize = 1000;

/// What a text costs a model, roughly: one token for every four bytes of UTF-8, rounded up.
///
/// Every estimate here follows this rule, so that they can be added and compared. It asks no tokenizer, of which each
/// model has its own.
pub fn tokens(bytes: usize) -> i32 {
    i32::try_from(bytes.div_ceil(4)).unwrap_or(i32::MAX)
}

/// What to call a skill in `load_skill()`: as short as it can be.
pub fn address(namespace: &str, skill_name: &str, id: &uuid::Uuid) -> String {
    let qualified = || format!("{namespace}/{skill_name}");
    match Reference::parse(Some(skill_name)) {
        Ok(Reference::Name(parsed, name)) if parsed == namespace && name == skill_name => skill_name.to_owned(),
        _ if is_namespace(namespace) => qualified(),
        _ => id.to_string(),
    }
}

/// Namespace and name of a slug: `name`, or `namespace/name`. Never a UUID: what an agent names outlives the row.
pub fn slug(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((namespace, name)) if is_namespace(namespace) => (namespace, name),
        _ => (DEFAULT_NAMESPACE, text),
    }
}

/// Id of the artifact that a reference names: a text, or an object with a member `id` or `artifact_id`.
pub fn artifact_id(reference: &Value) -> Option<&str> {
    reference.get("id").or_else(|| reference.get("artifact_id")).unwrap_or(reference).as_str()
}

/// Checks what `define_skill()` is given. JSON null takes a tier away.
pub fn check_tiers(tier1: Option<&Value>, tier2: Option<&Value>, tier3: Option<&Value>) -> Result<(), Fault> {
    if let Some(tier1) = tier1.filter(|tier1| !tier1.is_null()) {
        let members = tier1.as_object().ok_or_else(|| invalid("tier1_manifest must be a JSON object"))?;
        for member in ["name", "description"] {
            if members.get(member).is_some_and(|value| !value.is_string()) {
                return Err(invalid(format!("{member} in tier1_manifest must be a text")));
            }
        }
        let texts = |list: &Value| list.as_array().is_some_and(|list| list.iter().all(Value::is_string));
        if members.get("triggers").is_some_and(|triggers| !texts(triggers)) {
            return Err(invalid("triggers in tier1_manifest must be an array of texts"));
        }
    }
    if tier2.is_some_and(|tier2| !tier2.is_object() && !tier2.is_null()) {
        return Err(invalid("tier2_definition must be a JSON object").hint(
            "For example {\"description\": ..., \"steps\": [...], \"requirements\": [...], \"output_format\": ...}.",
        ));
    }
    if let Some(tier3) = tier3.filter(|tier3| !tier3.is_null()) {
        let references = tier3.as_array().filter(|references| {
            references.len() <= MAX_REFS && references.iter().all(|reference| artifact_id(reference).is_some())
        });
        references.ok_or_else(|| {
            invalid("tier3_artifact_refs must be an array of artifacts")
                .hint(format!("At most {MAX_REFS} ids, as texts or as objects with a member id."))
        })?;
    }
    Ok(())
}

pub fn check_tags(tags: &[Option<&str>]) -> Result<Vec<String>, Fault> {
    if tags.len() > MAX_TAGS {
        return Err(invalid(format!("a skill has at most {MAX_TAGS} domain tags")));
    }
    tags.iter().map(|tag| required("a domain tag", *tag, 100).map(str::to_owned)).collect()
}

pub fn check_effects(effects: &[Option<&str>]) -> Result<Vec<String>, Fault> {
    if effects.len() > MAX_EFFECTS {
        return Err(invalid(format!("a skill declares at most {MAX_EFFECTS} effects")));
    }
    let check = |effect: &Option<&str>| {
        let text = effect.unwrap_or_default();
        match Effect::parse(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(why) => Err(invalid(format!("invalid effect: \"{}\"", shorten(text)))
                .detail(format!("{why}."))
                .hint(why.hint())),
        }
    };
    effects.iter().map(check).collect()
}

/// An agent, as its definition and its row in `agents` say together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agent {
    /// Its key in `agent_definitions`, or its id in `agents`.
    pub key: String,
    /// Slug of the skill it works by.
    pub root_skill_key: Option<String>,
    /// The persona it speaks with.
    pub persona_key: Option<String>,
    /// More skills that its definition gives it.
    pub loaded_skills: Vec<String>,
    /// The skills in its configuration.
    pub config_skills: Vec<String>,
    /// Something in these lists is not a text.
    pub unreadable: bool,
}

impl Agent {
    /// The skills it sees, the root skill first, each once; empty when it is not restricted.
    pub fn skills(&self) -> Vec<(&str, &str)> {
        let mut seen = HashSet::new();
        let all = self.root_skill_key.iter().chain(&self.loaded_skills).chain(&self.config_skills);
        all.map(|key| slug(key)).filter(|skill| seen.insert(*skill)).collect()
    }

    /// It has lists of skills, even if nothing in them can be read: then it sees none rather than all.
    pub fn is_restricted(&self) -> bool {
        self.root_skill_key.is_some()
            || !self.loaded_skills.is_empty()
            || !self.config_skills.is_empty()
            || self.unreadable
    }
}

/// A reference to a skill.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Its status, as `skill_definitions` shows it.
    pub status: String,
    /// Keys of its personas.
    pub personas: HashSet<String>,
}

/// Skills by namespace and name.
pub type Skills = HashMap<(String, String), Known>;

/// A reference to an object that does not exist, or has another content than it declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub code: &'static str,
    /// The agent, skill or artifact it is about.
    pub subject: String,
    pub reference: String,
    pub message: String,
    pub hint: &'static str,
}

/// A reference of an agent to an object that does not exist.
pub fn check_agent(agent: &Agent, skills: &Skills) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut report = |code, reference: &str, message: String, hint| {
        found.push(Finding { code, subject: agent.key.clone(), reference: reference.to_owned(), message, hint });
    };
    let look_up = |key: &str| {
        let (namespace, name) = slug(key);
        skills.get(&(namespace.to_owned(), name.to_owned()))
    };
    let root = agent.root_skill_key.as_deref();
    let named = root.map(|key| (key, "root_skill_key", "unknown_root_skill")).into_iter();
    let loaded = agent.loaded_skills.iter().map(|key| (key.as_str(), "loaded_skills", "unknown_skill"));
    let configured = agent.config_skills.iter().map(|key| (key.as_str(), "config", "unknown_skill"));
    for (key, column, code) in named.chain(loaded).chain(configured) {
        let shown = shorten(key);
        match look_up(key) {
            None => report(
                code,
                key,
                format!("{column} of agent \"{}\" names skill \"{shown}\", which does not exist", agent.key),
                "Register the skill, or correct the name: name or namespace/name.",
            ),
            Some(skill) if skill.status != "active" => {
                report(
                    "inactive_skill",
                    key,
                    format!("{column} of agent \"{}\" names skill \"{shown}\", which is {}", agent.key, skill.status),
                    "SELECT * FROM skill_system.set_skill_status(..., 'approved', version);",
                );
            }
            Some(_) => {}
        }
    }
    if agent.unreadable {
        report(
            "unreadable_skills",
            "",
            format!("not all skills of agent \"{}\" are texts", agent.key),
            "The member skills of config must be an array of names.",
        );
    }
    if let Some(persona) = agent.persona_key.as_deref() {
        // Without a root skill the voice comes from one of the skills that are loaded.
        let candidates: Vec<&str> = match root {
            Some(root) => vec![root],
            None => agent.loaded_skills.iter().map(String::as_str).collect(),
        };
        if !candidates.iter().filter_map(|key| look_up(key)).any(|skill| skill.personas.contains(persona)) {
            let whose = if root.is_some() { "no persona of its root skill" } else { "no persona of its loaded skills" };
            report(
                "unknown_persona",
                persona,
                format!("persona_key \"{}\" of agent \"{}\" is {whose}", shorten(persona), agent.key),
                "SELECT persona_key FROM skill_system.skill_personas; NULL is the root skill's default.",
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn four_bytes_are_a_token() {
        assert_eq!([0, 1, 4, 5, 8].map(tokens), [0, 1, 1, 2, 2]);
        assert_eq!(tokens("日本".len()), 2);
        assert_eq!(tokens(usize::MAX), i32::MAX);
    }

    #[test]
    fn an_address_leads_back_to_its_skill() {
        let id = uuid::Uuid::from_bytes([7; 16]);
        for (namespace, name, expected) in [
            ("default", "pdf", "pdf"),
            ("team", "pdf", "team/pdf"),
            ("default", "team/pdf", "default/team/pdf"),
            ("default", "No such/pdf", "No such/pdf"),
            ("default", "01900000-0000-7000-8000-000000000001", "default/01900000-0000-7000-8000-000000000001"),
        ] {
            let address = address(namespace, name, &id);
            assert_eq!(address, expected);
            assert_eq!(Reference::parse(Some(&address)).unwrap(), Reference::Name(namespace, name));
        }
        assert_eq!(address("Wild Space", "x", &id), id.to_string());
    }

    #[test]
    fn slugs_are_never_ids() {
        assert_eq!(slug("rrc_rule37"), ("default", "rrc_rule37"));
        assert_eq!(slug("texas:rrc/rule37"), ("texas:rrc", "rule37"));
        assert_eq!(slug("01900000-0000-7000-8000-000000000001"), ("default", "01900000-0000-7000-8000-000000000001"));
    }

    #[test]
    fn tiers_have_their_shape() {
        let good = json!({"name": "n", "description": "d", "triggers": ["a"], "cost": 1});
        assert!(
            check_tiers(
                Some(&good),
                Some(&json!({"steps": []})),
                Some(&json!(["a", {"id": "b"}, {"artifact_id": "c"}]))
            )
            .is_ok()
        );
        assert!(check_tiers(Some(&Value::Null), Some(&Value::Null), Some(&Value::Null)).is_ok());
        for bad in [
            json!([]),
            json!("x"),
            json!({"name": 1}),
            json!({"description": null}),
            json!({"triggers": "a"}),
            json!({"triggers": [1]}),
        ] {
            assert!(check_tiers(Some(&bad), None, None).is_err(), "{bad}");
        }
        assert!(check_tiers(None, Some(&json!("text")), None).is_err());
        for bad in [json!({}), json!([1]), json!([{"name": "a"}]), json!([null]), json!(vec!["a"; MAX_REFS + 1])] {
            assert!(check_tiers(None, None, Some(&bad)).is_err(), "{bad}");
        }
        assert!(
            check_tags(&[Some("a"), None]).is_err()
                && check_tags(&[Some(&"x".repeat(101))]).is_err()
                && check_tags(&[Some("ä b")]).is_ok()
        );
        assert!(
            check_effects(&[Some("db.read"), None]).is_err()
                && check_effects(&[Some("DB")]).is_err()
                && check_effects(&[Some("fs.write:/srv")]).is_ok()
        );
    }

    #[test]
    fn an_agent_sees_its_root_skill_first_and_each_skill_once() {
        let list = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let agent = Agent {
            root_skill_key: Some("b".into()),
            loaded_skills: list(&["a", "b"]),
            config_skills: list(&["x1/c", "default/a"]),
            ..Agent::default()
        };
        assert_eq!(agent.skills(), [("default", "b"), ("default", "a"), ("x1", "c")]);
        assert!(agent.is_restricted() && !Agent::default().is_restricted());
        assert!(Agent { unreadable: true, ..Agent::default() }.is_restricted());
    }

    #[test]
    fn everything_an_agent_names_is_looked_up() {
        let known = |status: &str, personas: &[&str]| Known {
            status: status.into(),
            personas: personas.iter().map(|key| (*key).to_owned()).collect(),
        };
        let skills: Skills = [
            (("default".to_owned(), "rule37".to_owned()), known("active", &["expert"])),
            (("default".to_owned(), "old".to_owned()), known("disabled", &[])),
        ]
        .into();
        let agent = |root: Option<&str>, persona: Option<&str>, loaded: &[&str]| Agent {
            key: "a".into(),
            root_skill_key: root.map(str::to_owned),
            persona_key: persona.map(str::to_owned),
            loaded_skills: loaded.iter().map(|key| (*key).to_owned()).collect(),
            ..Agent::default()
        };
        let codes = |agent: Agent| check_agent(&agent, &skills).iter().map(|finding| finding.code).collect::<Vec<_>>();
        assert!(codes(agent(None, None, &[])).is_empty());
        assert!(codes(agent(Some("rule37"), Some("expert"), &["rule37"])).is_empty());
        assert!(codes(agent(None, Some("expert"), &["rule37"])).is_empty());
        assert_eq!(codes(agent(Some("rule32"), None, &[])), ["unknown_root_skill"]);
        assert_eq!(
            codes(agent(Some("rule37"), Some("pirate"), &["nope", "old"])),
            ["unknown_skill", "inactive_skill", "unknown_persona"]
        );
        assert_eq!(codes(agent(None, Some("expert"), &[])), ["unknown_persona"]);
        assert_eq!(codes(agent(Some("rule32"), Some("expert"), &[])), ["unknown_root_skill", "unknown_persona"]);
        assert_eq!(
            check_agent(&Agent { unreadable: true, ..agent(None, None, &[]) }, &skills)[0].code,
            "unreadable_skills"
        );
    }
}
