//! Policy profiles: compiling them, deciding by them, explaining and linting them.
//!
//! Precedence is deny > ask > allow > unlisted, whatever the order or the
//! specificity of the rules. Inheritance only adds rules, so a deny of any
//! ancestor wins. `unlisted` and `mode` are those of the requested profile.
//! Invalid requests are denied.

mod command;
mod cover;
mod decision;
pub mod effect;
mod lint;
mod profile;
pub mod request;
mod rules;
mod runners;
mod verdict;

pub use decision::{Decision, Explanation, Finding, Why};
pub use effect::MAX_EFFECTS;
pub use lint::lint_broken;
pub use profile::{
    Hashed, MAX_ANCESTORS, MAX_NAME_BYTES, MAX_RULES, Mode, PolicyError, Profile, Unlisted, digest, hash_all,
};
pub use rules::Rule;
pub use verdict::Verdict;

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::json;

use self::effect::{Effect, MAX_EFFECT_BYTES, split};
use self::profile::resolve;
use self::rules::{Rules, name_of};
use self::runners::{programs_in, runs_arguments, without_quotes};
use crate::error::shorten;
use crate::interrupt;

/// Longest command, in bytes: what Linux and the BSDs take for arguments by default.
const MAX_COMMAND_BYTES: usize = 2 << 20;

/// A profile with everything it inherits, ready to decide.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Of the profile that was asked for.
    pub name: String,
    /// Of the profile that was asked for.
    pub version: i32,
    /// Of its content, inherited hashes included.
    pub hash: String,
    /// Of the profile that was asked for.
    pub unlisted: Unlisted,
    /// Of the profile that was asked for.
    pub mode: Mode,
    rules: Rules,
}

impl Policy {
    /// Compiles `name` out of the profiles of its tenant.
    pub fn compile(name: &str, profiles: &[Profile]) -> Result<Policy, PolicyError> {
        let by_name: HashMap<&str, usize> = profiles.iter().enumerate().map(|(i, p)| (p.name.as_str(), i)).collect();
        let at = *by_name.get(name).ok_or_else(|| PolicyError::Unknown { policy: shorten(name) })?;
        let mut done = HashMap::new();
        if let Some(error) = resolve(at, profiles, &by_name, &mut Vec::new(), &mut HashMap::new(), &mut done) {
            return Err(error);
        }
        let hash = match done.remove(&at) {
            Some(Ok((_, hash))) => hash,
            _ => return Err(PolicyError::Unknown { policy: shorten(name) }),
        };
        let mut rules = Rules::default();
        let mut seen = HashSet::new();
        let mut todo = vec![at];
        while let Some(i) = todo.pop() {
            if !seen.insert(i) {
                continue;
            }
            if seen.len() > MAX_ANCESTORS {
                return Err(PolicyError::TooLarge { policy: shorten(name) });
            }
            rules.add(&profiles[i])?;
            todo.extend(profiles[i].inherits.iter().rev().filter_map(|p| by_name.get(p.as_str()).copied()));
        }
        let profile = &profiles[at];
        Ok(Policy {
            name: profile.name.clone(),
            version: profile.version,
            hash,
            unlisted: profile.unlisted,
            mode: profile.mode,
            rules,
        })
    }

