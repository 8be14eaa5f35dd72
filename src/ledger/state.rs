//! How far the log is sealed, in which server, and snapshots.

use pgrx::pg_sys;
pub use skill_core::ledger::snapshot::Snapshot;
use skill_core::ledger::tree::Hash;
use skill_core::{Code, Fault};

use super::tiles::ID;
use crate::pg::spi::{self, Access, arg};
use crate::pg::sys;

/// What tells this log from any other, as the active snapshot sees it; `None` before the first record.
pub fn log_id() -> Option<pgrx::Uuid> {
    spi::one::<pgrx::Uuid>("SELECT log_id FROM skill_system.audit_state", Access::Read, &[])
}

/// The top-level transaction of this session, if it has an id.
pub fn own_transaction() -> Option<i64> {
    sys::top_transaction_id_if_any().map(|own| own as i64)
}

/// The active snapshot; the session's own transaction counts as not ended.
pub fn active_snapshot() -> Result<Snapshot, Fault> {
    let text = spi::one::<String>("SELECT pg_current_snapshot()::text", Access::Read, &[]).unwrap_or_default();
    Ok(Snapshot::parse(&text)?.without(own_transaction()))
}

/// The server and database that seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// `pg_control_system()`
    pub system_identifier: i64,
    /// `pg_database.oid`
    pub database: pg_sys::Oid,
    /// WAL timeline
    pub timeline: i32,
}

impl Place {
    /// This one.
    pub fn here() -> Self {
        let (system_identifier, database, timeline) = sys::place();
        Place { system_identifier: system_identifier as i64, database, timeline: timeline as i32 }
    }
}

/// The row of `audit_seal_state`.
#[derive(Debug, Clone)]
pub struct State {
    /// Part of the origin.
    pub incarnation: i32,
    /// Leaves.
    pub size: u64,
    /// Root of the tree of this size.
    pub root: Hash,
    /// Sealed is what this one sees.
    pub snapshot: Snapshot,
    /// A seal in several steps: towards which snapshot, and the last record sealed on the way.
    pub target: Option<(Snapshot, i64, [u8; ID])>,
    /// Records with a smaller transaction id may be sealed already.
    pub foreign_below: i64,
    /// Who sealed.
    pub place: Place,
    /// Hash of the protection as last recorded.
    pub fingerprint: Option<Vec<u8>>,
    /// When the tree last grew, a server timestamp.
    pub sealed_at: i64,
}

impl State {
    /// Before the first seal.
    pub fn first() -> Self {
        State {
            incarnation: 1,
            size: 0,
            root: skill_core::ledger::tree::EMPTY_ROOT,
            snapshot: Snapshot::empty(),
            target: None,
            foreign_below: 0,
            place: Place::here(),
            fingerprint: None,
            sealed_at: sys::clock_timestamp(),
        }
    }

    /// As the active snapshot sees it; `None` before the first seal.
    pub fn read() -> Result<Option<Self>, Fault> {
        let mut found = None;
        spi::run(
            "SELECT incarnation, tree_size, root_hash, snapshot::text, target::text, position_transaction, position_id, foreign_below, \
                 system_identifier, database_oid, timeline, fingerprint, sealed_at FROM skill_system.audit_seal_state",
            Access::Read,
            &[],
            |row| found = Some(State::from_row(row)),
        );
        found.transpose()
    }

    fn from_row(row: &spi::Row) -> Result<Self, Fault> {
        let missing = || Fault::new(Code::DataCorrupted, "audit_seal_state has a NULL where none can be");
        let target = match (row.get::<String>(5), row.get::<i64>(6), row.get::<pgrx::Uuid>(7)) {
            (Some(target), Some(transaction), Some(id)) => {
                Some((Snapshot::parse(&target)?, transaction, *id.as_bytes()))
            }
            _ => None,
        };
        Ok(State {
            incarnation: row.get(1).ok_or_else(missing)?,
            size: row.get::<i64>(2).ok_or_else(missing)? as u64,
            root: row.bytes(3).and_then(|root| root.try_into().ok()).ok_or_else(missing)?,
            snapshot: Snapshot::parse(&row.get::<String>(4).ok_or_else(missing)?)?,
            target,
            foreign_below: row.get(8).ok_or_else(missing)?,
            place: Place {
                system_identifier: row.get(9).ok_or_else(missing)?,
                database: row.get(10).ok_or_else(missing)?,
                timeline: row.get(11).ok_or_else(missing)?,
            },
            fingerprint: row.bytes(12).map(<[u8]>::to_vec),
            sealed_at: row.datum(13).ok_or_else(missing)?.value() as i64,
        })
    }

