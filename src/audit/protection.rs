//! What protects the audit trail, as the catalogue has it now: is it all there, and what is it exactly.
//!
//! `problems()` compares with what this library ships; it needs no preload and believes nothing that is stored in the
//! database. `fingerprint()` writes the same state down, so that a change and its taking back both leave a trace in the log.
//! Audit tables are all tables of the schema named audit_...; their rows are the business of `audit.rs`.

use skill_pg::{Arg, Oid, arg, sys};
use skill_pg::spi::{self, As, See};
use crate::{compat};
use std::cell::RefCell;
use std::collections::BTreeMap;

use pgrx::iter::TableIterator;
use serde_json::Value;
use sha2::{Digest, Sha256};
use skill_core::audit::shipped;


/// The install script, in parts.
const SCRIPTS: &[&str] = include!(concat!(env!("OUT_DIR"), "/install_scripts.rs"));

/// What the scripts declare, as parameters of the checks.
fn shipped() -> [Arg; 2] {
    let mut all = shipped::Shipped::default();
    for script in SCRIPTS {
        let part = shipped::read(script);
        all.functions.extend(part.functions);
        all.columns.extend(part.columns);
    }
    let list = |value| arg(pgrx::JsonB(serde_json::to_value(value).unwrap_or(Value::Null)));
    let functions = all.functions.iter().map(|f| serde_json::json!(f)).collect::<Vec<_>>();
    let columns = all.columns.iter().map(|c| serde_json::json!(c)).collect::<Vec<_>>();
    [list(functions), list(columns)]
}

