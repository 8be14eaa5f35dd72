//! SKILL.md in and out.
