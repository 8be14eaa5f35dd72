//! Removed when every module reads rows by type.

use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Arg, Row};

pub fn run(sql: &'static str, rights: As, see: See, args: &[Arg], mut body: impl FnMut(&Row)) -> u64 {
    spi::each(sql, rights, see, args, |row| {
        body(row);
        Ok(())
    })
    .unwrap_or_default()
}

pub fn run_once(sql: &str, rights: As, see: See, args: &[Arg], mut body: impl FnMut(&Row)) -> u64 {
    spi::each(Once(sql), rights, see, args, |row| {
        body(row);
        Ok(())
    })
    .unwrap_or_default()
}
