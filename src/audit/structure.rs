//! What the extension consists of: every part that the install script creates, compared with the catalogue.
//!
//! `structure.tsv` is what `structure.sql` finds in a new database; a test writes it. It holds no oids and nothing that differs
//! between versions of the server.

use const_format::concatcp;
use skill_core::runs::legacy::MAX_IMPORTED_ID;
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Arg, arg};

const DIFFERENCE: &str = concatcp!(
    "WITH wanted AS (SELECT split_part(line, E'\\t', 1) AS kind, split_part(line, E'\\t', 2) AS relation, \
         split_part(line, E'\\t', 3) AS name, split_part(line, E'\\t', 4) AS state \
         FROM string_to_table($1, E'\\n') AS line WHERE line <> ''), actual AS (",
    include_str!("structure.sql"),
    ")",
    include_str!("structure_difference.sql")
);

fn wanted() -> Arg<'static> {
    arg(include_str!("structure.tsv"))
}

/// What is missing, changed or does not belong there, in words.
pub fn problems() -> Vec<String> {
    const SQL: &str = concatcp!(DIFFERENCE, include_str!("structure_problems.sql"));
    spi::collect(SQL, As::Caller, See::Statement, &[wanted()])
}

/// Functions that somebody created under the name of a renamed one, which is the same but for its name; and what drops them.
pub fn impostors() -> Vec<(String, String)> {
    const SQL: &str = concatcp!(
        DIFFERENCE,
        "SELECT format('function %s', a.name), format('DROP FUNCTION skill_system.%s', a.name) \
         FROM actual a JOIN wanted w USING (kind, name) JOIN relevant r ON r.kind = a.kind AND r.wanted IS NULL AND r.actual = a.state \
         JOIN pg_proc p ON p.pronamespace = to_regnamespace('skill_system') \
             AND format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)) = a.name \
         WHERE a.kind = 'function' AND NOT EXISTS (SELECT FROM pg_depend d \
             WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')"
    );
    spi::collect(SQL, As::Caller, See::Latest, &[wanted()])
}

/// What was renamed, and the statements that rename it back. Objects come before their parts.
pub fn renames() -> Vec<(String, String)> {
    const SQL: &str = concatcp!(DIFFERENCE, include_str!("structure_renames.sql"));
    spi::collect(SQL, As::Caller, See::Latest, &[wanted()])
}

/// What can be brought back or dropped by one statement, and this statement.
pub fn repairs() -> Vec<(String, String)> {
    const SQL: &str = concatcp!(DIFFERENCE, include_str!("structure_repair.sql"));
    spi::collect(SQL, As::Caller, See::Latest, &[wanted()])
}

/// Functions or views that are missing (true) or not as the script creates them; functions with their arguments.
pub fn to_create(kind: &str) -> Vec<(String, bool)> {
    const SQL: &str =
        concatcp!(DIFFERENCE, "SELECT name, actual IS NULL FROM relevant WHERE kind = $2 AND wanted IS NOT NULL");
    spi::collect(SQL, As::Caller, See::Latest, &[wanted(), arg(kind)])
}

/// Functions of the schema that the script does not create, and whether they are in the extension.
pub fn surplus_functions() -> Vec<(String, bool)> {
    const SQL: &str = concatcp!(
        DIFFERENCE,
        "SELECT r.name, EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e') \
         FROM relevant r JOIN pg_proc p ON p.pronamespace = to_regnamespace('skill_system') \
             AND format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)) = r.name \
         WHERE r.kind = 'function' AND r.wanted IS NULL"
    );
    spi::collect(SQL, As::Caller, See::Latest, &[wanted()])
}

/// Tables whose rows a sequence numbers, the column and the sequence: what has nextval() as default.
fn numbered() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    include_str!("structure.tsv").lines().filter_map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let ["default", table, column, value] = fields[..] else { return None };
        let sequence = value.strip_prefix("nextval('skill_system.")?.strip_suffix("'::regclass)")?;
        Some((table, column, sequence))
    })
}

/// Sequences that would give numbers that rows have, and the statements that set them forward.
pub fn late_sequences() -> Vec<(String, String)> {
    let late = |(table, column, sequence)| {
        // One step for each tenant, by the key. What is higher was numbered by hand.
        let sql = format!(
            "WITH RECURSIVE t(tenant) AS ( \
                 SELECT min(tenant_id) FROM skill_system.{table} \
                 UNION ALL SELECT (SELECT min(tenant_id) FROM skill_system.{table} x WHERE x.tenant_id > t.tenant) FROM t \
                 WHERE t.tenant IS NOT NULL), \
             top(id) AS (SELECT max((SELECT max({column}) FROM skill_system.{table} x \
                 WHERE x.tenant_id = t.tenant AND x.{column} <= {MAX_IMPORTED_ID})) FROM t) \
             SELECT 'sequence {sequence}', format('SELECT setval(%L, %s)', 'skill_system.{sequence}', id) \
             FROM top WHERE id > coalesce(pg_sequence_last_value('skill_system.{sequence}'), 0)"
        );
        spi::first::<(String, String)>(Once(&sql), As::Owner, See::Latest, &[])
    };
    numbered().filter_map(late).collect()
}
