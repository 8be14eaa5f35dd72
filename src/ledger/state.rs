//! How far the log is sealed, in which server, and snapshots.

use const_format::concatcp;
use skill_core::ledger::snapshot::Snapshot;
use skill_core::tree::Hash;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Oid, Timestamptz, Uuid, arg, columns, sys};

use super::tiles::{HASH, ID};
use crate::audit::identity::SecondPlace;

/// What tells this log from any other, as the active snapshot sees it; `None` before the first record.
pub fn log_id() -> Option<Uuid> {
    spi::first("SELECT log_id FROM skill_system.audit_state", As::Caller, See::Statement, &[])
}

/// `audit_seal_state` names the log, too.
pub const SECOND_PLACE: SecondPlace = SecondPlace {
    log_id: || {
        const SQL: &str = "SELECT sealed_log_id FROM skill_system.audit_seal_state";
        sys::find_relation(c"audit_seal_state").and_then(|_| spi::first(SQL, As::Owner, See::Latest, &[]))
    },
    is_of: |system_identifier, database| {
        const SQL: &str = "SELECT xmin::text::bigint = written_by & 4294967295 AND system_identifier = $1 AND database_oid = $2 \
             FROM skill_system.audit_seal_state";
        spi::first(SQL, As::Owner, See::OwnWrites, &[arg(system_identifier), arg(database)])
    },
};

/// The top-level transaction of this session, if it has an id.
pub fn own_transaction() -> Option<i64> {
    sys::top_transaction_id_if_any().map(|own| own as i64)
}

/// The active snapshot; the session's own transaction counts as not ended.
pub fn active_snapshot() -> Result<Snapshot, Fault> {
    let text: String = spi::one("SELECT pg_current_snapshot()::text", As::Caller, See::Statement, &[]);
    Ok(Snapshot::parse(&text)?.without(own_transaction()))
}

/// The server and database that seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// `pg_control_system()`
    pub system_identifier: i64,
    /// `pg_database.oid`
    pub database: Oid,
    pub timeline: i32,
}

impl Place {
    /// This one; `None` in recovery.
    pub fn here() -> Option<Self> {
        let (system_identifier, database, timeline) = sys::cluster_identity()?;
        Some(Place { system_identifier: system_identifier as i64, database, timeline: timeline as i32 })
    }

    /// This one, where something is written.
    pub fn here_for_writing() -> Result<Self, Fault> {
        Self::here().ok_or_else(|| Fault::new(Code::ReadOnlyTransaction, "cannot seal during recovery"))
    }
}

columns! {
    /// Cast, so that verification still runs, and reports it, when somebody changed the type of a column.
    struct StoredState {
        incarnation: i32 = "incarnation::int",
        tree_size: i64 = "tree_size::bigint",
        root_hash: Vec<u8> = "root_hash::bytea",
        snapshot: String = "snapshot::text",
        target: Option<String> = "target::text",
        position_transaction: Option<i64> = "position_transaction::bigint",
        position_id: Option<Uuid> = "position_id::uuid",
        foreign_below: i64 = "foreign_below::bigint",
        system_identifier: i64 = "system_identifier::bigint",
        database_oid: Oid = "database_oid::oid",
        timeline: i32 = "timeline::int",
        fingerprint: Option<Vec<u8>> = "fingerprint::bytea",
        sealed_at: Timestamptz = "sealed_at::timestamptz",
        written_by: i64 = "written_by::bigint",
        tail_ids: Vec<u8> = "tail_ids::bytea",
        tail_hashes: Vec<u8> = "tail_hashes::bytea",
        xmin: i64 = "xmin::text::bigint",
    }
}

/// The last leaves of the tree, fewer than [`Tail::LEAVES`]. They lie in the row of the state, which every seal writes
/// anyway: the last tile grows in steps of as many, instead of being written again for each record.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    /// 16 bytes each.
    pub ids: Vec<u8>,
    /// 32 bytes each.
    pub hashes: Vec<u8>,
}

