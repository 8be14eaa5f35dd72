//! Rows as the table has them: each signature, nothing more.

use std::io::{Read, Write};

use serde_json::json;
use skill_core::audit::keyring::Keyring;

use crate::pieces::{self, Piece, TOO_LONG};
use crate::record;
use crate::report::{Finding, Outcome, Progress, Report, Unusable, count};
use crate::time::Span;

#[derive(Default)]
struct Checked {
    lines: u64,
    records: u64,
    span: Option<Span>,
    findings: Vec<Finding>,
}

/// Checks every line; without a line, nothing is wrong.
pub fn check(
    input: impl Read + Send,
    threads: usize,
    log_id: &[u8; 16],
    keyring: &Keyring,
    mut progress: Progress,
    report: &mut Report<impl Write>,
) -> Result<Outcome, Unusable> {
    let (mut lines, mut records, mut span) = (0, 0, None);
    let work = |piece: Piece| {
        let (mut checked, mut buffer) = (Checked::default(), Vec::new());
        let Piece::Lines(piece) = piece else {
            let finding = Finding { line: Some(1), ..Finding::new("record_too_large", TOO_LONG) };
            return Checked { lines: 1, records: 1, span: None, findings: vec![finding] };
        };
        for line in piece.split_inclusive(|b| *b == b'\n') {
            checked.lines += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            checked.records += 1;
            let finding = |code, id, detail: &str| Finding {
                code,
                line: Some(checked.lines),
                leaf: None,
                id,
                detail: detail.into(),
            };
            let read = std::str::from_utf8(line).map_err(|_| "no UTF-8".to_owned());
            checked.findings.extend(match read.and_then(|line| record::from_row(line, log_id, &mut buffer)) {
                Err(wrong) => Some(finding("malformed", None, &wrong)),
                Ok(record::Line { id, whole: None, .. }) => Some(finding("value_missing", Some(id), VALUE_MISSING)),
                Ok(record::Line { id, whole: Some(whole), .. }) => {
                    checked.span = Span::join(checked.span, Some(Span::of(whole.created_at)));
                    whole.verify(keyring, &buffer).err().map(|(code, detail)| finding(code, Some(id), detail))
                }
            });
        }
        checked
    };
    pieces::run(input, threads, work, |checked, bytes| {
        for mut finding in checked.findings {
            finding.line = finding.line.map(|line| lines + line);
            report.problem(&finding)?;
        }
        lines += checked.lines;
        records += checked.records;
        span = Span::join(span, checked.span);
        progress.add(bytes, checked.records);
        Ok(())
    })?;
    drop(progress);
    let mut table = vec![("records", records.to_string()), ("log id", uuid::Uuid::from_bytes(*log_id).to_string())];
    table.extend(span.map(Span::line));
    let sentence = format!("{} with true signatures", count(records, "record"));
    report.finish(&sentence, &[], table, json!({ "records": records }))
}

/// Said of a row with a NULL or an infinite time where every record has a value.
pub const VALUE_MISSING: &str = "a value that every record has is missing or cannot be signed";
