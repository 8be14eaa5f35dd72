//! Which version of a skill is asked for, and which one that is.

use std::cmp::Ordering;

use semver::{Version, VersionReq};

use crate::error::Fault;
use crate::error::shorten;
use crate::input::{invalid, sentence};

/// Longest requirement, in bytes.
const MAX_REQUIREMENT: usize = 200;
/// Longest name of a channel.
const MAX_CHANNEL: usize = 50;

/// What a caller may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// None given: the version that is served.
    Served,
    /// One version by its 12 digits.
    Version(String),
    /// The highest semantic version in a range.
    Range(Range),
    /// What a channel has.
    Channel(String),
}

impl Requirement {
    /// 12 hexadecimal digits, a range, or the name of a channel; tried in this order.
    pub fn parse(text: Option<&str>) -> Result<Self, Fault> {
        let Some(text) = text.map(str::trim) else {
            return Ok(Requirement::Served);
        };
        if text.len() == 12 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Requirement::Version(text.to_owned()));
        }
        match Range::parse(text) {
            Ok(range) => Ok(Requirement::Range(range)),
            Err(_) if is_channel(text) => Ok(Requirement::Channel(text.to_owned())),
            Err(fault) => Err(fault.hint("Give 12 hexadecimal digits, a semantic version, a range such as ^1.2 or \">=1.2, <3\", or the name of a channel.")),
        }
    }
}

/// A word that names a channel: it cannot be taken for a version or a range.
fn is_channel(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= MAX_CHANNEL
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// The name of a channel, given as an argument.
pub fn channel(text: Option<&str>) -> Result<&str, Fault> {
    let text = text.ok_or_else(|| invalid("channel must not be NULL"))?;
    match Requirement::parse(Some(text)) {
        Ok(Requirement::Channel(name)) if name == text => Ok(text),
        _ => Err(invalid(format!("invalid channel name: \"{}\"", shorten(text)))
            .hint(format!("Up to {MAX_CHANNEL} lower-case letters, digits and hyphens, the first a letter; nothing that reads as a version: stable, beta."))),
    }
}

/// A set of semantic versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    text: String,
    /// A complete version stands for itself alone.
    exact: Option<Version>,
    allowed: VersionReq,
}

impl Range {
    /// A complete version, or what Cargo reads as a requirement: `^1.2`, `~1.2`, `1.*`, `>=1, <2`; `1.2` means `^1.2`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let bad = |why: String| invalid(format!("invalid range of versions: \"{}\"", shorten(text))).detail(why);
        if text.len() > MAX_REQUIREMENT {
            return Err(bad(format!("It is longer than {MAX_REQUIREMENT} bytes.")));
        }
        let text = text.trim();
        let allowed = VersionReq::parse(text).map_err(|error| bad(sentence(&error.to_string())))?;
        Ok(Range { text: text.to_owned(), exact: Version::parse(text).ok(), allowed })
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The version is in the range. A prerelease is only where the range names one of the same major, minor and patch.
    pub fn contains(&self, version: &Version) -> bool {
        match &self.exact {
            Some(exact) => {
                exact.cmp_precedence(version) == Ordering::Equal
                    && (exact.build.is_empty() || exact.build == version.build)
            }
            None => self.allowed.matches(version),
        }
    }
}

/// The semantic version in a text.
pub fn semantic(text: &str) -> Option<Version> {
    (text.len() <= MAX_REQUIREMENT).then(|| Version::parse(text).ok()).flatten()
}

/// A version that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// UUID of the version.
    pub id: [u8; 16],
    pub version: String,
    /// Its semantic version, if it has one.
    pub semver: Option<Version>,
    /// Orders the versions of a skill by age.
    pub revision: i64,
    /// It is the one that is served.
    pub served: bool,
}

impl Candidate {
    pub fn display_version(&self) -> String {
        match &self.semver {
            Some(semver) => format!("{semver} ({})", self.version),
            None => self.version.clone(),
        }
    }
}

/// The highest version that is in all the ranges; of several with the same number the newest. Without a range the one
/// that is served, or else the newest.
pub fn best<'a>(candidates: &'a [Candidate], ranges: &[&Range]) -> Option<&'a Candidate> {
    if ranges.is_empty() {
        return candidates.iter().max_by_key(|candidate| (candidate.served, candidate.revision));
    }
    let in_all = |semver: &Version| ranges.iter().all(|range| range.contains(semver));
    candidates
        .iter()
        .filter_map(|candidate| {
            candidate.semver.as_ref().filter(|semver| in_all(semver)).map(|semver| (semver, candidate))
        })
        .max_by(|(a, one), (b, other)| a.cmp_precedence(b).then(one.revision.cmp(&other.revision)))
        .map(|(_, candidate)| candidate)
}

