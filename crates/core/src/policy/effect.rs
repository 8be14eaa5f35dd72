//! Effects and the rules that match them.
//!
//! An effect is `name[:scope]`, the name being dot-separated lower-case segments
//! (`fs.write:/srv/app/**`). A rule is the same with wildcards in the name too:
//! `*` stands for one segment, a final `**` for any number of segments, none
//! included. No scope means every scope.
//!
//! An effect and a rule both denote a *set* of actions, and are compared in two
//! ways only: does the rule [cover](Effect::covers) the effect (allow), and do
//! they [overlap](Effect::overlaps) (deny, ask). Hence a scoped allow never
//! allows the bare effect, and a scoped deny blocks it.
//!
//! A rule that denies or asks is read [wide](Effect::widened), one that allows
//! as it stands: what may be meant is not allowed by mistake.
//!
//! What a scope is follows from the first segment of the name:
//! - `fs`: an absolute path (`/srv/app`, `C:/work`), normalised, so `..` cannot
//!   climb out of a rule;
//! - `net`: a host name, an address or a range of addresses, with an optional
//!   port; no port means every port;
//! - `db`: `relation` or `schema.relation`, lower case; without a schema it means
//!   that relation in any schema;
//! - `git`: the name of a branch, a tag or a repository;
//! - `mail`: one address;
//! - anything else: segments between `/`; one that starts with `/` is a path.

mod host;
mod malformed;
mod scope;
mod segments;

use std::fmt;

use self::host::Host;
pub use self::malformed::{MAX_EFFECT_BYTES, Malformed};
use self::scope::{Kind, Scope, Start, is_absolute, without_streams};
use self::segments::{Segment, Segments};
use crate::error::shorten;
use crate::unicode::suspicious_char;

/// Maximum number of effects in one call.
pub const MAX_EFFECTS: usize = 1000;

/// Name and scope of an effect or a rule.
pub(super) fn split(text: &str) -> (&str, Option<&str>) {
    // Faster than split_once() for texts as short as these.
    match text.bytes().position(|b| b == b':') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// A requested effect, or a rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect<'a> {
    name: Segments<'a>,
    scope: Option<Scope<'a>>,
}

