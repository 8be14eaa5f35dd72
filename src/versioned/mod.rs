//! What modules with versioned, approved objects share: who changes something and why, and namespaces that number their
//! changes without gaps. The objects' tables, statuses and approvals belong to the modules; what needs no database (tokens,
//! requirements, diffs) is in `core`.

mod change;
mod namespaces;

pub use change::Change;
pub use namespaces::Namespaces;