impl Tail {
    /// A tile holds a multiple of it.
    pub const LEAVES: usize = 16;

    /// The last leaves of a tile that has these ids and hashes so far.
    pub fn of(ids: &[u8], hashes: &[u8]) -> Self {
        let kept = ids.len() / ID / Self::LEAVES * Self::LEAVES;
        Tail { ids: ids[kept * ID..].to_vec(), hashes: hashes[kept * HASH..].to_vec() }
    }

    /// Leaves before the tail of a tree of this size.
    pub fn start(size: u64) -> u64 {
        size - size % Self::LEAVES as u64
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
    /// When the tree last grew.
    pub sealed_at: Timestamptz,
    /// The last leaves, which the tiles and the map do not have yet.
    pub tail: Tail,
    /// Why the row is not the one that the last seal, or the first record, left here.
    foreign_writer: Option<String>,
    /// It takes adopt_log() to go on under another incarnation.
    pub lost: bool,
}

/// The row was written by another transaction than the one it names.
fn foreign_writer(table: &str, written_by: i64, xmin: i64) -> Option<String> {
    // Transaction ids of rows have 32 bits.
    (written_by & 0xffff_ffff != xmin).then(|| {
        format!("transaction {xmin} put the row into {table} that transaction {written_by} wrote: a restore into this database")
    })
}

impl State {
    /// Before the first seal, where the first record was written; `None` before that.
    pub fn first() -> Result<Option<Self>, Fault> {
        const SQL: &str = "SELECT system_identifier::bigint, database_oid::oid, timeline::int, written_by::bigint, \
             xmin::text::bigint FROM skill_system.audit_state";
        let Some((system_identifier, database, timeline, written_by, xmin)) =
            spi::first::<(i64, Oid, i32, i64, i64)>(SQL, As::Caller, See::Statement, &[])
        else {
            return Ok(None);
        };
        let lost = was_sealed();
        let foreign_writer = match lost {
            true => {
                Some("audit_seal_state is empty, but the log was sealed: tiles, checkpoints or records show it".into())
            }
            false => foreign_writer("audit_state", written_by, xmin),
        };
        Ok(Some(State {
            incarnation: 1,
            size: 0,
            root: skill_core::tree::EMPTY_ROOT,
            snapshot: Snapshot::empty(),
            target: None,
            foreign_below: 0,
            place: Place { system_identifier, database, timeline },
            fingerprint: None,
            sealed_at: sys::clock_timestamp(),
            tail: Tail::default(),
            foreign_writer,
            lost,
        }))
    }

    /// As the active snapshot sees it, or as it was before the first seal; `None` before the first record.
    pub fn read_or_first() -> Result<Option<Self>, Fault> {
        match State::read()? {
            Some(state) => Ok(Some(state)),
            None => State::first(),
        }
    }

    /// As the active snapshot sees it; `None` before the first seal.
    pub fn read() -> Result<Option<Self>, Fault> {
        const SQL: &str = concatcp!("SELECT ", StoredState::COLUMNS, " FROM skill_system.audit_seal_state");
        spi::first(SQL, As::Caller, See::Statement, &[]).map(State::from_stored).transpose()
    }

    fn from_stored(stored: StoredState) -> Result<Self, Fault> {
        let target = match (stored.target, stored.position_transaction, stored.position_id) {
            (Some(target), Some(transaction), Some(id)) => {
                Some((Snapshot::parse(&target)?, transaction, *id.as_bytes()))
            }
            _ => None,
        };
        let root = stored
            .root_hash
            .try_into()
            .map_err(|_| Fault::new(Code::DataCorrupted, "audit_seal_state.root_hash is not a SHA-256 hash"))?;
        Ok(State {
            incarnation: stored.incarnation,
            size: stored.tree_size as u64,
            root,
            snapshot: Snapshot::parse(&stored.snapshot)?,
            target,
            foreign_below: stored.foreign_below,
            place: Place {
                system_identifier: stored.system_identifier,
                database: stored.database_oid,
                timeline: stored.timeline,
            },
            fingerprint: stored.fingerprint,
            sealed_at: stored.sealed_at,
            tail: Tail { ids: stored.tail_ids, hashes: stored.tail_hashes },
            foreign_writer: foreign_writer("audit_seal_state", stored.written_by, stored.xmin),
            lost: false,
        })
    }

