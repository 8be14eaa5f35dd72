//! Finds the rules that cover another one without a comparison of each with each.

use std::collections::{BTreeSet, HashMap};

use super::effect::{Effect, Key, Shape};
use super::rules::Rule;
use crate::interrupt;

/// Rules by what an effect must have in common with them to be covered.
pub(super) struct CoverIndex<'p> {
    rules: HashMap<(String, Key), Vec<(&'p Rule, &'p Effect<'static>)>>,
    /// Lengths of the names and keys, so that only these are looked up.
    names: BTreeSet<usize>,
    keys: BTreeSet<(Shape, usize)>,
}

impl<'p> CoverIndex<'p> {
    /// `effect` tells which of the rule's effects is meant.
    pub(super) fn new(rules: impl Iterator<Item = &'p Rule>, effect: impl Fn(&Rule) -> &Effect<'static>) -> Self {
        let mut index = CoverIndex { rules: HashMap::new(), names: BTreeSet::new(), keys: BTreeSet::new() };
        for rule in rules {
            interrupt::check();
            let effect = effect(rule);
            let (name, key) = (effect.name_literals(), effect.key());
            index.names.insert(name.len());
            index.keys.insert((key.shape, key.length));
            index.rules.entry((name.join("."), key)).or_default().push((rule, effect));
        }
        index
    }

    /// The rules that cover `effect`.
    pub(super) fn covering(&self, effect: &Effect<'_>) -> impl Iterator<Item = &'p Rule> {
        let name = effect.name_literals();
        let names: Vec<String> = self.names.range(..=name.len()).map(|length| name[..*length].join(".")).collect();
        let keys: Vec<Key> = self.keys.iter().filter_map(|(shape, length)| effect.key_of(*shape, *length)).collect();
        let mut found = Vec::new();
        for name in names {
            for key in &keys {
                interrupt::check();
                let rules = self.rules.get(&(name.clone(), key.clone())).map_or(&[][..], Vec::as_slice);
                for (rule, known) in rules {
                    interrupt::check();
                    if known.covers(effect) {
                        found.push(*rule);
                    }
                }
            }
        }
        found.into_iter()
    }
}
