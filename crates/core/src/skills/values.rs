//! What is in a value of the front matter.

use serde_json::Value;

use crate::interrupt;

/// A list of texts, also as JSON, or a text of words between commas and blanks; where they may have blanks, commas go
/// before these. Without repeats.
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
            Err(_) if with_blanks && text.contains(',') => text.split(',').map(str::trim).for_each(&mut add),
            Err(_) => text.split(|c: char| c == ',' || c.is_whitespace()).for_each(&mut add),
        },
        Some(Value::Array(elements)) => elements.iter().filter_map(Value::as_str).map(str::trim).for_each(&mut add),
        _ => {}
    }
    list
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
