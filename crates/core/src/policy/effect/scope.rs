//! Scopes: what an effect is done to.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::host::Host;
use super::malformed::Malformed;
use super::segments::{Segment, Segments};
use crate::unicode::case_folded;

/// What the scopes of a name are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Net,
    Db,
    Fs,
    Proc,
    Git,
    Mail,
    Other,
}

impl Kind {
    pub(super) fn of(name: &Segments<'_>) -> Option<Self> {
        match name.head.first()?.literal()? {
            "net" => Some(Kind::Net),
            "db" => Some(Kind::Db),
            "fs" => Some(Kind::Fs),
            "proc" => Some(Kind::Proc),
            "git" => Some(Kind::Git),
            "mail" => Some(Kind::Mail),
            _ => Some(Kind::Other),
        }
    }
}

/// Where the segments of a scope begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Relative,
    /// `/`
    Root,
    /// `C:/`, in lower case.
    Drive(u8),
    /// Wherever: the name of a program or a branch.
    Anywhere,
}

impl Start {
    fn covers(self, other: Start) -> bool {
        self == other || self == Start::Anywhere
    }

    fn overlaps(self, other: Start) -> bool {
        match (self, other) {
            (Start::Anywhere, _) | (_, Start::Anywhere) => true,
            // A path without drive is on one of them.
            (Start::Root, Start::Drive(_)) | (Start::Drive(_), Start::Root) => true,
            _ => self == other,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope<'a> {
    Host {
        host: Host<'a>,
        port: Option<u16>,
    },
    /// Paths, relations and everything else: compared by segments.
    Segments {
        start: Start,
        segments: Segments<'a>,
    },
}

impl<'a> Scope<'a> {
    pub(super) fn into_owned(self) -> Scope<'static> {
        match self {
            Scope::Host { host, port } => Scope::Host { host: host.into_owned(), port },
            Scope::Segments { start, segments } => Scope::Segments { start, segments: segments.into_owned() },
        }
    }

    pub(super) fn parse(kind: Kind, text: &'a str) -> Result<Self, Malformed> {
        if kind == Kind::Net {
            let (host, port) = Host::parse(text)?;
            return Ok(Scope::Host { host, port });
        }
        match composed(text) {
            Cow::Borrowed(text) => Self::composed(kind, text),
            Cow::Owned(text) => Scope::composed(kind, &text).map(Scope::into_owned),
        }
    }

    fn composed(kind: Kind, text: &'a str) -> Result<Self, Malformed> {
        match kind {
            Kind::Db => Self::relation(text),
            Kind::Mail => Self::address(text),
            Kind::Fs if !is_absolute(text) => Err(Malformed::RelativePath),
            _ => {
                let path = Self::path(text)?;
                match kind {
                    Kind::Git if !is_absolute(text) && !is_ref(text) => Err(Malformed::Ref),
                    Kind::Proc if !is_program(text) => Err(Malformed::Program),
                    _ => Ok(path),
                }
            }
        }
    }

    /// `local@domain`, as the segments domain and local part. `*` stands for every local part or every domain, or both.
    fn address(text: &str) -> Result<Scope<'static>, Malformed> {
        let every = |part: &str| matches!(part, "*" | "**");
        let (local, domain) = match text.rsplit_once('@') {
            Some(parts) => parts,
            None if every(text) => ("*", "*"),
            None => return Err(Malformed::Mail),
        };
        // A quoted local part, a comment, a route or a list would be a second spelling.
        let legal =
            |c: char| c.is_alphanumeric() || "!#$&'*+-=^_`{|}~?".contains(c) || (!c.is_ascii() && !c.is_whitespace());
        let is_atom = |atom: &str| !atom.is_empty() && !atom.contains('*') && atom.chars().all(legal);
        let mut head = match domain {
            _ if every(domain) => vec![Segment::One],
            _ if domain.contains('*') => return Err(Malformed::WildcardPlace),
            _ => vec![Segment::Literal(mail_domain(domain)?.into())],
        };
        head.push(match local {
            _ if every(local) => Segment::One,
            _ if local.split('.').all(is_atom) => Segment::Literal(local.to_owned().into()),
            _ => return Err(Malformed::Mail),
        });
        Ok(Scope::Segments { start: Start::Relative, segments: Segments { lead: false, head, any: false } })
    }

