//! Policy profiles: compiling them, deciding by them, explaining and linting them.
//!
//! Precedence is deny > ask > allow > unlisted, whatever the order or the
//! specificity of the rules. Inheritance only adds rules, so a deny of any
//! ancestor wins. `unlisted` and `mode` are those of the profile that is asked.
//! Whatever cannot be understood is not allowed.

pub mod effect;
pub mod request;

pub use effect::MAX_EFFECTS;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::error::{Code, Fault, shorten};
use crate::policy::effect::{BadEffect, Effect, Malformed, STANDARD_EFFECTS};

/// Most rules, own and inherited, that a profile may have.
pub const MAX_RULES: usize = 10_000;
/// Most profiles in one chain of inheritance.
pub const MAX_ANCESTORS: usize = 64;
/// Longest profile name, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// What happens to an effect that no rule names.
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

/// Why a profile cannot be stored, or cannot be decided by.
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
    /// The name of a profile is empty, too long or has blanks around it.
    #[error("a policy name must be 1 to {MAX_NAME_BYTES} bytes without blanks around it")]
    BadName {
        /// The name as given.
        name: String,
    },
    /// A column with two possible words has another one.
    #[error("\"{given}\" is not a value of {column}")]
    BadChoice { column: &'static str, given: String, words: [&'static str; 2] },
    /// It inherits from a profile that is not there.
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
                .detail(format!("\"{command}\" is not words separated by single blanks, with * for one argument and a final ** for any."))
                .hint("Write a program (git), a program with arguments (git status, git log **) or an absolute path (/usr/bin/git)."),
            PolicyError::BadName { name } => {
                Fault::new(Code::InvalidParameterValue, message).detail(format!("The name is \"{name}\"."))
            }
            PolicyError::BadChoice { words, .. } => {
                Fault::new(Code::InvalidParameterValue, message).hint(format!("Write {} or {}.", words[0], words[1]))
            }
            PolicyError::UnknownParent { .. } => {
                Fault::new(Code::UndefinedObject, message).hint("Create the inherited policy first, or correct its name.")
            }
            PolicyError::Cycle { path, .. } => Fault::new(Code::InvalidParameterValue, message)
                .detail(format!("The cycle is {}.", path.join(" -> ")))
                .hint("Remove one of these from inherits."),
            PolicyError::TooLarge { .. } => Fault::new(Code::ProgramLimitExceeded, message),
            PolicyError::Unknown { .. } => Fault::new(Code::UndefinedObject, message)
                .hint("SELECT name FROM skill_system.policy_profiles lists the policies; create_policy() and install_starter_policies() make some."),
        }
    }
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

    /// The content that is hashed and kept in `policy_versions`: JSON, keys in
    /// byte order, no blanks, rules sorted and without repeats, inherited
    /// profiles by the hash of their own content.
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

/// Canonical content and its hash, or why there is none.
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

fn resolve(
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

/// A rule with the profile it came from.
#[derive(Debug, Clone)]
pub struct Rule {
    pub text: Rc<str>,
    /// The profile that has it.
    pub source: Rc<str>,
    effect: Effect<'static>,
}

/// Rules of one verdict, found by the name of the effect.
#[derive(Debug, Clone, Default)]
struct RuleSet {
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

    fn overlapping(&self, text: &str, effect: &Effect<'_>) -> Option<&Rule> {
        self.named(text)
            .iter()
            .find(|rule| rule.effect.overlaps_scope(effect))
            .or_else(|| self.with_wildcard.iter().find(|rule| rule.effect.overlaps(effect)))
    }

    fn covering(&self, text: &str, effect: &Effect<'_>) -> Option<&Rule> {
        self.named(text)
            .iter()
            .find(|rule| rule.effect.covers_scope(effect))
            .or_else(|| self.with_wildcard.iter().find(|rule| rule.effect.covers(effect)))
    }

    fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.by_name.values().flatten().chain(&self.with_wildcard)
    }

    fn sorted(&self) -> Vec<&Rule> {
        let mut all: Vec<&Rule> = self.iter().collect();
        all.sort_by(|a, b| (&a.text, &a.source).cmp(&(&b.text, &b.source)));
        all
    }
}

/// One entry of `allowed_exec`.
#[derive(Debug, Clone)]
struct Command {
    text: Rc<str>,
    source: Rc<str>,
    program: Program,
    /// `None`: any arguments.
    arguments: Option<(Vec<Option<Box<str>>>, bool)>,
}

