//! Decisions and how they are explained.

use std::collections::HashSet;

use super::effect::Malformed;
use super::rules::Rule;
use super::verdict::Verdict;

/// The reason for a verdict.
#[derive(Debug, Clone)]
pub enum Why<'p> {
    Rule(&'p Rule),
    /// No rule matches it.
    Unlisted,
    /// It is not an effect.
    Malformed(Malformed),
    /// Not in `allowed_exec`, or not below `allowed_write_roots`: the column's name.
    NotIn(&'static str),
}

/// Answer to `check_policy` and related functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// The requested effects that are not simply allowed, without repeats.
    pub blocked: Vec<String>,
    /// The part of `blocked` that a person may approve.
    pub ask: Vec<String>,
    /// Deny, unless a person may approve all that is blocked.
    pub verdict: Verdict,
    /// One line for a person.
    pub reason: String,
}

impl Decision {
    /// Denies all effects for one reason.
    pub fn refused(blocked: Vec<String>, reason: impl Into<String>) -> Self {
        Decision {
            allowed: false,
            blocked: without_repeats(blocked),
            ask: Vec::new(),
            verdict: Verdict::Deny,
            reason: reason.into(),
        }
    }
}

fn without_repeats(list: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    list.into_iter().filter(|item| seen.insert(item.clone())).collect()
}

/// One row of `explain_policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The effect as requested.
    pub effect: String,
    /// The verdict on it.
    pub verdict: Verdict,
    /// The rule that decided, if one did.
    pub rule: Option<String>,
    /// The profile that has this rule.
    pub source: Option<String>,
    pub why: String,
}

/// One row of `lint_policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `error`, `warning` or `info`.
    pub severity: &'static str,
    pub code: &'static str,
    /// The rule it is about.
    pub rule: String,
    /// The profile that has it.
    pub source: String,
    pub message: String,
    pub hint: &'static str,
}
