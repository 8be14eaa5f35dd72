//! Legal holds, and the retirement of old partitions by two persons.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use const_format::concatcp;
use serde_json::{Value, json};
use skill_core::limits::check_time;
use skill_core::tree::{Appender, Hash, TILE_WIDTH};
use skill_core::{Code, Fault};
use skill_pg::error::check_for_interrupts;
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Call, Date, FromRow, RowSet, Timestamptz, Uuid, arg, columns, pg_function, sys};

use super::adopt::{judge, rebuild};
use super::kept::{self, Kept, given_text};
use super::proof::{newest, nothing_sealed};
use super::state::{self, State};
use super::tiles::{ID, LeafFinder, StoredTiles, read_ids};
use crate::args::given;
use crate::audit::bypass::{self, Bypass};
use crate::audit::{LEAF_HASH, PROBLEM};

/// No record is removed before this age: six months, EU AI Act, Art. 19(1) and 26(6).
const MIN_AGE_DAYS: i32 = 183;
/// How long the second person has.
const REQUEST_DAYS: i64 = 7;
const DAY: i64 = 86_400_000_000;

fn refused(message: impl Into<String>) -> Fault {
    Fault::new(Code::NotInPrerequisiteState, message)
}

columns! {
    /// A month of the audit trail.
    struct Month {
        /// For people: `2026-01`.
        name: String = "to_char(start, 'YYYY-MM')",
        partition: String = "'audit_logs_' || to_char(start, 'YYYY_MM')",
        /// First moment and first moment after.
        since: Timestamptz = "start AT TIME ZONE 'UTC'",
        until: Timestamptz = "stop AT TIME ZONE 'UTC'",
        /// The same as RFC 3339.
        since_text: String = "to_char(start, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
        until_text: String = "to_char(stop, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
        /// The first day on which it may be retired, and whether that has come.
        retirable_on: String = "to_char(retirable, 'YYYY-MM-DD')",
        is_old_enough: bool = "retirable <= now() AT TIME ZONE 'UTC'",
    }
}

impl Month {
    fn find(date: Option<Date>) -> Result<Self, Fault> {
        const SQL: &str = concatcp!(
            "WITH month AS (SELECT date_trunc('month', $1::timestamp) AS start WHERE isfinite($1)), ",
            "bounds AS (SELECT start, start + interval '1 month' AS stop, ",
            "start + interval '1 month' + make_interval(days => $2) AS retirable FROM month) SELECT ",
            Month::COLUMNS,
            " FROM bounds"
        );
        spi::first(SQL, As::Caller, See::Statement, &[arg(date), arg(MIN_AGE_DAYS)]).ok_or_else(|| {
            Fault::new(Code::InvalidParameterValue, "month must be a date")
                .hint("Give any day of the month, for example '2026-01-01'.")
        })
    }

    /// What does not depend on the content: the partition is there and nothing forbids to retire it.
    fn check(&self, kept: &[Kept]) -> Result<(), Fault> {
        if !self.is_old_enough {
            return Err(refused(format!(
                "audit records must be kept for at least {MIN_AGE_DAYS} days, so {} cannot be retired before {}",
                self.name, self.retirable_on
            ))
            .detail("The EU AI Act requires at least six months (Art. 19(1), 26(6)); no setting lowers them."));
        }
        if let Some(hold) = holds_in_force(kept).find(|hold| hold.overlaps(self)) {
            return Err(refused(format!("{} is under legal hold {}", self.name, hold.id))
                .detail(format!("Set by {}: {}.", hold.kept.session_user, hold.kept.text("reason").unwrap_or_default()))
                .hint(format!(
                    "When the matter is closed: SELECT skill_system.release_legal_hold({}, 'why');",
                    hold.id
                )));
        }
        let exists: bool = spi::one(
            "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid \
                 WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relname = $1 \
                     AND i.inhparent = 'skill_system.audit_logs'::regclass)",
            As::Caller,
            See::Statement,
            &[arg(&self.partition)],
        );
        if exists {
            return Ok(());
        }
        Err(Fault::new(Code::UndefinedObject, format!("the audit trail has no partition for {}", self.name))
            .detail("Only partitions are retired; records of a month that has none are in audit_logs_default.")
            .hint(
                "SELECT skill_system.create_audit_partition('YYYY-MM-01'); moves them; SELECT * FROM \
                 skill_system.audit_retirements; lists what was retired before.",
            ))
    }
}

