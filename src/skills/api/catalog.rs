//! The catalogue: what an agent is shown of the skills that it may load.

use const_format::concatcp;
use skill_core::input::invalid;
use skill_core::jsonb::{self, Found};
use skill_core::jsonb_strings;
use skill_core::policy::{MAX_EFFECTS, Policy};
use skill_core::skills::agents::{Agent, address, tokens};
use skill_pg::error::check_for_interrupts;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Jsonb, Row, RowSet, Uuid, arg, pg_function};

use crate::policy;
use crate::skills::agents;

/// A row of the catalogue's statement. Its columns are read when they are needed: most of the rows are not shown.
struct Entry<'r> {
    row: &'r Row<'r>,
    namespace: &'r str,
    skill_name: &'r str,
}

impl<'r> Entry<'r> {
    const SELECT: &'static str = "SELECT h.id, h.namespace, h.skill_name, h.name::text, h.description, h.tier1_manifest, \
             h.domain_tags::text[], h.effects, h.current_version, h.context_mode::text \
         FROM skill_system.skill_heads h ";

    fn new(row: &'r Row<'r>) -> Self {
        Entry { row, namespace: row.get(2), skill_name: row.get(3) }
    }

    /// This policy allows all of its effects.
    fn is_allowed_by(&self, policy: &Policy) -> bool {
        let Some(effects) = self.row.get::<Option<Vec<Option<&str>>>>(8) else {
            return false;
        };
        effects.len() <= MAX_EFFECTS && !effects.contains(&None) && policy.allows(effects.into_iter().flatten())
    }

    /// Adds it to the answer, unless it would cost more than `budget`. Returns what it costs.
    fn push(&self, rows: &mut RowSet, budget: i64) -> Option<i64> {
        let row = self.row;
        let [name, description, triggers] = row
            .get::<Option<Jsonb>>(6)
            .map_or([None; 3], |Jsonb(tier1)| jsonb::find(tier1, ["name", "description", "triggers"]));
        let text = |found: Option<Found<'r>>| match found {
            Some(Found::Text(text)) => Some(text),
            _ => None,
        };
        let name = text(name).or_else(|| row.get(4)).unwrap_or(self.skill_name);
        let description = text(description).unwrap_or_else(|| row.get(5));
        let triggers = match triggers {
            Some(Found::Container(array)) => jsonb_strings::strings(array).unwrap_or_default(),
            _ => Vec::new(),
        };
        let id = uuid::Uuid::from_bytes(*row.get::<Uuid>(1).as_bytes());
        let address = address(self.namespace, self.skill_name, &id);
        let tags = row.get::<Vec<Option<&str>>>(7);
        let bytes = name.len()
            + description.len()
            + address.len()
            + triggers.iter().map(|trigger| trigger.len()).sum::<usize>()
            + tags.into_iter().flatten().map(str::len).sum::<usize>();
        let estimate = tokens(bytes);
        if i64::from(estimate) > budget {
            return None;
        }
        rows.push(&[
            row.get(1),
            arg(name),
            arg(description),
            arg(triggers),
            row.get(7),
            arg(estimate),
            arg(&address),
            row.get(9),
            row.get(10),
        ]);
        Some(estimate.into())
    }
}

/// Adds entries until the budget is used up.
fn fill<'r>(entries: impl Iterator<Item = Entry<'r>>, policy: Option<&Policy>, budget: i64, rows: &mut RowSet) {
    let mut left = budget;
    for (i, entry) in entries.filter(|entry| policy.is_none_or(|policy| entry.is_allowed_by(policy))).enumerate() {
        if i % 1000 == 999 {
            check_for_interrupts();
        }
        match entry.push(rows, left) {
            Some(cost) => left -= cost,
            None => break,
        }
    }
}

const VISIBLE: &str = "WHERE h.tenant_id = (SELECT skill_system.current_tenant()) AND h.enabled AND h.deleted_at IS NULL \
     AND ($1 IS NULL OR h.namespace = $1)";

pg_function!(skill_catalog);
fn skill_catalog(call: &Call) -> Answer {
    const ALL: &str = concatcp!(Entry::SELECT, VISIBLE);
    const NAMED: &str = concatcp!(
        Entry::SELECT,
        "JOIN unnest($2, $3) WITH ORDINALITY AS w(namespace, skill_name, place) \
             ON h.namespace = w.namespace AND h.skill_name = w.skill_name ",
        VISIBLE,
        " ORDER BY w.place"
    );
    let (agent, policy_name, max_tokens, namespace): (Option<&str>, Option<&str>, Option<i32>, Option<&str>) =
        call.arguments();
    let agent = agent.map(agents::find).transpose()?;
    let budget = match max_tokens {
        Some(given) if given < 0 => return Err(invalid("max_tokens must not be negative")),
        given => given.map_or(i64::MAX, i64::from),
    };
    let policy = policy_name.map(policy::load_valid).transpose()?;
    let policy = policy.as_ref().and_then(|compiled| compiled.as_ref().as_ref().ok());
    let mut rows = call.row_set();
    match agent.filter(Agent::is_restricted) {
        None => spi::with_rows(ALL, As::Caller, See::Statement, &[arg(namespace)], |found| {
            // Sorted here, which takes a fraction of the time that it takes there.
            let mut entries: Vec<Entry> = found.iter().map(Entry::new).collect();
            entries.sort_unstable_by(|a, b| (a.namespace, a.skill_name).cmp(&(b.namespace, b.skill_name)));
            fill(entries.into_iter(), policy, budget, &mut rows);
        }),
        Some(agent) => {
            let (namespaces, names): (Vec<&str>, Vec<&str>) = agent.skills().into_iter().unzip();
            let args = [arg(namespace), arg(namespaces), arg(names)];
            spi::with_rows(NAMED, As::Caller, See::Statement, &args, |found| {
                fill(found.iter().map(Entry::new), policy, budget, &mut rows);
            });
        }
    }
    Ok(rows.finish())
}
