//! The SkillStore face (seed 2).
