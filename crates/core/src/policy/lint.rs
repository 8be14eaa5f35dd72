//! Linting: rules without effect, or probably not as intended.

use super::Policy;
use super::command::Command;
use super::cover::CoverIndex;
use super::decision::Finding;
use super::effect::{Effect, STANDARD_EFFECTS};
use super::profile::{PolicyError, Unlisted};
use super::rules::Rule;
use super::runners::runs_programs;
use super::verdict::Verdict;
use crate::interrupt;

/// The rules by what they cover.
struct Lint<'p> {
    policy: &'p Policy,
    deny: CoverIndex<'p>,
    ask: CoverIndex<'p>,
    allow: CoverIndex<'p>,
}

impl Policy {
    /// Rules without effect, or probably not as intended.
    pub fn lint(&self) -> Vec<Finding> {
        let rules = &self.rules;
        let lint = Lint {
            policy: self,
            deny: CoverIndex::new(rules.of(Verdict::Deny), |rule| &rule.meant),
            ask: CoverIndex::new(rules.of(Verdict::Ask), |rule| &rule.meant),
            allow: CoverIndex::new(rules.of(Verdict::Allow), |rule| &rule.effect),
        };
        let mut found = Vec::new();
        for verdict in [Verdict::Deny, Verdict::Ask, Verdict::Allow] {
            for rule in rules.sorted(verdict) {
                interrupt::check();
                found.extend(lint.rule(verdict.as_str(), rule));
            }
        }
        for command in &rules.exec {
            interrupt::check();
            found.extend(lint.command(command));
        }
        for root in &rules.write_roots {
            interrupt::check();
            found.extend(lint.write_root(root));
        }
        found
    }
}

