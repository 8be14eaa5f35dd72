//! The AEGIS face (seed 1).