    /// Records with transaction ids that mean nothing in this server have been sealed: when this server comes to the same
    /// numbers, a seal must not take them again.
    pub fn expect_foreign(&mut self) {
        let highest = spi::one::<i64>("SELECT max(transaction_id) FROM skill_system.audit_logs", Access::Read, &[]);
        self.foreign_below = highest.unwrap_or(0).saturating_add(1).max(self.foreign_below);
    }

    /// Writes the row.
    pub fn write(&self) {
        let target = self.target.as_ref();
        spi::run(
            "INSERT INTO skill_system.audit_seal_state (incarnation, tree_size, root_hash, snapshot, target, position_transaction, position_id, \
                 foreign_below, system_identifier, database_oid, timeline, fingerprint, sealed_at) \
             VALUES ($1, $2, $3, $4::pg_snapshot, $5::pg_snapshot, $6, $7, $8, $9, $10, $11, $12, $13) \
             ON CONFLICT (only_one) DO UPDATE SET incarnation = EXCLUDED.incarnation, tree_size = EXCLUDED.tree_size, \
                 root_hash = EXCLUDED.root_hash, snapshot = EXCLUDED.snapshot, target = EXCLUDED.target, \
                 position_transaction = EXCLUDED.position_transaction, position_id = EXCLUDED.position_id, \
                 foreign_below = EXCLUDED.foreign_below, system_identifier = EXCLUDED.system_identifier, \
                 database_oid = EXCLUDED.database_oid, timeline = EXCLUDED.timeline, fingerprint = EXCLUDED.fingerprint, \
                 sealed_at = EXCLUDED.sealed_at",
            Access::Write,
            &[
                arg(self.incarnation),
                arg(self.size as i64),
                spi::bytea(&self.root),
                arg(self.snapshot.text()),
                arg(target.map(|(snapshot, ..)| snapshot.text())),
                arg(target.map(|(_, transaction, _)| *transaction)),
                arg(target.map(|(.., id)| pgrx::Uuid::from_bytes(*id))),
                arg(self.foreign_below),
                arg(self.place.system_identifier),
                arg(self.place.database),
                arg(self.place.timeline),
                spi::bytea_or_null(self.fingerprint.as_deref()),
                spi::timestamptz(pg_sys::Datum::from(self.sealed_at)),
            ],
            |_| (),
        );
    }

    /// Raises unless this is the server that sealed before: elsewhere transaction ids mean something else, and two
    /// servers could go on with one history in two ways.
    pub fn check_place(&self) -> Result<(), Fault> {
        match self.moved() {
            None => Ok(()),
            Some(how) => Err(Fault::new(Code::NotInPrerequisiteState, "the audit log was sealed elsewhere, so nothing is sealed here")
                .detail(how)
                .hint("If this is now the one true log: SELECT * FROM skill_system.adopt_log('why', 'newest checkpoint held outside');")),
        }
    }

    /// What differs from the server that sealed before.
    pub fn moved(&self) -> Option<String> {
        let (here, there) = (Place::here(), self.place);
        let next = sys::next_transaction_id() as i64;
        let mut seen = Vec::new();
        if here.system_identifier != there.system_identifier {
            let upgraded = here.database == there.database && next >= self.snapshot.xmax;
            let likely = if upgraded {
                "pg_upgrade, or a restore into another cluster"
            } else {
                "a restore or copy into another cluster"
            };
            seen.push(format!(
                "system identifier {} instead of {}: {likely}",
                here.system_identifier, there.system_identifier
            ));
        } else if here.database != there.database {
            seen.push(format!(
                "database {} instead of {}: a restore or copy inside this cluster",
                here.database.to_u32(),
                there.database.to_u32()
            ));
        } else if here.timeline != there.timeline {
            seen.push(format!(
                "timeline {} instead of {}: promotion of a standby, or recovery to a point in time",
                here.timeline, there.timeline
            ));
        }
        if next < self.snapshot.xmax {
            seen.push(format!(
                "next transaction {next} is before {}, which was sealed: an older state of the server",
                self.snapshot.xmax
            ));
        }
        (!seen.is_empty()).then(|| seen.join("; ") + ".")
    }
}