/// Something that is not as it should be.
pub struct Problem {
    /// The table, where it is about one.
    pub table: Option<Oid>,
    /// What is wrong with it, or on the whole.
    pub detail: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.table.and_then(sys::relation_name) {
            Some(table) => write!(f, "{table}: {}", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

/// What is wrong with the protection.
pub fn problems() -> Vec<Problem> {
    let mut found = Vec::new();
    spi::with_plain_text(|| {
        compat::run(PROBLEMS, As::Caller, See::Statement, &shipped(), |row| {
            found.push(Problem { table: row.get(1), detail: row.get(2) })
        });
    });
    found
}

/// The numbers are those of the attacks in the list that the tests follow.
const PROBLEMS: &str = r#"
WITH
space AS (SELECT oid, nspowner FROM pg_namespace WHERE nspname = 'skill_system'),
extension AS (SELECT oid, extowner FROM pg_extension WHERE extname = 'skill_system'),
shipped_function AS (SELECT * FROM jsonb_to_recordset($1) AS f(name text, language text, symbol text, pinned boolean, strict boolean)),
shipped_column AS (SELECT * FROM jsonb_to_recordset($2) AS c(relation text, name text, kind text, not_null boolean)),
log AS (SELECT to_regclass('skill_system.audit_logs')::oid AS oid),
audit_table AS (
    -- By name, and what was attached, whatever its name.
    SELECT c.*, EXISTS (SELECT FROM pg_inherits i, log WHERE i.inhrelid = c.oid AND i.inhparent = log.oid AND NOT i.inhdetachpending) AS attached
    FROM pg_class c
    WHERE c.relkind IN ('r', 'p', 'f')
        AND (c.relnamespace = (SELECT oid FROM space) AND c.relname LIKE 'audit\_%'
             OR c.oid IN (SELECT i.inhrelid FROM pg_inherits i, log WHERE i.inhparent = log.oid))),
audit_trigger AS (
    SELECT t.*, p.proname, p.pronamespace = (SELECT oid FROM space) AS ours, p.pronamespace = 'pg_catalog'::regnamespace AS system,
           t.tgqual IS NULL AND t.tgattr::text = '' AND t.tgnargs = 0 AS always
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid IN (SELECT oid FROM audit_table)),
-- 4, 5, 9: each table refuses changes, the log and its partitions also sign, and session_replication_role does not matter.
-- tgtype: 1 row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate.
wanted AS (
    SELECT * FROM (VALUES ('sign_audit_row', 1+2+4, 'signs new rows', true), ('refuse_change', 1+2+8+16, 'refuses UPDATE and DELETE', false),
                          ('refuse_change', 2+32, 'refuses TRUNCATE', false)) AS w(function, type, what, log_only)),
function AS (
    SELECT p.*, l.lanname, pg_get_userbyid(p.proowner) AS owner,
           p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS signature,
           EXISTS (SELECT FROM shipped_function s WHERE s.name = p.proname) AS known,
           EXISTS (SELECT FROM shipped_function s WHERE s.name = p.proname AND s.language = l.lanname AND s.strict = p.proisstrict AND NOT p.prosecdef
                       AND p.proconfig IS NOT DISTINCT FROM CASE WHEN s.pinned THEN ARRAY['search_path=pg_catalog, pg_temp'] END
                       AND CASE WHEN s.language = 'c' THEN p.probin = '$libdir/skill_system' AND p.prosrc = s.symbol ELSE p.probin IS NULL END) AS same
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = (SELECT oid FROM space))

SELECT a.oid, format('no ENABLE ALWAYS trigger %s', w.what) FROM audit_table a, wanted w
WHERE (NOT w.log_only OR a.attached OR a.oid = (SELECT oid FROM log))
    AND NOT EXISTS (SELECT FROM audit_trigger t WHERE t.tgrelid = a.oid AND t.ours AND t.proname = w.function AND t.tgtype = w.type AND t.always AND t.tgenabled = 'A')
-- 12: another trigger may change a row after it was signed, or swallow it.
UNION ALL
SELECT t.tgrelid, format('trigger %s, which calls %s, does not belong here', t.tgname, t.tgfoid::regprocedure) FROM audit_trigger t
WHERE NOT (t.ours AND t.proname = 'refuse_change' OR t.ours AND t.proname = 'sign_audit_row' AND t.tgtype = 1+2+4
           OR t.tgisinternal AND t.system AND t.proname LIKE 'RI\_FKey\_%')
-- 11: a rule may swallow new rows.
UNION ALL
SELECT a.oid, format('rule %s does not belong here', r.rulename) FROM audit_table a JOIN pg_rewrite r ON r.ev_class = a.oid
-- 7, 10: columns added, dropped, renamed, of another type, nullable; a table that is gone, or made by somebody else.
UNION ALL
SELECT NULL, format('table %s is missing', s.relation) FROM (SELECT DISTINCT relation FROM shipped_column) s
WHERE NOT EXISTS (SELECT FROM audit_table a WHERE a.relname = s.relation AND a.relnamespace = (SELECT oid FROM space))
UNION ALL
SELECT a.oid, 'the extension ships no such table' FROM audit_table a
WHERE NOT a.attached AND a.relname NOT IN (SELECT relation FROM shipped_column) AND a.relname NOT LIKE 'audit\_logs\_%'
UNION ALL
SELECT a.oid, 'it is no ordinary table' FROM audit_table a WHERE a.relkind <> CASE WHEN a.oid = (SELECT oid FROM log) THEN 'p' ELSE 'r' END
UNION ALL
SELECT x.oid, CASE WHEN x.kind IS NULL THEN format('column %s does not belong here', x.attname) WHEN x.attname IS NULL THEN format('column %s is missing', x.name)
                   WHEN x.kind <> x.actual THEN format('column %s is of type %s, not %s', x.name, x.actual, x.kind) ELSE format('column %s may be NULL', x.name) END
FROM (SELECT coalesce(a.oid, w.oid) AS oid, w.name, w.kind, w.not_null, a.attname, a.attnotnull, a.actual
      FROM (SELECT t.oid, s.* FROM audit_table t JOIN shipped_column s ON s.relation = CASE WHEN t.attached THEN 'audit_logs' ELSE t.relname END) w
      FULL JOIN (SELECT t.oid, a.attname, a.attnotnull, format_type(a.atttypid, a.atttypmod) AS actual FROM audit_table t JOIN pg_attribute a ON a.attrelid = t.oid
                 WHERE a.attnum > 0 AND NOT a.attisdropped AND (t.attached OR t.relname IN (SELECT relation FROM shipped_column))) a
          ON a.oid = w.oid AND a.attname = w.name) x
WHERE x.kind IS NULL OR x.attname IS NULL OR x.kind <> x.actual OR x.not_null AND NOT x.attnotnull
-- 8: a crash empties an unlogged table; records in a detached partition are out of sight, and foreign children lend false ones.
UNION ALL
SELECT a.oid, 'it is not logged, so a crash empties it' FROM audit_table a WHERE a.relpersistence <> 'p'
UNION ALL
SELECT a.oid, 'it is detached from audit_logs, so its records are out of sight' FROM audit_table a
WHERE a.relnamespace = (SELECT oid FROM space) AND a.relname LIKE 'audit\_logs\_%' AND NOT a.attached
UNION ALL
SELECT a.oid, 'it is no partition of this extension' FROM audit_table a
WHERE a.attached AND (a.relnamespace <> (SELECT oid FROM space) OR a.relname !~ '^audit_logs_(default|\d{4,}_\d\d)$')
UNION ALL
SELECT log.oid, 'it has no default partition, so records may find no place' FROM log
WHERE log.oid IS NOT NULL AND NOT EXISTS (SELECT FROM audit_table a WHERE a.attached AND pg_get_expr(a.relpartbound, a.oid) = 'DEFAULT')
UNION ALL
SELECT i.inhparent, format('table %s is its child', i.inhrelid::regclass) FROM pg_inherits i JOIN audit_table a ON a.oid = i.inhparent WHERE i.inhparent <> (SELECT oid FROM log)
UNION ALL
SELECT i.inhrelid, format('it is a child of %s', i.inhparent::regclass) FROM pg_inherits i JOIN audit_table a ON a.oid = i.inhrelid WHERE i.inhparent <> (SELECT oid FROM log)
-- 21: an index that is not valid is not used by the planner, or is used without being complete.
UNION ALL
SELECT a.oid, format('index %s is not valid', i.indexrelid::regclass) FROM audit_table a JOIN pg_index i ON i.indrelid = a.oid
WHERE NOT (i.indisvalid AND i.indisready AND i.indislive)
UNION ALL
SELECT a.oid, 'it has no primary key' FROM audit_table a
WHERE a.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.oid AND i.indisprimary AND i.indisunique AND i.indimmediate)
-- 34: row security off shows tenants each other's rows; forced, restrictive or without the
-- auditors' policy it hides rows from those who verify; an expression in a policy runs with the rights of whoever reads.
UNION ALL
SELECT a.oid, 'row security is off' FROM audit_table a WHERE a.relkind IN ('r', 'p') AND NOT a.relrowsecurity
UNION ALL
SELECT a.oid, 'row security is forced on its owner' FROM audit_table a WHERE a.relforcerowsecurity
UNION ALL
SELECT a.oid, format('policy %s does not belong here', p.polname) FROM audit_table a JOIN pg_policy p ON p.polrelid = a.oid
WHERE NOT p.polpermissive
    OR NOT (p.polname = 'auditor' AND p.polcmd = 'r' AND pg_get_expr(p.polqual, p.polrelid) = 'true'
            OR (a.oid = (SELECT oid FROM log) OR a.relname = 'audit_kept') AND p.polname = 'tenant' AND p.polcmd = 'r'
            OR a.oid = (SELECT oid FROM log) AND p.polname = 'append' AND p.polcmd = 'a' AND pg_get_expr(p.polwithcheck, p.polrelid) = 'true')
UNION ALL
SELECT a.oid, 'no policy shows all its rows to auditors' FROM audit_table a
WHERE a.relkind IN ('r', 'p') AND a.relrowsecurity
    AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = a.oid AND p.polpermissive AND p.polcmd IN ('r', '*')
                        AND to_regrole('skill_system_auditor')::oid = ANY (p.polroles) AND pg_get_expr(p.polqual, p.polrelid) = 'true')
-- 10, 33: whoever owns a part can change it.
UNION ALL
SELECT a.oid, format('it belongs to %s, and the extension to %s', pg_get_userbyid(a.relowner), pg_get_userbyid(e.extowner)) FROM audit_table a, extension e WHERE a.relowner <> e.extowner
UNION ALL
SELECT NULL, format('schema skill_system belongs to %s, and the extension to %s', pg_get_userbyid(s.nspowner), pg_get_userbyid(e.extowner)) FROM space s, extension e WHERE s.nspowner <> e.extowner
UNION ALL
SELECT NULL, format('function %s belongs to %s, and the extension to %s', f.signature, f.owner, pg_get_userbyid(e.extowner)) FROM function f, extension e WHERE f.proowner <> e.extowner
-- 29, 32: functions replaced, altered, dropped, out of the extension, or put beside ours.
UNION ALL
SELECT NULL, format('function %s is not as the extension ships it', f.signature) FROM function f WHERE f.known AND NOT f.same
UNION ALL
SELECT NULL, format('function %s is none of the extension''s', f.signature) FROM function f WHERE NOT f.known
UNION ALL
SELECT NULL, format('of function %s there are %s, not %s', s.name, s.actual, s.wanted)
FROM (SELECT name, count(*) AS wanted, (SELECT count(*) FROM function f WHERE f.proname = name) AS actual FROM shipped_function GROUP BY name) s WHERE s.actual <> s.wanted
UNION ALL
SELECT NULL, format('function %s does not belong to the extension any more', f.signature) FROM function f, extension e
WHERE f.known AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e')
UNION ALL
SELECT NULL, 'the extension is not there' WHERE NOT EXISTS (SELECT FROM extension)
ORDER BY 1 NULLS LAST, 2"#;

thread_local! {
    /// The last fingerprint, and the versions of the catalogue rows it was made of.
    static LAST: RefCell<Option<(String, Value, [u8; 32])>> = const { RefCell::new(None) };
}

/// The state of the protection as a JSON object from item to state, and the SHA-256 of its text: keys sorted by their
/// bytes, no white space. The same before and after dump and restore. Cheap while nothing changes: then only
/// the versions of the catalogue rows are looked at, which tell also of DML on catalogues that sends no invalidation.
pub fn fingerprint() -> (Value, [u8; 32]) {
    let versions: String = spi::one(VERSIONS, As::Caller, See::Latest, &[]).unwrap_or_default();
    let roles_same = cache::roles_unchanged();
    if let Some(last) = LAST.with_borrow(|last| {
        last.as_ref().filter(|last| roles_same && last.0 == versions).map(|last| (last.1.clone(), last.2))
    }) {
        return last;
    }
    let state: BTreeMap<String, String> = items().into_iter().collect();
    let text = serde_json::to_vec(&state).unwrap_or_default();
    let hash: [u8; 32] = Sha256::digest(&text).into();
    let value = serde_json::json!(state);
    LAST.set(Some((versions, value.clone(), hash)));
    (value, hash)
}

fn items() -> Vec<(String, String)> {
    let mut found = vec![(
        "library".to_owned(),
        format!("{}, {}", env!("CARGO_PKG_VERSION"), if utility::installed() { "preloaded" } else { "not preloaded" }),
    )];
    spi::with_plain_text(|| {
        compat::run(STATE, As::Caller, See::Latest, &[], |row| {
            found.push((row.get(1), row.get(2)))
        });
    });
    found
}

#[pg_extern(sql = false)]
fn audit_fingerprint() -> TableIterator<'static, (name!(item, String), name!(state, String))> {
    let items = match fingerprint().0 {
        Value::Object(items) => items,
        _ => serde_json::Map::new(),
    };
    TableIterator::new(items.into_iter().map(|(item, state)| (item, state.as_str().unwrap_or_default().to_owned())))
}

