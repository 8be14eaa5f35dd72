//! Legal holds, and the retirement of old partitions by two persons.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use pgrx::datum::IntoDatum;
use pgrx::pg_sys;
use skill_core::ledger::tree::{Appender, Hash, TILE_WIDTH};
use skill_core::{Code, Fault};

use super::adopt::{judge, rebuild};
use super::kept::{self, Kept, given_text};
use super::proof::{newest, nothing_sealed};
use super::state::{self, State};
use super::tiles::{ID, LeafFinder, StoredTiles, read_ids};
use crate::audit::{LEAF_HASH, PROBLEM};
use crate::pg::cache::{self, Opened};
use crate::pg::call::{Answer, Call, bytea_datum, text_datum};
use crate::pg::error::{OrRaise, check_for_interrupts, raise};
use crate::pg::spi::{self, Access, arg};
use crate::pg::sys;
use crate::pg_function;

/// No record is removed before this age: six months, EU AI Act, Art. 19(1) and 26(6).
const MIN_AGE_DAYS: i32 = 183;
/// How long the second person has.
const REQUEST_DAYS: i64 = 7;
const DAY: i64 = 86_400_000_000;

fn refused(message: impl Into<String>) -> Fault {
    Fault::new(Code::NotInPrerequisiteState, message)
}

/// A month of the audit trail.
struct Month {
    /// For people: `2026-01`.
    name: String,
    partition: String,
    /// First moment and first moment after, server timestamps.
    since: i64,
    until: i64,
    /// The same as RFC 3339.
    since_text: String,
    until_text: String,
    /// The first day on which it may be retired, and whether that has come.
    retirable_on: String,
    old_enough: bool,
}

impl Month {
    fn of(date: Option<pg_sys::Datum>) -> Result<Self, Fault> {
        let mut found = None;
        spi::run(
            "WITH month AS (SELECT date_trunc('month', $1::timestamp) AS start WHERE isfinite($1)), \
                  bounds AS (SELECT start, start + interval '1 month' AS stop, start + interval '1 month' + make_interval(days => $2) AS old FROM month) \
             SELECT to_char(start, 'YYYY-MM'), 'audit_logs_' || to_char(start, 'YYYY_MM'), start AT TIME ZONE 'UTC', stop AT TIME ZONE 'UTC', \
                 to_char(start, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), to_char(stop, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
                 to_char(old, 'YYYY-MM-DD'), old <= now() AT TIME ZONE 'UTC' FROM bounds",
            Access::Read,
            &[spi::given(date, pg_sys::DATEOID), arg(MIN_AGE_DAYS)],
            |row| {
                let time = |n| row.datum(n).map_or(0, |datum| datum.value() as i64);
                let text = |n| row.get::<String>(n).unwrap_or_default();
                found = Some(Month {
                    name: text(1),
                    partition: text(2),
                    since: time(3),
                    until: time(4),
                    since_text: text(5),
                    until_text: text(6),
                    retirable_on: text(7),
                    old_enough: row.get(8).unwrap_or(false),
                });
            },
        );
        found.ok_or_else(|| {
            Fault::new(Code::InvalidParameterValue, "the month must be a date")
                .hint("Give any day of the month, for example '2026-01-01'.")
        })
    }

