//! Tokens: how far a reader has come in the history.

use std::collections::BTreeMap;

use serde_json::Value;

use super::names::MAX_NAME;
use crate::error::{Fault, shorten};
use crate::input::invalid;
use crate::interrupt;

/// The last revision that was read of each namespace; 0 where it has none. Written as a JSON object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Token(BTreeMap<String, i64>);

impl Token {
    /// Reads a token; `None` is the beginning of time.
    pub fn parse(text: Option<&str>) -> Result<Self, Fault> {
        let Some(text) = text else {
            return Ok(Token::default());
        };
        let bad = || {
            invalid(format!("invalid token: \"{}\"", shorten(text))).hint("Give the token of an earlier answer of skill_changes() or of skills_token(), or NULL for the beginning.")
        };
        // As many namespaces as exist, and nothing nested.
        let members: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| bad())?;
        let mut revisions = BTreeMap::new();
        for (namespace, revision) in interrupt::each(members) {
            let revision = revision.as_i64().filter(|revision| *revision >= 0).ok_or_else(bad)?;
            if namespace.is_empty() || namespace.chars().count() > MAX_NAME {
                return Err(bad());
            }
            revisions.insert(namespace, revision);
        }
        Ok(Token(revisions))
    }

    /// What was read of a namespace.
    pub fn revision(&self, namespace: &str) -> i64 {
        self.0.get(namespace).copied().unwrap_or(0)
    }

    /// The namespaces of which something was read.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Notes what was read of a namespace.
    pub fn read(&mut self, namespace: &str, revision: i64) {
        *self.0.entry(namespace.to_owned()).or_default() = revision;
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(&self.0).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use proptest::prelude::*;

    #[test]
    fn tokens() {
        let mut token = Token::parse(None).unwrap();
        assert_eq!(token.to_string(), "{}");
        token.read("b", 2);
        token.read("a\"", 7);
        token.read("b", 3);
        assert_eq!(token.to_string(), r#"{"a\"":7,"b":3}"#);
        assert_eq!(Token::parse(Some(&token.to_string())).unwrap(), token);
        assert_eq!((token.revision("b"), token.revision("c")), (3, 0));
        for bad in [
            "",
            "7",
            "[]",
            "{\"a\":-1}",
            "{\"a\":1.5}",
            "{\"a\":\"1\"}",
            "{\"\":1}",
            "{\"a\":1",
            "{\"a\":99999999999999999999}",
        ] {
            assert_eq!(Token::parse(Some(bad)).unwrap_err().code, Code::InvalidParameterValue, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            if let Ok(token) = Token::parse(Some(&text)) {
                prop_assert_eq!(Token::parse(Some(&token.to_string())).unwrap(), token);
            }
        }
    }
}
