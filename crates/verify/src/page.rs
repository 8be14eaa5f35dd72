//! The records of an export as a page for a browser, which verifies the proof of each again and needs no network.
//!
//! What was recorded is untrusted input. In the page it is base64 of compressed bytes, or JSON without a "<"; the script
//! shows it as text.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use miniz_oxide::deflate::compress_to_vec;
use serde_json::{Value, json};
use skill_core::ledger::checkpoint::VerifierKey;
use skill_core::tree::{Hash, RangeHasher};

use crate::entry::{self, Entry};
use crate::manifest::Manifest;
use crate::pieces;
use crate::report::{Finished, Unusable, signer};

const BODY: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
/// Leaves of a chunk: one tile of the tree.
const CHUNK: u64 = 256;
/// What a browser can hold and search in.
const MAX_RECORDS: u64 = 200_000;
const MAX_BYTES: u64 = 256 << 20;
/// zlib's usual level.
const LEVEL: u8 = 6;

/// For a content security policy.
fn hash_source(text: &str) -> String {
    let hex = skill_core::input::sha256(text.as_bytes());
    let digits = hex.trim_start_matches("sha256:").as_bytes();
    let digit = |d: &u8| (*d as char).to_digit(16).unwrap_or_default() as u8;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect();
    format!("'sha256-{}'", BASE64.encode(bytes))
}

fn head() -> String {
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash_source(SCRIPT),
        hash_source(STYLE)
    );
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Audit records</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{BODY}"
    )
}

fn base64(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| BASE64.encode(hash)).collect()
}

/// Leaves that follow each other, at most a tile of them.
struct Chunk {
    first: u64,
    hasher: RangeHasher,
    lines: Vec<u8>,
}

struct Page<W> {
    out: W,
    open: Option<Chunk>,
    chunks: Vec<Value>,
    retired: Vec<Value>,
    buffer: Vec<u8>,
}

impl<W: Write> Page<W> {
    fn leaf(&mut self, leaf: u64, hash: &Hash, line: &str) -> Result<(), Unusable> {
        let follows = |chunk: &Chunk| chunk.hasher.at() == leaf && !leaf.is_multiple_of(CHUNK);
        if !self.open.as_ref().is_some_and(follows) {
            self.close()?;
        }
        let chunk = match &mut self.open {
            Some(chunk) => chunk,
            none => {
                let hasher = RangeHasher::part(leaf).map_err(|fault| Unusable(fault.message))?;
                none.insert(Chunk { first: leaf, hasher, lines: Vec::new() })
            }
        };
        chunk.hasher.push(hash).map_err(|fault| Unusable(fault.message))?;
        chunk.lines.extend_from_slice(line.as_bytes());
        chunk.lines.push(b'\n');
        Ok(())
    }

    fn close(&mut self) -> Result<(), Unusable> {
        let Some(Chunk { first, hasher, lines }) = self.open.take() else { return Ok(()) };
        let packed = BASE64.encode(compress_to_vec(&lines, LEVEL));
        let n = self.chunks.len();
        let written = writeln!(self.out, "<script type=\"application/octet-stream\" id=\"c{n}\">{packed}</script>");
        written.map_err(failed)?;
        self.chunks.push(json!([first, hasher.at() - first, base64(&hasher.cover())]));
        Ok(())
    }

    /// False at the last line.
    fn line(&mut self, line: &str, log_id: &[u8; 16]) -> Result<bool, Unusable> {
        let mut buffer = std::mem::take(&mut self.buffer);
        match entry::read(line, log_id, &mut buffer).map_err(Unusable)? {
            Entry::Record(record) => {
                let leaf = record.leaf.ok_or(Unusable("leaf is missing".into()))?;
                self.leaf(leaf, &record.leaf_hash(log_id, &buffer), line)?;
            }
            Entry::Gone { leaf, hash, .. } => self.leaf(leaf, &hash, line)?,
            Entry::Retired { first, count, cover } => self.retired.push(json!([first, count, base64(&cover)])),
            Entry::End(_) => return Ok(false),
        }
        self.buffer = buffer;
        Ok(true)
    }
}

fn failed(error: std::io::Error) -> Unusable {
    Unusable(format!("could not write the page: {error}"))
}

/// Reads the export a second time; what was `found` the first time stands at the head of the page, which is there whole
/// or not at all.
pub fn write(file: &str, page: &str, found: &Finished, keys: &[VerifierKey]) -> Result<(), Unusable> {
    let temporary = format!("{page}.new.{}", std::process::id());
    let out = File::create_new(&temporary).map_err(|e| failed(e).of(page))?;
    let written = write_to(out, file, found, keys)
        .and_then(|()| std::fs::rename(&temporary, page).map_err(|e| failed(e).of(page)));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn write_to(out: File, file: &str, found: &Finished, keys: &[VerifierKey]) -> Result<(), Unusable> {
    let mut input = BufReader::new(File::open(file).map_err(|e| Unusable(e.to_string()).of(file))?);
    let first = pieces::first_line(&mut input)?.unwrap_or_default();
    let manifest = Manifest::parse(&first).map_err(|what| Unusable(what).of(file))?;
    let mut out = BufWriter::new(out);
    out.write_all(head().as_bytes()).map_err(failed)?;
    let mut page = Page { out, open: None, chunks: Vec::new(), retired: Vec::new(), buffer: Vec::new() };
    let (mut lines, mut bytes, mut line) = (0, 0, String::new());
    loop {
        line.clear();
        let read = input.by_ref().take(MAX_BYTES).read_line(&mut line);
        bytes += read.map_err(|e| Unusable(e.to_string()).of(file))? as u64;
        if lines > MAX_RECORDS || bytes > MAX_BYTES {
            let most = MAX_BYTES >> 20;
            return Err(Unusable(format!(
                "--html: a page holds at most {MAX_RECORDS} records and {most} MiB of them; audit_export(since, until) \
                 exports a part"
            )));
        }
        if line.is_empty()
            || !page.line(line.trim_end_matches(['\r', '\n']), &manifest.log_id).map_err(|e| e.of(file))?
        {
            break;
        }
        lines += 1;
    }
    page.close()?;
    let Page { mut out, chunks, retired, .. } = page;
    let facts = facts(&manifest, found, keys, chunks, retired).to_string().replace('<', "\\u003c");
    let end = format!(
        "<script type=\"application/json\" id=\"facts\">{facts}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    );
    out.write_all(end.as_bytes()).and_then(|()| out.flush()).map_err(failed)
}

fn facts(
    manifest: &Manifest,
    found: &Finished,
    keys: &[VerifierKey],
    chunks: Vec<Value>,
    retired: Vec<Value>,
) -> Value {
    let Manifest { origin, log_id, start, end, size, root, left, right, checkpoint, .. } = manifest;
    let key = signer(keys, checkpoint).or(keys.iter().find(|key| key.origin() == origin)).or(keys.first());
    json!({
        "verdict": found.outcome.word(), "sentence": found.sentence, "table": found.table, "problems": found.problems,
        "findings": found.findings, "version": env!("CARGO_PKG_VERSION"), "origin": origin,
        "log_id": uuid::Uuid::from_bytes(*log_id).to_string(), "start": start, "end": end, "size": size,
        "root": BASE64.encode(root), "left": base64(left), "right": base64(right),
        "checkpoint": skill_core::ledger::checkpoint::tidy(checkpoint), "key": key.map(|key| BASE64.encode(key.public())),
        "chunks": chunks, "retired": retired,
    })
}