#[derive(Debug, Clone)]
enum Program {
    /// Found through the search path of the caller: must be asked for by the same bare name.
    Name(Box<str>),
    Path(Effect<'static>),
}

impl Command {
    fn parse(text: &str, source: &Rc<str>) -> Option<Self> {
        if text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
            return None;
        }
        let mut words = text.split(' ');
        let first = words.next()?;
        let program = if first.contains('/') {
            Program::Path(Effect::parse_rule(&format!("fs.exec:{first}")).ok()?.into_owned())
        } else if first.is_empty() || first.contains(['*', '\\']) {
            return None;
        } else {
            Program::Name(first.into())
        };
        let mut arguments = Vec::new();
        let mut any = false;
        let mut count = 0;
        for word in words {
            count += 1;
            match word {
                "" => return None,
                _ if any => return None,
                "**" => any = true,
                "*" => arguments.push(None),
                _ => arguments.push(Some(word.into())),
            }
        }
        Some(Command {
            text: text.into(),
            source: source.clone(),
            program,
            arguments: (count > 0).then_some((arguments, any)),
        })
    }

    fn matches(&self, argv: &[&str]) -> bool {
        let program = match &self.program {
            Program::Name(name) => **name == *argv[0],
            Program::Path(rule) => {
                Effect::parse(&format!("fs.exec:{}", argv[0])).is_ok_and(|asked| rule.covers(&asked))
            }
        };
        program
            && match &self.arguments {
                None => true,
                Some((patterns, any)) => {
                    let given = &argv[1..];
                    (given.len() == patterns.len() || (*any && given.len() > patterns.len()))
                        && patterns.iter().zip(given).all(|(p, g)| p.as_ref().is_none_or(|p| **p == **g))
                }
            }
    }
}

#[derive(Debug, Clone, Default)]
struct Rules {
    deny: RuleSet,
    ask: RuleSet,
    allow: RuleSet,
    exec: Vec<Command>,
    write_roots: Vec<Rule>,
    count: usize,
}

impl Rules {
    fn add(&mut self, profile: &Profile) -> Result<(), PolicyError> {
        let source: Rc<str> = profile.name.as_str().into();
        let columns = [
            ("denied_effects", &profile.denied_effects),
            ("ask_effects", &profile.ask_effects),
            ("allowed_effects", &profile.allowed_effects),
        ];
        for (column, list) in columns {
            for text in list {
                let effect = Effect::parse_rule(text).map_err(|why| PolicyError::BadRule {
                    policy: profile.name.clone(),
                    column,
                    bad: BadEffect::new(text, why),
                })?;
                let rule = Rule { text: text.as_str().into(), source: source.clone(), effect: effect.into_owned() };
                match column {
                    "denied_effects" => self.deny.push(rule),
                    "ask_effects" => self.ask.push(rule),
                    _ => self.allow.push(rule),
                }
            }
        }
        for text in &profile.allowed_exec {
            let command = Command::parse(text, &source)
                .ok_or_else(|| PolicyError::BadCommand { policy: profile.name.clone(), command: shorten(text) })?;
            self.exec.push(command);
        }
        for text in &profile.allowed_write_roots {
            let effect = write_root(text).map_err(|why| PolicyError::BadRule {
                policy: profile.name.clone(),
                column: "allowed_write_roots",
                bad: BadEffect::new(text, why),
            })?;
            self.write_roots.push(Rule { text: text.as_str().into(), source: source.clone(), effect });
        }
        self.count += columns.iter().map(|(_, list)| list.len()).sum::<usize>()
            + profile.allowed_exec.len()
            + profile.allowed_write_roots.len();
        if self.count > MAX_RULES {
            return Err(PolicyError::TooLarge { policy: profile.name.clone() });
        }
        Ok(())
    }
}

/// A directory, and everything below it.
fn write_root(text: &str) -> Result<Effect<'static>, Malformed> {
    let root = text.strip_suffix("/**").unwrap_or(text);
    if root.split('/').any(|part| part.contains('*')) {
        return Err(Malformed::WildcardPlace);
    }
    Effect::parse_rule(&format!("fs.write:{root}/**")).map(Effect::into_owned)
}

/// How an effect came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// It needs a person.
    Ask,
    /// It may not happen.
    Deny,
}

impl Verdict {
    /// `allow`, `ask` or `deny`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Ask => "ask",
            Verdict::Deny => "deny",
        }
    }
}

