//! Skills: names, statuses, what a version is made of.

pub mod agents;
pub mod approval;
pub mod bundle;
pub mod changes;
pub mod contract;
pub mod dependencies;
pub mod diff;
pub mod document;
pub mod ecosystem;
pub mod files;
pub mod findings;
pub mod frontmatter;
pub mod manifest;
pub mod metadata;
pub mod names;
pub mod preflight;
pub mod redis;
pub mod requirement;
pub mod search;
pub mod slug;
pub mod store;
pub mod values;
pub mod version;

use crate::error::{Code, Fault};

/// Status of a version, and of the skill whose current version it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not yet for use.
    Draft,
    Approved,
    /// Not to be used any more.
    Disabled,
}

impl Status {
    /// The word in the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Draft => "draft",
            Status::Approved => "approved",
            Status::Disabled => "disabled",
        }
    }

    /// From the word in the tables.
    pub fn parse(word: &str) -> Option<Self> {
        [Status::Draft, Status::Approved, Status::Disabled].into_iter().find(|status| status.as_str() == word)
    }

    /// Somebody who may approve has decided on it.
    pub fn is_decided(self) -> bool {
        self != Status::Draft
    }

    pub fn from_argument(word: Option<&str>) -> Result<Self, Fault> {
        let word = word.ok_or_else(|| Fault::new(Code::InvalidParameterValue, "status must not be NULL"))?;
        Status::parse(word).ok_or_else(|| {
            Fault::new(
                Code::InvalidParameterValue,
                format!("invalid value for status: \"{}\"", crate::error::shorten(word)),
            )
            .hint("Use draft, approved or disabled.")
        })
    }
}
