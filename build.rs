//! Gives the library the install scripts that `sql/ORDER` lists: what they declare is what the protection of the audit
//! trail expects to find in the catalogue.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let sql = Path::new(&root).join("sql");
    let order = sql.join("ORDER");
    println!("cargo::rerun-if-changed={}", order.display());
    let listed = fs::read_to_string(&order)?;
    let scripts = listed.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let included: String =
        scripts.map(|script| format!("    include_str!({:?}),\n", sql.join(script).display().to_string())).collect();
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("install_scripts.rs"), format!("&[\n{included}]\n"))
}