    /// What does not depend on the content: the partition is there and nothing forbids to retire it.
    fn check(&self, kept: &[Kept]) -> Result<(), Fault> {
        if !self.old_enough {
            return Err(refused(format!(
                "audit records are kept for at least {MIN_AGE_DAYS} days, so {} cannot be retired before {}",
                self.name, self.retirable_on
            ))
            .detail(
                "Six months are the least that the EU AI Act asks for (Art. 19(1), 26(6)); no setting lowers them.",
            ));
        }
        if let Some(hold) = holds(kept).find(|hold| hold.overlaps(self)) {
            return Err(refused(format!("{} is under legal hold {}", self.name, hold.id))
                .detail(format!("Set by {}: {}.", hold.kept.by, hold.kept.text("reason").unwrap_or_default()))
                .hint(format!(
                    "When the matter is closed: SELECT skill_system.release_legal_hold({}, 'why');",
                    hold.id
                )));
        }
        let there = spi::one::<bool>(
            "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE c.relnamespace = 'skill_system'::regnamespace \
                 AND c.relname = $1 AND i.inhparent = 'skill_system.audit_logs'::regclass)",
            Access::Read,
            &[arg(self.partition.as_str())],
        );
        if there == Some(true) {
            return Ok(());
        }
        Err(Fault::new(Code::UndefinedObject, format!("the audit trail has no partition for {}", self.name))
            .detail("Records in audit_logs_default stay: only whole months are retired.")
            .hint("SELECT * FROM skill_system.audit_retirements; lists what was retired before."))
    }
}

struct Hold<'k> {
    id: i64,
    kept: &'k Kept,
}

impl Hold<'_> {
    fn overlaps(&self, month: &Month) -> bool {
        spi::one::<bool>(
            "SELECT tstzrange($1::timestamptz, $2::timestamptz) && tstzrange($3, $4)",
            Access::Read,
            &[
                arg(self.kept.text("since")),
                arg(self.kept.text("until")),
                spi::timestamptz(pg_sys::Datum::from(month.since)),
                spi::timestamptz(pg_sys::Datum::from(month.until)),
            ],
        ) == Some(true)
    }
}

fn hold_id(kept: &Kept) -> i64 {
    kept.data.get("hold").and_then(serde_json::Value::as_i64).unwrap_or(0)
}

/// The holds in force. A damaged one holds too, but only a true release ends it.
fn holds(kept: &[Kept]) -> impl Iterator<Item = Hold<'_>> {
    kept.iter()
        .filter(|hold| hold.event_type == "audit.legal_hold_set")
        .map(|hold| Hold { id: hold_id(hold), kept: hold })
        .filter(|hold| {
            !kept.iter().any(|other| {
                other.proven && other.event_type == "audit.legal_hold_released" && hold_id(other) == hold.id
            })
        })
}

pg_function!(pg_finfo_skill_set_legal_hold, skill_set_legal_hold, set_legal_hold);
/// `set_legal_hold(since, until, reason)` → id.
fn set_legal_hold(call: &Call) -> Answer {
    let invalid = |message: &str| {
        Fault::new(Code::InvalidParameterValue, message)
            .hint("since is a time or '-infinity', until a later one or NULL for no end.")
    };
    let since = call.datum(0).ok_or_else(|| invalid("since must not be NULL"))?;
    let until = call.datum(1).unwrap_or(pg_sys::Datum::from(i64::MAX));
    let reason = given_text("reason", call.text(2))?;
    if since.value() as i64 >= until.value() as i64 {
        return Err(invalid("since must be before until"));
    }
    kept::begin(c"set_legal_hold()")?;
    let id = spi::with_latest_snapshot(kept::all)?.iter().map(hold_id).max().unwrap_or(0) + 1;
    kept::keep(
        "audit.legal_hold_set",
        serde_json::json!({"hold": id, "since": moment(since), "until": moment(until), "reason": reason}),
    );
    Ok(id.into_datum().unwrap_or_else(|| call.null()))
}

/// A bound of a hold; NULL is none, which is also what a time before our era amounts to.
fn moment(time: pg_sys::Datum) -> Option<String> {
    spi::one(
        "SELECT to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') WHERE isfinite($1) AND $1 >= '0001-01-02 00:00:00+00'",
        Access::Read,
        &[spi::timestamptz(time)],
    )
}