    fn relation(text: &'a str) -> Result<Self, Malformed> {
        if text.chars().any(char::is_uppercase) {
            return Err(Malformed::UpperCase);
        }
        if has_blank(text) {
            return Err(Malformed::Blank);
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
        Ok(Scope::Segments { start: Start::Relative, segments })
    }

    fn path(text: &'a str) -> Result<Self, Malformed> {
        if text.contains('\\') {
            return Err(Malformed::Path);
        }
        if !is_absolute(text) {
            if has_blank(text) {
                return Err(Malformed::Blank);
            }
            if text.split('/').any(|part| part == "." || part == "..") {
                return Err(Malformed::Path);
            }
            return Ok(Scope::Segments { start: Start::Relative, segments: Segments::parse(text.split('/'))? });
        }
        let (start, text) = match text.as_bytes()[0] {
            b'/' => (Start::Root, text),
            letter => (Start::Drive(letter.to_ascii_lowercase()), &text[2..]),
        };
        let has_blank = has_blank(text);
        let mut segments = Segments::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                // What a wildcard stands for is unknown, so nothing can be climbed out of.
                ".." if segments.any || segments.ends_with_wildcard() => return Err(Malformed::Path),
                // `/..` is `/`.
                ".." => {
                    segments.head.pop();
                }
                _ if part.len() == 2 && part.ends_with(':') && part.as_bytes()[0].is_ascii_alphabetic() => {
                    return Err(Malformed::Path);
                }
                // What stands at this place is not seen, and Windows drops it.
                _ if has_blank && (part.starts_with(char::is_whitespace) || part.ends_with(char::is_whitespace)) => {
                    return Err(Malformed::BlankAtEdge);
                }
                _ => segments.push(part)?,
            }
        }
        Ok(Scope::Segments { start, segments })
    }

    pub(super) fn covers(&self, other: &Scope<'_>) -> bool {
        match (self, other) {
            (Scope::Host { host: a, port: p }, Scope::Host { host: b, port: q }) => {
                (p.is_none() || p == q) && a.covers(b)
            }
            (Scope::Segments { start: r, segments: a }, Scope::Segments { start: s, segments: b }) => {
                // `/**` is every path.
                let every = *r == Start::Root && matches!(s, Start::Drive(_)) && a.head.is_empty() && a.any;
                (every || r.covers(*s)) && a.covers(b)
            }
            _ => false,
        }
    }

    pub(super) fn overlaps(&self, other: &Scope<'_>) -> bool {
        match (self, other) {
            (Scope::Host { host: a, port: p }, Scope::Host { host: b, port: q }) => {
                (p.is_none() || q.is_none() || p == q) && a.overlaps(b)
            }
            (Scope::Segments { start: r, segments: a }, Scope::Segments { start: s, segments: b }) => {
                r.overlaps(*s) && a.overlaps(b)
            }
            _ => false,
        }
    }

    /// What a rule that denies or asks means; `None` for every scope.
    pub(super) fn widened(self, kind: Kind) -> Option<Self> {
        let (start, mut segments) = match self {
            Scope::Host { host, port } => {
                let host = host.widened();
                return (host != Host::Every || port.is_some()).then_some(Scope::Host { host, port });
            }
            Scope::Segments { start, segments } => (start, segments),
        };
        segments = folded(segments, kind);
        let is_path = matches!(start, Start::Root | Start::Drive(_));
        if segments.only_wildcards()
            && match kind {
                Kind::Fs => start == Start::Root,
                Kind::Db | Kind::Mail => true,
                _ => !is_path,
            }
        {
            return None;
        }
        segments.any |= !matches!(kind, Kind::Db | Kind::Mail) && (is_path || segments.ends_with_wildcard());
        let by_name = !is_path && matches!(kind, Kind::Proc | Kind::Git);
        segments.lead |= by_name;
        Some(Scope::Segments { start: if by_name { Start::Anywhere } else { start }, segments })
    }

    /// Without the differences that file systems ignore.
    pub(super) fn folded(self, kind: Kind) -> Self {
        match self {
            Scope::Segments { start, segments } => Scope::Segments { start, segments: folded(segments, kind) },
            host => host,
        }
    }

    /// What a path may mean on Windows, where a segment may be the short name of any other.
    pub(super) fn with_long_names(self) -> Self {
        match self {
            Scope::Segments { start: start @ (Start::Root | Start::Drive(_)), mut segments } => {
                for segment in &mut segments.head {
                    if segment.literal().is_some_and(is_short_name) {
                        *segment = Segment::One;
                    }
                }
                Scope::Segments { start, segments }
            }
            other => other,
        }
    }

    /// A path of Linux's /proc or /dev that leads somewhere else.
    pub(super) fn is_detour(&self) -> bool {
        const LINKS: [&str; 5] = ["root", "cwd", "exe", "fd", "map_files"];
        let Scope::Segments { start: Start::Root, segments } = self else { return false };
        let link = |segment: &Segment<'_>| segment.literal().is_some_and(|text| LINKS.contains(&text));
        match segments.head.as_slice() {
            [Segment::Literal(first), rest @ ..] if first == "proc" => {
                rest.iter().skip(1).any(|s| link(s) || *s == Segment::One) || (segments.any && rest.len() < 2)
            }
            [Segment::One, rest @ ..] => rest.iter().skip(1).any(link),
            [Segment::Literal(first), Segment::Literal(second), ..] => first == "dev" && second == "fd",
            _ => false,
        }
    }
}

