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
//! What a scope is follows from the first segment of the name:
//! - `fs`: an absolute path (`/srv/app`, `C:/work`), normalised, so `..` cannot
//!   climb out of a rule;
//! - `net`: a host with an optional port, lower case; no port means every port;
//! - `db`: `relation` or `schema.relation`, lower case; without a schema it means
//!   that relation in any schema;
//! - anything else: segments between `/`; one that starts with `/` is a path.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

use crate::error::shorten;

/// Longest accepted effect or rule, in bytes.
pub const MAX_EFFECT_BYTES: usize = 1024;
/// Maximum number of effects in one call.
pub const MAX_EFFECTS: usize = 1000;

/// Why a text is not a valid effect or rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("it is empty")]
    Empty,
    /// Over [`MAX_EFFECT_BYTES`].
    #[error("it is longer than {MAX_EFFECT_BYTES} bytes")]
    TooLong,
    /// White space or a control character.
    #[error("it contains white space or a control character")]
    Blank,
    /// Upper case where only lower case is allowed.
    #[error("it contains upper case")]
    UpperCase,
    /// A name segment that is empty or has a character outside `[a-z0-9_-]`.
    #[error("its name is not lower-case segments of a-z, 0-9, _ and - joined by dots")]
    Name,
    /// A wildcard in the name of a requested effect.
    #[error("its name contains a wildcard, and only a rule may have one there")]
    Wildcard,
    /// `**` elsewhere than last, or `*` mixed with other characters.
    #[error("`*` must be a whole segment and `**` the last one")]
    WildcardPlace,
    /// Something between dots or slashes is missing.
    #[error("its scope is empty or has an empty segment")]
    ScopeSegment,
    /// A scope behind a name whose first segment is a wildcard.
    #[error("a scope needs a name whose first segment is not a wildcard")]
    ScopeOfWildcard,
    /// A file system scope that does not start at a root.
    #[error("a file system scope must be an absolute path")]
    RelativePath,
    /// A backslash or a `..` that leads out of a relative scope.
    #[error("its path has a backslash, or .. leads above its start")]
    Path,
    /// Not `host[:port]`.
    #[error("a net scope must be a lower-case host name or address with an optional port")]
    Host,
    /// More than `schema.relation`.
    #[error("a db scope must be relation or schema.relation")]
    Relation,
}

impl Malformed {
    /// What to write instead.
    pub fn hint(self) -> &'static str {
        match self {
            Malformed::RelativePath | Malformed::Path => {
                "Write an absolute path with forward slashes, for example fs.write:/srv/app/**."
            }
            Malformed::Host => "Write a host without scheme or path, for example net.fetch:api.github.com.",
            Malformed::Relation => "Write a relation, for example db.write:public.orders or db.write:public.*.",
            Malformed::UpperCase => "Write it in lower case; only a path scope may have upper case.",
            Malformed::Blank => "Remove it: an effect has no white space.",
            _ => "An effect is name[:scope], for example db.read, net.*, fs.write:/srv/app/**.",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment<'a> {
    Literal(Cow<'a, str>),
    One,
}

/// Segments and whether a final `**` follows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Segments<'a> {
    head: Vec<Segment<'a>>,
    any: bool,
}

impl<'a> Segments<'a> {
    fn into_owned(self) -> Segments<'static> {
        let owned = |segment| match segment {
            Segment::Literal(text) => Segment::Literal(Cow::Owned(text.into_owned())),
            Segment::One => Segment::One,
        };
        Segments { head: self.head.into_iter().map(owned).collect(), any: self.any }
    }

    fn parse(parts: impl Iterator<Item = &'a str>) -> Result<Self, Malformed> {
        let mut segments = Segments { head: Vec::with_capacity(6), any: false };
        for part in parts {
            if segments.any {
                return Err(Malformed::WildcardPlace);
            }
            match part {
                "" => return Err(Malformed::ScopeSegment),
                "**" => segments.any = true,
                "*" => segments.head.push(Segment::One),
                _ if part.contains('*') => return Err(Malformed::WildcardPlace),
                _ => segments.head.push(Segment::Literal(part.into())),
            }
        }
        Ok(segments)
    }

    /// Every sequence that `other` matches is matched by `self`.
    fn covers(&self, other: &Segments<'_>) -> bool {
        if self.head.len() > other.head.len() {
            return false;
        }
        if !self.any && (other.any || self.head.len() != other.head.len()) {
            return false;
        }
        self.head.iter().zip(&other.head).all(|(mine, theirs)| match (mine, theirs) {
            (Segment::One, _) => true,
            (Segment::Literal(a), Segment::Literal(b)) => a == b,
            (Segment::Literal(_), Segment::One) => false,
        })
    }

    /// Some sequence is matched by both.
    fn overlaps(&self, other: &Segments<'_>) -> bool {
        let (mine, theirs) = (self.head.len(), other.head.len());
        (mine == theirs || (mine < theirs && self.any) || (theirs < mine && other.any))
            && self.head.iter().zip(&other.head).all(|pair| match pair {
                (Segment::Literal(a), Segment::Literal(b)) => a == b,
                _ => true,
            })
    }

    fn is_concrete(&self) -> bool {
        !self.any && !self.head.contains(&Segment::One)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope<'a> {
    Host {
        host: Segments<'a>,
        port: Option<u16>,
    },
    /// Paths, relations and everything else: compared by segments.
    Segments {
        rooted: bool,
        segments: Segments<'a>,
    },
}

impl<'a> Scope<'a> {
    fn into_owned(self) -> Scope<'static> {
        match self {
            Scope::Host { host, port } => Scope::Host { host: host.into_owned(), port },
            Scope::Segments { rooted, segments } => Scope::Segments { rooted, segments: segments.into_owned() },
        }
    }