struct Hold<'k> {
    id: i64,
    kept: &'k Kept,
}

impl Hold<'_> {
    fn overlaps(&self, month: &Month) -> bool {
        overlaps(self.kept, month.since, month.until)
    }
}

/// The times that a record names have a moment in common with these.
fn overlaps(record: &Kept, since: Timestamptz, until: Timestamptz) -> bool {
    const SQL: &str = "SELECT tstzrange($1::timestamptz, $2::timestamptz) && tstzrange($3, $4)";
    let args = [arg(record.text("since")), arg(record.text("until")), arg(since), arg(until)];
    spi::one(SQL, As::Caller, See::Statement, &args)
}

fn hold_id(kept: &Kept) -> i64 {
    kept.data.get("hold").and_then(Value::as_i64).unwrap_or(0)
}

/// The holds in force. A damaged one holds too, but only a true release ends it.
fn holds_in_force(kept: &[Kept]) -> impl Iterator<Item = Hold<'_>> {
    kept.iter()
        .filter(|hold| hold.event_type == "audit.legal_hold_set")
        .map(|hold| Hold { id: hold_id(hold), kept: hold })
        .filter(|hold| {
            !kept.iter().any(|other| {
                other.proven && other.event_type == "audit.legal_hold_released" && hold_id(other) == hold.id
            })
        })
}

/// The decision of one person must not be taken by what somebody else wrote: a view or function of the first person, for
/// example, that the second one only reads.
fn check_is_by_client(call: &Call, name: &str) -> Result<(), Fault> {
    if call.is_by_client() {
        return Ok(());
    }
    Err(Fault::new(Code::InsufficientPrivilege, format!("{name}() must be called by a statement of the client itself"))
        .detail(
            "A view, function, trigger, DO block, cursor or prepared statement may be somebody else's, and would take the \
             decision of the person who uses it.",
        )
        .hint(format!(
            "Call it in a SELECT that reads no table or view and calls no other function: SELECT * FROM skill_system.{name}(...);"
        )))
}

pg_function!(set_legal_hold);
/// `set_legal_hold(since, until, reason)` → id.
fn set_legal_hold(call: &Call) -> Answer {
    let (since, until, reason): (Option<Timestamptz>, Option<Timestamptz>, _) = call.arguments();
    let invalid = |message: &str| {
        Fault::new(Code::InvalidParameterValue, message)
            .hint("Give since as a time or '-infinity', and until as a later one or NULL for no end.")
    };
    let since = since.ok_or_else(|| invalid("since must not be NULL"))?;
    let until = until.unwrap_or(Timestamptz::INFINITY);
    for (what, time) in [("since", since), ("until", until)] {
        if time.is_finite() {
            check_time(what, time.unix_micros())?;
        }
    }
    let reason = given_text("reason", reason)?;
    if since >= until {
        return Err(invalid("since must be before until"));
    }
    kept::begin_change(c"set_legal_hold()")?;
    let id = spi::with_latest_snapshot(kept::kept_records)?.iter().map(hold_id).max().unwrap_or(0) + 1;
    kept::append_kept(
        "audit.legal_hold_set",
        json!({"hold": id, "since": moment(since), "until": moment(until), "reason": reason}),
    )?;
    Ok(call.answer(id))
}

/// A bound of a hold; NULL is none, and so is the first day of year 1, which other time zones have in the year before.
fn moment(time: Timestamptz) -> Option<String> {
    const SQL: &str = "SELECT to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
         WHERE isfinite($1) AND $1 >= '0001-01-02 00:00:00+00'";
    spi::first(SQL, As::Caller, See::Statement, &[arg(time)])
}

