//! The view `ledger_status`: how far the log is sealed, for those who monitor it.

use skill_core::Fault;
use skill_core::ledger::snapshot::Snapshot;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Timestamptz, Uuid, arg, pg_function};

/// Log, origin, leaves, time of the last seal and its snapshot, leaves and time of the newest checkpoint.
type Sealed = (Uuid, String, i64, Option<Timestamptz>, Option<String>, Option<i64>, Option<Timestamptz>);

pg_function!(ledger_status_entries);
/// `ledger_status_entries()` → one row, none before the first record.
fn ledger_status_entries(call: &Call) -> Answer {
    let found: Option<Sealed> = spi::first(include_str!("status.sql"), As::Owner, See::Statement, &[]);
    let mut rows = call.row_set();
    if let Some((log_id, origin, size, sealed_at, snapshot, checkpoint_size, checkpoint_at)) = found {
        let (unsealed, oldest) = unsealed(snapshot.as_deref())?;
        rows.push(&[
            arg(log_id),
            arg(origin),
            arg(size),
            arg(sealed_at),
            arg(unsealed),
            arg(oldest),
            arg(checkpoint_size),
            arg(checkpoint_at),
        ]);
    }
    Ok(rows.finish())
}

/// How many records no seal has taken yet, counted up to a bound, and when the first of them was recorded.
fn unsealed(snapshot: Option<&str>) -> Result<(i64, Option<Timestamptz>), Fault> {
    let sealed = snapshot.map_or_else(|| Ok(Snapshot::empty()), Snapshot::parse)?;
    const SQL: &str = "SELECT count(*), min(recorded_at) FROM (SELECT recorded_at FROM skill_system.audit_logs \
         WHERE transaction_id >= $1 OR transaction_id = ANY ($2) LIMIT 100000) waiting";
    Ok(spi::with_settings(&[(c"enable_seqscan", c"off"), (c"jit", c"off")], || {
        spi::one(SQL, As::Owner, See::Statement, &[arg(sealed.xmax), arg(sealed.in_progress)])
    }))
}
