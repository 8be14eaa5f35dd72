//! What `define_skill()` gives a skill next to its versions: its three tiers, a name, tags, a context mode.

use serde_json::{Map, Value, json};
use skill_core::Fault;
use skill_core::skills::Status;
use skill_core::skills::approval::rejected;
use skill_pg::spi::{self, As, See};
use skill_pg::{Arg, arg};

use super::history::record_history;
use super::index;
use super::model::{Head, Version};
use crate::settings;
use crate::versioned::Change;

/// One tier, as it can be looked into and as it came: numbers are kept to the last digit.
pub struct Tier<'a> {
    pub value: Value,
    pub arg: Arg<'a>,
}

/// `None` leaves a field as it is, JSON null removes a tier.
#[derive(Default)]
pub struct Definition<'a> {
    pub tier1_manifest: Option<Tier<'a>>,
    pub tier2_definition: Option<Tier<'a>>,
    pub tier3_artifact_refs: Option<Tier<'a>>,
    pub context_mode: Option<String>,
    /// These two outrank what versions declare.
    pub name: Option<String>,
    pub domain_tags: Option<Vec<String>>,
}

impl Definition<'_> {
    /// The fields that outrank versions, as JSON.
    fn defined(&self) -> Map<String, Value> {
        let name = self.name.iter().map(|name| ("name".to_owned(), json!(name)));
        let tags = self.domain_tags.iter().map(|tags| ("domain_tags".to_owned(), json!(tags)));
        name.chain(tags).collect()
    }

    /// All that is given, as JSON.
    fn to_json(&self) -> Value {
        let tiers = [
            ("tier1_manifest", &self.tier1_manifest),
            ("tier2_definition", &self.tier2_definition),
            ("tier3_artifact_refs", &self.tier3_artifact_refs),
        ];
        let mut given = self.defined();
        let tiers = tiers.into_iter().filter_map(|(name, tier)| Some((name.to_owned(), tier.as_ref()?.value.clone())));
        given.extend(tiers);
        given.extend(self.context_mode.iter().map(|mode| ("context_mode".to_owned(), json!(mode))));
        Value::Object(given)
    }
}

fn tier_arg<'a>(tier: &Option<Tier<'a>>) -> Arg<'a> {
    tier.as_ref().map_or_else(|| arg(None::<Value>), |tier| tier.arg.clone())
}

/// Writes a definition, if it changes anything.
pub fn define(head: &Head, version: &Version, definition: &Definition, change: &Change) -> Result<(), Fault> {
    let changed = spi::execute(
        include_str!("define.sql"),
        As::Owner,
        See::OwnWrites,
        &[
            arg(head.id),
            tier_arg(&definition.tier1_manifest),
            tier_arg(&definition.tier2_definition),
            tier_arg(&definition.tier3_artifact_refs),
            arg(definition.context_mode.as_deref()),
            arg(Value::Object(definition.defined())),
        ],
    );
    if changed > 0 {
        if settings::signed_approvals() && head.status == Status::Approved {
            return Err(rejected(format!("the definition of skill \"{}\" is approved by signature", head.skill_name))
                .detail("skill_system.signed_approvals is on.")
                .hint("Make the version a draft with set_skill_status(), define it, and have it signed and approved again."));
        }
        index::update(head);
        let change = Change { metadata_change: Some(definition.to_json()), ..change.clone() };
        record_history(head, "changed", Some(version), Some(head.status), Some(head.status), &change)?;
    }
    Ok(())
}