pg_function!(release_legal_hold);
fn release_legal_hold(call: &Call) -> Answer {
    let (id, reason): (Option<i64>, _) = call.arguments();
    let id = given(id, "hold_id")?;
    let reason = given_text("reason", reason)?;
    kept::begin_change(c"release_legal_hold()")?;
    check_is_by_client(call, "release_legal_hold")?;
    let all = spi::with_latest_snapshot(kept::kept_records)?;
    if !all.iter().any(|kept| kept.event_type == "audit.legal_hold_set" && hold_id(kept) == id) {
        return Err(Fault::new(Code::UndefinedObject, format!("legal hold {id} does not exist"))
            .hint("SELECT * FROM skill_system.audit_legal_holds WHERE released_at IS NULL;"));
    }
    if !holds_in_force(&all).any(|hold| hold.id == id) {
        return Err(refused(format!("legal hold {id} was already released")));
    }
    kept::append_kept("audit.legal_hold_released", json!({"hold": id, "reason": reason}))?;
    Ok(call.void())
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
    open.filter(|request| sys::clock_timestamp().0 < request.recorded_at.0 + REQUEST_DAYS * DAY)
}

/// Name of the person at the keyboard, who must be an administrator by their own login.
fn person() -> Result<String, Fault> {
    if sys::authenticated_user() != sys::session_user() {
        return Err(Fault::new(
            Code::InsufficientPrivilege,
            "retirement must be requested and approved without SET SESSION AUTHORIZATION",
        )
        .hint("Connect with a personal login role."));
    }
    let name = sys::role_name(sys::session_user());
    check_administrator(&name)?;
    Ok(name)
}

fn check_administrator(name: &str) -> Result<(), Fault> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM pg_roles r \
         WHERE r.rolname = $1 AND pg_has_role(r.oid, 'skill_system_admin', 'MEMBER'))";
    if spi::one(SQL, As::Caller, See::Statement, &[arg(name)]) {
        return Ok(());
    }
    Err(Fault::new(Code::InsufficientPrivilege, format!("role \"{name}\" is not a member of skill_system_admin"))
        .detail("Both persons who retire a partition must be."))
}

pg_function!(withdraw_audit_retirement);
fn withdraw_audit_retirement(call: &Call) -> Answer {
    let (month, reason) = call.arguments();
    let month = Month::find(month)?;
    let reason = given_text("reason", reason)?;
    kept::begin_change(c"withdraw_audit_retirement()")?;
    let all = spi::with_latest_snapshot(kept::kept_records)?;
    let Some(request) = request(&all, &month) else {
        return Err(Fault::new(Code::UndefinedObject, format!("no open request to retire {} exists", month.name)));
    };
    kept::append_kept(
        "audit.retirement_withdrawn",
        json!({"partition": month.partition, "request": request.id.to_string(), "reason": reason}),
    )?;
    Ok(call.void())
}

pg_function!(retire_audit_partition);
/// `retire_audit_partition(month, policy_reference)` → what was done.
fn retire_audit_partition(call: &Call) -> Answer {
    let (month, reference) = call.arguments();
    let month = Month::find(month)?;
    let reference = given_text("policy reference", reference)?;
    kept::begin_change(c"retire_audit_partition()")?;
    let person = person()?;
    check_is_by_client(call, "retire_audit_partition")?;
    let mut answer = Retirement { month, rows: call.row_set() };
    let month = &answer.month;
    let (all, state) = spi::with_latest_snapshot(|| {
        Ok::<_, Fault>((kept::kept_records()?, spi::as_owner(State::read)?.ok_or_else(nothing_sealed)?))
    })?;
    month.check(&all)?;
    state.check_place()?;
    let Some(request) = request(&all, month) else {
        let data = json!({"partition": month.partition, "policy_reference": reference});
        kept::append_kept("audit.retirement_requested", data)?;
        let detail = format!("A second person must call it with the same arguments within {REQUEST_DAYS} days.");
        answer.push("requested", None, &detail);
        return Ok(answer.rows.finish());
    };
    let wanted = request.text("policy_reference").unwrap_or_default();
    if wanted != reference {
        return Err(refused(format!(
            "{} requested to retire {} under another policy reference",
            request.session_user, month.name
        ))
        .detail(format!("It is \"{wanted}\"."))
        .hint("Give the same, or SELECT skill_system.withdraw_audit_retirement(month, 'why'); first."));
    }
    if request.session_user == person {
        answer.push("waiting", None, "The caller requested it; a second person must call it with the same arguments.");
        return Ok(answer.rows.finish());
    }
    check_administrator(&request.session_user)?;
    let content = retire(month, &all, &state, reference, request, &person)?;
    let detail = format!("Requested by {}, approved by {person}.", request.session_user);
    answer.push("retired", Some(&content), &detail);
    Ok(answer.rows.finish())
}

