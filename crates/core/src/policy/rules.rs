//! The rules of a compiled policy, indexed by the name of the effect.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::command::Command;
use super::effect::{BadEffect, Effect, Malformed, split};
use super::profile::{MAX_NAME_BYTES, MAX_RULES, PolicyError, Profile};
use super::verdict::Verdict;
use crate::error::shorten;
use crate::interrupt;
use crate::unicode::suspicious_char;

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

/// The name of an effect or a rule.
pub(super) fn name_of(text: &str) -> &str {
    split(text).0
}

/// Something for each verdict.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ByVerdict<T> {
    pub(super) deny: T,
    pub(super) ask: T,
    pub(super) allow: T,
}

impl<T> ByVerdict<T> {
    fn of(&self, verdict: Verdict) -> &T {
        match verdict {
            Verdict::Deny => &self.deny,
            Verdict::Ask => &self.ask,
            Verdict::Allow => &self.allow,
        }
    }
}

impl ByVerdict<Vec<Rule>> {
    fn push(&mut self, verdict: Verdict, rule: Rule) {
        let list = match verdict {
            Verdict::Deny => &mut self.deny,
            Verdict::Ask => &mut self.ask,
            Verdict::Allow => &mut self.allow,
        };
        list.push(rule);
    }
}

/// The rules of one verdict that may concern an effect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidates<'p> {
    /// Those with its name.
    named: &'p [Rule],
    with_wildcard: &'p [Rule],
}

impl<'p> Candidates<'p> {
    /// A rule that, as it is meant, overlaps one of the spellings.
    pub(super) fn overlapping(self, spellings: &[Effect<'_>]) -> Option<&'p Rule> {
        spellings.iter().find_map(|effect| {
            self.named
                .iter()
                .find(|rule| rule.meant.overlaps_scope(effect))
                .or_else(|| self.with_wildcard.iter().find(|rule| rule.meant.overlaps(effect)))
        })
    }

    /// Whether a rule overlaps the effect as it stands.
    pub(super) fn names(self, effect: &Effect<'_>) -> bool {
        self.named.iter().any(|rule| rule.effect.overlaps_scope(effect))
            || self.with_wildcard.iter().any(|rule| rule.effect.overlaps(effect))
    }

    pub(super) fn covering(self, effect: &Effect<'_>) -> Option<&'p Rule> {
        self.named
            .iter()
            .find(|rule| rule.effect.covers_scope(effect))
            .or_else(|| self.with_wildcard.iter().find(|rule| rule.effect.covers(effect)))
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    /// By the name of the effect; those of all verdicts together, because a decision looks at all.
    by_name: BTreeMap<Box<str>, ByVerdict<Vec<Rule>>>,
    with_wildcard: ByVerdict<Vec<Rule>>,
    pub(super) exec: Vec<Command>,
    pub(super) write_roots: Vec<Rule>,
    count: usize,
}

impl Rules {
    /// What may decide on an effect with this name.
    pub(super) fn for_name(&self, name: &str) -> ByVerdict<Candidates<'_>> {
        let named = self.by_name.get(name);
        let of = |verdict| Candidates {
            named: named.map_or(&[], |rules| rules.of(verdict).as_slice()),
            with_wildcard: self.with_wildcard.of(verdict),
        };
        ByVerdict { deny: of(Verdict::Deny), ask: of(Verdict::Ask), allow: of(Verdict::Allow) }
    }

    pub(super) fn of(&self, verdict: Verdict) -> impl Iterator<Item = &Rule> {
        self.by_name.values().flat_map(move |rules| rules.of(verdict)).chain(self.with_wildcard.of(verdict))
    }

    pub(super) fn sorted(&self, verdict: Verdict) -> Vec<&Rule> {
        let mut all: Vec<&Rule> = self.of(verdict).collect();
        all.sort_by(|a, b| (&a.text, &a.source).cmp(&(&b.text, &b.source)));
        all
    }

    fn push(&mut self, verdict: Verdict, rule: Rule) {
        if !rule.effect.has_concrete_name() {
            return self.with_wildcard.push(verdict, rule);
        }
        let name = name_of(&rule.text);
        match self.by_name.get_mut(name) {
            Some(rules) => rules.push(verdict, rule),
            None => self.by_name.entry(name.into()).or_default().push(verdict, rule),
        }
    }

    pub(super) fn add(&mut self, profile: &Profile) -> Result<(), PolicyError> {
        let source: Rc<str> = profile.name.as_str().into();
        let columns = [
            (Verdict::Deny, "denied_effects", &profile.denied_effects),
            (Verdict::Ask, "ask_effects", &profile.ask_effects),
            (Verdict::Allow, "allowed_effects", &profile.allowed_effects),
        ];
        self.count += columns.iter().map(|(.., list)| list.len()).sum::<usize>()
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
        for (verdict, column, list) in columns {
            for text in list {
                interrupt::check();
                let effect = Effect::parse_rule(text).map_err(|why| bad_rule(column, text, why))?.into_owned();
                let meant = if verdict == Verdict::Allow { effect.clone() } else { effect.clone().widened() };
                self.push(verdict, Rule { text: text.as_str().into(), source: source.clone(), effect, meant });
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
            || self.name.chars().any(|c| c.is_control() || suspicious_char(c).is_some())
        {
            return Err(PolicyError::BadName { name: shorten(&self.name) });
        }
        if let Some(at) = self.inherits.iter().position(String::is_empty) {
            return Err(PolicyError::BadParent { policy: shorten(&self.name), element: at + 1 });
        }
        Rules::default().add(self)
    }
}
