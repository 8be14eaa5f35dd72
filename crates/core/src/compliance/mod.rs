//! Compliance: entities, what a filing needs and is subject to, reports about it.

pub mod artifacts;
pub mod checklists;
pub mod entities;
pub mod oscal;
pub mod report;
pub mod rules;
pub mod snapshot;

use crate::error::{Code, Fault};

/// An exact image of a text among the decimal numbers: three digits a byte behind a 1.
pub fn text_key(text: &str) -> Result<String, Fault> {
    if text.len() > 1000 {
        return Err(Fault::new(Code::ProgramLimitExceeded, "the text is longer than 1000 bytes"));
    }
    let mut digits = String::with_capacity(1 + 3 * text.len());
    digits.push('1');
    for byte in text.bytes() {
        digits.push_str(&format!("{byte:03}"));
    }
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds() {
        assert!(text_key(&"x".repeat(1001)).is_err());
    }

    proptest! {
        #[test]
        fn different_texts_have_different_numbers(a in ".{0,20}", b in ".{0,20}") {
            prop_assert_eq!(text_key(&a).unwrap() == text_key(&b).unwrap(), a == b);
        }
    }
}
