//! Requests to a policy: effects in one of three forms.

use std::borrow::Cow;

use super::effect::MAX_EFFECTS;
use crate::error::{Code, Fault, shorten};
use crate::jsonb_strings::{self, StringsError};
use crate::text_array;

/// The effects of a request; or the strings that could be read, and why the request is invalid.
pub type Effects<'a> = Result<Vec<Cow<'a, str>>, (Vec<String>, String)>;

/// Effects given as `text[]`; `what` begins the reason where they are NULL, such as "the effects are".
pub fn from_array<'a>(elements: Option<Vec<Option<&'a str>>>, what: &str) -> Effects<'a> {
    let Some(elements) = elements else {
        return Err((Vec::new(), format!("{what} NULL")));
    };
    match elements.iter().position(Option::is_none) {
        None => Ok(elements.into_iter().flatten().map(Into::into).collect()),
        Some(i) => Err((
            elements.into_iter().flatten().map(str::to_owned).collect(),
            format!("element {} of the array is NULL", i + 1),
        )),
    }
}

/// Effects given as binary `jsonb`: an array of them, or a string, which is one.
pub fn from_jsonb(root: Option<&[u8]>) -> Effects<'_> {
    let Some(root) = root else {
        return Err((Vec::new(), "the effects are NULL".into()));
    };
    if let Some(effect) = jsonb_strings::text(root) {
        return Ok(vec![effect.into()]);
    }
    match jsonb_strings::strings(root) {
        Ok(list) => Ok(list.into_iter().map(Into::into).collect()),
        Err((readable, error)) => Err((readable, unreadable(error))),
    }
}

/// Effects given as text: an array literal, JSON, or a single effect as people type it.
pub fn from_literal<'a>(text: Option<&str>) -> Effects<'a> {
    let Some(text) = text else {
        return Err((Vec::new(), "the effects are NULL".into()));
    };
    if is_one_effect(text) {
        return Ok(vec![Cow::Owned(text.to_owned())]);
    }
    if !text.trim_start().starts_with('{') {
        return effects_from_json(text).map(|list| list.into_iter().map(Into::into).collect());
    }
    let Some(list) = text_array::parse(text) else {
        return Err((Vec::new(), "the effects are not a valid array literal".into()));
    };
    match list.iter().position(Option::is_none) {
        None => Ok(list.into_iter().flatten().map(Into::into).collect()),
        Some(i) => Err((list.into_iter().flatten().collect(), format!("element {} of the effects is NULL", i + 1))),
    }
}

/// Not a JSON value: a client that sends null or a number sends no effect.
fn is_one_effect(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && !matches!(text.trim_end(), "null" | "true" | "false")
}

/// Reads the effects of a request from a JSON array, or a string, which is one. `Err` carries the strings that could be read and the reason.
pub fn effects_from_json(text: &str) -> Result<Vec<String>, (Vec<String>, String)> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|_| (Vec::new(), "the effects are not valid JSON".to_owned()))?;
    let items = match value {
        serde_json::Value::Array(items) => items,
        serde_json::Value::String(effect) => return Ok(vec![effect]),
        _ => return Err((Vec::new(), unreadable(StringsError::NotAnArray))),
    };
    let not_a_string = items.iter().position(|item| !item.is_string());
    let effects = items
        .into_iter()
        .filter_map(|item| match item {
            serde_json::Value::String(effect) => Some(effect),
            _ => None,
        })
        .collect();
    match not_a_string {
        None => Ok(effects),
        Some(i) => Err((effects, unreadable(StringsError::NotAString(i + 1)))),
    }
}

fn unreadable(error: StringsError) -> String {
    match error {
        StringsError::NotAnArray => "the effects are not a JSON array".into(),
        StringsError::NotAString(element) => format!("element {element} of the effects is not a string"),
    }
}