impl<'a> Effect<'a> {
    /// The same without borrowing from the text.
    pub fn into_owned(self) -> Effect<'static> {
        Effect { name: self.name.into_owned(), scope: self.scope.map(Scope::into_owned) }
    }

    /// Parses a requested effect, which has no wildcard in its name.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let effect = Self::parse_rule(text)?;
        if !effect.name.is_concrete() {
            return Err(Malformed::Wildcard);
        }
        match effect.is_detour() {
            true => Err(Malformed::Detour),
            false => Ok(effect),
        }
    }

    /// Parses a rule: wildcards are allowed everywhere.
    pub fn parse_rule(text: &'a str) -> Result<Self, Malformed> {
        if text.is_empty() {
            return Err(Malformed::Empty);
        }
        if text.len() > MAX_EFFECT_BYTES {
            return Err(Malformed::TooLong);
        }
        if text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err(Malformed::Blank);
        }
        if !text.is_ascii() {
            if text.chars().any(char::is_control) {
                return Err(Malformed::Blank);
            }
            if text.chars().any(|c| suspicious_char(c).is_some()) {
                return Err(Malformed::Invisible);
            }
        }
        let (name, scope) = split(text);
        let legal = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*');
        let is_legal = name.bytes().all(legal);
        if (!is_legal && scope::has_blank(name)) || scope.is_some_and(|scope| scope.starts_with(' ')) {
            return Err(Malformed::Blank);
        }
        if !is_legal {
            let has_upper_case = name.bytes().any(|b| b.is_ascii_uppercase());
            return Err(if has_upper_case { Malformed::UpperCase } else { Malformed::Name });
        }
        let name = Segments::parse(name.split('.')).map_err(|e| match e {
            Malformed::ScopeSegment => Malformed::Name,
            other => other,
        })?;
        let scope = match scope {
            None => None,
            Some("") => return Err(Malformed::ScopeSegment),
            Some(scope) => Some(Scope::parse(Kind::of(&name).ok_or(Malformed::ScopeOfWildcard)?, scope)?),
        };
        Ok(Effect { name, scope })
    }

    /// What a rule that denies or asks means: a final `*` of the name stands for one segment or more, as does one at the
    /// open end of the scope; a path means what is below it too, a program's name any path that it has, a branch its name
    /// in any remote; case and what else file systems ignore makes no difference.
    pub fn widened(self) -> Self {
        let kind = Kind::of(&self.name);
        let mut name = self.name;
        name.any |= name.ends_with_wildcard();
        let scope = self.scope.zip(kind).and_then(|(scope, kind)| scope.widened(kind));
        Effect { name, scope }
    }

    /// The other spellings of a requested effect, parsed from `text`, that a rule which denies or asks is compared with
    /// instead; none when the effect itself is the only one.
    pub fn spellings(&self, text: &str) -> Result<Vec<Effect<'static>>, Malformed> {
        let Some(kind) = Kind::of(&self.name).filter(|kind| self.scope.is_some() && *kind != Kind::Net) else {
            return Ok(Vec::new());
        };
        let (name, Some(scope)) = split(text) else { return Ok(Vec::new()) };
        if is_plain(kind, scope) {
            return Ok(Vec::new());
        }
        let mut scopes = vec![scope.to_owned()];
        scopes.extend(decoded(scope)?);
        match kind {
            Kind::Fs | Kind::Proc | Kind::Other if is_absolute(scope) => {
                let files: Vec<String> = scopes.iter().filter_map(|scope| without_streams(scope)).collect();
                scopes.extend(files);
            }
            Kind::Mail => {
                // The mailbox of an address with a detail: local+detail@domain.
                let mailboxes: Vec<String> = scopes.iter().filter_map(|scope| mailbox(scope)).collect();
                scopes.extend(mailboxes);
            }
            _ => {}
        }
        if kind == Kind::Proc {
            // The program of a command line.
            let programs: Vec<String> =
                scopes.iter().filter_map(|scope| Some(scope.split_once(' ')?.0.to_owned())).collect();
            scopes.extend(programs);
        }
        let folded = |scope: String| {
            let text = format!("{name}:{scope}");
            let effect = Effect::parse(&text).map_err(|_| Malformed::Encoded)?.into_owned();
            Ok(Effect { name: effect.name, scope: effect.scope.map(Scope::with_long_names) }.folded())
        };
        scopes.into_iter().map(folded).collect()
    }

    /// Who opens it may decode percent signs: whether the condition holds of what they stand for, too.
    pub fn is_so_decoded(&self, text: &str, condition: impl Fn(&Effect<'_>) -> bool) -> bool {
        let (name, Some(scope)) = split(text) else { return true };
        if !scope.bytes().any(|b| b == b'%') {
            return true;
        }
        match decoded(scope) {
            Ok(Some(scope)) => Effect::parse(&format!("{name}:{scope}")).is_ok_and(|effect| condition(&effect)),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Without the differences that file systems ignore, as the rules that deny are compared.
    pub(super) fn folded(self) -> Self {
        match Kind::of(&self.name) {
            Some(kind) => Effect { name: self.name, scope: self.scope.map(|scope| scope.folded(kind)) },
            None => self,
        }
    }

    /// A path of Linux's /proc or /dev that leads somewhere else, so no request has it.
    pub(super) fn is_detour(&self) -> bool {
        self.scope.as_ref().is_some_and(Scope::is_detour)
    }

    /// Every action of `other` is an action of `self`.
    pub fn covers(&self, other: &Effect<'_>) -> bool {
        self.name.covers(&other.name) && self.covers_scope(other)
    }

    /// Some action belongs to both.
    pub fn overlaps(&self, other: &Effect<'_>) -> bool {
        self.name.overlaps(&other.name) && self.overlaps_scope(other)
    }

    /// [`covers`](Self::covers) for an effect of the same name.
    pub fn covers_scope(&self, other: &Effect<'_>) -> bool {
        match (&self.scope, &other.scope) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(a), Some(b)) => a.covers(b),
        }
    }

    /// [`overlaps`](Self::overlaps) for an effect of the same name.
    pub fn overlaps_scope(&self, other: &Effect<'_>) -> bool {
        match (&self.scope, &other.scope) {
            (Some(a), Some(b)) => a.overlaps(b),
            _ => true,
        }
    }

    /// The name has no wildcard.
    pub fn has_concrete_name(&self) -> bool {
        self.name.is_concrete()
    }

    /// Some action of one name is an action of the other, whatever the scopes.
    pub fn name_overlaps(&self, other: &Effect<'_>) -> bool {
        self.name.overlaps(&other.name)
    }

    /// The first segment of the name, unless it is a wildcard.
    pub fn root(&self) -> Option<&str> {
        self.name.head.first()?.literal()
    }
}

