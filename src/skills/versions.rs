//! Versions as a whole.