pg_function!(pg_finfo_skill_release_legal_hold, skill_release_legal_hold, release_legal_hold);
/// `release_legal_hold(hold_id, reason)`.
fn release_legal_hold(call: &Call) -> Answer {
    let id = call.get::<i64>(0).ok_or_else(|| Fault::new(Code::InvalidParameterValue, "hold_id must not be NULL"))?;
    let reason = given_text("reason", call.text(1))?;
    kept::begin(c"release_legal_hold()")?;
    let all = spi::with_latest_snapshot(kept::all)?;
    if !all.iter().any(|kept| kept.event_type == "audit.legal_hold_set" && hold_id(kept) == id) {
        return Err(Fault::new(Code::UndefinedObject, format!("there is no legal hold {id}"))
            .hint("SELECT * FROM skill_system.audit_legal_holds WHERE released_at IS NULL;"));
    }
    if !holds(&all).any(|hold| hold.id == id) {
        return Err(refused(format!("legal hold {id} was released before")));
    }
    kept::keep("audit.legal_hold_released", serde_json::json!({"hold": id, "reason": reason}));
    Ok(call.null())
}

/// The open request for a month.
fn request<'k>(kept: &'k [Kept], month: &Month) -> Option<&'k Kept> {
    let mut open = None;
    for record in kept.iter().filter(|record| record.proven && record.text("partition") == Some(&month.partition)) {
        match record.event_type.as_str() {
            "audit.retirement_requested" => open = Some(record),
            "audit.retirement_withdrawn" | "audit.partition_retired" => open = None,
            _ => {}
        }
    }
    open.filter(|request| sys::clock_timestamp() < request.recorded_at + REQUEST_DAYS * DAY)
}

/// Name of the person at the keyboard, who must be an administrator by their own login.
fn person() -> Result<&'static str, Fault> {
    if sys::authenticated_user() != sys::session_user() {
        return Err(Fault::new(
            Code::InsufficientPrivilege,
            "after SET SESSION AUTHORIZATION nobody counts as a person of their own",
        )
        .hint("Connect with your own login role."));
    }
    let name = sys::role_name(sys::session_user());
    check_administrator(name)?;
    Ok(name)
}

fn check_administrator(name: &str) -> Result<(), Fault> {
    let is = spi::one::<bool>(
        "SELECT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = $1 AND pg_has_role(r.oid, 'skill_system_admin', 'MEMBER'))",
        Access::Read,
        &[arg(name)],
    );
    if is == Some(true) {
        return Ok(());
    }
    Err(Fault::new(Code::InsufficientPrivilege, format!("role \"{name}\" is no member of skill_system_admin"))
        .detail("Both persons who retire a partition must be."))
}

pg_function!(pg_finfo_skill_withdraw_audit_retirement, skill_withdraw_audit_retirement, withdraw_audit_retirement);
/// `withdraw_audit_retirement(month, reason)`.
fn withdraw_audit_retirement(call: &Call) -> Answer {
    let month = Month::of(call.datum(0))?;
    let reason = given_text("reason", call.text(1))?;
    kept::begin(c"withdraw_audit_retirement()")?;
    let all = spi::with_latest_snapshot(kept::all)?;
    let Some(request) = request(&all, &month) else {
        return Err(Fault::new(Code::UndefinedObject, format!("there is no open request to retire {}", month.name)));
    };
    kept::keep(
        "audit.retirement_withdrawn",
        serde_json::json!({"partition": month.partition, "request": request.id.to_string(), "reason": reason}),
    );
    Ok(call.null())
}

