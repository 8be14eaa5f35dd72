//! Names and descriptions that every client of agentskills.io takes.

/// Longest name, in characters (agentskills.io).
pub const MAX_NAME: usize = 64;
/// Longest description, in characters (agentskills.io).
pub const MAX_DESCRIPTION: usize = 1024;
/// Longest compatibility, in characters (agentskills.io).
pub const MAX_COMPATIBILITY: usize = 500;

/// A name as every client takes it: the specification's rule in ASCII.
pub fn is_slug(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|b| word(b) || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// A discovery index can say it.
pub fn fits(name: &str, description: &str) -> bool {
    is_slug(name) && !description.trim().is_empty() && description.chars().count() <= MAX_DESCRIPTION
}
