//! What a sealer does at each of its steps; `pg::worker` is the process around it.

/// One step of sealing; true when there is more to seal at once.
pub fn seal() -> bool {
    false
}
