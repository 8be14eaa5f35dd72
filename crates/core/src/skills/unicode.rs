//! Characters that a reader does not see, and one form of a text for comparing.

use unicode_normalization::UnicodeNormalization;

/// Why a character does not belong into a text that people approve and models read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trick {
    /// A control character other than tab and line end.
    Control,
    /// It changes the direction of what follows.
    Bidi,
    /// Nothing of it is seen: zero width, tags, variation selectors, separators.
    Invisible,
}

impl Trick {
    /// The code of a finding.
    pub fn code(self) -> &'static str {
        match self {
            Trick::Control => "control_character",
            Trick::Bidi => "bidi_control",
            Trick::Invisible => "invisible_character",
        }
    }

    /// In a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Trick::Control => "a control character",
            Trick::Bidi => "a character that turns the direction of writing",
            Trick::Invisible => "a character that is not seen",
        }
    }
}

/// What is wrong with a character, if anything is.
///
/// Joiners (U+200C, U+200D) and the variation selectors of emoji are part of ordinary writing between other
/// characters, so they are not named here.
pub fn trick(c: char) -> Option<Trick> {
    match c {
        '\t' | '\n' => None,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => Some(Trick::Control),
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Some(Trick::Bidi),
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
        | '\u{e0000}'..='\u{e0fff}' => Some(Trick::Invisible),
        _ => None,
    }
}

/// NFKC.
pub fn nfkc(text: &str) -> String {
    text.nfkc().collect()
}

/// One form for all spellings that a file system or a reader may take for the same: case and compatibility forms.
pub fn folded(text: &str) -> String {
    // Upper case first: it is what makes one of ß and ss, of ς and σ.
    nfkc(&nfkc(text).to_uppercase().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_named_and_ordinary_writing_is_not() {
        for (c, wrong) in [
            ('\u{202e}', Trick::Bidi),
            ('\u{2066}', Trick::Bidi),
            ('\u{200b}', Trick::Invisible),
            ('\u{e0041}', Trick::Invisible),
            ('\u{feff}', Trick::Invisible),
            ('\u{1b}', Trick::Control),
            ('\r', Trick::Control),
            ('\u{85}', Trick::Control),
        ] {
            assert_eq!(trick(c), Some(wrong), "{c:?}");
        }
        assert!("Ünïcode 日本語 हिन्दी \u{200d} 👩‍💻 ❤️ \t\n".chars().all(|c| trick(c).is_none()));
    }

    #[test]
    fn folding_joins_what_looks_the_same() {
        for (a, b) in [
            ("README.md", "readme.MD"),
            ("Straße", "STRASSE"),
            ("ﬁle", "file"),
            ("e\u{301}", "\u{e9}"),
            ("ｆｕｌｌ", "full"),
            ("ΣΑΣ", "σας"),
        ] {
            assert_eq!(folded(a), folded(b));
        }
        assert_ne!(folded("a"), folded("b"));
    }
}
