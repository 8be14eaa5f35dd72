//! Profiles as they are stored: their content, its hash, and their errors.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::effect::BadEffect;
use crate::error::{Code, Fault};

/// Maximum number of rules of a profile, inherited ones included.
pub const MAX_RULES: usize = 10_000;
/// Maximum number of profiles that one inherits from.
pub const MAX_ANCESTORS: usize = 64;
/// Maximum length of a profile's name, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// The verdict on an effect that no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Unlisted {
    /// It may not happen.
    #[default]
    Deny,
    /// A person is asked.
    Ask,
}

/// Whether [`enforce_policy`](self) raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A blocked effect raises.
    #[default]
    Enforce,
    /// A blocked effect is only recorded.
    Observe,
}

/// One row of `policy_profiles`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Profile {
    /// Unique within its tenant.
    pub name: String,
    /// Number of the current row in `policy_versions`.
    #[serde(default)]
    pub version: i32,
    pub allowed_effects: Vec<String>,
    /// Rules that need a person.
    pub ask_effects: Vec<String>,
    pub denied_effects: Vec<String>,
    /// Commands that may run.
    pub allowed_exec: Vec<String>,
    /// Directories under which files may be written.
    pub allowed_write_roots: Vec<String>,
    /// Profiles whose rules are added to these.
    pub inherits: Vec<String>,
    /// Verdict on everything else.
    pub unlisted: Unlisted,
    /// Raise or only record.
    pub mode: Mode,
    /// The text of the row's `metadata`.
    pub metadata: String,
}

/// Why a profile cannot be stored or compiled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// A rule does not parse.
    #[error("malformed rule in {column} of policy \"{policy}\"")]
    BadRule {
        policy: String,
        column: &'static str,
        /// Which, and what is wrong.
        bad: BadEffect,
    },
    /// An entry of `allowed_exec` is not a command.
    #[error("malformed command in allowed_exec of policy \"{policy}\"")]
    BadCommand { policy: String, command: String },
    /// The name of a profile is empty, too long, has white space around it or characters that are not seen.
    #[error(
        "policy name must have 1 to {MAX_NAME_BYTES} bytes of visible characters, without leading or trailing white space"
    )]
    BadName {
        /// The name as given.
        name: String,
    },
    /// A column has neither of its two values.
    #[error("invalid value for {column}: \"{given}\"")]
    BadChoice { column: &'static str, given: String, words: [&'static str; 2] },
    /// An element of `inherits` is NULL or empty.
    #[error("element {element} of inherits of policy \"{policy}\" is NULL or empty")]
    BadParent { policy: String, element: usize },
    /// It inherits from a profile that does not exist.
    #[error("policy \"{policy}\" inherits from \"{parent}\", which does not exist")]
    UnknownParent { policy: String, parent: String },
    /// It inherits from itself.
    #[error("policy \"{policy}\" inherits from itself")]
    Cycle { policy: String, path: Vec<String> },
    /// Over [`MAX_RULES`] or [`MAX_ANCESTORS`].
    #[error("policy \"{policy}\" has more than {MAX_RULES} rules or {MAX_ANCESTORS} profiles to inherit from")]
    TooLarge { policy: String },
    /// No such profile in this tenant.
    #[error("policy \"{policy}\" does not exist")]
    Unknown {
        /// The name asked for.
        policy: String,
    },
}

impl From<PolicyError> for Fault {
    fn from(error: PolicyError) -> Fault {
        let message = error.to_string();
        match error {
            PolicyError::BadRule { bad, .. } => {
                let hint = bad.why.hint();
                Fault::new(Code::InvalidParameterValue, message).detail(format!("{bad}.")).hint(hint)
            }
            PolicyError::BadCommand { command, .. } => Fault::new(Code::InvalidParameterValue, message)
                .detail(format!("\"{command}\" must be words separated by single spaces; * stands for one argument, a final ** for any number."))
                .hint("Write a program (git), a program with arguments (git status, git log **) or an absolute path (/usr/bin/git)."),
            PolicyError::BadName { name } => {
                Fault::new(Code::InvalidParameterValue, message).detail(format!("The name is \"{name}\"."))
            }
            PolicyError::BadChoice { words, .. } => {
                Fault::new(Code::InvalidParameterValue, message).hint(format!("Write {} or {}.", words[0], words[1]))
            }
            PolicyError::BadParent { .. } => {
                Fault::new(Code::InvalidParameterValue, message).hint("Write the names of policies.")
            }
            PolicyError::UnknownParent { .. } => {
                Fault::new(Code::UndefinedObject, message).hint("Create the inherited policy first, or correct its name.")
            }
            PolicyError::Cycle { path, .. } => Fault::new(Code::InvalidParameterValue, message)
                .detail(format!("The cycle is {}.", path.join(" -> ")))
                .hint("Remove one of these from inherits."),
            PolicyError::TooLarge { .. } => Fault::new(Code::ProgramLimitExceeded, message),
            PolicyError::Unknown { .. } => Fault::new(Code::UndefinedObject, message)
                .hint("SELECT name FROM skill_system.policy_profiles lists the policies; create_policy() and install_starter_policies() create some."),
        }
    }
}