    /// The verdict on one effect.
    pub fn judge<'p>(&'p self, text: &str) -> (Verdict, Why<'p>) {
        self.judge_listed(text, |effect| self.list_without(text, effect))
    }

    /// As [`Policy::judge`]; `list_without` names the list that an effect, not denied by a rule, would have to be in and is not.
    fn judge_listed<'p>(
        &'p self,
        text: &str,
        list_without: impl FnOnce(&Effect<'_>) -> Option<&'static str>,
    ) -> (Verdict, Why<'p>) {
        interrupt::check();
        let effect = match Effect::parse(text) {
            Ok(effect) => effect,
            Err(why) => return (Verdict::Deny, Why::Malformed(why)),
        };
        let judged = match self.judge_by_rules(text, &effect) {
            denied @ (Verdict::Deny, _) => return denied,
            judged => judged,
        };
        if let Some(column) = list_without(&effect) {
            return (self.unlisted_verdict(), Why::NotIn(column));
        }
        // A path with arguments.
        let Some(command) = text.strip_prefix("proc.exec:").filter(|command| command.contains(' ')) else {
            return judged;
        };
        let words: Vec<&str> = command.split(' ').collect();
        match self.judge_arguments(words[0], &words[1..]) {
            Some((_, verdict, why)) if verdict == Verdict::Deny || judged.0 == Verdict::Allow => (verdict, why),
            _ => judged,
        }
    }

    /// The verdict on `effect`, parsed from `text`, whatever the lists of programs and directories are.
    #[inline]
    fn judge_by_rules<'p>(&'p self, text: &str, effect: &Effect<'_>) -> (Verdict, Why<'p>) {
        let spellings = match effect.spellings(text) {
            Ok(spellings) => spellings,
            Err(why) => return (Verdict::Deny, Why::Malformed(why)),
        };
        let spellings = if spellings.is_empty() { std::slice::from_ref(effect) } else { &spellings };
        let rules = self.rules.for_name(name_of(text));
        if let Some(rule) = rules.deny.overlapping(spellings) {
            return (Verdict::Deny, Why::Rule(rule));
        }
        let ask = rules.ask.overlapping(spellings);
        let allow = rules
            .allow
            .covering(effect)
            .filter(|_| effect.is_so_decoded(text, |effect| rules.allow.covering(effect).is_some()));
        match (ask, allow) {
            // What an ask rule means in addition to what it names is only taken from what is allowed.
            (Some(rule), Some(_)) => (Verdict::Ask, Why::Rule(rule)),
            (Some(rule), None) if rules.ask.names(effect) => (Verdict::Ask, Why::Rule(rule)),
            (_, Some(rule)) => (Verdict::Allow, Why::Rule(rule)),
            (_, None) => (self.unlisted_verdict(), Why::Unlisted),
        }
    }

    /// The list that a path to write or a program to run would have to be in and is not. An empty list restricts nothing.
    fn list_without(&self, text: &str, effect: &Effect<'_>) -> Option<&'static str> {
        let Rules { exec, write_roots, .. } = &self.rules;
        if exec.is_empty() && write_roots.is_empty() {
            return None;
        }
        let (name, Some(scope)) = split(text) else { return None };
        match name {
            "fs.write" if !write_roots.is_empty() => {
                let in_root = |effect: &Effect<'_>| write_roots.iter().any(|root| root.effect.covers(effect));
                let listed = in_root(effect) && effect.is_so_decoded(text, in_root);
                (!listed).then_some("allowed_write_roots")
            }
            "proc.exec" if !exec.is_empty() => {
                let as_path = format!("fs.exec:{scope}");
                let path = Effect::parse(&as_path).ok();
                let listed = exec.iter().any(|command| command.runs(scope, path.as_ref()));
                (!listed).then_some("allowed_exec")
            }
            _ => None,
        }
    }

    fn unlisted_verdict(&self) -> Verdict {
        match self.unlisted {
            Unlisted::Deny => Verdict::Deny,
            Unlisted::Ask => Verdict::Ask,
        }
    }

    /// Decides on all effects of a request.
    pub fn check<'e>(&self, effects: impl Iterator<Item = &'e str>) -> Decision {
        self.decide(effects.map(|effect| {
            let (verdict, why) = self.judge(effect);
            (effect, verdict, why)
        }))
    }

    /// Whether [`Policy::check`] would allow all of these.
    pub fn allows<'e>(&self, effects: impl Iterator<Item = &'e str>) -> bool {
        let mut effects = effects;
        effects.all(|effect| self.judge(effect).0 == Verdict::Allow)
    }

    fn decide<'e, 'p>(&'p self, judged: impl Iterator<Item = (&'e str, Verdict, Why<'p>)>) -> Decision {
        let (mut blocked, mut ask, mut reason) = (Vec::new(), Vec::new(), String::new());
        let mut count = 0;
        let mut seen: HashSet<&str> = HashSet::new();
        for (effect, verdict, why) in judged {
            count += 1;
            if verdict == Verdict::Allow || !seen.insert(effect) {
                continue;
            }
            if blocked.len() < 3 {
                let also = if blocked.is_empty() { "" } else { "; " };
                reason.push_str(&format!("{also}{}: {}", shorten(effect), self.words(verdict, &why)));
            }
            if verdict == Verdict::Ask {
                ask.push(effect.to_owned());
            }
            blocked.push(effect.to_owned());
        }
        if blocked.len() > 3 {
            reason.push_str(&format!("; and {} more", blocked.len() - 3));
        }
        if blocked.is_empty() {
            // Built by hand: this is the hot path.
            reason.reserve(48 + self.name.len());
            reason.push_str(if count == 0 { "no effects requested of policy \"" } else { "allowed by policy \"" });
            reason.push_str(&self.name);
            reason.push('"');
        }
        let verdict = match (blocked.is_empty(), ask.len() == blocked.len()) {
            (true, _) => Verdict::Allow,
            (false, true) => Verdict::Ask,
            (false, false) => Verdict::Deny,
        };
        Decision { allowed: blocked.is_empty(), blocked, ask, verdict, reason }
    }

    fn words(&self, verdict: Verdict, why: &Why<'_>) -> String {
        let outcome = match verdict {
            Verdict::Allow => "allowed",
            Verdict::Ask => "needs a person",
            Verdict::Deny => "denied",
        };
        match why {
            Why::Rule(rule) => format!("{outcome} by rule \"{}\" of policy \"{}\"", rule.text, rule.source),
            Why::Unlisted => format!("{outcome}, no rule of policy \"{}\" allows it", self.name),
            Why::Malformed(why) => format!("denied as malformed: {why}"),
            Why::NotIn(column) => format!("{outcome}, not in {column} of policy \"{}\"", self.name),
        }
    }

    /// Decides whether a command may run: the effect `proc.exec:<program>` must be allowed, and an entry of `allowed_exec`,
    /// unless it is empty, must match. The programs that its arguments may name, where it runs others, must not be denied.
    pub fn check_exec(&self, argv: &[&str]) -> Decision {
        let Some(program) = argv.first().filter(|program| !program.is_empty()) else {
            return Decision::refused(vec!["proc.exec".into()], "the command has no program");
        };
        if argv.iter().map(|argument| argument.len()).sum::<usize>() > MAX_COMMAND_BYTES {
            let reason = format!("the command is longer than {MAX_COMMAND_BYTES} bytes");
            return Decision::refused(vec![format!("proc.exec:{}", shorten(program))], reason);
        }
        let effect = format!("proc.exec:{program}");
        let exec = &self.rules.exec;
        let (verdict, why) = self.judge_listed(&effect, |_| {
            let as_path = format!("fs.exec:{program}");
            let path = Effect::parse(&as_path).ok();
            let listed = exec.is_empty() || exec.iter().any(|command| command.matches(argv, path.as_ref()));
            (!listed).then_some("allowed_exec")
        });
        let decision = self.decide(std::iter::once((effect.as_str(), verdict, why)));
        if decision.verdict == Verdict::Deny {
            return decision;
        }
        match self.judge_arguments(program, &argv[1..]) {
            Some((run, Verdict::Deny, why)) => {
                let words = self.words(Verdict::Deny, &why);
                let reason = format!("{}: runs {}, {words}", shorten(&effect), shorten(&run));
                Decision::refused(vec![effect], reason)
            }
            Some((_, Verdict::Ask, why)) if decision.allowed => {
                self.decide(std::iter::once((effect.as_str(), Verdict::Ask, why)))
            }
            _ => decision,
        }
    }

    /// A rule that denies, or else asks about, a program that the arguments may name; `None` if `program` runs none of them.
    fn judge_arguments<'p>(&'p self, program: &str, arguments: &[&str]) -> Option<(String, Verdict, Why<'p>)> {
        if !runs_arguments(program, arguments) {
            return None;
        }
        let mut asked = None;
        let unquoted = without_quotes(arguments);
        let words: Vec<&str> = arguments.iter().copied().chain(unquoted.iter().map(String::as_str)).collect();
        for word in programs_in(&words).filter(|word| word.len() <= MAX_EFFECT_BYTES) {
            let run = format!("proc.exec:{word}");
            let Ok(named) = Effect::parse(&run) else { continue };
            match self.judge_by_rules(&run, &named) {
                (Verdict::Deny, why @ Why::Rule(_)) => return Some((run, Verdict::Deny, why)),
                (Verdict::Ask, why @ Why::Rule(_)) if asked.is_none() => asked = Some((run, Verdict::Ask, why)),
                _ => {}
            }
        }
        asked
    }

    /// Decides whether a file may be written: [`Policy::check`] for the effect `fs.write:<path>`.
    pub fn check_write(&self, path: &str) -> Decision {
        let effect = format!("fs.write:{path}");
        // A wildcard in a path that is about to be written would be judged as many paths.
        if path.contains('*') {
            return Decision::refused(
                vec![effect],
                format!("{}: denied as malformed: a path to write has no wildcard", shorten(path)),
            );
        }
        self.check(std::iter::once(effect.as_str()))
    }

    /// One row per effect, in the order asked.
    pub fn explain<'e>(&self, effects: impl Iterator<Item = &'e str>) -> Vec<Explanation> {
        effects
            .map(|effect| {
                let (verdict, why) = self.judge(effect);
                let words = match &why {
                    Why::Rule(rule)
                        if verdict != Verdict::Allow && !Effect::parse(effect).is_ok_and(|e| rule.meant.covers(&e)) =>
                    {
                        format!(
                            "{}, which covers a part of the request; request a narrower scope",
                            self.words(verdict, &why)
                        )
                    }
                    _ => self.words(verdict, &why),
                };
                let (rule, source) = match why {
                    Why::Rule(rule) => (Some(rule.text.to_string()), Some(rule.source.to_string())),
                    _ => (None, None),
                };
                Explanation { effect: effect.to_owned(), verdict, rule, source, why: words }
            })
            .collect()
    }

    /// Every rule in force: kind (`effect`, `exec`, `write_root`), verdict, rule, profile it came from.
    pub fn effective(&self) -> Vec<(&'static str, Verdict, String, String)> {
        let mut rows = Vec::new();
        for verdict in [Verdict::Deny, Verdict::Ask, Verdict::Allow] {
            rows.extend(
                self.rules
                    .sorted(verdict)
                    .into_iter()
                    .map(|r| ("effect", verdict, r.text.to_string(), r.source.to_string())),
            );
        }
        rows.push(("effect", self.unlisted_verdict(), "everything else".into(), self.name.clone()));
        rows.extend(self.rules.exec.iter().map(|c| ("exec", Verdict::Allow, c.text.to_string(), c.source.to_string())));
        rows.extend(
            self.rules
                .write_roots
                .iter()
                .map(|r| ("write_root", Verdict::Allow, r.text.to_string(), r.source.to_string())),
        );
        rows
    }

    /// The policy as `runs.effective_policy` keeps it.
    pub fn to_json(&self) -> serde_json::Value {
        let texts = |verdict| self.rules.of(verdict).map(|r| r.text.to_string()).collect::<BTreeSet<_>>();
        json!({
            "policy": self.name, "version": self.version, "hash": self.hash, "mode": self.mode, "unlisted": self.unlisted,
            "denied_effects": texts(Verdict::Deny), "ask_effects": texts(Verdict::Ask), "allowed_effects": texts(Verdict::Allow),
            "allowed_exec": self.rules.exec.iter().map(|c| c.text.to_string()).collect::<BTreeSet<_>>(),
            "allowed_write_roots": self.rules.write_roots.iter().map(|r| r.text.to_string()).collect::<BTreeSet<_>>(),
        })
    }
}

#[cfg(test)]
mod tests;