/// What exists, for an error: the highest first, ten at most.
pub fn listed(candidates: &[Candidate]) -> String {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by(|a, b| {
        match (&a.semver, &b.semver) {
            (Some(a), Some(b)) => b.cmp_precedence(a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
        .then(b.revision.cmp(&a.revision))
    });
    let mut text = sorted.iter().take(10).map(|candidate| candidate.display_version()).collect::<Vec<_>>().join(", ");
    if sorted.len() > 10 {
        text.push_str(&format!(" and {} more", sorted.len() - 10));
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn candidate(n: u8, semver: &str) -> Candidate {
        Candidate {
            id: [n; 16],
            version: format!("{n:012x}"),
            semver: semantic(semver),
            revision: n.into(),
            served: false,
        }
    }

    fn pick(versions: &[&str], range: &str) -> Option<String> {
        let candidates: Vec<_> = versions.iter().enumerate().map(|(n, semver)| candidate(n as u8, semver)).collect();
        best(&candidates, &[&Range::parse(range).unwrap()]).map(|found| found.semver.as_ref().unwrap().to_string())
    }

    #[test]
    fn what_is_asked_for() {
        let parse = |text| Requirement::parse(Some(text)).unwrap();
        assert_eq!(Requirement::parse(None).unwrap(), Requirement::Served);
        assert_eq!(parse("0123456789ab"), Requirement::Version("0123456789ab".into()));
        // Twelve decimal digits are a version, not the range ^123456789012.
        assert!(matches!(parse("123456789012"), Requirement::Version(_)));
        for range in ["1.2.3", "^1.2", "~1", "1.*", "*", " >=1.2, <3 ", "1.0.0-beta.1"] {
            assert!(matches!(parse(range), Requirement::Range(_)), "{range}");
        }
        for name in ["stable", "beta", "v1", "release-2026"] {
            assert_eq!(parse(name), Requirement::Channel(name.into()));
            assert_eq!(channel(Some(name)).unwrap(), name);
        }
        for bad in ["", "  ", "1.2.3.4", "^", "^1.2 || ^2", "Stable", "a b", "é", "0123456789AB", &"1".repeat(300)] {
            let fault = Requirement::parse(Some(bad)).unwrap_err();
            assert!(fault.hint.is_some() && fault.message.len() < 300, "{bad}");
        }
        // x and X are wildcards of a range.
        for bad in ["x", "1", "0123456789ab", "-a", " beta", "", &"a".repeat(51)] {
            assert!(channel(Some(bad)).is_err(), "{bad}");
        }
        assert!(channel(None).is_err());
    }

    #[test]
    fn the_highest_in_the_range() {
        let all = ["1.2.0", "1.10.0", "1.9.0", "2.0.0", "2.1.0-beta.2", "2.1.0-beta.11"];
        assert_eq!(pick(&all, "^1.2").unwrap(), "1.10.0");
        assert_eq!(pick(&all, "1.2.0").unwrap(), "1.2.0");
        assert_eq!(pick(&all, "=1.2").unwrap(), "1.2.0");
        assert_eq!(pick(&all, "1.2").unwrap(), "1.10.0");
        // A prerelease must be asked for by name.
        assert_eq!(pick(&all, "*").unwrap(), "2.0.0");
        assert_eq!(pick(&all, ">2").as_deref(), None);
        assert_eq!(pick(&all, ">=2.1.0-beta").unwrap(), "2.1.0-beta.11");
        assert_eq!(pick(&all, "2.1.0-beta.2").unwrap(), "2.1.0-beta.2");
        assert_eq!(pick(&all, "^3"), None);
        assert_eq!(pick(&["1.0.0+a", "1.0.0+b"], "1.0.0").unwrap(), "1.0.0+b");
        assert_eq!(pick(&["1.0.0+a", "1.0.0+b"], "1.0.0+a").unwrap(), "1.0.0+a");
        assert_eq!(pick(&["nonsense", ""], "*"), None);
    }

    #[test]
    fn an_error_names_what_there_is() {
        let mut all: Vec<_> =
            ["1.0.0", "x", "3.0.0", "2.0.0"].iter().enumerate().map(|(n, semver)| candidate(n as u8, semver)).collect();
        assert_eq!(listed(&all), "3.0.0 (000000000002), 2.0.0 (000000000003), 1.0.0 (000000000000), 000000000001");
        all.extend((10..30).map(|n| candidate(n, "9.0.0")));
        assert!(listed(&all).ends_with(" and 14 more"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            if let Ok(Requirement::Range(range)) = Requirement::parse(Some(&text)) {
                prop_assert_eq!(Range::parse(range.text()).unwrap(), range);
            }
        }

        #[test]
        fn no_version_in_the_range_is_higher(versions in proptest::collection::vec((0u64..4, 0u64..4, 0u64..4), 1..20), major in 0u64..4, minor in 0u64..4) {
            let texts: Vec<String> = versions.iter().map(|(a, b, c)| format!("{a}.{b}.{c}")).collect();
            let candidates: Vec<_> = texts.iter().enumerate().map(|(n, text)| candidate(n as u8, text)).collect();
            let range = Range::parse(&format!(">={major}.{minor}")).unwrap();
            let wanted = versions.iter().filter(|(a, b, _)| (*a, *b) >= (major, minor)).max().map(|(a, b, c)| format!("{a}.{b}.{c}"));
            let found = best(&candidates, &[&range]);
            prop_assert_eq!(found.map(|found| found.semver.as_ref().unwrap().to_string()), wanted.clone());
            // The newest of several with the same number.
            prop_assert_eq!(found.map(|found| found.revision), wanted.map(|wanted| texts.iter().rposition(|text| *text == wanted).unwrap() as i64));
        }
    }
}