    /// Records with transaction ids that mean nothing in this server have been sealed: when this server comes to the same
    /// numbers, a seal must not take them again.
    pub fn expect_foreign(&mut self) {
        const SQL: &str = "SELECT max(transaction_id) FROM skill_system.audit_logs";
        let highest = spi::one::<Option<i64>>(SQL, As::Caller, See::Statement, &[]);
        self.foreign_below = highest.unwrap_or(0).saturating_add(1).max(self.foreign_below);
    }

    /// Writes the row.
    pub fn write(&self) {
        let target = self.target.as_ref();
        spi::execute(
            include_str!("write_state.sql"),
            As::Caller,
            See::OwnWrites,
            &[
                arg(self.incarnation),
                arg(self.size as i64),
                arg(&self.root),
                arg(self.snapshot.text()),
                arg(target.map(|(snapshot, ..)| snapshot.text())),
                arg(target.map(|(_, transaction, _)| *transaction)),
                arg(target.map(|(.., id)| *id)),
                arg(self.foreign_below),
                arg(self.place.system_identifier),
                arg(self.place.database),
                arg(self.place.timeline),
                arg(self.fingerprint.as_deref()),
                arg(self.sealed_at),
                arg(i64::from(sys::current_transaction_id())),
                arg(self.tail.ids.as_slice()),
                arg(self.tail.hashes.as_slice()),
            ],
        );
    }

    /// An error unless this is the server that sealed before: elsewhere transaction ids mean something else, and two
    /// servers could go on with one history in two ways.
    pub fn check_place(&self) -> Result<(), Fault> {
        match self.place_change() {
            None => Ok(()),
            Some(how) => {
                let why = match self {
                    State { lost: true, .. } => "the state of the seal is lost",
                    State { size: 0, .. } => "its records are from elsewhere",
                    _ => "it was sealed elsewhere",
                };
                Err(Fault::new(Code::NotInPrerequisiteState, format!("cannot seal the audit log here: {why}"))
                    .detail(how)
                    .hint(
                        "If this is now the authoritative log: \
                 SELECT * FROM skill_system.adopt_log('why', 'newest checkpoint held outside');",
                    ))
            }
        }
    }

    /// What differs from the server that sealed before; `None` in recovery, where nothing is sealed.
    pub fn place_change(&self) -> Option<String> {
        let (here, there) = (Place::here()?, self.place);
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
        seen.extend(self.foreign_writer.clone().filter(|_| self.lost || seen.is_empty()));
        (!seen.is_empty()).then(|| seen.join("; ") + ".")
    }
}

/// Something shows that the log was sealed once, whatever became of `audit_seal_state`.
pub fn was_sealed() -> bool {
    const SQL: &str = "SELECT EXISTS (SELECT FROM skill_system.audit_tiles) OR EXISTS (SELECT FROM skill_system.audit_map) \
         OR EXISTS (SELECT FROM skill_system.audit_checkpoints) \
         OR EXISTS (SELECT FROM skill_system.audit_logs WHERE event_type = 'audit.fingerprint')";
    spi::one(SQL, As::Caller, See::Statement, &[])
}

/// Records exist, but nothing names their log.
pub fn identity_lost() -> Fault {
    Fault::new(Code::NotInPrerequisiteState, "cannot seal the audit log: audit_state is empty")
        .detail("The identity of the log is part of the signed bytes of every record.")
        .hint("SELECT * FROM skill_system.repair(); or restore audit_state from a backup.")
}
