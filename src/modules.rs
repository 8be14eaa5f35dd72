//! The one list of modules.

use crate::module::Module;
use crate::{audit, compliance, ledger, policy, runs, skills, system};

/// All modules. The ledger is last, so that maintenance seals what the others record.
pub const ALL: &[Module] =
    &[system::MODULE, audit::MODULE, policy::MODULE, runs::MODULE, compliance::MODULE, skills::MODULE, ledger::MODULE];