impl Lint<'_> {
    fn rule(&self, kind: &str, rule: &Rule) -> Vec<Finding> {
        if let Some(shadowed) = self.shadowed(kind, rule) {
            return vec![shadowed];
        }
        let range = range_of_names(rule).map(|message| (message, RANGE));
        let letters = glob_letters(&rule.text).map(|message| (message, LETTERS)).or(range);
        let letters = letters.map(|(message, hint)| about(rule, "warning", "glob_character", message, hint));
        let mut found: Vec<Finding> = letters.into_iter().chain(unknown(rule)).collect();
        match kind {
            "allow" => found.extend(
                (self.redundant(rule).into_iter())
                    .chain(narrow(rule))
                    .chain(wide(rule))
                    .chain(self.runner(rule))
                    .chain(self.unlimited(rule)),
            ),
            _ => found.extend(self.partial(kind, rule)),
        }
        found
    }

    /// A rule of a stronger verdict covers it.
    fn shadowed(&self, kind: &str, rule: &Rule) -> Option<Finding> {
        let stronger = [("deny", &self.deny), ("ask", &self.ask)].into_iter().take_while(|(by, _)| *by != kind);
        let folded = rule.meant.clone().folded();
        let (by, other) = stronger.filter_map(|(by, index)| Some((by, index.covering(&folded).next()?))).next()?;
        let message = format!(
            "the {kind} rule can never match: the {by} rule \"{}\" of \"{}\" covers it",
            other.text, other.source
        );
        let code = if by == "deny" { "shadowed_by_deny" } else { "shadowed_by_ask" };
        Some(about(rule, "warning", code, message, "Remove one of the two."))
    }

    /// A wider rule of the same verdict covers it.
    fn redundant(&self, rule: &Rule) -> Option<Finding> {
        let wider = self
            .allow
            .covering(&rule.effect)
            .find(|other| !std::ptr::eq(*other, rule) && !rule.effect.covers(&other.effect))?;
        let message = format!("the allow rule \"{}\" of \"{}\" covers it", wider.text, wider.source);
        Some(about(rule, "info", "redundant", message, "Remove it if the wider rule is meant."))
    }

    /// It leaves out what a reader would take to be meant, and something else allows that.
    fn partial(&self, kind: &str, rule: &Rule) -> Option<Finding> {
        let name = rule.text.split(':').next().unwrap_or_default();
        let (left, hint) = if let Some(domain) = rule.effect.domain_above() {
            (domain, "Write ** instead of * for the domain and all below it.")
        } else {
            (rule.effect.program()?.to_owned(), "Write the name of the program alone for every path that it has.")
        };
        let left = format!("{name}:{left}");
        let effect = Effect::parse(&left).ok()?;
        self.may_happen(&effect)
            .then(|| about(rule, "warning", "partial", format!("the {kind} rule does not cover {left}"), hint))
    }

    /// It allows a program that runs others, and no list restricts its arguments.
    fn runner(&self, rule: &Rule) -> Option<Finding> {
        let scope = rule.text.split_once(':')?.1;
        (self.policy.rules.exec.is_empty() && rule.effect.root() == Some("proc") && runs_programs(scope)).then(|| {
            let hint = "List it with fixed arguments in allowed_exec, and use check_exec().";
            about(rule, "warning", "runs_programs", RUNS.into(), hint)
        })
    }

    /// It allows every program, or every file to be written, and no list says which.
    fn unlimited(&self, rule: &Rule) -> Vec<Finding> {
        let rules = &self.policy.rules;
        let writes = "every file may be written: allowed_write_roots is empty";
        let runs = "every program may run: allowed_exec is empty";
        let lists = [
            (rules.write_roots.is_empty(), ["fs.write", "fs.write:/**"], writes, ROOTS),
            (rules.exec.is_empty(), ["proc.exec", "proc.exec:/**"], runs, PROGRAMS),
        ];
        let allows = |all: &str| Effect::parse_rule(all).is_ok_and(|all| rule.effect.covers(&all));
        let found = lists.into_iter().filter(|(is_empty, all, ..)| *is_empty && all.iter().any(|all| allows(all)));
        found.map(|(.., message, hint)| about(rule, "info", "unlimited", message.into(), hint)).collect()
    }

    /// Some action of the effect is neither denied nor unlisted.
    fn may_happen(&self, effect: &Effect<'_>) -> bool {
        let rules = &self.policy.rules;
        let folded = effect.clone().folded();
        if self.deny.covering(&folded).next().is_some() {
            return false;
        }
        self.policy.unlisted == Unlisted::Ask
            || self.allow.covering(effect).next().is_some()
            || self.ask.covering(&folded).next().is_some()
            || (!effect.is_concrete()
                && rules.of(Verdict::Allow).chain(rules.of(Verdict::Ask)).any(|rule| {
                    interrupt::check();
                    rule.effect.overlaps(effect)
                }))
    }

    // What a list allows must be allowed as an effect too.
    fn command(&self, command: &Command) -> Vec<Finding> {
        let finding = |code, message, hint| Finding {
            severity: "warning",
            code,
            rule: command.text.to_string(),
            source: command.source.to_string(),
            message,
            hint,
        };
        let mut found = Vec::new();
        let text = format!("proc.exec:{}", command.program());
        if !Effect::parse(&text).is_ok_and(|effect| self.may_happen(&effect)) {
            found.push(finding(
                "inert_exec",
                format!("the command can never run: {text} is not allowed"),
                "Add proc.exec, or this program as its scope, to allowed_effects or ask_effects.",
            ));
        } else if runs_programs(command.program()) && command.takes_arguments() {
            found.push(finding(
                "runs_programs",
                RUNS.into(),
                "Allow the programs themselves, or this one with fixed arguments.",
            ));
        }
        if command.is_every_path() {
            let message = "it is every path, so every program may run".into();
            found.push(finding("wide", message, "Write the programs or directories that are meant."));
        }
        found.extend(glob_letters(&command.text).map(|message| finding("glob_character", message, LETTERS)));
        found
    }

    fn write_root(&self, root: &Rule) -> Vec<Finding> {
        let mut found = Vec::new();
        if !self.may_happen(&root.effect) {
            found.push(about(
                root,
                "warning",
                "inert_write_root",
                "nothing can be written there: fs.write is not allowed for it".into(),
                "Add fs.write, or this directory as its scope, to allowed_effects or ask_effects.",
            ));
        }
        if root.effect.is_root() {
            let message = "it is the root, so every file may be written".into();
            found.push(about(root, "warning", "wide", message, "Write the directories that are meant."));
        }
        found
            .extend(glob_letters(&root.text).map(|message| about(root, "warning", "glob_character", message, LETTERS)));
        found
    }
}