/// Every catalogue row that `STATE` is made of has a version: where it lies and who wrote it. (What roles are called is
/// watched by `cache.rs`.)
const VERSIONS: &str = r#"
WITH space AS MATERIALIZED (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system'),
-- As LIKE 'audit\_%', for the index.
named AS MATERIALIZED (SELECT oid, relkind, ctid, xmin FROM pg_class WHERE relname >= 'audit_' AND relname < 'audit`' AND relnamespace = (SELECT oid FROM space)),
audit_table AS MATERIALIZED (
    SELECT oid FROM named WHERE relkind IN ('r', 'p', 'f')
    UNION SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('skill_system.audit_logs'))
SELECT md5(string_agg(int4send(n) || v, '')) FROM (
    SELECT 1 AS n, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) AS v FROM pg_namespace WHERE oid = (SELECT oid FROM space)
    UNION ALL SELECT 2, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM pg_extension WHERE extname = 'skill_system'
    UNION ALL SELECT 3, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM named
    UNION ALL SELECT 4, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent IN (SELECT oid FROM audit_table)
    UNION ALL SELECT 5, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM audit_table a JOIN pg_attribute c ON c.attrelid = a.oid AND c.attnum > 0
    UNION ALL SELECT 6, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM audit_table a JOIN pg_attrdef c ON c.adrelid = a.oid
    UNION ALL SELECT 7, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM audit_table a JOIN pg_trigger c ON c.tgrelid = a.oid
    UNION ALL SELECT 8, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM audit_table a JOIN pg_rewrite c ON c.ev_class = a.oid
    UNION ALL SELECT 9, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM audit_table a JOIN pg_policy c ON c.polrelid = a.oid
    UNION ALL SELECT 10, string_agg(tidsend(c.ctid) || xidsend(c.xmin) || tidsend(x.ctid) || xidsend(x.xmin), '' ORDER BY c.ctid)
              FROM audit_table a JOIN pg_index c ON c.indrelid = a.oid JOIN pg_class x ON x.oid = c.indexrelid
    UNION ALL SELECT 11, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM audit_table a JOIN pg_constraint c ON c.conrelid = a.oid
    UNION ALL SELECT 12, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM pg_inherits
              WHERE inhrelid IN (SELECT oid FROM audit_table) OR inhparent IN (SELECT oid FROM audit_table)
    UNION ALL SELECT 13, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM pg_proc WHERE pronamespace = (SELECT oid FROM space)
    UNION ALL SELECT 14, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM pg_depend
              WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'skill_system') AND deptype = 'e'
    UNION ALL SELECT 15, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM pg_db_role_setting
) AS versions"#;

