//! Which version of a registered skill a run used, for `log_run()`.

use skill_core::Fault;
use skill_core::skills::names::Reference;
use skill_pg::cached::{Cached, Change, announce_change};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Event, Timing, Trigger, Uuid, arg, pg_function};

use crate::settings;

/// The skill and version that a run is linked to.
#[derive(Clone)]
pub struct LinkedVersion {
    skill_id: Uuid,
    pub version_id: Uuid,
    pub version: String,
}

/// Most names a session remembers.
const MAX_REMEMBERED: usize = 1000;

thread_local! {
    /// By tenant and by the name that the caller gave; `None` where no skill has it.
    static LINKS: Cached<(String, String), Option<LinkedVersion>> =
        const { Cached::new(c"skill_heads", MAX_REMEMBERED) };
}

pub fn notice(change: Change) {
    LINKS.with(|links| links.notice(change));
}

/// The version that is served, or the one that the run's payload claims.
pub fn linked_version(skill: &str, claimed: Option<&str>) -> Result<Option<LinkedVersion>, Fault> {
    let key = (settings::tenant()?, skill.to_owned());
    let Some(served) = LINKS.with(|links| links.get_or_load(&key, || look_up(skill))) else { return Ok(None) };
    Ok(match claimed {
        Some(claimed) if claimed != served.version => {
            let version_id = spi::first(
                "SELECT id FROM skill_system.skill_versions \
                 WHERE tenant_id = skill_system.current_tenant() AND skill_id = $1 AND version = $2",
                As::Owner,
                See::Latest,
                &[arg(served.skill_id), arg(claimed)],
            );
            version_id.map(|version_id| LinkedVersion { version_id, version: claimed.to_owned(), ..served })
        }
        _ => Some(served),
    })
}

/// By name, or else by the id of a manifest, unless several skills have that: no link is better than a wrong one. What was
/// approved goes before what was disabled, and that before drafts, which anybody can register under any name and id.
fn look_up(skill: &str) -> Option<LinkedVersion> {
    let (id, namespace, name) = match Reference::parse(Some(skill)).ok()? {
        Reference::Id(id) => (Some(*id.as_bytes()), None, None),
        Reference::Name(namespace, name) => (None, Some(namespace), Some(name)),
    };
    let found = spi::collect::<(Uuid, Uuid, String, bool, String)>(
        include_str!("links_look_up.sql"),
        As::Owner,
        See::Latest,
        &[arg(id), arg(namespace), arg(name), arg(skill)],
    );
    match found.as_slice() {
        [(_, _, _, true, status), (_, _, _, _, other)] if status == other => None,
        [(skill_id, version_id, version, ..), ..] => {
            Some(LinkedVersion { skill_id: *skill_id, version_id: *version_id, version: version.clone() })
        }
        [] => None,
    }
}

pg_function!(skills_changed);
/// AFTER each statement that changes `skill_heads`.
fn skills_changed(call: &Call) -> Answer {
    let events = [Event::Insert, Event::Update, Event::Delete, Event::Truncate];
    let trigger = Trigger::new(call, &[(Timing::AfterStatement, &events)])?;
    announce_change(c"skill_heads");
    Ok(trigger.done())
}
