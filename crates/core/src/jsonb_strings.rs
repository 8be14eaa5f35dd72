//! Strings in PostgreSQL's binary `jsonb`: alone, or in an array.

use crate::interrupt;
use crate::jsonb::{ARRAY, COUNT, Entries, SCALAR, u32_at};

/// Why a value is not an array of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StringsError {
    /// It is something else.
    NotAnArray,
    /// The first element that is not a string, counted from 1.
    NotAString(usize),
}

/// The elements of an array of strings. `Err` carries the strings that could be
/// read and why the value is not such an array.
pub fn strings(root: &[u8]) -> Result<Vec<&str>, (Vec<String>, StringsError)> {
    let header = u32_at(root, 0).unwrap_or_default();
    if header & ARRAY == 0 || header & SCALAR != 0 {
        return Err((Vec::new(), StringsError::NotAnArray));
    }
    let count = (header & COUNT) as usize;
    let mut entries = Entries::of_array(root, count);
    let (mut found, mut reason) = (Vec::new(), None);
    for i in interrupt::each(0..count) {
        match entries.string() {
            Some(text) => found.push(text),
            None => {
                reason.get_or_insert(StringsError::NotAString(i + 1));
            }
        }
    }
    match reason {
        None => Ok(found),
        Some(reason) => Err((found.into_iter().map(str::to_owned).collect(), reason)),
    }
}

/// The text of a value that is one string.
pub fn text(root: &[u8]) -> Option<&str> {
    let is_scalar = u32_at(root, 0).unwrap_or_default() & SCALAR != 0;
    // The server keeps it as an array with one element.
    is_scalar.then(|| Entries::of_array(root, 1).string()).flatten()
}