/// Why an effect came out as it did.
#[derive(Debug, Clone)]
pub enum Why<'p> {
    Rule(&'p Rule),
    /// No rule names it.
    Unlisted,
    /// It is not an effect.
    Malformed(Malformed),
    /// Not in `allowed_exec`, or not below `allowed_write_roots`: which.
    NotIn(&'static str),
}

/// Answer to `check_policy` and its sisters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// What may not happen without a person, as asked, without repeats.
    pub blocked: Vec<String>,
    /// The part of `blocked` that a person may release.
    pub ask: Vec<String>,
    /// Deny, unless all that is blocked may be asked for.
    pub verdict: Verdict,
    /// One line for a person.
    pub reason: String,
}

impl Decision {
    /// Nothing of this may happen, for one reason.
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
    /// The effect as asked.
    pub effect: String,
    /// How it came out.
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
        let effect = match Effect::parse(text) {
            Ok(effect) => effect,
            Err(why) => return (Verdict::Deny, Why::Malformed(why)),
        };
        if let Some(rule) = self.rules.deny.overlapping(text, &effect) {
            return (Verdict::Deny, Why::Rule(rule));
        }
        if let Some(rule) = self.rules.ask.overlapping(text, &effect) {
            return (Verdict::Ask, Why::Rule(rule));
        }
        if let Some(rule) = self.rules.allow.covering(text, &effect) {
            return (Verdict::Allow, Why::Rule(rule));
        }
        (self.unlisted_verdict(), Why::Unlisted)
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

    /// [`Policy::check`] would say `allowed`.
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
            reason.push_str(if count == 0 { "no effects asked of policy \"" } else { "allowed by policy \"" });
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

    /// Decides whether a command may run: the effect `proc.exec:<program>` must be
    /// allowed and an entry of `allowed_exec` must match.
    pub fn check_exec(&self, argv: &[&str]) -> Decision {
        let Some(program) = argv.first().filter(|program| !program.is_empty()) else {
            return Decision::refused(vec!["proc.exec".into()], "the command has no program");
        };
        let effect = format!("proc.exec:{program}");
        self.decide_listed(&effect, "allowed_exec", || self.rules.exec.iter().any(|command| command.matches(argv)))
    }

    /// Decides whether a file may be written: the effect `fs.write:<path>` must be
    /// allowed and the path must lie in one of `allowed_write_roots`.
    pub fn check_write(&self, path: &str) -> Decision {
        let effect = format!("fs.write:{path}");
        // A wildcard in a path that is about to be written would be judged as many paths.
        if path.contains('*') {
            return Decision::refused(
                vec![effect],
                format!("{}: denied as malformed: a path to write has no wildcard", shorten(path)),
            );
        }
        self.decide_listed(&effect, "allowed_write_roots", || {
            Effect::parse(&effect)
                .is_ok_and(|asked| self.rules.write_roots.iter().any(|root| root.effect.covers(&asked)))
        })
    }

    fn decide_listed(&self, effect: &str, column: &'static str, listed: impl FnOnce() -> bool) -> Decision {
        let (verdict, why) = self.judge(effect);
        let judged = match verdict {
            Verdict::Deny => (verdict, why),
            _ if listed() => (verdict, why),
            _ => (self.unlisted_verdict(), Why::NotIn(column)),
        };
        self.decide(std::iter::once((effect, judged.0, judged.1)))
    }