/// Item and state, without oids, in an order that the reader sets.
const STATE: &str = r#"
WITH space AS (SELECT * FROM pg_namespace WHERE nspname = 'skill_system'),
member AS (
    SELECT d.classid, d.objid FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
    WHERE e.extname = 'skill_system'),
audit_table AS (
    SELECT c.*, format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f')
        AND (c.relnamespace = (SELECT oid FROM space) AND c.relname LIKE 'audit\_%'
             OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('skill_system.audit_logs'))))
SELECT 'extension', format('version %s, owner %s', extversion, pg_get_userbyid(extowner)) FROM pg_extension WHERE extname = 'skill_system'
UNION ALL
SELECT 'schema', format('owner %s, rights %s', pg_get_userbyid(nspowner), (SELECT string_agg(r::text, ' ' ORDER BY r::text COLLATE "C") FROM unnest(coalesce(nspacl, acldefault('n', nspowner))) r)) FROM space
UNION ALL
SELECT 'table ' || a.name,
       format('%skind %s, persistence %s, owner %s, row security %s%s, options %s, rights %s, child of %s %s',
              CASE WHEN ('pg_class'::regclass, a.oid) IN (SELECT * FROM member) THEN 'member, ' END, a.relkind, a.relpersistence, pg_get_userbyid(a.relowner),
              a.relrowsecurity, CASE WHEN a.relforcerowsecurity THEN ' forced' END, a.reloptions,
              (SELECT string_agg(r::text, ' ' ORDER BY r::text COLLATE "C") FROM unnest(coalesce(a.relacl, acldefault('r', a.relowner))) r),
              (SELECT string_agg(i.inhparent::regclass || CASE WHEN i.inhdetachpending THEN ' (leaving)' ELSE '' END, ', ' ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = a.oid),
              pg_get_expr(a.relpartbound, a.oid))
FROM audit_table a
UNION ALL
SELECT 'columns ' || a.name,
       (SELECT string_agg(format('%s %s%s%s%s', b.attname, format_type(b.atttypid, b.atttypmod), CASE WHEN b.attnotnull THEN ' not null' END, ' default ' || pg_get_expr(d.adbin, d.adrelid),
                                 ' rights ' || (SELECT string_agg(r::text, ' ' ORDER BY r::text COLLATE "C") FROM unnest(b.attacl) r)), ', ' ORDER BY b.attnum)
        FROM pg_attribute b LEFT JOIN pg_attrdef d ON d.adrelid = b.attrelid AND d.adnum = b.attnum WHERE b.attrelid = a.oid AND b.attnum > 0 AND NOT b.attisdropped)
FROM audit_table a
UNION ALL
SELECT format('trigger %s.%I', a.name, t.tgname), format('%s %s', t.tgenabled, pg_get_triggerdef(t.oid)) FROM audit_table a JOIN pg_trigger t ON t.tgrelid = a.oid WHERE NOT t.tgisinternal
UNION ALL
-- Their names hold oids.
SELECT 'internal triggers ' || a.name, string_agg(format('%s %s %s', t.tgenabled, t.tgtype, t.tgfoid::regproc), ', ' ORDER BY t.tgfoid::regproc::text COLLATE "C", t.tgtype, t.tgenabled)
FROM audit_table a JOIN pg_trigger t ON t.tgrelid = a.oid WHERE t.tgisinternal GROUP BY a.name
UNION ALL
SELECT format('rule %s.%I', a.name, r.rulename), format('%s %s', r.ev_enabled, pg_get_ruledef(r.oid)) FROM audit_table a JOIN pg_rewrite r ON r.ev_class = a.oid
UNION ALL
SELECT format('policy %s.%I', a.name, p.polname),
       format('%s, %s, to %s, using %s, check %s', CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, p.polcmd,
              (SELECT string_agg(CASE WHEN r = 0 THEN 'public' ELSE pg_get_userbyid(r) END, ' ' ORDER BY pg_get_userbyid(r) COLLATE "C") FROM unnest(p.polroles) r),
              pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
FROM audit_table a JOIN pg_policy p ON p.polrelid = a.oid
UNION ALL
SELECT 'index ' || i.indexrelid::regclass, format('%s%s', pg_get_indexdef(i.indexrelid), CASE WHEN NOT (i.indisvalid AND i.indisready AND i.indislive) THEN ' not valid' END)
FROM audit_table a JOIN pg_index i ON i.indrelid = a.oid
UNION ALL
SELECT format('constraint %s.%I', a.name, k.conname), format('%s%s', pg_get_constraintdef(k.oid), CASE WHEN NOT k.convalidated THEN ' not valid' END)
FROM audit_table a JOIN pg_constraint k ON k.conrelid = a.oid WHERE k.contype <> 'n'
UNION ALL
SELECT 'children ' || a.name, string_agg(i.inhrelid::regclass::text, ', ' ORDER BY i.inhrelid::regclass::text COLLATE "C") FROM audit_table a JOIN pg_inherits i ON i.inhparent = a.oid GROUP BY a.name
UNION ALL
SELECT 'function ' || p.oid::regprocedure,
       format('%sowner %s, rights %s, %s, definition %s', CASE WHEN ('pg_proc'::regclass, p.oid) IN (SELECT * FROM member) THEN 'member, ' END, pg_get_userbyid(p.proowner),
              (SELECT string_agg(r::text, ' ' ORDER BY r::text COLLATE "C") FROM unnest(coalesce(p.proacl, acldefault('f', p.proowner))) r),
              CASE WHEN p.probin IS NULL THEN l.lanname ELSE format('%s %s %s', l.lanname, p.probin, p.prosrc) END,
              CASE WHEN p.prokind IN ('f', 'p') THEN left(encode(sha256(convert_to(pg_get_functiondef(p.oid), 'UTF8')), 'hex'), 32) ELSE p.prokind::text END)
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = (SELECT oid FROM space)
UNION ALL
SELECT format('setting of %s in %s', coalesce(quote_ident(r.rolname), 'everybody'), CASE WHEN c.setdatabase = 0 THEN 'every database' ELSE 'this database' END), s.value
FROM pg_db_role_setting c LEFT JOIN pg_roles r ON r.oid = c.setrole, unnest(c.setconfig) AS s(value)
WHERE s.value LIKE 'skill\_system.allow\_unprotected=%' AND c.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"#;
