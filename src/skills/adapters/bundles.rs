//! skills-runtime-sdk's bundles: zips with the files of a skill.

use skill_core::Fault;
use skill_core::skills::bundle::{self, Limits};
use skill_core::skills::files::{Files, MAX_FILES};
use skill_core::skills::metadata::SkillMetadata;
use skill_core::skills::names::Reference;
use skill_core::skills::version::File;
use skill_pg::spi::{As, See};
use skill_pg::{Answer, Call, Uuid, arg, pg_function};

use crate::args::given;
use crate::skills::content::{self, check_not_approved_before};
use crate::skills::model;
use crate::skills::registry::{self, NewVersion, Placement};
use crate::skills::requirements::named_version;
use crate::versioned::Change;

pg_function!(check_skill_bundle);
fn check_skill_bundle(call: &Call) -> Answer {
    let (zip, max_bytes, max_extracted_bytes, max_files, max_single_file_bytes) = call.arguments();
    let limits = Limits::new(max_bytes, max_extracted_bytes, max_files, max_single_file_bytes)?;
    let zip = given(zip, "zip")?;
    let mut rows = call.row_set();
    for file in bundle::read(zip, &limits)? {
        rows.push(&[arg(&file.path), arg(file.content.len() as i32), arg(file.sha256())]);
    }
    Ok(rows.finish())
}

pg_function!(register_skill_bundle);
fn register_skill_bundle(call: &Call) -> Answer {
    let (skill, zip, version) = call.arguments();
    let reference = Reference::parse(skill)?;
    let bundled = bundle::read(given(zip, "zip")?, &Limits::default())?;
    let head = model::lock(reference)?;
    let version = named_version(&head, version, As::Owner, See::OwnWrites)?;
    let content = content::content(&version)?;
    let mut files = Files::up_to(bundle::MAX_FILES + MAX_FILES, content.body.len());
    for file in bundled.into_iter().chain(content.files.into_iter().filter(|file| !bundle::is_in_bundle(&file.path))) {
        files.add(&file.path, file.content)?;
    }
    let files = files.into_list();
    check_not_approved_before(&head, &content.body, &files)?;
    let new = NewVersion {
        namespace: &head.namespace,
        skill_name: &head.skill_name,
        body: &content.body,
        files: &files,
        metadata: SkillMetadata::from_json(&model::version_metadata(&version)),
        semver: version.semver,
        frontmatter: content.frontmatter,
        manifest: content.manifest,
        status: None,
        previous_status: None,
        placement: Placement::WhenServable,
    };
    Ok(registry::register(&new, &Change::by_caller())?.answer(call))
}

/// The zip of the files that belong in a bundle; `None` where a version has none.
pub fn zip(version_id: Uuid) -> Result<Option<Vec<u8>>, Fault> {
    let mut files: Vec<File> = content::files(version_id, As::Caller, See::Statement);
    files.retain(|file| bundle::is_in_bundle(&file.path));
    if files.is_empty() { Ok(None) } else { bundle::write(&files).map(Some) }
}

pg_function!(skill_bundle);
fn skill_bundle(call: &Call) -> Answer {
    let (skill, version) = call.arguments();
    let head = model::find(Reference::parse(skill)?)?;
    let version_id = match version {
        None => head.current_version_id,
        given => named_version(&head, given, As::Caller, See::Statement)?.id,
    };
    Ok(call.answer(zip(version_id)?))
}
