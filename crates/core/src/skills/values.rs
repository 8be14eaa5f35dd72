//! What is in a value of the front matter.

use serde_json::Value;

use crate::interrupt;

/// A list of texts, also as JSON, or a text of words between commas and blanks; where they may have blanks, commas and
/// brackets go before these. Without repeats.
pub fn words(value: Option<&Value>, with_blanks: bool) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    let mut add = |word: &str| {
        interrupt::check();
        if !word.is_empty() && !list.iter().any(|there| there == word) {
            list.push(word.to_owned());
        }
    };
    match value {
        Some(Value::String(text)) => match serde_json::from_str::<Vec<String>>(text) {
            Ok(list) => list.iter().map(|word| word.trim()).for_each(&mut add),
            Err(_) => {
                let inside = text.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']'));
                let list = inside.unwrap_or(text);
                let by_commas = with_blanks && (inside.is_some() || list.contains(','));
                let ends = |c: char| c == ',' || !by_commas && c.is_whitespace();
                list.split(ends).map(str::trim).map(|word| inside.map_or(word, |_| unquoted(word))).for_each(&mut add);
            }
        },
        Some(Value::Array(elements)) => elements.iter().filter_map(Value::as_str).map(str::trim).for_each(&mut add),
        _ => {}
    }
    list
}

/// An element of a list in brackets.
fn unquoted(word: &str) -> &str {
    let inside = |quote| word.strip_prefix(quote).and_then(|word| word.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(word).trim()
}

/// A character stands outside of parentheses.
pub fn outside_parentheses(text: &str, wanted: char) -> bool {
    let mut depth = 0;
    text.chars().any(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth <= 0 && c == wanted
    })
}

/// Adds all texts of a value, keys as well.
pub fn gather(value: &Value, all: &mut String) {
    match value {
        Value::String(text) => {
            all.push(' ');
            all.push_str(text);
        }
        Value::Array(elements) => elements.iter().for_each(|element| gather(element, all)),
        Value::Object(members) => {
            for (key, value) in members {
                all.push(' ');
                all.push_str(key);
                gather(value, all);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_of_a_list() {
        for (value, with_blanks, found) in [
            (json!("a b, c"), true, &["a b", "c"][..]),
            (json!("a b"), true, &["a", "b"]),
            (json!("a b, c"), false, &["a", "b", "c"]),
            (json!("[a b, c]"), true, &["a b", "c"]),
            (json!(" [a b] "), true, &["a b"]),
            (json!("['a b', \"c\", d e]"), true, &["a b", "c", "d e"]),
            (json!("[A B, C]"), false, &["A", "B", "C"]),
            (json!("['A', \"B\"]"), false, &["A", "B"]),
            (json!("[\"a b\", \"c\"]"), true, &["a b", "c"]),
            (json!("[a]b"), true, &["[a]b"]),
            (json!("[], x"), true, &["[]", "x"]),
            (json!("[]"), true, &[]),
            (json!("[,a,,b, ]"), true, &["a", "b"]),
            (json!(["a b", " c ", 1, "a b"]), true, &["a b", "c"]),
            (json!(7), true, &[]),
        ] {
            assert_eq!(words(Some(&value), with_blanks), found, "{value}");
        }
        assert_eq!(words(None, true), [""; 0]);
    }
}