const ROOTS: &str = "List the directories in allowed_write_roots, or write them as scopes of fs.write.";
const PROGRAMS: &str = "List the programs in allowed_exec, or write them as scopes of proc.exec.";
const RUNS: &str = "it runs other programs, which its arguments or its input name";
const RANGE: &str = "Write a range as 10.0.0.0/28 or 10.0.*.*.";
const LETTERS: &str = "Write one rule for each, with * for a whole segment and a final ** for any number.";

/// Signs that mean something in other pattern languages.
fn glob_letters(text: &str) -> Option<String> {
    let scope = text.split_once(':').map_or(text, |(_, scope)| scope);
    // An address stands in brackets.
    let scope = if text.starts_with("net.") { "" } else { scope };
    // An encoded character, a variable or a wildcard of LIKE.
    let encoded = scope
        .match_indices('%')
        .any(|(at, _)| scope.as_bytes().get(at + 1..at + 3).is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit)));
    let percent = encoded || scope.matches('%').count() > 1 || (text.starts_with("db.") && scope.contains('%'));
    let sign = scope
        .chars()
        .find(|c| matches!(c, '?' | '[' | ']' | '{' | '}' | '(' | ')' | '|' | '$' | '~' | '!'))
        .or(percent.then_some('%'))?;
    Some(format!("\"{sign}\" is a letter like any other here"))
}

/// The name of a host that looks like a range of addresses: `10.0.0.1-9`, `10.0.x.x`.
fn range_of_names(rule: &Rule) -> Option<String> {
    let host = rule.text.split(':').nth(1).filter(|_| rule.effect.is_host_name())?;
    let legal = |c: char| c.is_ascii_digit() || matches!(c, '-' | 'x' | 'X' | '*' | '.');
    let is_range = host.starts_with(|c: char| c.is_ascii_digit()) && host.chars().all(legal);
    let sign = host.chars().find(|c| matches!(c, '-' | 'x' | 'X')).filter(|_| is_range)?;
    Some(format!("\"{sign}\" is a letter like any other here"))
}

/// An allow rule that looks like all and is not.
fn narrow(rule: &Rule) -> Option<Finding> {
    if rule.effect.is_detour() {
        let message = "no request has this path: a link of /proc or /dev leads to another place".into();
        return Some(about(rule, "warning", "never_matches", message, "Write the path of the file itself."));
    }
    if &*rule.text == "*" {
        let message = "the allow rule covers only names of one segment, which no standard effect has".into();
        return Some(about(rule, "warning", "narrow", message, "Write the effects that are meant."));
    }
    let scope = rule.text.split_once(':')?.1;
    if rule.effect.is_narrow() {
        let message = match rule.effect.root() {
            Some("net") => "the allow rule covers no address, and only names of as many labels",
            _ => "the allow rule covers no absolute path",
        };
        return Some(about(rule, "warning", "narrow", message.into(), "Leave the scope out for all of them."));
    }
    (scope.len() > 1 && scope.ends_with('/')).then(|| {
        let message = "the allow rule covers the directory alone, nothing in it".into();
        about(rule, "warning", "narrow", message, "Write ** at its end for all that is in it.")
    })
}

/// An allow rule that is every effect, or the root without looking like it.
fn wide(rule: &Rule) -> Option<Finding> {
    if rule.effect.is_wildcards() && &*rule.text != "*" {
        let message = match &*rule.text {
            "**" | "*.**" => "it covers every effect",
            _ => "it covers every effect whose name has as many segments",
        };
        return Some(about(rule, "warning", "wide", message.into(), "Write the effects that are meant."));
    }
    let scope = rule.text.split_once(':')?.1;
    (rule.effect.is_root() && scope.contains("..")).then(|| {
        let message = "its path is the root, so it covers every file".into();
        about(rule, "warning", "wide", message, "Write the directories that are meant.")
    })
}

fn about(rule: &Rule, severity: &'static str, code: &'static str, message: String, hint: &'static str) -> Finding {
    Finding { severity, code, rule: rule.text.to_string(), source: rule.source.to_string(), message, hint }
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