/// The answer of `retire_audit_partition()`.
struct Retirement<'c> {
    month: Month,
    rows: RowSet<'c>,
}

impl Retirement<'_> {
    fn push(&mut self, step: &str, retired: Option<&Content>, outcome: &str) {
        self.rows.push(&[
            arg(step),
            arg(&self.month.partition),
            arg(retired.map(|retired| retired.count as i64)),
            arg(retired.map(|retired| &retired.root)),
            arg(outcome),
        ]);
    }
}

/// Records the retirement and drops the partition.
fn retire(
    month: &Month,
    kept: &[Kept],
    state: &State,
    reference: &str,
    request: &Kept,
    person: &str,
) -> Result<Content, Fault> {
    let content = spi::as_owner(|| {
        // Nobody adds a row from here on, so what is read now is all that will be dropped.
        let lock = format!("LOCK TABLE ONLY skill_system.{} IN SHARE MODE", month.partition);
        spi::execute(Once(&lock), As::Caller, See::OwnWrites, &[]);
        spi::with_latest_snapshot(|| Content::read(month, kept))
    })?;
    let checkpoint = newest(state)?.map(|stored| stored.checkpoint.size);
    kept::append_kept(
        "audit.partition_retired",
        json!({
            "partition": month.partition, "since": month.since_text, "until": month.until_text,
            "leaves": multirange(&content.leaves), "count": content.count, "root_hash": hex::encode(content.root),
            "policy_reference": reference, "request": request.id.to_string(), "requested_by": request.session_user,
            "approved_by": person, "checkpoint_size": checkpoint, "key_ids": content.key_ids,
            "first_key_id": content.first_key_id,
        }),
    )?;
    // Every writer would wait behind this lock, so it does not wait long itself. Dropping detaches, too.
    spi::with_settings(&[(c"lock_timeout", c"5s")], || {
        bypass::with(Bypass::Definition, || {
            let drop = format!("DROP TABLE skill_system.{}", month.partition);
            spi::execute(Once(&drop), As::Owner, See::OwnWrites, &[]);
        });
    });
    Ok(content)
}

/// What a partition holds, verified.
#[derive(Default)]
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
        let (mut content, mut ranges) = (Content::default(), Ranges::default());
        let mut check = RecordCheck {
            month,
            size: state.size,
            tiles: StoredTiles::default(),
            finder: LeafFinder::default(),
            youngest: Timestamptz(sys::clock_timestamp().0 - i64::from(MIN_AGE_DAYS) * DAY),
        };
        let sql =
            format!("SELECT {}, {LEAF_HASH}, {PROBLEM} FROM ONLY skill_system.{} a", Retired::COLUMNS, month.partition);
        spi::stream(Once(&sql), &[arg(state::log_id())], |row| {
            let record = Retired::from_row(row);
            let leaf = check.leaf(&record, row.get(5), row.get(6))?;
            let key_id =
                record.key_id.ok_or_else(|| tampered(format!("{} has a record without a key", month.partition)))?;
            if leaf == 0 {
                content.first_key_id = Some(key_id.clone());
            }
            content.key_ids.insert(key_id);
            ranges.insert(leaf);
            content.count += 1;
            Ok(())
        })?;
        content.leaves = ranges.list();
        if content.leaves.iter().map(|range| range.end - range.start).sum::<u64>() != content.count {
            return Err(tampered(format!("{} holds a record twice", month.partition)));
        }
        check_gaps(&content.leaves, &retired(kept))?;
        let mut appender = Appender::resume(0, &check.tiles)?;
        for leaf in content.leaves.iter().cloned().flatten() {
            appender.push(&check.tiles.leaf(leaf)?, &mut |_, _, _| Ok(()))?;
        }
        (_, content.root) = appender.finish(&mut |_, _, _| Ok(()))?;
        Ok(content)
    }
}

