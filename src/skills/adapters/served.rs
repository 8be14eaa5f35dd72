//! The skills that a client is shown: the enabled ones of a namespace, and with a policy only those that it allows.

use std::collections::HashMap;

use skill_core::Fault;
use skill_pg::Row;

use crate::skills::effects::decide;
use crate::skills::model::declared_effects;

/// A policy's decision on each list of effects, taken once.
pub struct Filter<'a> {
    policy_name: Option<&'a str>,
    decided: HashMap<Option<Vec<String>>, bool>,
}

impl<'a> Filter<'a> {
    pub fn new(policy_name: Option<&'a str>) -> Self {
        Filter { policy_name, decided: HashMap::new() }
    }

    /// Of a row of [`SELECT`].
    pub fn allows(&mut self, row: &Row) -> Result<bool, Fault> {
        let Some(policy_name) = self.policy_name else {
            return Ok(true);
        };
        let effects = declared_effects(row.get(3));
        if let Some(known) = self.decided.get(&effects) {
            return Ok(*known);
        }
        let allowed = decide(policy_name, effects.as_deref())?.0.allowed;
        self.decided.insert(effects, allowed);
        Ok(allowed)
    }
}

/// The enabled skills of namespace $1: name, description, effects, then `columns`.
pub const SELECT: &str = "SELECT h.skill_name, h.description, h.effects ";
/// Follows the columns; `h` is the skill, `v` its version.
pub const FROM: &str = " FROM skill_system.skill_heads h \
     JOIN skill_system.skill_versions v ON v.tenant_id = h.tenant_id AND v.id = h.current_version_id \
     WHERE h.tenant_id = skill_system.current_tenant() AND h.namespace = $1 AND h.deleted_at IS NULL AND h.enabled ";