pg_function!(pg_finfo_skill_retire_audit_partition, skill_retire_audit_partition, retire_audit_partition);
/// `retire_audit_partition(month, policy_reference)` → what was done.
fn retire_audit_partition(call: &Call) -> Answer {
    let month = Month::of(call.datum(0))?;
    let reference = given_text("policy reference", call.text(1))?;
    kept::begin(c"retire_audit_partition()")?;
    let person = person()?;
    let mut rows = call.row_set();
    let mut answer = |step: &str, retired: Option<&Content>, detail: &str| {
        rows.push(&mut [
            text_datum(step),
            text_datum(&month.partition),
            retired.and_then(|retired| (retired.count as i64).into_datum()),
            retired.map(|retired| bytea_datum(&retired.root)),
            text_datum(detail),
        ]);
    };
    let (all, state) = spi::with_latest_snapshot(|| {
        Ok::<_, Fault>((kept::all()?, spi::as_owner(State::read)?.ok_or_else(nothing_sealed)?))
    })?;
    month.check(&all)?;
    state.check_place()?;
    let Some(request) = request(&all, &month) else {
        let data = serde_json::json!({"partition": month.partition, "policy_reference": reference});
        kept::keep("audit.retirement_requested", data);
        answer(
            "requested",
            None,
            &format!("A second person must call it with the same arguments within {REQUEST_DAYS} days."),
        );
        return Ok(call.null());
    };
    let wanted = request.text("policy_reference").unwrap_or_default();
    if wanted != reference {
        return Err(refused(format!(
            "{} requested to retire {} under another policy reference",
            request.by, month.name
        ))
        .detail(format!("It is \"{wanted}\"."))
        .hint("Give the same, or SELECT skill_system.withdraw_audit_retirement(month, 'why'); first."));
    }
    if request.by == person {
        answer("waiting", None, "You requested it; a second person must call it with the same arguments.");
        return Ok(call.null());
    }
    check_administrator(&request.by)?;
    let content = spi::as_owner(|| {
        // Nobody adds a row from here on, so what is read now is all that will be dropped.
        spi::run_once(
            &format!("LOCK TABLE ONLY skill_system.{} IN SHARE MODE", month.partition),
            Access::Write,
            &[],
            |_| (),
        );
        spi::with_latest_snapshot(|| Content::read(&month, &all))
    })?;
    let checkpoint = newest(&state)?.map(|stored| stored.checkpoint.size);
    kept::keep(
        "audit.partition_retired",
        serde_json::json!({
            "partition": month.partition, "since": month.since_text, "until": month.until_text, "leaves": multirange(&content.leaves),
            "count": content.count, "root_hash": hex::encode(content.root), "policy_reference": reference, "request": request.id.to_string(),
            "requested_by": request.by, "approved_by": person, "checkpoint_size": checkpoint, "key_ids": content.key_ids,
            "first_key_id": content.first_key_id,
        }),
    );
    spi::as_owner(|| {
        // Every writer would wait behind this lock, so it does not wait long itself.
        spi::with_settings(&[(c"lock_timeout", c"5s")], || {
            cache::opening(Opened::Definition, || {
                // Detaches it too.
                spi::run_once(&format!("DROP TABLE skill_system.{}", month.partition), Access::Write, &[], |_| ());
            });
        });
    });
    answer("retired", Some(&content), &format!("Requested by {}, approved by {person}.", request.by));
    Ok(call.null())
}

/// What a partition holds, verified.
struct Content {
    leaves: Vec<Range<u64>>,
    count: u64,
    /// Of the tree that these leaves alone make, in their order.
    root: Hash,
    key_ids: BTreeSet<String>,
    /// Key of leaf 0, where that is among them: the log's first key.
    first_key_id: Option<String>,
}

