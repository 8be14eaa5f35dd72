//! The rules of a compiled policy, indexed by the name of the effect.

use std::collections::HashMap;
use std::rc::Rc;

use super::command::Command;
use super::effect::{BadEffect, Effect, Malformed};
use super::profile::{MAX_NAME_BYTES, MAX_RULES, PolicyError, Profile};
use crate::error::shorten;
use crate::interrupt;

/// A rule with the profile it came from.
#[derive(Debug, Clone)]
pub struct Rule {
    pub text: Rc<str>,
    /// The profile that has it.
    pub source: Rc<str>,
    /// As it stands.
    pub(super) effect: Effect<'static>,
    /// As its verdict reads it.
    pub(super) meant: Effect<'static>,
}

/// Rules of one verdict, found by the name of the effect.
#[derive(Debug, Clone, Default)]
pub(super) struct RuleSet {
    by_name: HashMap<Box<str>, Vec<Rule>>,
    with_wildcard: Vec<Rule>,
}

/// The name of an effect or a rule.
fn name_of(text: &str) -> &str {
    text.split_once(':').map_or(text, |(name, _)| name)
}

impl RuleSet {
    fn push(&mut self, rule: Rule) {
        if rule.effect.has_concrete_name() {
            self.by_name.entry(name_of(&rule.text).into()).or_default().push(rule);
        } else {
            self.with_wildcard.push(rule);
        }
    }

    fn named(&self, text: &str) -> &[Rule] {
        self.by_name.get(name_of(text)).map_or(&[], Vec::as_slice)
    }

    /// A rule that, as it is meant, overlaps one of the spellings.
    pub(super) fn overlapping(&self, text: &str, spellings: &[Effect<'_>]) -> Option<&Rule> {
        spellings.iter().find_map(|effect| {
            self.named(text)
                .iter()
                .find(|rule| rule.meant.overlaps_scope(effect))
                .or_else(|| self.with_wildcard.iter().find(|rule| rule.meant.overlaps(effect)))
        })
    }

    /// Whether a rule overlaps the effect as it stands.
    pub(super) fn names(&self, text: &str, effect: &Effect<'_>) -> bool {
        self.named(text).iter().any(|rule| rule.effect.overlaps_scope(effect))
            || self.with_wildcard.iter().any(|rule| rule.effect.overlaps(effect))
    }

    pub(super) fn covering(&self, text: &str, effect: &Effect<'_>) -> Option<&Rule> {
        self.named(text)
            .iter()
            .find(|rule| rule.effect.covers_scope(effect))
            .or_else(|| self.with_wildcard.iter().find(|rule| rule.effect.covers(effect)))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.by_name.values().flatten().chain(&self.with_wildcard)
    }

    pub(super) fn sorted(&self) -> Vec<&Rule> {
        let mut all: Vec<&Rule> = self.iter().collect();
        all.sort_by(|a, b| (&a.text, &a.source).cmp(&(&b.text, &b.source)));
        all
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) deny: RuleSet,
    pub(super) ask: RuleSet,
    pub(super) allow: RuleSet,
    pub(super) exec: Vec<Command>,
    pub(super) write_roots: Vec<Rule>,
    count: usize,
}

impl Rules {
    pub(super) fn add(&mut self, profile: &Profile) -> Result<(), PolicyError> {
        let source: Rc<str> = profile.name.as_str().into();
        let columns = [
            ("denied_effects", &profile.denied_effects),
            ("ask_effects", &profile.ask_effects),
            ("allowed_effects", &profile.allowed_effects),
        ];
        self.count += columns.iter().map(|(_, list)| list.len()).sum::<usize>()
            + profile.allowed_exec.len()
            + profile.allowed_write_roots.len();
        if self.count > MAX_RULES {
            return Err(PolicyError::TooLarge { policy: profile.name.clone() });
        }
        let bad_rule = |column, text: &str, why| PolicyError::BadRule {
            policy: profile.name.clone(),
            column,
            bad: BadEffect::new(text, why),
        };
        for (column, list) in columns {
            for text in list {
                interrupt::check();
                let effect = Effect::parse_rule(text).map_err(|why| bad_rule(column, text, why))?.into_owned();
                let meant = if column == "allowed_effects" { effect.clone() } else { effect.clone().widened() };
                let rule = Rule { text: text.as_str().into(), source: source.clone(), effect, meant };
                match column {
                    "denied_effects" => self.deny.push(rule),
                    "ask_effects" => self.ask.push(rule),
                    _ => self.allow.push(rule),
                }
            }
        }
        for text in &profile.allowed_exec {
            interrupt::check();
            let command = Command::parse(text, &source)
                .ok_or_else(|| PolicyError::BadCommand { policy: profile.name.clone(), command: shorten(text) })?;
            self.exec.push(command);
        }
        for text in &profile.allowed_write_roots {
            interrupt::check();
            let effect = write_root(text).map_err(|why| bad_rule("allowed_write_roots", text, why))?;
            let rule = Rule { text: text.as_str().into(), source: source.clone(), meant: effect.clone(), effect };
            self.write_roots.push(rule);
        }
        Ok(())
    }
}

/// A directory, and everything below it.
fn write_root(text: &str) -> Result<Effect<'static>, Malformed> {
    let root = text.strip_suffix("/**").unwrap_or(text);
    if text.is_empty() {
        return Err(Malformed::Empty);
    }
    if root.split('/').any(|part| part.contains('*')) {
        return Err(Malformed::WildcardPlace);
    }
    Effect::parse_rule(&format!("fs.write:{root}/**")).map(Effect::into_owned)
}

impl Profile {
    /// Checks everything that can be checked without the other profiles.
    pub fn validate(&self) -> Result<(), PolicyError> {
        if self.name.is_empty()
            || self.name.len() > MAX_NAME_BYTES
            || self.name.trim() != self.name
            || self.name.chars().any(char::is_control)
        {
            return Err(PolicyError::BadName { name: shorten(&self.name) });
        }
        Rules::default().add(self)
    }
}