    /// One row per effect, in the order asked.
    pub fn explain<'e>(&self, effects: impl Iterator<Item = &'e str>) -> Vec<Explanation> {
        effects
            .map(|effect| {
                let (verdict, why) = self.judge(effect);
                let words = match &why {
                    Why::Rule(rule)
                        if verdict != Verdict::Allow
                            && !Effect::parse(effect).is_ok_and(|e| rule.effect.covers(&e)) =>
                    {
                        format!(
                            "{}, which names a part of what is asked; ask for a narrower scope",
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
        let sets =
            [(Verdict::Deny, &self.rules.deny), (Verdict::Ask, &self.rules.ask), (Verdict::Allow, &self.rules.allow)];
        let mut rows = Vec::new();
        for (verdict, set) in sets {
            rows.extend(
                set.sorted().into_iter().map(|r| ("effect", verdict, r.text.to_string(), r.source.to_string())),
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
        let texts = |set: &RuleSet| set.sorted().into_iter().map(|r| r.text.to_string()).collect::<BTreeSet<_>>();
        json!({
            "policy": self.name, "version": self.version, "hash": self.hash, "mode": self.mode, "unlisted": self.unlisted,
            "denied_effects": texts(&self.rules.deny), "ask_effects": texts(&self.rules.ask), "allowed_effects": texts(&self.rules.allow),
            "allowed_exec": self.rules.exec.iter().map(|c| c.text.to_string()).collect::<BTreeSet<_>>(),
            "allowed_write_roots": self.rules.write_roots.iter().map(|r| r.text.to_string()).collect::<BTreeSet<_>>(),
        })
    }

    /// Rules that do nothing, or perhaps not what was meant.
    pub fn lint(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut report = |severity, code, rule: &Rule, message: String, hint| {
            found.push(Finding {
                severity,
                code,
                rule: rule.text.to_string(),
                source: rule.source.to_string(),
                message,
                hint,
            });
        };
        let sets = [("deny", &self.rules.deny), ("ask", &self.rules.ask), ("allow", &self.rules.allow)];
        for (at, (kind, set)) in sets.iter().enumerate() {
            for rule in set.sorted() {
                let stronger = sets[..at].iter().find_map(|(kind, set)| {
                    set.iter().find(|other| other.effect.covers(&rule.effect)).map(|other| (*kind, other))
                });
                if let Some((by, other)) = stronger {
                    let message = format!(
                        "the {kind} rule can never match: the {by} rule \"{}\" of \"{}\" covers it",
                        other.text, other.source
                    );
                    let code = if by == "deny" { "shadowed_by_deny" } else { "shadowed_by_ask" };
                    report("warning", code, rule, message, "Remove one of the two.");
                    continue;
                }
                if *kind == "allow" {
                    // An allow decides only where it covers what is asked, so a stronger rule
                    // that meets each of its actions leaves it only narrower requests.
                    if let Some(other) = set.iter().find(|other| {
                        !std::ptr::eq(*other, rule)
                            && other.effect.covers(&rule.effect)
                            && !rule.effect.covers(&other.effect)
                    }) {
                        report(
                            "info",
                            "redundant",
                            rule,
                            format!("the allow rule \"{}\" of \"{}\" covers it", other.text, other.source),
                            "Remove it if the wider rule is meant.",
                        );
                    }
                }
                match rule.effect.root() {
                    Some(root) if !STANDARD_EFFECTS.iter().any(|e| e.split('.').next() == Some(root)) => report(
                        "warning",
                        "unknown_root",
                        rule,
                        format!("\"{root}\" is none of the roots db, fs, git, net and proc"),
                        "Correct it, unless your skills declare effects of this root.",
                    ),
                    Some(_) => {
                        let meant = STANDARD_EFFECTS
                            .iter()
                            .any(|e| Effect::parse(e).is_ok_and(|e| rule.effect.name_overlaps(&e)));
                        if !meant {
                            report(
                                "warning",
                                "unknown_effect",
                                rule,
                                "it matches none of the standard effects".into(),
                                "The standard effects are db.read, db.write, proc.exec, fs.read, fs.write, net.fetch, git.read and git.write.",
                            );
                        }
                    }
                    None => {}
                }
            }
        }
        // What a list allows must be allowed as an effect too.
        for command in &self.rules.exec {
            let program = command.text.split(' ').next().unwrap_or_default();
            let effect = if program.contains('*') { "proc.exec".to_owned() } else { format!("proc.exec:{program}") };
            if self.judge(&effect).0 == Verdict::Deny {
                found.push(Finding {
                    severity: "warning",
                    code: "inert_exec",
                    rule: command.text.to_string(),
                    source: command.source.to_string(),
                    message: format!("the command can never run: {effect} is not allowed"),
                    hint: "Add proc.exec, or this program as its scope, to allowed_effects or ask_effects.",
                });
            }
        }
        for root in &self.rules.write_roots {
            let stopped = self.rules.deny.iter().any(|deny| deny.effect.covers(&root.effect));
            let listed = self.rules.allow.iter().chain(self.rules.ask.iter()).any(|r| r.effect.overlaps(&root.effect));
            if stopped || (!listed && self.unlisted == Unlisted::Deny) {
                found.push(Finding {
                    severity: "warning",
                    code: "inert_write_root",
                    rule: root.text.to_string(),
                    source: root.source.to_string(),
                    message: "nothing can be written there: fs.write is not allowed for it".into(),
                    hint: "Add fs.write, or this directory as its scope, to allowed_effects or ask_effects.",
                });
            }
        }
        found
    }
}

/// What `lint_policy` says of a profile that does not compile.
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

#[cfg(test)]
mod tests;
