//! Which version of a skill a requirement selects.

use const_format::concatcp;
use skill_core::skills::Status;
use skill_core::skills::names::Reference;
use skill_core::skills::requirement::{Candidate, Requirement, best, listed, semantic};
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{FromRow, Row, Uuid, arg};

use super::model::{self, Head, Version};

/// Columns of a [`Candidate`]; `$2` is the version that is served.
struct CandidateRow(Candidate);

impl CandidateRow {
    const COLUMNS: &str = "id, version, semver, revision, id = $2";
}

impl FromRow<'_> for CandidateRow {
    fn from_row(row: &Row<'_>) -> Self {
        let (id, version, semver, revision, served): (Uuid, _, Option<&str>, _, _) = row.read();
        CandidateRow(Candidate { id: *id.as_bytes(), version, semver: semver.and_then(semantic), revision, served })
    }
}

/// The approved versions of a skill.
pub fn approved_versions(head: &Head, rights: As, see: See) -> Vec<Candidate> {
    const SQL: &str = concatcp!(
        "SELECT ",
        CandidateRow::COLUMNS,
        " FROM skill_system.skill_versions \
         WHERE tenant_id = skill_system.current_tenant() AND skill_id = $1 AND status = 'approved'"
    );
    let found = spi::collect::<CandidateRow>(SQL, rights, see, &[arg(head.id), arg(head.current_version_id)]);
    found.into_iter().map(|CandidateRow(candidate)| candidate).collect()
}

/// No version fits; the detail lists the approved ones.
pub fn no_version(message: String, approved: &[Candidate]) -> Fault {
    let detail = match approved {
        [] => "It has no approved version.".to_owned(),
        _ => format!("Approved: {}.", listed(approved)),
    };
    Fault::new(Code::VersionNotFound, message)
        .detail(detail)
        .hint("SELECT * FROM skill_system.skill_version_list(...);")
}

/// The version that a requirement selects; by its digits one of any status, otherwise an approved one.
pub fn resolve_requirement(head: &Head, requirement: &Requirement, rights: As, see: See) -> Result<Version, Fault> {
    match requirement {
        Requirement::Served => model::version(head, Some(&head.current_version), rights, see),
        Requirement::Version(version) => model::version(head, Some(version), rights, see)
            .map_err(|fault| no_version(fault.message, &approved_versions(head, rights, see))),
        Requirement::Range(range) => {
            let approved = approved_versions(head, rights, see);
            match best(&approved, &[range]) {
                Some(found) => model::version(head, Some(&found.version), rights, see),
                None => Err(no_version(
                    format!("skill \"{}\" has no approved version in the range {}", head.skill_name, range.text()),
                    &approved,
                )),
            }
        }
        Requirement::Channel(name) => {
            let version = channel_version(head, name, rights, see)?;
            require_approved(head, model::version(head, Some(&version), rights, see)?)
        }
    }
}

/// The version in a channel, as its 12 digits.
fn channel_version(head: &Head, name: &str, rights: As, see: See) -> Result<String, Fault> {
    let channels = spi::collect::<(String, String)>(
        "SELECT c.channel, v.version FROM skill_system.skill_channels c \
         JOIN skill_system.skill_versions v ON v.tenant_id = c.tenant_id AND v.id = c.version_id \
         WHERE c.tenant_id = skill_system.current_tenant() AND c.skill_id = $1 ORDER BY c.channel",
        rights,
        see,
        &[arg(head.id)],
    );
    if let Some((_, version)) = channels.iter().find(|(channel, _)| channel == name) {
        return Ok(version.clone());
    }
    let others: Vec<&str> = channels.iter().take(10).map(|(channel, _)| channel.as_str()).collect();
    Err(Fault::new(Code::VersionNotFound, format!("skill \"{}\" has no channel \"{name}\"", head.skill_name))
        .detail(if others.is_empty() {
            "It has no channels.".to_owned()
        } else {
            format!("It has {}.", others.join(", "))
        })
        .hint("SELECT * FROM skill_system.set_skill_channel(...);"))
}

/// The version, if it is approved.
pub fn require_approved(head: &Head, version: Version) -> Result<Version, Fault> {
    if version.status == Status::Approved {
        return Ok(version);
    }
    Err(no_version(
        format!("version {} of skill \"{}\" is {}", version.version, head.skill_name, version.status.as_str()),
        &approved_versions(head, As::Caller, See::Statement),
    ))
}

/// The version that a caller names: by its digits, by its semantic version or by a channel, whatever its status; the newest of
/// all for `None`.
pub fn named_version(head: &Head, given: Option<&str>, rights: As, see: See) -> Result<Version, Fault> {
    let Some(given) = given else { return model::version(head, None, rights, see) };
    match Requirement::parse(Some(given)) {
        Ok(Requirement::Channel(name)) => {
            model::version(head, Some(&channel_version(head, &name, rights, see)?), rights, see)
        }
        Ok(Requirement::Range(_)) => {
            model::version_by_semver(head, given.trim(), rights, see).ok_or_else(|| model::no_version(head, given))
        }
        _ => model::version(head, Some(given), rights, see),
    }
}

/// An approved version, for callers that decide which one is served.
pub fn resolve_approved(head: &Head, requirement: Option<&str>) -> Result<Version, Fault> {
    let version = resolve_requirement(head, &Requirement::parse(requirement)?, As::Owner, See::OwnWrites)?;
    require_approved(head, version)
}

/// A skill and one of its versions: the named one, or the one that is served.
pub fn head_and_version(skill: Option<&str>, given: Option<&str>) -> Result<(Head, Version), Fault> {
    let head = model::find(Reference::parse(skill)?)?;
    let version = named_version(&head, Some(given.unwrap_or(&head.current_version)), As::Caller, See::Statement)?;
    Ok((head, version))
}

/// `skill` or `skill@requirement`.
pub fn parse_skill_ref(text: &str) -> Result<(Head, Version), Fault> {
    let split = text
        .rsplit_once('@')
        .and_then(|(skill, requirement)| Some((skill, Requirement::parse(Some(requirement)).ok()?)));
    let (skill, requirement) = split.unwrap_or((text, Requirement::Served));
    let head = model::find_existing(Reference::parse(Some(skill))?)?;
    let version = resolve_requirement(&head, &requirement, As::Caller, See::Statement)?;
    Ok((head, version))
}
