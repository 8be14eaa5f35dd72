//! Reads the text form of a `text[]`, without raising: the server's own parser reports an error for
//! what is not an array, and `check_policy()` must answer every request.

use crate::interrupt;

/// The elements of a one-dimensional array literal; `None` if it is not a valid one.
pub fn parse(literal: &str) -> Option<Vec<Option<String>>> {
    let mut rest = literal.trim().strip_prefix('{')?.strip_suffix('}')?.chars().peekable();
    let mut list = Vec::new();
    loop {
        interrupt::check();
        skip_spaces(&mut rest);
        let Some(&first) = rest.peek() else {
            return list.is_empty().then_some(list);
        };
        list.push(if first == '"' { Some(quoted(&mut rest)?) } else { unquoted(&mut rest)? });
        match rest.next() {
            None => return Some(list),
            // No element may be missing after a comma.
            Some(',') => {
                rest.peek()?;
            }
            Some(_) => return None,
        }
    }
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn skip_spaces(rest: &mut Rest<'_>) {
    while rest.next_if(char::is_ascii_whitespace).is_some() {}
}

fn quoted(rest: &mut Rest<'_>) -> Option<String> {
    rest.next();
    let mut item = String::new();
    loop {
        interrupt::check();
        match rest.next()? {
            '"' => break,
            '\\' => item.push(rest.next()?),
            c => item.push(c),
        }
    }
    skip_spaces(rest);
    Some(item)
}

/// An element up to the next comma; the word NULL is `Some(None)`.
fn unquoted(rest: &mut Rest<'_>) -> Option<Option<String>> {
    let mut item = String::new();
    while let Some(c) = rest.next_if(|c| *c != ',') {
        interrupt::check();
        match c {
            '{' | '}' | '"' => return None,
            '\\' => item.push(rest.next()?),
            c => item.push(c),
        }
    }
    item.truncate(item.trim_end().len());
    if item.is_empty() {
        return None;
    }
    Some((!item.eq_ignore_ascii_case("null")).then_some(item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(list: &[Option<&str>]) -> Option<Vec<Option<String>>> {
        Some(list.iter().map(|text| text.map(str::to_owned)).collect())
    }

    #[test]
    fn literals() {
        assert_eq!(parse("{}"), texts(&[]));
        assert_eq!(parse(" { } "), texts(&[]));
        assert_eq!(parse("{a, b c ,\"d,e\" }"), texts(&[Some("a"), Some("b c"), Some("d,e")]));
        assert_eq!(
            parse(r#"{NULL,null,"NULL",a\,b,"\"\\"}"#),
            texts(&[None, None, Some("NULL"), Some("a,b"), Some("\"\\")])
        );
        assert_eq!(parse("{\"\"}"), texts(&[Some("")]));
    }

    #[test]
    fn what_is_not_an_array() {
        for bad in [
            "", "{", "}", "a", "{a,}", "{,a}", "{,}", "{a,,b}", "{{a}}", "{a}}", "{a\"b\"}", "{\"a\"b}", "{\"a}",
            "{a\\}",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    /// An element as the grammar writes it, and what it stands for.
    fn element() -> impl Strategy<Value = (String, Option<String>)> {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        prop_oneof![
            any::<String>().prop_map(move |text| (format!("\"{}\"", escape(&text)), Some(text))),
            "[a-z0-9:/*.][a-z0-9:/*. ]{0,8}[a-z0-9:/*.]"
                .prop_filter("NULL is a word", |text| text != "null")
                .prop_map(|text| (text.clone(), Some(text))),
            "[nN][uU][lL][lL]".prop_map(|text| (text, None)),
        ]
    }

    proptest! {
        #[test]
        fn every_sentence_of_the_grammar_is_read(elements in prop::collection::vec((element(), "[ \t\n]{0,2}", "[ \t\n]{0,2}"), 0..6)) {
            let written: Vec<String> = elements.iter().map(|((text, _), before, after)| format!("{before}{text}{after}")).collect();
            let meant: Vec<Option<String>> = elements.into_iter().map(|((_, meant), ..)| meant).collect();
            prop_assert_eq!(parse(&format!("{{{}}}", written.join(","))), Some(meant));
        }

        #[test]
        fn no_text_panics_and_what_is_read_is_read_the_same_again(text in "[{}\",\\\\a nul]{0,12}") {
            if let Some(list) = parse(&text) {
                let write = |item: &Option<String>| match item {
                    None => "NULL".to_owned(),
                    Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
                };
                let written: Vec<String> = list.iter().map(write).collect();
                prop_assert_eq!(parse(&format!("{{{}}}", written.join(","))), Some(list));
            }
        }
    }
}
