//! What a version consists of: its body, its files, what its front matter and manifest declare.

use serde_json::Value;
use skill_core::skills::ecosystem::MAIN;
use skill_core::skills::version::{File, Identity};
use skill_core::skills::{Status, bundle};
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Uuid, arg};

use super::approval;
use super::model::{self, Head, Version};

pub struct Content {
    pub body: String,
    pub files: Vec<File>,
    pub frontmatter: Option<Value>,
    pub manifest: Option<Value>,
}

/// Reads a version as the tables' owner.
pub fn content(version: &Version) -> Result<Content, Fault> {
    let found = spi::first::<(String, Option<Value>, Option<Value>)>(
        "SELECT body, frontmatter::text, manifest::text FROM skill_system.skill_versions \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(version.id)],
    );
    let (body, frontmatter, manifest) = found.ok_or_else(|| no_body(version))?;
    Ok(Content { body, files: files(version.id, As::Owner, See::OwnWrites), frontmatter, manifest })
}

fn no_body(version: &Version) -> Fault {
    Fault::new(Code::VersionNotFound, format!("version {} does not exist", version.version))
}

/// The files of a version next to its body.
pub fn files(version_id: Uuid, rights: As, see: See) -> Vec<File> {
    let files = spi::collect::<(String, Vec<u8>)>(
        "SELECT path, content FROM skill_system.skill_files \
         WHERE tenant_id = skill_system.current_tenant() AND version_id = $1 ORDER BY path",
        rights,
        see,
        &[arg(version_id)],
    );
    files.into_iter().map(|(path, content)| File { path, content }).collect()
}

/// The body of a version; `None` when the version does not exist, or the caller may not see it.
pub fn find_body(version_id: Uuid, rights: As, see: See) -> Option<String> {
    spi::first(
        "SELECT body FROM skill_system.skill_versions WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        rights,
        see,
        &[arg(version_id)],
    )
}

/// The zip of a version, SKILL.md at its root.
pub fn archive(body: String, files: Vec<File>) -> Result<Vec<u8>, Fault> {
    let main = File { path: MAIN.into(), content: body.into_bytes() };
    bundle::archive(&std::iter::once(main).chain(files).collect::<Vec<_>>())
}

/// The body of a version that was found a moment ago.
pub fn body(version: &Version, rights: As, see: See) -> Result<String, Fault> {
    find_body(version.id, rights, see).ok_or_else(|| no_body(version))
}

/// Content that is registered already comes back with its status: what was approved before would be served again, which is
/// a reviewer's decision.
pub fn check_not_approved_before(head: &Head, body: &str, files: &[File]) -> Result<(), Fault> {
    let identity = Identity::of(body, files);
    match model::find_version(head, Some(identity.version()), As::Owner, See::OwnWrites) {
        Some(known)
            if known.status == Status::Approved && known.id != head.current_version_id && !approval::may_approve() =>
        {
            Err(Fault::new(
                Code::InsufficientPrivilege,
                format!("version {} of skill \"{}\" was approved before", known.version, head.skill_name),
            )
            .detail("Only a reviewer or an administrator makes it the one that is served again.")
            .hint("SELECT skill_system.set_skill_status(skill, 'approved', version);"))
        }
        _ => Ok(()),
    }
}
