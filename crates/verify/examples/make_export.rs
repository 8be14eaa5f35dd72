//! Writes an export of made-up records, to measure with: `make_export RECORDS FILE`. Prints the key to verify it with;
//! the keyring is next to the file.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{BufWriter, Write};

use skill_core::audit::keyring::{Keyring, RANDOM_BYTES};
use support::{Log, Row};

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, records, path] = &arguments[..] else {
        return Err(std::io::Error::other("usage: make_export RECORDS FILE"));
    };
    let records: u64 = records.parse().map_err(std::io::Error::other)?;
    let ring = support::ring(7);
    let log = Log::new(ring.clone(), (0..records).map(|i| Row::typical(i, &ring).leaf_hash()));
    let mut out = BufWriter::new(File::create(path)?);
    log.export(0, records, |i| Row::typical(i, &ring).line(i), &mut out)?;
    out.flush()?;
    std::fs::write(format!("{path}.keyring"), Keyring::generate(&[7; RANDOM_BYTES]).as_bytes())?;
    println!("{}", log.vkey());
    Ok(())
}
