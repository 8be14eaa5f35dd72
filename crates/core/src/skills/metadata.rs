//! What the registry keeps about a skill next to its versions, and what a body declares of it.

use serde_json::{Map, Value, json};

use super::document;
use super::findings::{Findings, Mode};
use super::manifest;

/// The columns of a skill that describe its current version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SkillMetadata {
    pub name: Option<String>,
    pub description: String,
    pub scope: Option<String>,
    pub required_env_vars: Vec<String>,
    /// Any JSON; null stands for the empty object.
    pub metadata: Value,
    pub domain_tags: Vec<String>,
    /// `None` where nothing is declared.
    pub effects: Option<Vec<String>>,
    pub manifest_id: Option<String>,
}

impl SkillMetadata {
    /// Columns that a client may change without a new body.
    pub const CLIENT_COLUMNS: [&str; 4] = ["description", "required_env_vars", "metadata", "scope"];

    /// Reads the stored form; what is missing is empty.
    pub fn from_json(stored: &Value) -> Self {
        let text = |key: &str| stored[key].as_str().map(str::to_owned);
        let texts = |key: &str| {
            stored[key].as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
        };
        SkillMetadata {
            name: text("name"),
            description: text("description").unwrap_or_default(),
            scope: text("scope"),
            required_env_vars: texts("required_env_vars"),
            metadata: stored["metadata"].clone(),
            domain_tags: texts("domain_tags"),
            effects: stored["effects"].is_array().then(|| texts("effects")),
            manifest_id: text("manifest_id"),
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name, "description": self.description, "scope": self.scope,
            "required_env_vars": self.required_env_vars,
            "metadata": match &self.metadata { Value::Null => json!({}), metadata => metadata.clone() },
            "domain_tags": self.domain_tags, "effects": self.effects, "manifest_id": self.manifest_id,
        })
    }

    /// Takes some of [`Self::CLIENT_COLUMNS`] from a client's row.
    pub fn update_from_row(&mut self, row: &Map<String, Value>, columns: &[&str]) {
        let new = SkillMetadata::from_json(&Value::Object(row.clone()));
        for column in columns {
            match *column {
                "description" => self.description.clone_from(&new.description),
                "required_env_vars" => self.required_env_vars.clone_from(&new.required_env_vars),
                "metadata" => self.metadata.clone_from(&new.metadata),
                "scope" => self.scope.clone_from(&new.scope),
                _ => (),
            }
        }
    }
}

/// What a body declares: a SKILL.md its front matter and manifest, another text its manifest.
#[derive(Debug, Default, PartialEq)]
pub struct ParsedBody {
    pub frontmatter: Option<Value>,
    pub manifest: Option<Value>,
    pub semver: Option<String>,
}

impl ParsedBody {
    /// Reads a body as clients load it, and updates `about` by what it declares.
    pub fn new(body: &str, about: &mut SkillMetadata) -> Self {
        let mut parsed = ParsedBody::default();
        let manifest = match document::read(body, Mode::Lenient).skill {
            Some(skill) => {
                parsed.frontmatter = Some(Value::Object(skill.frontmatter));
                parsed.semver = skill.semver;
                about.domain_tags = skill.tags;
                skill.manifest
            }
            None => {
                let mut findings = Findings::default();
                let manifest = manifest::read(body, 1, Mode::Lenient, &mut findings).filter(|_| !findings.any_error());
                parsed.semver = manifest.as_ref().and_then(|manifest| manifest.semver.clone());
                manifest
            }
        };
        (about.effects, about.manifest_id) = manifest
            .as_ref()
            .map(|manifest| (Some(manifest.effects.clone()), Some(manifest.id.clone())))
            .unwrap_or_default();
        parsed.manifest = manifest.map(|manifest| manifest.value);
        parsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_survives() {
        let about = SkillMetadata {
            name: Some("a".into()),
            description: "b".into(),
            required_env_vars: vec!["TOKEN".into()],
            metadata: json!({"k": [1]}),
            effects: Some(vec![]),
            ..SkillMetadata::default()
        };
        assert_eq!(SkillMetadata::from_json(&about.to_json()), about);
        // NULL is stored as the empty object, and no effects are not the same as none declared.
        let empty = SkillMetadata::from_json(&SkillMetadata::default().to_json());
        assert_eq!((empty.metadata, empty.effects), (json!({}), None));
        assert_eq!(SkillMetadata::from_json(&json!(null)), SkillMetadata::default());
    }

    #[test]
    fn only_the_named_columns_are_taken() {
        let row = json!({"description": "new", "scope": "team", "metadata": {"a": 1}, "name": "no"});
        let mut about = SkillMetadata { description: "old".into(), ..SkillMetadata::default() };
        about.update_from_row(row.as_object().unwrap(), &["scope", "name"]);
        assert_eq!(
            (about.description.as_str(), about.scope.as_deref(), about.name.as_deref()),
            ("old", Some("team"), None)
        );
        about.update_from_row(row.as_object().unwrap(), &SkillMetadata::CLIENT_COLUMNS);
        assert_eq!((about.description.as_str(), &about.metadata), ("new", &json!({"a": 1})));
    }

    #[test]
    fn a_body_declares_or_does_not() {
        let mut about = SkillMetadata { effects: Some(vec!["db.read".into()]), ..SkillMetadata::default() };
        let parsed = ParsedBody::new(
            "---\nname: a-skill\ndescription: does it\nmetadata:\n  version: 1.2.3\n---\nbody\n",
            &mut about,
        );
        assert_eq!(parsed.semver.as_deref(), Some("1.2.3"));
        assert_eq!(parsed.frontmatter.unwrap()["name"], json!("a-skill"));
        // A body without a manifest declares no effects.
        assert_eq!((about.effects.clone(), about.manifest_id.clone()), (None, None));
        assert_eq!(ParsedBody::new("plain text", &mut about), ParsedBody::default());
    }
}