columns! {
    /// A record of the partition. Only a table that was tampered with has NULLs.
    struct Retired {
        id: Option<Uuid> = "a.id",
        created_at: Option<Timestamptz> = "a.created_at",
        recorded_at: Option<Timestamptz> = "a.recorded_at",
        key_id: Option<String> = "a.key_id",
    }
}

/// Checks the records of a partition one by one.
struct RecordCheck<'m> {
    month: &'m Month,
    size: u64,
    tiles: StoredTiles,
    finder: LeafFinder,
    youngest: Timestamptz,
}

impl RecordCheck<'_> {
    /// The leaf of a record that is as it was sealed.
    fn leaf(&mut self, record: &Retired, hash: Option<&[u8]>, problem: Option<&str>) -> Result<u64, Fault> {
        let partition = &self.month.partition;
        let Some(id) = record.id else {
            return Err(tampered(format!("{partition} has a record without an id")));
        };
        if let Some(problem) = problem {
            return Err(tampered(format!("record {id} of {partition} is not as it was signed: {problem}")));
        }
        let Some(leaf) = self.finder.find(id.as_bytes()).filter(|leaf| *leaf < self.size) else {
            return Err(refused(format!("record {id} of {partition} is not sealed"))
                .hint("SELECT * FROM skill_system.seal_audit();"));
        };
        if Some(self.tiles.leaf(leaf)?.as_slice()) != hash {
            return Err(tampered(format!(
                "record {id} of {partition} is not as it was sealed: leaf {leaf} has another hash"
            )));
        }
        if record.created_at.is_none_or(|created| !(self.month.since..self.month.until).contains(&created)) {
            return Err(tampered(format!("record {id} of {partition} was not created in its month")));
        }
        if record.recorded_at.is_none_or(|recorded| recorded > self.youngest) {
            return Err(refused(format!("record {id} of {partition} was written less than {MIN_AGE_DAYS} days ago"))
                .detail("recorded_at is the clock that counts."));
        }
        Ok(leaf)
    }
}

fn tampered(message: impl Into<String>) -> Fault {
    Fault::new(Code::DataCorrupted, message)
        .hint("Nothing was removed. SELECT * FROM skill_system.verify_audit(); shows what else is wrong.")
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
            let ids: Vec<Uuid> = ids
                .get(slots)
                .unwrap_or_default()
                .chunks_exact(ID)
                .filter_map(|id| Some(Uuid::from_bytes(id.try_into().ok()?)))
                .collect();
            let there: i64 = spi::one(
                "SELECT count(DISTINCT id) FROM skill_system.audit_logs WHERE id = ANY ($1)",
                As::Caller,
                See::Statement,
                &[arg(ids)],
            );
            if there != (end - at) as i64 {
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
    Ok(retired(&kept::kept_records()?))
}

/// The leaves of the partitions that were retired and hold a moment of a time range.
pub fn retired_between(since: Timestamptz, until: Timestamptz) -> Result<Vec<Range<u64>>, Fault> {
    if since >= until {
        return Ok(Vec::new());
    }
    let kept = kept::kept_records()?;
    let overlapping = retirements(&kept).filter(|(record, _)| overlaps(record, since, until));
    Ok(joined(overlapping.flat_map(|(_, ranges)| ranges).collect()))
}

/// Key of the log's first record, where that is retired.
pub fn retired_first_key(kept: &[Kept]) -> Option<&str> {
    retirements(kept).find_map(|(record, _)| record.text("first_key_id"))
}