    fn parse(root: &str, text: &'a str) -> Result<Self, Malformed> {
        match root {
            "net" => Self::host(text),
            "db" => Self::relation(text),
            "fs" if !is_absolute(text) => Err(Malformed::RelativePath),
            _ => Self::path(text),
        }
    }

    fn host(text: &'a str) -> Result<Self, Malformed> {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Malformed::UpperCase);
        }
        // An IPv6 address stands in brackets and is one segment.
        let (host, port, segments) = if let Some(rest) = text.strip_prefix('[') {
            let (address, after) = rest.split_once(']').ok_or(Malformed::Host)?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or(Malformed::Host)?),
            };
            if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
                return Err(Malformed::Host);
            }
            let segment = Segment::Literal(text[..address.len() + 2].into());
            (address, port, Segments { head: vec![segment], any: false })
        } else {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            if !host
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.' | b'*'))
            {
                return Err(Malformed::Host);
            }
            (host, port, Segments::parse(host.split('.'))?)
        };
        if host.is_empty() {
            return Err(Malformed::Host);
        }
        let port = match port {
            None => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| Malformed::Host)?)
            }
            Some(_) => return Err(Malformed::Host),
        };
        Ok(Scope::Host { host: segments, port })
    }

    fn relation(text: &'a str) -> Result<Self, Malformed> {
        if text.chars().any(char::is_uppercase) {
            return Err(Malformed::UpperCase);
        }
        // Quotes would let one relation have two spellings.
        if text.contains(['"', '\\', '/', ':']) {
            return Err(Malformed::Relation);
        }
        let mut segments = Segments::parse(text.split('.'))?;
        match (segments.head.len(), segments.any) {
            (1, false) => segments.head.insert(0, Segment::One),
            (0..=2, _) => {}
            _ => return Err(Malformed::Relation),
        }
        Ok(Scope::Segments { rooted: false, segments })
    }

    fn path(text: &'a str) -> Result<Self, Malformed> {
        if text.contains('\\') {
            return Err(Malformed::Path);
        }
        if !is_absolute(text) {
            if text.split('/').any(|part| part == "." || part == "..") {
                return Err(Malformed::Path);
            }
            return Ok(Scope::Segments { rooted: false, segments: Segments::parse(text.split('/'))? });
        }
        let mut parts: Vec<&str> = Vec::with_capacity(8);
        for part in text.split('/') {
            match part {
                "" | "." => {}
                // What a wildcard stands for is unknown, so there is nothing to climb out of.
                ".." if parts.last().is_some_and(|last| last.contains('*')) => return Err(Malformed::Path),
                // `/..` is `/`, and a drive letter is as much of a root.
                ".." if parts.len() > 1 || text.starts_with('/') => {
                    parts.pop();
                }
                ".." => {}
                _ => parts.push(part),
            }
        }
        Ok(Scope::Segments { rooted: true, segments: Segments::parse(parts.into_iter())? })
    }

    fn covers(&self, other: &Scope<'_>) -> bool {
        match (self, other) {
            (Scope::Host { host: a, port: p }, Scope::Host { host: b, port: q }) => {
                (p.is_none() || p == q) && a.covers(b)
            }
            (Scope::Segments { rooted: r, segments: a }, Scope::Segments { rooted: s, segments: b }) => {
                r == s && a.covers(b)
            }
            _ => false,
        }
    }

    fn overlaps(&self, other: &Scope<'_>) -> bool {
        match (self, other) {
            (Scope::Host { host: a, port: p }, Scope::Host { host: b, port: q }) => {
                (p.is_none() || q.is_none() || p == q) && a.overlaps(b)
            }
            (Scope::Segments { rooted: r, segments: a }, Scope::Segments { rooted: s, segments: b }) => {
                r == s && a.overlaps(b)
            }
            _ => false,
        }
    }
}

fn is_absolute(path: &str) -> bool {
    let b = path.as_bytes();
    b.first() == Some(&b'/') || (b.len() >= 3 && b[0].is_ascii_alphabetic() && b[1] == b':' && b[2] == b'/')
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
        Ok(effect)
    }

    /// Parses a rule: wildcards are allowed everywhere.
    pub fn parse_rule(text: &'a str) -> Result<Self, Malformed> {
        if text.is_empty() {
            return Err(Malformed::Empty);
        }
        if text.len() > MAX_EFFECT_BYTES {
            return Err(Malformed::TooLong);
        }
        let blank = if text.is_ascii() {
            text.bytes().any(|b| b <= b' ' || b == 0x7f)
        } else {
            text.chars().any(|c| c.is_whitespace() || c.is_control())
        };
        if blank {
            return Err(Malformed::Blank);
        }
        let (name, scope) = match text.split_once(':') {
            Some((name, scope)) => (name, Some(scope)),
            None => (text, None),
        };
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Malformed::UpperCase);
        }
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.' | b'*');
        if !name.bytes().all(legal) {
            return Err(Malformed::Name);
        }
        let name = Segments::parse(name.split('.')).map_err(|e| match e {
            Malformed::ScopeSegment => Malformed::Name,
            other => other,
        })?;
        let scope = match scope {
            None => None,
            Some("") => return Err(Malformed::ScopeSegment),
            Some(scope) => match name.head.first() {
                Some(Segment::Literal(root)) => Some(Scope::parse(root, scope)?),
                _ => return Err(Malformed::ScopeOfWildcard),
            },
        };
        Ok(Effect { name, scope })
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
        match self.name.head.first() {
            Some(Segment::Literal(root)) => Some(root),
            _ => None,
        }
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
