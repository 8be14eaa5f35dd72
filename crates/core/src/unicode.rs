//! Characters that a reader does not see, and one form of a text for comparing.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

/// Why a character does not belong in a text that people approve and models read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuspiciousChar {
    /// A control character other than tab and line end.
    Control,
    /// It changes the direction of what follows.
    Bidi,
    /// Nothing of it is seen: zero width, tags, variation selectors, separators.
    Invisible,
}

impl SuspiciousChar {
    /// The code of a finding.
    pub fn code(self) -> &'static str {
        match self {
            SuspiciousChar::Control => "control_character",
            SuspiciousChar::Bidi => "bidi_control",
            SuspiciousChar::Invisible => "invisible_character",
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            SuspiciousChar::Control => "a control character",
            SuspiciousChar::Bidi => "a character that turns the direction of writing",
            SuspiciousChar::Invisible => "a character that is not seen",
        }
    }
}

/// What is wrong with a character, if anything is.
///
/// Joiners (U+200C, U+200D) and the variation selectors of emoji are part of ordinary writing between other
/// characters, so they are not named here.
pub fn suspicious_char(c: char) -> Option<SuspiciousChar> {
    match c {
        '\t' | '\n' => None,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => Some(SuspiciousChar::Control),
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some(SuspiciousChar::Bidi)
        }
        '\u{ad}'
        | '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => Some(SuspiciousChar::Invisible),
        _ => None,
    }
}

/// Nothing of it is seen, also where it joins or varies its neighbours.
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}') || suspicious_char(c).is_some()
}

/// The flags of England, Scotland and Wales: a black flag and letters that are not seen. Any other such letters may hide text.
const FLAGS: [&str; 3] = [
    "\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
    "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
    "\u{1f3f4}\u{e0067}\u{e0062}\u{e0077}\u{e006c}\u{e0073}\u{e007f}",
];

/// The text without those flags.
pub fn without_flags(text: &str) -> Cow<'_, str> {
    if !text.contains('\u{1f3f4}') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(FLAGS.iter().fold(text.to_owned(), |text, flag| text.replace(flag, "\u{1f3f4}")))
}

pub fn nfkc(text: &str) -> String {
    text.nfkc().collect()
}

/// The text without case. Lower, upper and lower again, each character by itself: upper case makes one of ß and ss, of ς and σ,
/// and has none for ẞ, which lower case makes ß first.
pub fn case_folded(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase).flat_map(char::to_uppercase).flat_map(char::to_lowercase)
}

/// One form for all spellings that a file system or a reader may take for the same: case and compatibility forms.
pub fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    case_folded(&nfkc(text)).nfkc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_is_folded_as_all_other_text() {
        let ascii: String = (0..128u8).map(char::from).collect();
        assert_eq!(folded(&ascii), case_folded(&nfkc(&ascii)).nfkc().collect::<String>());
    }

    #[test]
    fn what_is_not_seen_is_named_and_ordinary_writing_is_not() {
        for (c, wrong) in [
            ('\u{202e}', SuspiciousChar::Bidi),
            ('\u{2066}', SuspiciousChar::Bidi),
            ('\u{200b}', SuspiciousChar::Invisible),
            ('\u{e0041}', SuspiciousChar::Invisible),
            ('\u{feff}', SuspiciousChar::Invisible),
            ('\u{1b}', SuspiciousChar::Control),
            ('\r', SuspiciousChar::Control),
            ('\u{85}', SuspiciousChar::Control),
        ] {
            assert_eq!(suspicious_char(c), Some(wrong), "{c:?}");
        }
        assert!("Ünïcode 日本語 हिन्दी \u{200d} 👩‍💻 ❤️ \t\n".chars().all(|c| suspicious_char(c).is_none()));
    }

    #[test]
    fn flags_are_ordinary_writing_and_what_looks_like_one_is_not() {
        let clean = |text: &str| without_flags(text).chars().all(|c| suspicious_char(c).is_none());
        assert!(FLAGS.iter().all(|flag| clean(&format!("a {flag}{flag} b"))));
        for hidden in ["\u{1f3f4}\u{e0068}\u{e0069}\u{e007f}", "\u{e0067}\u{e0062}", &FLAGS[0][..12], &FLAGS[0][4..]] {
            assert!(!clean(hidden), "{hidden:?}");
        }
    }

    #[test]
    fn folding_joins_what_looks_the_same() {
        for (a, b) in [
            ("README.md", "readme.MD"),
            ("Straße", "STRASSE"),
            ("STRAẞE", "strasse"),
            ("ŉ", "ʼN"),
            ("\u{212a}elvin", "kelvin"),
            ("ſ", "S"),
            ("ᏸ", "Ᏸ"),
            ("Ե\u{582}", "և"),
            ("ﬁle", "file"),
            ("e\u{301}", "\u{e9}"),
            ("ｆｕｌｌ", "full"),
            ("ΣΑΣ", "σας"),
        ] {
            assert_eq!(folded(a), folded(b));
        }
        assert_ne!(folded("a"), folded("b"));
        for c in ('\0'..=char::MAX).filter(|c| c.is_alphabetic()) {
            let other = [c.to_lowercase().collect::<String>(), c.to_uppercase().collect()];
            assert!(other.iter().all(|other| folded(other) == folded(&c.to_string())), "{c}");
        }
    }
}
