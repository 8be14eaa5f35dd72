//! Linting: rules without effect, or probably not as intended.

use super::Policy;
use super::decision::{Finding, Verdict};
use super::effect::{Effect, STANDARD_EFFECTS};
use super::profile::{PolicyError, Unlisted};
use super::rules::{Command, Rule, RuleSet};

/// The rules of one verdict, with its word.
type NamedSet<'p> = (&'static str, &'p RuleSet);

impl Policy {
    /// Rules without effect, or probably not as intended.
    pub fn lint(&self) -> Vec<Finding> {
        let sets = [("deny", &self.rules.deny), ("ask", &self.rules.ask), ("allow", &self.rules.allow)];
        let mut found = Vec::new();
        for (at, (kind, set)) in sets.iter().enumerate() {
            for rule in set.sorted() {
                if let Some(shadowed) = shadowed(kind, rule, &sets[..at]) {
                    found.push(shadowed);
                    continue;
                }
                if *kind == "allow" {
                    found.extend(redundant(rule, set));
                }
                found.extend(unknown(rule));
            }
        }
        // What a list allows must be allowed as an effect too.
        found.extend(self.rules.exec.iter().filter_map(|command| self.inert_command(command)));
        found.extend(self.rules.write_roots.iter().filter_map(|root| self.inert_write_root(root)));
        found
    }

    fn inert_command(&self, command: &Command) -> Option<Finding> {
        let program = command.text.split(' ').next().unwrap_or_default();
        let effect = if program.contains('*') { "proc.exec".to_owned() } else { format!("proc.exec:{program}") };
        (self.judge(&effect).0 == Verdict::Deny).then(|| Finding {
            severity: "warning",
            code: "inert_exec",
            rule: command.text.to_string(),
            source: command.source.to_string(),
            message: format!("the command can never run: {effect} is not allowed"),
            hint: "Add proc.exec, or this program as its scope, to allowed_effects or ask_effects.",
        })
    }

    fn inert_write_root(&self, root: &Rule) -> Option<Finding> {
        let stopped = self.rules.deny.iter().any(|deny| deny.effect.covers(&root.effect));
        let listed = self.rules.allow.iter().chain(self.rules.ask.iter()).any(|r| r.effect.overlaps(&root.effect));
        (stopped || (!listed && self.unlisted == Unlisted::Deny)).then(|| {
            about(
                root,
                "warning",
                "inert_write_root",
                "nothing can be written there: fs.write is not allowed for it".into(),
                "Add fs.write, or this directory as its scope, to allowed_effects or ask_effects.",
            )
        })
    }
}

fn about(rule: &Rule, severity: &'static str, code: &'static str, message: String, hint: &'static str) -> Finding {
    Finding { severity, code, rule: rule.text.to_string(), source: rule.source.to_string(), message, hint }
}

/// A rule of a stronger verdict covers it.
fn shadowed(kind: &str, rule: &Rule, stronger: &[NamedSet<'_>]) -> Option<Finding> {
    let (by, other) = stronger
        .iter()
        .find_map(|(by, set)| set.iter().find(|other| other.effect.covers(&rule.effect)).map(|other| (*by, other)))?;
    let message =
        format!("the {kind} rule can never match: the {by} rule \"{}\" of \"{}\" covers it", other.text, other.source);
    let code = if by == "deny" { "shadowed_by_deny" } else { "shadowed_by_ask" };
    Some(about(rule, "warning", code, message, "Remove one of the two."))
}

/// A wider rule of the same verdict covers it.
fn redundant(rule: &Rule, set: &RuleSet) -> Option<Finding> {
    let wider = set.iter().find(|other| {
        !std::ptr::eq(*other, rule) && other.effect.covers(&rule.effect) && !rule.effect.covers(&other.effect)
    })?;
    let message = format!("the allow rule \"{}\" of \"{}\" covers it", wider.text, wider.source);
    Some(about(rule, "info", "redundant", message, "Remove it if the wider rule is meant."))
}

/// No standard effect has its root, or its name.
fn unknown(rule: &Rule) -> Option<Finding> {
    let root = rule.effect.root()?;
    if !STANDARD_EFFECTS.iter().any(|effect| effect.split('.').next() == Some(root)) {
        return Some(about(
            rule,
            "warning",
            "unknown_root",
            format!("\"{root}\" is none of the roots db, fs, git, net and proc"),
            "Correct it, unless skills declare effects of this root.",
        ));
    }
    let standard = STANDARD_EFFECTS
        .iter()
        .any(|effect| Effect::parse(effect).is_ok_and(|effect| rule.effect.name_overlaps(&effect)));
    (!standard).then(|| {
        about(
            rule,
            "warning",
            "unknown_effect",
            "it matches none of the standard effects".into(),
            "The standard effects are db.read, db.write, proc.exec, fs.read, fs.write, net.fetch, git.read and git.write.",
        )
    })
}

/// The finding of `lint_policy` for a profile that does not compile.
pub fn lint_broken(name: &str, error: &PolicyError) -> Finding {
    let (rule, source) = match error {
        PolicyError::BadRule { policy, bad, .. } => (bad.text.clone(), policy.clone()),
        PolicyError::BadCommand { policy, command } => (command.clone(), policy.clone()),
        PolicyError::UnknownParent { policy, parent } => (parent.clone(), policy.clone()),
        _ => (String::new(), name.to_owned()),
    };
    let code = match error {
        PolicyError::UnknownParent { .. } => "unknown_parent",
        PolicyError::Cycle { .. } => "cycle",
        PolicyError::TooLarge { .. } => "too_large",
        _ => "malformed",
    };
    let message = match error {
        PolicyError::BadRule { bad, .. } => format!("{error}: {}", bad.why),
        _ => error.to_string(),
    };
    Finding { severity: "error", code, rule, source, message, hint: "Until it is corrected the policy allows nothing." }
}