/// The name of one branch, tag or repository: git-check-ref-format(1) without what names a ref by another one, as `HEAD`,
/// `main~1` and `src:main` do.
fn is_ref(text: &str) -> bool {
    let pairs = std::iter::once(b'/').chain(text.bytes()).zip(text.bytes());
    let mut parts = pairs.map(|pair| !matches!(pair, (_, b'~' | b'^' | b':') | (b'.', b'.') | (b'@', b'{')));
    let last = text.rsplit('/').next().unwrap_or_default();
    parts.all(|good| good)
        && !text.starts_with(['+', '-'])
        && last != "@"
        && !last.eq_ignore_ascii_case("head")
        && !last.ends_with("_HEAD")
}

/// A program, and not a line for a shell, nor one in quotes.
fn is_program(text: &str) -> bool {
    let for_shell = |b: u8| matches!(b, b'"' | b'\'' | b'`' | b';' | b'|' | b'&' | b'<' | b'>' | b'$');
    let in_name = |b: u8| {
        b.is_ascii_alphanumeric() || !b.is_ascii() || matches!(b, b'.' | b'_' | b'+' | b'-' | b'@' | b'%' | b'/' | b'*')
    };
    if is_absolute(text) { !text.bytes().any(for_shell) } else { text.bytes().all(in_name) }
}

/// The domain of a mail address in the form that is looked up.
fn mail_domain(text: &str) -> Result<String, Malformed> {
    match Host::parse(text).map_err(|_| Malformed::Mail)? {
        (Host::Name(labels), None) => Ok(labels.first_literals().join(".")),
        _ => Err(Malformed::Mail),
    }
}

/// A path whose segments end before a colon, behind which Windows names a stream of the file; `None` where none has one.
pub(super) fn without_streams(path: &str) -> Option<String> {
    let (start, rest) = path.split_at(if is_absolute(path) && !path.starts_with('/') { 2 } else { 0 });
    rest.contains(':').then(|| {
        let cut = |segment: &str| segment.split(':').next().unwrap_or_default().to_owned();
        format!("{start}{}", rest.split('/').map(cut).collect::<Vec<_>>().join("/"))
    })
}

/// `PROGRA~1`, `LONGNA~12.TXT`: at most eight characters that end with a number behind `~`, and at most three behind a dot.
fn is_short_name(segment: &str) -> bool {
    let segment = segment.trim_end_matches(['.', ' ']);
    let (name, extension) = segment.rsplit_once('.').unwrap_or((segment, ""));
    let number = name.rsplit_once('~').map_or("", |(_, number)| number);
    name.chars().count() <= 8
        && extension.chars().count() <= 3
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
}

pub(super) fn is_absolute(path: &str) -> bool {
    let b = path.as_bytes();
    b.first() == Some(&b'/') || (b.len() >= 3 && b[0].is_ascii_alphabetic() && b[1] == b':' && b[2] == b'/')
}

pub(super) fn has_blank(text: &str) -> bool {
    if text.is_ascii() { text.bytes().any(|b| b == b' ') } else { text.contains(char::is_whitespace) }
}

/// Normalization form C.
fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfc().collect())
    }
}

fn folded(segments: Segments<'_>, kind: Kind) -> Segments<'_> {
    let mut segments = segments.map(fold);
    if let Some(Segment::Literal(last)) = segments.head.last_mut()
        && kind == Kind::Proc
        && let Some((name, "exe" | "com" | "bat" | "cmd")) = last.rsplit_once('.')
        && !name.is_empty()
    {
        *last = name.to_owned().into();
    }
    if kind == Kind::Git {
        let place = |segment: Option<&Segment<'_>>| segment.and_then(Segment::literal).map(str::to_owned);
        let prefix = match place(segments.head.first()).as_deref() {
            Some("refs") => segments.head.len().min(2),
            Some("heads" | "tags" | "remotes") => 1,
            _ => 0,
        };
        if prefix < segments.head.len() || segments.any {
            segments.head.drain(..prefix);
        }
    }
    segments
}

/// Without case, joiners, variation selectors, and dots and blanks at the end.
fn fold(text: Cow<'_, str>) -> Cow<'_, str> {
    let ascii = text.is_ascii();
    if ascii && !text.ends_with('.') && !text.bytes().any(|b| b.is_ascii_uppercase()) {
        return text;
    }
    let folded: String = if ascii {
        text.to_ascii_lowercase()
    } else {
        let seen = |c: &char| !matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}');
        case_folded(&text).filter(seen).nfc().collect()
    };
    match folded.trim_end_matches(['.', ' ']) {
        "" => text,
        trimmed => trimmed.to_owned().into(),
    }
}
