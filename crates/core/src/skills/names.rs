//! Namespaces, names, and references to a skill.

use crate::error::{Code, Fault, shorten};
use crate::input::invalid;

/// The namespace of a skill when none is given.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Longest name and namespace, in characters.
pub const MAX_NAME: usize = 200;

/// 1 to 7 segments joined by `:`, each 2 to 64 of a-z, 0-9 and `-`, first and last a letter or digit (skills-runtime-sdk 0.1.12).
pub fn is_namespace(text: &str) -> bool {
    let segment = |segment: &str| {
        let bytes = segment.as_bytes();
        let word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        (2..=64).contains(&bytes.len())
            && bytes.iter().all(|byte| word(byte) || *byte == b'-')
            && bytes.first().is_some_and(word)
            && bytes.last().is_some_and(word)
    };
    text.split(':').count() <= 7 && text.split(':').all(segment)
}

/// A namespace given as an argument.
pub fn namespace(text: Option<&str>) -> Result<&str, Fault> {
    let text = text.unwrap_or(DEFAULT_NAMESPACE);
    if is_namespace(text) {
        return Ok(text);
    }
    Err(invalid(format!("invalid namespace: \"{}\"", shorten(text)))
        .hint("One to seven segments joined by \":\", each of 2 to 64 lower-case letters, digits and hyphens, none at its ends."))
}

/// A name that the registry can hold, whatever the rules of the client API it came by.
pub fn storable(name: &str) -> Result<&str, Fault> {
    if name.is_empty() {
        return Err(Fault::new(Code::SkillConflict, "the name of a skill must not be empty"));
    }
    if name.chars().count() > MAX_NAME {
        return Err(invalid(format!("the name of a skill has at most {MAX_NAME} characters")));
    }
    if name.chars().any(char::is_control) {
        return Err(invalid("the name of a skill must not have control characters"));
    }
    Ok(name)
}

/// Which skill is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    Id(uuid::Uuid),
    /// Its name in a namespace.
    Name(&'a str, &'a str),
}

impl<'a> Reference<'a> {
    /// `name` in the namespace `default`, `namespace/name`, or a UUID.
    pub fn parse(text: Option<&'a str>) -> Result<Self, Fault> {
        let text = text.ok_or_else(|| invalid("skill must not be NULL"))?;
        if let Ok(id) = uuid::Uuid::try_parse(text) {
            return Ok(Reference::Id(id));
        }
        Ok(match text.split_once('/') {
            Some((namespace, name)) if is_namespace(namespace) => Reference::Name(namespace, name),
            _ => Reference::Name(DEFAULT_NAMESPACE, text),
        })
    }

    /// The skill does not exist.
    pub fn unknown(self) -> Fault {
        match self {
            Reference::Id(id) => Fault::new(Code::SkillNotFound, format!("skill {id} does not exist")),
            Reference::Name(namespace, name) => {
                Fault::new(Code::SkillNotFound, format!("skill \"{}\" does not exist in the namespace \"{}\"", shorten(name), shorten(namespace)))
                    .hint("SELECT namespace, skill_name FROM skill_system.skills; a skill of another namespace is named namespace/name.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces() {
        for good in ["ab", "default", "a1:b-2", "aa:bb:cc:dd:ee:ff:gg"] {
            assert!(is_namespace(good), "{good}");
        }
        for bad in ["", "a", "-ab", "ab-", "AB", "ab:", ":ab", "aa:bb:cc:dd:ee:ff:gg:hh", "a_b", "ä1"] {
            assert!(!is_namespace(bad), "{bad}");
        }
    }

    #[test]
    fn references() {
        assert_eq!(Reference::parse(Some("x")).unwrap(), Reference::Name("default", "x"));
        assert_eq!(Reference::parse(Some("team:pdf/x")).unwrap(), Reference::Name("team:pdf", "x"));
        // What is not a namespace belongs to the name.
        assert_eq!(Reference::parse(Some("No such/x")).unwrap(), Reference::Name("default", "No such/x"));
        assert!(matches!(Reference::parse(Some("01900000-0000-7000-8000-000000000001")).unwrap(), Reference::Id(_)));
        assert!(Reference::parse(None).is_err());
        assert_eq!(storable("").unwrap_err().code, Code::SkillConflict);
        assert!(storable("a\nb").is_err() && storable(&"x".repeat(201)).is_err() && storable("日本 ../x").is_ok());
    }
}