impl Profile {
    /// The content that is hashed and kept in `policy_versions`: JSON, keys in
    /// byte order, no blanks, rules sorted and without repeats, inherited
    /// profiles by the hash of their content.
    pub fn canonical(&self, hash_of: &HashMap<String, String>) -> String {
        fn sorted(list: &[String]) -> BTreeSet<&str> {
            list.iter().map(String::as_str).collect()
        }
        // serde_json's map is ordered by key.
        json!({
            "allowed_effects": sorted(&self.allowed_effects),
            "allowed_exec": sorted(&self.allowed_exec),
            "allowed_write_roots": sorted(&self.allowed_write_roots),
            "ask_effects": sorted(&self.ask_effects),
            "denied_effects": sorted(&self.denied_effects),
            "inherits": sorted(&self.inherits).into_iter()
                .map(|name| json!({"name": name, "sha256": hash_of.get(name)})).collect::<Vec<_>>(),
            "metadata": self.metadata,
            "mode": self.mode,
            "name": self.name,
            "unlisted": self.unlisted,
        })
        .to_string()
    }
}

/// `sha256:` and the hex digest, as digests are written everywhere here.
pub fn digest(content: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content.as_bytes())))
}

/// Canonical content and its hash, or why none exists.
pub type Hashed = Result<(String, String), PolicyError>;

/// All profiles of a tenant with their content and its hash.
///
/// Profiles that inherit come after those they inherit from, because their hash
/// includes the others'. What cannot be resolved is the error of its profile.
pub fn hash_all(profiles: &[Profile]) -> Vec<(usize, Hashed)> {
    let by_name: HashMap<&str, usize> = profiles.iter().enumerate().map(|(i, p)| (p.name.as_str(), i)).collect();
    let mut hashes: HashMap<String, String> = HashMap::new();
    let mut done: HashMap<usize, Hashed> = HashMap::new();
    for start in 0..profiles.len() {
        resolve(start, profiles, &by_name, &mut Vec::new(), &mut hashes, &mut done);
    }
    let mut all: Vec<_> = done.into_iter().collect();
    all.sort_by_key(|(i, _)| *i);
    all
}

pub(super) fn resolve(
    at: usize,
    profiles: &[Profile],
    by_name: &HashMap<&str, usize>,
    path: &mut Vec<usize>,
    hashes: &mut HashMap<String, String>,
    done: &mut HashMap<usize, Hashed>,
) -> Option<PolicyError> {
    if let Some(result) = done.get(&at) {
        return result.as_ref().err().cloned();
    }
    let profile = &profiles[at];
    if let Some(first) = path.iter().position(|p| *p == at) {
        let mut names: Vec<String> = path[first..].iter().map(|p| profiles[*p].name.clone()).collect();
        names.push(profile.name.clone());
        return Some(PolicyError::Cycle { policy: profile.name.clone(), path: names });
    }
    if path.len() >= MAX_ANCESTORS {
        return Some(PolicyError::TooLarge { policy: profile.name.clone() });
    }
    path.push(at);
    let mut error = None;
    for parent in &profile.inherits {
        error = match by_name.get(parent.as_str()) {
            None => Some(PolicyError::UnknownParent { policy: profile.name.clone(), parent: parent.clone() }),
            Some(parent) => resolve(*parent, profiles, by_name, path, hashes, done),
        };
        if error.is_some() {
            break;
        }
    }
    path.pop();
    let result = match &error {
        Some(error) => Err(error.clone()),
        None => {
            let content = profile.canonical(hashes);
            let hash = digest(&content);
            hashes.insert(profile.name.clone(), hash.clone());
            Ok((content, hash))
        }
    };
    done.insert(at, result);
    error
}
