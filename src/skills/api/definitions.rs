//! `define_skill()`: a skill's tiers, and a first version where it has none.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skill_core::input::{canonical, optional, parse_choice};
use skill_core::skills::Status;
use skill_core::skills::agents as logic;
use skill_core::skills::metadata::SkillMetadata;
use skill_core::skills::names::Reference;
use skill_core::{Code, Fault};
use skill_pg::spi::{As, See};
use skill_pg::{Answer, Call, Jsonb, arg, pg_function};

use crate::args;
use crate::skills::definition::{self, Definition, Tier};
use crate::skills::model::{self, Head, State};
use crate::skills::registry::{self, NewVersion, Placement};
use crate::versioned::Change;

const CONTEXT_MODES: [&str; 2] = ["reason_alongside", "compute_and_return"];

fn tier<'c>(given: Option<Jsonb<'c>>, what: &str) -> Result<Option<Tier<'c>>, Fault> {
    Ok(args::json(given, what)?.map(|value| Tier { value, arg: arg(given) }))
}

fn value<'t>(tier: &'t Option<Tier<'_>>) -> Option<&'t Value> {
    tier.as_ref().map(|tier| &tier.value)
}

skill_pg::arguments! {
    struct DefineSkill<'c> {
        skill: Option<&'c str>,
        tier1_manifest: Option<Jsonb<'c>>,
        tier2_definition: Option<Jsonb<'c>>,
        tier3_artifact_refs: Option<Jsonb<'c>>,
        domain_tags: Option<Vec<Option<&'c str>>>,
        context_mode: Option<&'c str>,
        name: Option<&'c str>,
        body: Option<&'c str>,
        effects: Option<Vec<Option<&'c str>>>,
        reason: Option<&'c str>,
    }
}

pg_function!(define_skill);
fn define_skill(call: &Call) -> Answer {
    let given: DefineSkill = call.arguments();
    let reference = Reference::parse(given.skill)?;
    let domain_tags = given.domain_tags.map(|tags| logic::check_tags(&tags)).transpose()?;
    let context_mode =
        given.context_mode.map(|mode| parse_choice("context_mode", Some(mode), &CONTEXT_MODES)).transpose()?;
    let definition = Definition {
        tier1_manifest: tier(given.tier1_manifest, "tier1_manifest")?,
        tier2_definition: tier(given.tier2_definition, "tier2_definition")?,
        tier3_artifact_refs: tier(given.tier3_artifact_refs, "tier3_artifact_refs")?,
        context_mode: context_mode.map(str::to_owned),
        name: optional("name", given.name, 200)?.map(str::to_owned),
        domain_tags,
    };
    let [tier1, tier2, tier3] =
        [&definition.tier1_manifest, &definition.tier2_definition, &definition.tier3_artifact_refs].map(value);
    logic::check_tiers(tier1, tier2, tier3)?;
    let body = given.body;
    let effects = given.effects.map(|effects| logic::check_effects(&effects)).transpose()?;
    let change = Change::for_reason(given.reason);
    let mut created = false;
    let head = match (model::lock(reference), reference) {
        (Ok(head), _) => {
            check_unchanged(&head, body, effects.as_deref())?;
            head
        }
        (Err(fault), Reference::Name(namespace, skill_name)) => {
            let tier2 = tier2.filter(|tier2| !tier2.is_null()).map(canonical);
            let body = body.or(tier2.as_deref()).ok_or_else(|| {
                fault.hint("Give tier2_definition or a body to create it, or register it with register_skill().")
            })?;
            let description = tier1.and_then(|tier1| tier1["description"].as_str()).unwrap_or_default().to_owned();
            let metadata = SkillMetadata { description, effects, ..SkillMetadata::default() };
            created = create(namespace, skill_name, body, metadata, &change)?;
            model::lock(reference)?
        }
        (Err(fault), Reference::Id(_)) => return Err(fault),
    };
    let version = model::current_version(&head)?;
    definition::define(&head, &version, &definition, &change)?;
    Ok(State::new(&head, &version, created).answer(call))
}

/// A draft. False when this content is registered already.
fn create(
    namespace: &str,
    skill_name: &str,
    body: &str,
    metadata: SkillMetadata,
    change: &Change,
) -> Result<bool, Fault> {
    let new = NewVersion {
        namespace,
        skill_name,
        body,
        files: &[],
        semver: None,
        metadata,
        frontmatter: None,
        manifest: None,
        status: Some(Status::Draft),
        previous_status: None,
        placement: Placement::WhenServable,
    };
    Ok(registry::register(&new, change)?.created)
}

/// Body and effects belong to a version, so of a skill that exists they may be repeated and not changed.
fn check_unchanged(head: &Head, body: Option<&str>, effects: Option<&[String]>) -> Result<(), Fault> {
    let newest = model::version(head, None, As::Owner, See::OwnWrites)?;
    let other = |what: &str| {
        Fault::new(Code::SkillConflict, format!("skill \"{}\" already exists with another {what}", head.skill_name))
            .hint("register_skill() gives it a new version.")
    };
    if body.is_some_and(|body| hex::encode(Sha256::digest(body)) != newest.content_hash) {
        return Err(other("body"));
    }
    let declared = model::version_metadata(&newest);
    if effects.is_some_and(|effects| json!(effects) != declared["effects"]) {
        return Err(other("list of effects"));
    }
    Ok(())
}
