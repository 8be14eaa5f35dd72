//! The ledger: a Merkle tree over the audit trail, its checkpoints and proofs.

mod adopt;
mod export;
mod growth;
mod health;
mod kept;
mod proof;
mod retention;
mod rotation;
mod seal;
mod sealer;
mod state;
mod status;
mod tiles;
mod verify;

use crate::audit;
use crate::module::Module;

pub use proof::current_origin;

pub const MODULE: Module = Module {
    load: || {
        audit::identity::register(state::SECOND_PLACE);
        sealer::register();
    },
    transaction_ends: &[growth::at_transaction_end, sealer::at_transaction_end],
    health: &[
        ("keyring", health::keyring),
        ("audit_seal", health::audit_seal),
        ("sealer", health::sealer),
        ("checkpoints", health::checkpoints),
    ],
    maintenance: &[("audit_seal", health::seal), ("audit_sweep", health::sweep)],
    ..Module::new("ledger")
};
