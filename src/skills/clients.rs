//! The skills-runtime-sdk face (seed 4).