/// The effects of a function that, unlike the decisions, raises for an invalid request.
pub fn effects_argument(effects: Option<Vec<Option<String>>>) -> Result<Vec<String>, Fault> {
    match effects {
        None => Err(Fault::new(Code::InvalidParameterValue, "the effects must not be NULL")),
        Some(list) if list.len() > MAX_EFFECTS => {
            Err(Fault::new(Code::ProgramLimitExceeded, format!("more than {MAX_EFFECTS} effects in one call")))
        }
        Some(list) => Ok(list.into_iter().map(Option::unwrap_or_default).collect()),
    }
}

/// The same for effects that were read from one value.
pub fn readable(effects: Effects<'_>) -> Result<Vec<String>, Fault> {
    let effects = effects.map_err(|(_, reason)| Fault::new(Code::InvalidParameterValue, reason))?;
    effects_argument(Some(effects.into_iter().map(|effect| Some(effect.into_owned())).collect()))
}

/// At most ten effects, for an error message.
pub fn format_effects(effects: &[String]) -> String {
    const MAX_SHOWN: usize = 10;
    if effects.is_empty() {
        return "this request".into();
    }
    let shown: Vec<String> = effects.iter().take(MAX_SHOWN).map(|effect| shorten(effect)).collect();
    match effects.len().saturating_sub(MAX_SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<Cow<'static, str>> {
        list.iter().map(|text| Cow::Owned((*text).to_owned())).collect()
    }

    #[test]
    fn arrays() {
        assert_eq!(from_array(Some(vec![Some("a"), Some("b")]), "the effects are"), Ok(texts(&["a", "b"])));
        assert_eq!(from_array(None, "the command is"), Err((vec![], "the command is NULL".into())));
        assert_eq!(
            from_array(Some(vec![Some("a"), None]), "the effects are"),
            Err((vec!["a".into()], "element 2 of the array is NULL".into()))
        );
    }

    #[test]
    fn literals() {
        assert_eq!(from_literal(Some(" {a,\"b c\"}")), Ok(texts(&["a", "b c"])));
        assert_eq!(from_literal(Some("[\"a\"]")), Ok(texts(&["a"])));
        assert_eq!(from_literal(Some("\"a\"")), Ok(texts(&["a"])));
        assert_eq!(from_literal(Some("{}")), Ok(vec![]));
        for one in ["db.read", "fs.write:/srv/a b,c", "Nothing that is valid", "nullx"] {
            assert_eq!(from_literal(Some(one)), Ok(texts(&[one])));
        }
        for (text, readable, reason) in [
            (Some("{a,NULL}"), vec!["a"], "element 2 of the effects is NULL"),
            (Some("{a,}"), vec![], "the effects are not a valid array literal"),
            (Some("[1, \"a\"]"), vec!["a"], "element 1 of the effects is not a string"),
            (Some("null "), vec![], "the effects are not a JSON array"),
            (Some("true"), vec![], "the effects are not a JSON array"),
            (Some("1"), vec![], "the effects are not a JSON array"),
            (Some(" a"), vec![], "the effects are not valid JSON"),
            (Some(""), vec![], "the effects are not valid JSON"),
            (None, vec![], "the effects are NULL"),
        ] {
            let readable = readable.into_iter().map(str::to_owned).collect();
            assert_eq!(from_literal(text), Err((readable, reason.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn arguments() {
        assert_eq!(effects_argument(Some(vec![None, Some("a".into())])).unwrap(), ["", "a"]);
        assert_eq!(effects_argument(None).unwrap_err().code, Code::InvalidParameterValue);
        assert_eq!(effects_argument(Some(vec![None; MAX_EFFECTS + 1])).unwrap_err().code, Code::ProgramLimitExceeded);
    }

    #[test]
    fn at_most_ten_are_named() {
        let list = |count: usize| (1..=count).map(|n| format!("e{n}")).collect::<Vec<_>>();
        assert_eq!(format_effects(&[]), "this request");
        assert_eq!(format_effects(&list(2)), "e1, e2");
        assert_eq!(format_effects(&list(12)), "e1, e2, e3, e4, e5, e6, e7, e8, e9, e10 and 2 more");
    }
}