impl Content {
    /// Reads every record; an error for one that is not as it was sealed, because evidence of tampering is never removed.
    fn read(month: &Month, kept: &[Kept]) -> Result<Self, Fault> {
        // As of now, because records may have been sealed since the request was looked at.
        let state = State::read()?.ok_or_else(nothing_sealed)?;
        rebuild(&state)?;
        if let Some(loss) = judge(&state, None)?.loss {
            return Err(tampered("the tree is not the one of its checkpoints").detail(loss));
        }
        let log_id = state::log_id();
        let (tiles, mut finder, mut ranges) = (StoredTiles::default(), LeafFinder::default(), Ranges::default());
        let (mut count, mut key_ids, mut first_key_id) = (0, BTreeSet::new(), None);
        let youngest = sys::clock_timestamp() - i64::from(MIN_AGE_DAYS) * DAY;
        let sql = format!(
            "SELECT a.id, a.created_at, a.recorded_at, a.key_id, {LEAF_HASH}, {PROBLEM} FROM ONLY skill_system.{} a",
            month.partition
        );
        spi::stream(&sql, &[arg(log_id)], |row| {
            let time = |n| row.datum(n).map(|datum| datum.value() as i64);
            let Some(id) = row.get::<pgrx::Uuid>(1) else {
                raise(tampered(format!("{} has a record without an id", month.partition)));
            };
            if let Some(problem) = row.get::<String>(6) {
                raise(tampered(format!("record {id} of {} is not as it was signed: {problem}", month.partition)));
            }
            let Some(leaf) = finder.find(id.as_bytes()).filter(|leaf| *leaf < state.size) else {
                raise(
                    refused(format!("record {id} of {} is not sealed", month.partition))
                        .hint("SELECT * FROM skill_system.seal_audit();"),
                );
            };
            if tiles.leaf(leaf).or_raise().as_slice() != row.bytes(5).unwrap_or_default() {
                raise(tampered(format!(
                    "record {id} of {} is not as it was sealed: leaf {leaf} has another hash",
                    month.partition
                )));
            }
            if time(2).is_none_or(|created| !(month.since..month.until).contains(&created)) {
                raise(tampered(format!("record {id} of {} was not created in its month", month.partition)));
            }
            if time(3).is_none_or(|recorded| recorded > youngest) {
                raise(
                    refused(format!(
                        "record {id} of {} was written less than {MIN_AGE_DAYS} days ago",
                        month.partition
                    ))
                    .detail("recorded_at is the clock that counts."),
                );
            }
            let key_id = row.text(4).unwrap_or_default();
            if leaf == 0 {
                first_key_id = Some(key_id.to_owned());
            }
            if !key_ids.contains(key_id) {
                key_ids.insert(key_id.to_owned());
            }
            ranges.insert(leaf);
            count += 1;
        });
        let leaves = ranges.list();
        if leaves.iter().map(|range| range.end - range.start).sum::<u64>() != count {
            return Err(tampered(format!("{} holds a record twice", month.partition)));
        }
        check_gaps(&leaves, &retired(kept))?;
        let mut appender = Appender::resume(0, &tiles)?;
        for leaf in leaves.iter().cloned().flatten() {
            appender.push(&tiles.leaf(leaf)?, &mut |_, _, _| Ok(()))?;
        }
        let (_, root) = appender.finish(&mut |_, _, _| Ok(()))?;
        Ok(Content { leaves, count, root, key_ids, first_key_id })
    }
}

fn tampered(message: impl Into<String>) -> Fault {
    Fault::new(Code::DataCorrupted, message)
        .hint("Nothing was removed. SELECT * FROM skill_system.verify_audit(); says what else is wrong.")
}

/// Leaves between those of the partition belong to records of other partitions; one without any record was removed,
/// perhaps from here.
fn check_gaps(leaves: &[Range<u64>], retired: &[Range<u64>]) -> Result<(), Fault> {
    let width = TILE_WIDTH as u64;
    for gap in leaves.windows(2).map(|pair| pair[0].end..pair[1].start) {
        let mut at = gap.start;
        while at < gap.end {
            check_for_interrupts();
            let next = retired.iter().find(|range| range.end > at);
            if let Some(range) = next.filter(|range| range.start <= at) {
                at = range.end;
                continue;
            }
            let (n, end) =
                (at / width, gap.end.min((at / width + 1) * width).min(next.map_or(u64::MAX, |range| range.start)));
            let ids = read_ids(n);
            let slots = (at - n * width) as usize * ID..(end - n * width) as usize * ID;
            let ids: Vec<pgrx::Uuid> = ids
                .get(slots)
                .unwrap_or_default()
                .chunks_exact(ID)
                .filter_map(|id| Some(pgrx::Uuid::from_bytes(id.try_into().ok()?)))
                .collect();
            let there = spi::one::<i64>(
                "SELECT count(DISTINCT id) FROM skill_system.audit_logs WHERE id = ANY ($1)",
                Access::Read,
                &[arg(ids)],
            );
            if there != Some((end - at) as i64) {
                return Err(tampered(format!("a record of the leaves {at} to {} is missing", end - 1))
                    .detail("They lie between leaves of the partition, so it may have been removed from there."));
            }
            at = end;
        }
    }
    Ok(())
}

