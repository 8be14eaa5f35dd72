//! Agents: their definition and their row in `agents`, and which skills they name.

use const_format::concatcp;
use skill_core::error::shorten;
use skill_core::jsonb_strings;
use skill_core::skills::agents::Agent;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{FromRow, Jsonb, Row, arg};

/// Agents with what their definition and their row in `agents` tell; an agent is active when neither denies it.
const SELECT: &str = "SELECT coalesce(d.agent_key, a.id)::text, d.root_skill_key::text, d.persona_key::text, d.loaded_skills, \
         nullif(a.config->'skills', 'null'), coalesce(d.is_active, true) AND coalesce(a.status = 'active', true) \
     FROM (SELECT * FROM skill_system.agent_definitions WHERE tenant_id = (SELECT skill_system.current_tenant())";
const JOIN: &str =
    ") d FULL JOIN (SELECT * FROM skill_system.agents WHERE tenant_id = (SELECT skill_system.current_tenant())";
const ORDER: &str = ") a ON a.id::text = d.agent_key::text ORDER BY coalesce(d.agent_key, a.id)::text COLLATE \"C\"";

/// An agent, and whether it is active.
struct AgentRow(Agent, bool);

impl FromRow<'_> for AgentRow {
    fn from_row(row: &Row<'_>) -> Self {
        let (key, root_skill_key, persona_key, loaded, config, is_active): (
            _,
            _,
            _,
            Option<Vec<Option<&str>>>,
            Option<Jsonb>,
            _,
        ) = row.read();
        let loaded = loaded.unwrap_or_default();
        let (config_skills, unreadable) = match config.map(|Jsonb(config)| jsonb_strings::strings(config)) {
            None => (Vec::new(), false),
            Some(Ok(skills)) => (skills.into_iter().map(str::to_owned).collect(), false),
            Some(Err((skills, _))) => (skills, true),
        };
        let agent = Agent {
            key,
            root_skill_key,
            persona_key,
            unreadable: unreadable || loaded.contains(&None),
            loaded_skills: loaded.into_iter().flatten().map(str::to_owned).collect(),
            config_skills,
        };
        AgentRow(agent, is_active)
    }
}

/// An active agent by its key.
pub fn find(key: &str) -> Result<Agent, Fault> {
    const SQL: &str = concatcp!(SELECT, " AND agent_key = $1", JOIN, " AND id = $1", ORDER);
    match spi::first(SQL, As::Caller, See::Statement, &[arg(key)]) {
        Some(AgentRow(agent, true)) => Ok(agent),
        Some(AgentRow(_, false)) => {
            Err(Fault::new(Code::NotInPrerequisiteState, format!("agent \"{}\" is not active", shorten(key))).hint(
                "SELECT agent_key, is_active FROM skill_system.agent_definitions; SELECT id, status FROM skill_system.agents;",
            ))
        }
        None => Err(Fault::new(Code::UndefinedObject, format!("agent \"{}\" does not exist", shorten(key)))
            .hint("SELECT agent_key FROM skill_system.agent_definitions; SELECT id FROM skill_system.agents;")),
    }
}

/// All active agents.
pub fn active() -> Vec<Agent> {
    const SQL: &str = concatcp!(SELECT, JOIN, ORDER);
    let agents = spi::collect(SQL, As::Caller, See::Statement, &[]);
    agents.into_iter().filter_map(|AgentRow(agent, active)| active.then_some(agent)).collect()
}