/// How a rule can be looked up by what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Shape {
    /// It covers every scope, or nothing of its scope is fixed.
    Every,
    /// The first segments are fixed.
    First,
    /// The last segments are fixed.
    Last,
    /// The first bits of an address are fixed.
    Network,
}

/// What a rule and all effects that it covers have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) shape: Shape,
    /// Segments or bits.
    pub(super) length: usize,
    text: String,
}

impl Effect<'_> {
    /// The segments of the name before the first wildcard.
    pub(super) fn name_literals(&self) -> Vec<&str> {
        self.name.first_literals()
    }

    pub(super) fn key(&self) -> Key {
        let (shape, length) = match &self.scope {
            None | Some(Scope::Host { host: Host::Every, .. }) => (Shape::Every, 0),
            Some(Scope::Host { host: Host::Network(network), .. }) => (Shape::Network, network.length.into()),
            Some(Scope::Host { host: Host::Name(segments), .. } | Scope::Segments { segments, .. }) => {
                match (segments.lead, segments.any) {
                    (true, true) => (Shape::Every, 0),
                    (true, false) => (Shape::Last, segments.last_literals().len()),
                    (false, _) => (Shape::First, segments.first_literals().len()),
                }
            }
        };
        self.key_of(shape, length).unwrap_or(Key { shape: Shape::Every, length: 0, text: String::new() })
    }

    /// The key that a rule of this shape and length has if it covers `self`.
    pub(super) fn key_of(&self, shape: Shape, length: usize) -> Option<Key> {
        let text = match (&self.scope, shape) {
            (_, Shape::Every) => String::new(),
            (Some(Scope::Host { host: Host::Network(network), .. }), Shape::Network) => {
                let bits = u8::try_from(length).ok().filter(|length| *length <= network.length)?;
                format!("{:x}", network.first(bits))
            }
            (
                Some(Scope::Host { host: Host::Name(segments), .. } | Scope::Segments { segments, .. }),
                Shape::First | Shape::Last,
            ) => {
                let literals = if shape == Shape::First { segments.first_literals() } else { segments.last_literals() };
                let spare = literals.len().checked_sub(length)?;
                match shape {
                    Shape::First => literals[..length].join("/"),
                    _ => literals[spare..].join("/"),
                }
            }
            _ => return None,
        };
        Some(Key { shape, length, text })
    }

    /// The host, if it is a name with a `*` for its first label: the domain that is not covered.
    pub(super) fn domain_above(&self) -> Option<String> {
        match &self.scope {
            Some(Scope::Host { host: Host::Name(labels), .. }) if !labels.lead && !labels.any => match &labels.head[..]
            {
                [Segment::One, rest @ ..] if !rest.is_empty() => {
                    Some(rest.iter().map(Segment::literal).collect::<Option<Vec<_>>>()?.join("."))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The program that a path without wildcards names.
    pub(super) fn program(&self) -> Option<&str> {
        match (&self.scope, self.root()) {
            (Some(Scope::Segments { start: Start::Root | Start::Drive(_), segments }), Some("proc"))
                if segments.is_concrete() =>
            {
                segments.head.last()?.literal()
            }
            _ => None,
        }
    }

    /// Every path of a drive, or all of them.
    pub(super) fn is_root(&self) -> bool {
        matches!(&self.scope, Some(Scope::Segments { start: Start::Root | Start::Drive(_), segments })
            if segments.head.is_empty())
    }

    /// It is nothing but wildcards.
    pub(super) fn is_wildcards(&self) -> bool {
        self.scope.is_none() && self.name.only_wildcards()
    }

    /// It has a scope of wildcards alone that does not match everything: one label, or no path.
    pub(super) fn is_narrow(&self) -> bool {
        match &self.scope {
            Some(Scope::Host { host: Host::Name(labels), .. }) => labels.only_wildcards(),
            Some(Scope::Segments { start: Start::Relative, segments }) => {
                !matches!(self.root(), Some("db" | "mail")) && segments.only_wildcards()
            }
            _ => false,
        }
    }

    /// The host is a name.
    pub(super) fn is_host_name(&self) -> bool {
        matches!(&self.scope, Some(Scope::Host { host: Host::Name(_), .. }))
    }

    /// Whether an action can be told apart from others of this effect.
    pub(super) fn is_concrete(&self) -> bool {
        self.name.is_concrete()
            && match &self.scope {
                Some(Scope::Host { host: Host::Name(segments), .. } | Scope::Segments { segments, .. }) => {
                    segments.is_concrete()
                }
                Some(Scope::Host { host: Host::Network(network), .. }) => network.length == 128,
                _ => false,
            }
    }
}

/// The scope has nothing that decoding or folding changes, as a dot at the end of a segment or of a program's name.
fn is_plain(kind: Kind, scope: &str) -> bool {
    if kind == Kind::Mail && scope.contains('+') {
        return false;
    }
    let mut last = 0;
    for (i, byte) in scope.bytes().enumerate() {
        // The colon of a drive is the second character.
        if byte == b':' && !(i == 1 && scope.as_bytes()[0].is_ascii_alphabetic()) {
            return false;
        }
        let ends_with_dot = last == b'.' && (byte == b'/' || kind == Kind::Proc);
        if !byte.is_ascii() || byte.is_ascii_uppercase() || matches!(byte, b'%' | b' ' | b'~') || ends_with_dot {
            return false;
        }
        last = byte;
    }
    last != b'.'
}

fn mailbox(address: &str) -> Option<String> {
    let (local, domain) = address.rsplit_once('@')?;
    let (mailbox, _) = local.split_once('+').filter(|(mailbox, _)| !mailbox.is_empty())?;
    Some(format!("{mailbox}@{domain}"))
}

/// A text with percent signs, as a URL's path is decoded; decoded again as long as something can be decoded.
fn decoded(text: &str) -> Result<Option<String>, Malformed> {
    let mut text = text.to_owned();
    let mut changed = false;
    loop {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            let code = (byte == b'%').then(|| after.get(..2)).flatten();
            match code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()) {
                Some(decoded) if after[0] != b'+' => {
                    bytes.push(decoded);
                    rest = &after[2..];
                }
                _ => {
                    bytes.push(byte);
                    rest = after;
                }
            }
        }
        if bytes == text.as_bytes() {
            return Ok(changed.then_some(text));
        }
        changed = true;
        text = String::from_utf8(bytes).map_err(|_| Malformed::Encoded)?;
    }
}

/// The effects of the skill-system-postgres skill's router.
pub const STANDARD_EFFECTS: [&str; 8] =
    ["db.read", "db.write", "proc.exec", "fs.read", "fs.write", "net.fetch", "git.read", "git.write"];

/// A text that could not be read, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEffect {
    /// The text as given, shortened.
    pub text: String,
    /// What is wrong with it.
    pub why: Malformed,
}

impl BadEffect {
    /// Keeps at most 80 characters of the text: it comes from outside.
    pub fn new(text: &str, why: Malformed) -> Self {
        BadEffect { text: shorten(text), why }
    }
}

impl fmt::Display for BadEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\": {}", self.text, self.why)
    }
}

#[cfg(test)]
mod tests;