/// Leaves as ranges that do not touch.
#[derive(Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn insert(&mut self, leaf: u64) {
        let before = self.0.range_mut(..=leaf).next_back();
        let start = match before {
            Some((_, end)) if *end > leaf => return,
            Some((start, end)) if *end == leaf => {
                *end = leaf + 1;
                *start
            }
            _ => {
                self.0.insert(leaf, leaf + 1);
                leaf
            }
        };
        if let Some(end) = self.0.remove(&(leaf + 1)) {
            self.0.insert(start, end);
        }
    }

    fn list(self) -> Vec<Range<u64>> {
        self.0.into_iter().map(|(start, end)| start..end).collect()
    }
}

/// The text of an int8multirange.
fn multirange(ranges: &[Range<u64>]) -> String {
    let parts: Vec<String> = ranges.iter().map(|range| format!("[{},{})", range.start, range.end)).collect();
    format!("{{{}}}", parts.join(","))
}

/// Reads what [`multirange`] writes, which is all that a signed record can hold.
fn parse_multirange(text: &str) -> Option<Vec<Range<u64>>> {
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    let parts = inside.split_inclusive(')').map(|part| {
        let (start, end) = part.trim_start_matches(',').strip_prefix('[')?.strip_suffix(')')?.split_once(',')?;
        let range = start.parse::<u64>().ok()?..end.parse::<u64>().ok()?;
        (range.start < range.end).then_some(range)
    });
    parts.collect()
}

/// The retirements among kept records.
fn retirements(kept: &[Kept]) -> impl Iterator<Item = (&Kept, Vec<Range<u64>>)> {
    kept.iter()
        .filter(|record| record.proven && record.event_type == "audit.partition_retired")
        .filter_map(|record| Some((record, parse_multirange(record.text("leaves")?)?)))
}

/// Retired leaves, ascending, as ranges that do not touch.
fn retired(kept: &[Kept]) -> Vec<Range<u64>> {
    joined(retirements(kept).flat_map(|(_, ranges)| ranges).collect())
}

fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// The leaves whose records were retired, ascending, as ranges that do not touch. Only a retirement counts whose record is
/// signed truly and is a leaf, or younger than the last seal.
pub fn retired_leaves() -> Result<Vec<Range<u64>>, Fault> {
    Ok(retired(&kept::all()?))
}

/// The leaves of the partitions that were retired and hold a moment of a time range, in server timestamps.
pub fn retired_between(since: pg_sys::Datum, until: pg_sys::Datum) -> Result<Vec<Range<u64>>, Fault> {
    if since.value() as i64 >= until.value() as i64 {
        return Ok(Vec::new());
    }
    let kept = kept::all()?;
    let overlapping = retirements(&kept).filter(|(record, _)| {
        spi::one::<bool>(
            "SELECT tstzrange($1::timestamptz, $2::timestamptz) && tstzrange($3, $4)",
            Access::Read,
            &[arg(record.text("since")), arg(record.text("until")), spi::timestamptz(since), spi::timestamptz(until)],
        ) == Some(true)
    });
    Ok(joined(overlapping.flat_map(|(_, ranges)| ranges).collect()))
}

/// Key of the log's first record, where that is retired.
pub fn retired_first_key(kept: &[Kept]) -> Option<&str> {
    retirements(kept).find_map(|(record, _)| record.text("first_key_id"))
}
