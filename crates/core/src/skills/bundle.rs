//! Zip bundles: the `actions/` and `references/` of a skill, under the limits of skills-runtime-sdk 0.1.12.
//!
//! A bundle is untrusted input. Everything that both directories of the archive say is compared before anything is
//! inflated, and what is inflated goes into a buffer of the size that was declared and allowed.

use std::collections::BTreeSet;

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use rawzip::time::UtcDateTime;
use rawzip::{
    CompressionMethod, DataDescriptorOutput, ZipArchive, ZipArchiveEntryWayfinder, ZipArchiveWriter,
    ZipFileHeaderRecord, ZipSliceArchive, ZipVerification, crc32,
};
use serde_json::{Value, json};
use std::io::Write;

use super::contract::Issue;
use super::files::Files;
use super::version::File;
use crate::error::{Code, Fault};
use crate::input::invalid;

/// Largest bundle, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;
/// Most files in a bundle.
pub const MAX_FILES: usize = 4096;
/// Where the files of a bundle are.
pub const DIRECTORIES: [&str; 2] = ["actions", "references"];
/// Largest limit that a caller may set, in bytes.
const MAX_LIMIT: u64 = 16 << 20;

/// How much a bundle may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    bytes: u64,
    extracted: u64,
    single_file: u64,
    files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: MAX_BYTES, extracted: MAX_BYTES * 16, single_file: MAX_BYTES * 8, files: MAX_FILES as u64 }
    }
}

impl Limits {
    /// From arguments; those that are left out follow from the first as the contract has it.
    pub fn new(
        bytes: Option<i32>,
        extracted: Option<i32>,
        files: Option<i32>,
        single_file: Option<i32>,
    ) -> Result<Self, Fault> {
        let limit = |what: &str, value: Option<i32>, otherwise: u64| match value {
            None => Ok(otherwise.min(MAX_LIMIT)),
            Some(value) => u64::try_from(value)
                .ok()
                .filter(|value| (1..=MAX_LIMIT).contains(value))
                .ok_or_else(|| invalid(format!("{what} must be 1 to {MAX_LIMIT}"))),
        };
        let bytes = limit("max_bytes", bytes, MAX_BYTES)?;
        Ok(Limits {
            bytes,
            extracted: limit("max_extracted_bytes", extracted, bytes * 16)?,
            files: limit("max_files", files, MAX_FILES as u64)?,
            single_file: limit("max_single_file_bytes", single_file, bytes * 8)?,
        })
    }
}

fn bad(message: &'static str, details: Value) -> Fault {
    Issue { code: "SKILL_BUNDLE_INVALID", message, details }.fault(Code::InvalidParameterValue)
}

fn not_a_zip(reason: impl ToString) -> Fault {
    bad("Skill bundle is not a valid zip archive.", json!({"reason": reason.to_string()}))
}

fn bad_entry(reason: &str, name: &str) -> Fault {
    let mut details = json!({"reason": reason});
    if !name.is_empty() {
        details["name"] = name.into();
    }
    bad("Skill bundle zip entry is invalid.", details)
}

fn too_large(details: Value) -> Fault {
    Issue { code: "SKILL_BUNDLE_TOO_LARGE", message: "Skill bundle exceeds configured size budget.", details }
        .fault(Code::ProgramLimitExceeded)
}

/// The path of an entry below the skill's directory.
fn path(name: &str) -> Result<String, Fault> {
    if matches!(name, "" | "." | "/") {
        return Err(bad_entry("empty_name", ""));
    }
    if name.contains('\\') {
        return Err(bad_entry("backslash_in_name", name));
    }
    if name.starts_with('/') {
        return Err(bad_entry("absolute_path", name));
    }
    let parts: Vec<_> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() {
        return Err(bad_entry("empty_parts", name));
    }
    if parts.contains(&"..") {
        return Err(bad_entry("dotdot_segment", name));
    }
    if !DIRECTORIES.contains(&parts[0]) {
        return Err(bad(
            "Skill bundle contains unexpected top-level entries.",
            json!({"reason": "unexpected_top_level", "top_level": parts[0], "allowed": DIRECTORIES}),
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(bad_entry("control_character", &name.escape_debug().to_string()));
    }
    Ok(parts.join("/"))
}

/// The archive is one file from its first byte to its last, and its end says so: one disk, the directory right before it,
/// no comment, no sizes of more than 32 bits.
fn is_plain(zip: &[u8], archive: &ZipSliceArchive<&[u8]>) -> bool {
    let (start, end) = (archive.directory_offset(), archive.eocd_offset());
    let Some(record) = usize::try_from(end).ok().and_then(|end| zip.get(end..)) else {
        return false;
    };
    let number = |at: usize, bytes: usize| {
        record[at..at + bytes].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    record.len() == 22
        && [number(4, 2), number(6, 2), number(20, 2)] == [0; 3]
        && number(8, 2) == number(10, 2)
        && number(16, 4) == start
        && start.checked_add(number(12, 4)) == Some(end)
}

struct Entry {
    path: String,
    name: String,
    method: CompressionMethod,
    size: u64,
    crc: u32,
    way: ZipArchiveEntryWayfinder,
}

/// Reads the files of a bundle.
pub fn read(zip: &[u8], limits: &Limits) -> Result<Vec<File>, Fault> {
    if zip.len() as u64 > limits.bytes {
        return Err(too_large(json!({"bundle_bytes": zip.len(), "max_bytes": limits.bytes})));
    }
    // The one reason that everybody meets, in the words of the client.
    let archive = ZipArchive::from_slice(zip).map_err(|_| not_a_zip("File is not a zip file"))?;
    if !is_plain(zip, &archive) {
        return Err(not_a_zip("the end of the archive is not where or what it should be"));
    }
    let mut contents = Contents::default();
    let mut count = 0;
    for record in archive.entries() {
        count += 1;
        contents.add(zip, &archive, &record.map_err(not_a_zip)?, limits)?;
    }
    if count != archive.entries_hint() {
        return Err(not_a_zip("the directory has another number of entries than its end says"));
    }
    contents.check_paths()?;
    contents.check_layout(archive.directory_offset(), zip.len() as u64)?;
    contents.entries.into_iter().map(|entry| inflate(&archive, entry)).collect()
}

#[derive(Default)]
struct Contents {
    entries: Vec<Entry>,
    files: BTreeSet<String>,
    directories: BTreeSet<String>,
    /// Where each entry begins and ends in the archive.
    spans: Vec<(u64, u64)>,
    /// Declared size of all files.
    extracted: u64,
}

impl Contents {
    fn add(
        &mut self,
        zip: &[u8],
        archive: &ZipSliceArchive<&[u8]>,
        record: &ZipFileHeaderRecord,
        limits: &Limits,
    ) -> Result<(), Fault> {
        let raw = record.file_path();
        let bytes = raw.as_bytes();
        let name = std::str::from_utf8(bytes).ok().filter(|name| name.is_ascii() || record.flags().is_utf8());
        let name = name.ok_or_else(|| bad_entry("name_not_utf8", &String::from_utf8_lossy(bytes)))?;
        let path = path(name)?;
        check_file_type(record, name)?;
        let size = record.uncompressed_size_hint();
        let directory = name.ends_with('/');
        if !directory {
            self.check_size(size, name, limits)?;
            self.extracted += size;
        }
        check_format(zip, record, name)?;
        let method = record.compression_method();
        let entry = archive.get_entry(record.wayfinder()).map_err(not_a_zip)?;
        let local = entry.local_header();
        if local.file_path().as_bytes() != bytes
            || local.compression_method() != method
            || local.flags() != record.flags()
        {
            return Err(bad_entry("local_header_differs", name));
        }
        self.spans.push((record.local_header_offset(), entry.compressed_data_range().1));
        if directory {
            if size != 0 || !entry.data().is_empty() {
                return Err(bad_entry("directory_with_content", name));
            }
            self.directories.insert(path);
            return Ok(());
        }
        self.directories.extend(path.match_indices('/').map(|(end, _)| path[..end].to_owned()));
        if !path.contains('/') || !self.files.insert(path.clone()) {
            return Err(bad_entry(if path.contains('/') { "duplicate_name" } else { "file_and_directory" }, name));
        }
        let (name, crc, way) = (name.to_owned(), record.crc32(), record.wayfinder());
        self.entries.push(Entry { path, name, method, size, crc, way });
        Ok(())
    }

    /// One more file of this size is within the limits.
    fn check_size(&self, size: u64, name: &str, limits: &Limits) -> Result<(), Fault> {
        if self.files.len() as u64 == limits.files {
            return Err(too_large(
                json!({"reason": "max_files", "files": limits.files + 1, "max_files": limits.files}),
            ));
        }
        if size > limits.single_file {
            return Err(too_large(
                json!({"reason": "max_single_file_bytes", "file_bytes": size, "max_single_file_bytes": limits.single_file, "name": name}),
            ));
        }
        if self.extracted + size > limits.extracted {
            return Err(too_large(json!({
                "reason": "max_extracted_bytes", "extracted_bytes": self.extracted, "next_file_bytes": size,
                "max_extracted_bytes": limits.extracted, "name": name,
            })));
        }
        Ok(())
    }

    fn check_paths(&self) -> Result<(), Fault> {
        if let Some(path) = self.files.intersection(&self.directories).next() {
            return Err(bad_entry("file_and_directory", path));
        }
        // What some file system would take for another path, or for the same.
        let mut safe = Files::up_to(self.entries.len(), 0);
        for entry in &self.entries {
            safe.add(&entry.path, Vec::new())
                .map_err(|fault| Fault { hint: Some(fault.message), ..bad_entry("unsafe_path", &entry.name) })?;
        }
        Ok(())
    }

    /// No byte belongs to two entries, or to an entry and the directory.
    fn check_layout(&mut self, directory: u64, end: u64) -> Result<(), Fault> {
        self.spans.push((directory, end));
        self.spans.sort_unstable();
        if self.spans.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return Err(not_a_zip("entries overlap"));
        }
        Ok(())
    }
}

fn check_file_type(record: &ZipFileHeaderRecord, name: &str) -> Result<(), Fault> {
    match record.external_attributes() >> 16 & 0o170_000 {
        0 | 0o100_000 | 0o040_000 => Ok(()),
        0o120_000 => Err(bad("Skill bundle contains symlink entries, which are not allowed.", json!({"name": name}))),
        _ => Err(bad_entry("special_file", name)),
    }
}

fn check_format(zip: &[u8], record: &ZipFileHeaderRecord, name: &str) -> Result<(), Fault> {
    if record.flags().is_encrypted() || record.flags().has_strong_encryption() {
        return Err(bad_entry("encrypted", name));
    }
    // The client reads what needs no more than version 6.3 of the format.
    let needed = usize::try_from(record.central_directory_offset()).ok().and_then(|at| zip.get(at + 6..at + 8));
    if needed.is_none_or(|needed| u16::from_le_bytes([needed[0], needed[1]]) > 63) {
        return Err(bad_entry("format_version", name));
    }
    if !matches!(record.compression_method(), CompressionMethod::STORE | CompressionMethod::DEFLATE) {
        return Err(bad_entry("compression_method", name));
    }
    Ok(())
}

fn inflate(archive: &ZipSliceArchive<&[u8]>, entry: Entry) -> Result<File, Fault> {
    let data = archive.get_entry(entry.way).map_err(not_a_zip)?;
    let content = match entry.method {
        CompressionMethod::STORE => data.data().to_vec(),
        _ => decompress_to_vec_with_limit(data.data(), entry.size as usize)
            .map_err(|_| bad_entry("content", &entry.name))?,
    };
    let is = ZipVerification { crc: crc32(&content), uncompressed_size: content.len() as u64 };
    ZipVerification { crc: entry.crc, uncompressed_size: entry.size }
        .valid(is)
        .map_err(|_| bad_entry("content", &entry.name))?;
    Ok(File { path: entry.path, content })
}

/// The file belongs in a bundle.
pub fn is_in_bundle(path: &str) -> bool {
    path.split_once('/').is_some_and(|(top, _)| DIRECTORIES.contains(&top))
}

/// Writes files as a bundle: the same files give the same bytes, in whatever order they come.
pub fn write(files: &[File]) -> Result<Vec<u8>, Fault> {
    let zip = archive(files)?;
    if zip.len() as u64 > MAX_BYTES {
        return Err(too_large(json!({"bundle_bytes": zip.len(), "max_bytes": MAX_BYTES})));
    }
    Ok(zip)
}

/// As [`write`], of any size.
pub fn archive(files: &[File]) -> Result<Vec<u8>, Fault> {
    let internal = |error: String| Fault::new(Code::Internal, format!("the bundle cannot be written: {error}"));
    let time = UtcDateTime::from_components(1980, 1, 1, 0, 0, 0, 0).ok_or_else(|| internal("time".into()))?;
    let mut files: Vec<_> = files.iter().collect();
    files.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    let mut archive = ZipArchiveWriter::new(Vec::new());
    for file in files {
        let deflated = compress_to_vec(&file.content, 9);
        let (method, data) = if deflated.len() < file.content.len() {
            (CompressionMethod::DEFLATE, deflated.as_slice())
        } else {
            (CompressionMethod::STORE, file.content.as_slice())
        };
        let start =
            archive.new_file(&file.path).compression_method(method).last_modified(time).unix_permissions(0o644).start();
        let (mut entry, _) = start.map_err(|error| internal(error.to_string()))?;
        entry.write_all(data).map_err(|error| internal(error.to_string()))?;
        entry
            .finish(DataDescriptorOutput::new(crc32(&file.content), file.content.len() as u64))
            .map_err(|error| internal(error.to_string()))?;
    }
    archive.finish().map_err(|error| internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str, content: &[u8]) -> File {
        File { path: path.into(), content: content.into() }
    }

    fn reason(zip: &[u8]) -> String {
        let fault = read(zip, &Limits::default()).unwrap_err();
        let detail: Value = serde_json::from_str(&fault.detail.unwrap()).unwrap();
        detail["details"]["reason"]
            .as_str()
            .map_or_else(|| detail["message"].as_str().unwrap().to_owned(), str::to_owned)
    }

    /// `skill_versions.archive_digest` has the digests of archives: others for the same files would need these computed again.
    #[test]
    fn archives_keep_their_bytes() {
        let text: String = (0..5000u32).map(|n| format!("{} ", n.wrapping_mul(2_654_435_761) >> 20)).collect();
        let files = [file("SKILL.md", text.as_bytes()), file("assets/a.bin", &[0, 255, 7]), file("assets/empty", b"")];
        let zip = archive(&files).unwrap();
        assert_eq!(
            crate::input::sha256(&zip),
            "sha256:4d49ad7189094a3b1c1f7208d912889ebed922cece97038a9583d5d24d690177"
        );
    }

    /// One stored file by the letter of the format, with the names, sizes and attributes given for each directory.
    struct Raw<'a> {
        local: &'a [u8],
        central: &'a [u8],
        data: &'a [u8],
        method: u16,
        size: u32,
        flags: u16,
        mode: u32,
        crc: u32,
    }

    impl<'a> Raw<'a> {
        fn new(name: &'a [u8], data: &'a [u8]) -> Self {
            Raw {
                local: name,
                central: name,
                data,
                method: 0,
                size: data.len() as u32,
                flags: 0,
                mode: 0o100_644,
                crc: crc32(data),
            }
        }

        fn local(&self) -> Vec<u8> {
            let mut out = b"PK\x03\x04\x14\0".to_vec();
            out.extend(self.flags.to_le_bytes());
            out.extend(self.method.to_le_bytes());
            out.extend([0, 0, 0x21, 0]);
            out.extend(self.crc.to_le_bytes());
            out.extend((self.data.len() as u32).to_le_bytes());
            out.extend(self.size.to_le_bytes());
            out.extend((self.local.len() as u16).to_le_bytes());
            out.extend([0, 0]);
            out.extend(self.local);
            out.extend(self.data);
            out
        }

        fn central(&self, offset: u32) -> Vec<u8> {
            let mut out = b"PK\x01\x02\x14\x03\x14\0".to_vec();
            out.extend(self.flags.to_le_bytes());
            out.extend(self.method.to_le_bytes());
            out.extend([0, 0, 0x21, 0]);
            out.extend(self.crc.to_le_bytes());
            out.extend((self.data.len() as u32).to_le_bytes());
            out.extend(self.size.to_le_bytes());
            out.extend((self.central.len() as u16).to_le_bytes());
            out.extend([0; 8]);
            out.extend((self.mode << 16).to_le_bytes());
            out.extend(offset.to_le_bytes());
            out.extend(self.central);
            out
        }
    }

    fn end(count: u16, size: usize, offset: usize) -> Vec<u8> {
        let mut out = b"PK\x05\x06\0\0\0\0".to_vec();
        out.extend(count.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend((size as u32).to_le_bytes());
        out.extend((offset as u32).to_le_bytes());
        out.extend([0, 0]);
        out
    }

    fn zip(entries: &[Raw]) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for entry in entries {
            directory.extend(entry.central(out.len() as u32));
            out.extend(entry.local());
        }
        let offset = out.len();
        out.extend(&directory);
        out.extend(end(entries.len() as u16, directory.len(), offset));
        out
    }

    #[test]
    fn there_and_back() {
        let files = [
            file("references/b.md", "é\r\n".repeat(9000).as_bytes()),
            file("actions/run.sh", b"echo"),
            file("references/empty", b""),
        ];
        let bytes = write(&files).unwrap();
        let mut back = read(&bytes, &Limits::default()).unwrap();
        back.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(back, [files[1].clone(), files[0].clone(), files[2].clone()]);
        let reversed: Vec<_> = files.iter().rev().cloned().collect();
        assert_eq!(write(&reversed).unwrap(), bytes);
        assert!(read(&zip(&[]), &Limits::default()).unwrap().is_empty());
    }

    #[test]
    fn names() {
        for (name, why) in [
            (&b"actions/../x"[..], "dotdot_segment"),
            (b"/actions/x", "absolute_path"),
            (b"actions\\x", "backslash_in_name"),
            (b"C:/x", "unexpected_top_level"),
            (b"SKILL.md", "unexpected_top_level"),
            (b"./../x", "dotdot_segment"),
            (b"./.", "empty_parts"),
            (b"actions", "file_and_directory"),
            (b"actions/a\0b", "control_character"),
            (b"actions/a\nb", "control_character"),
            (b"actions/\xff", "name_not_utf8"),
            ("actions/é".as_bytes(), "name_not_utf8"),
            (format!("actions/{}", "x".repeat(600)).as_bytes(), "unsafe_path"),
            (b"actions/a:b", "unsafe_path"),
            (b"references/NUL.txt", "unsafe_path"),
            (b"actions/ x", "unsafe_path"),
        ] {
            assert_eq!(reason(&zip(&[Raw::new(name, b"x")])), why, "{name:?}");
        }
        let marked = Raw { flags: 0x800, ..Raw::new("actions/é".as_bytes(), b"x") };
        assert_eq!(read(&zip(&[marked]), &Limits::default()).unwrap()[0].path, "actions/é");
        let twice = [Raw::new(b"actions/x", b"1"), Raw::new(b"./actions//x", b"2")];
        assert_eq!(reason(&zip(&twice)), "duplicate_name");
        assert_eq!(reason(&zip(&[Raw::new(b"actions/x", b"1"), Raw::new(b"actions/X", b"2")])), "unsafe_path");
        for pair in [
            [Raw::new(b"actions/x", b"1"), Raw::new(b"actions/x/y", b"2")],
            [Raw::new(b"actions/x/", b""), Raw::new(b"actions/x", b"2")],
        ] {
            assert_eq!(reason(&zip(&pair)), "file_and_directory");
        }
        assert_eq!(reason(&zip(&[Raw::new(b"actions/x/", b"1")])), "directory_with_content");
    }

    #[test]
    fn what_is_no_plain_file() {
        for (mode, why) in [
            (0o120_777, "Skill bundle contains symlink entries, which are not allowed."),
            (0o010_644, "special_file"),
            (0o020_644, "special_file"),
        ] {
            assert_eq!(reason(&zip(&[Raw { mode, ..Raw::new(b"actions/x", b"/etc/passwd") }])), why);
        }
        assert_eq!(reason(&zip(&[Raw { flags: 1, ..Raw::new(b"actions/x", b"x") }])), "encrypted");
        let mut newer = zip(&[Raw::new(b"actions/x", b"x")]);
        let directory = newer.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        newer[directory + 6] = 64;
        assert_eq!(reason(&newer), "format_version");
        assert_eq!(reason(&zip(&[Raw { method: 12, ..Raw::new(b"actions/x", b"x") }])), "compression_method");
    }

    #[test]
    fn a_directory_that_lies() {
        assert_eq!(
            reason(&zip(&[Raw { local: b"actions/y", ..Raw::new(b"actions/x", b"x") }])),
            "local_header_differs"
        );
        assert_eq!(reason(&zip(&[Raw { crc: 1, ..Raw::new(b"actions/x", b"x") }])), "content");
        assert_eq!(reason(&zip(&[Raw { size: 5, ..Raw::new(b"actions/x", b"x") }])), "content");
        // The end names one entry more than the archive has, and one less.
        let good = zip(&[Raw::new(b"actions/x", b"x"), Raw::new(b"actions/y", b"y")]);
        for count in [1_u8, 3] {
            let mut bad = good.clone();
            let end = bad.len() - 22;
            (bad[end + 8], bad[end + 10]) = (count, count);
            assert!(read(&bad, &Limits::default()).is_err(), "{count}");
        }
        for changed in [[&b"MZ"[..], &good].concat(), [&good[..], b"tail"].concat()] {
            assert_eq!(reason(&changed), "the end of the archive is not where or what it should be");
        }
        for cut in 0..good.len() {
            assert!(read(&good[..cut], &Limits::default()).is_err(), "{cut}");
        }
    }

    #[test]
    fn bombs() {
        let deflated = compress_to_vec(&vec![0; 9 << 20], 9);
        let bomb = Raw { method: 8, size: 9 << 20, ..Raw::new(b"actions/x", &deflated) };
        assert_eq!(reason(&zip(&[bomb])), "max_single_file_bytes");
        // A declared size that is smaller than what comes out.
        let lie = Raw { method: 8, size: 10, ..Raw::new(b"actions/x", &deflated) };
        assert_eq!(reason(&zip(&[lie])), "content");
        let names: Vec<_> = (0..3).map(|i| format!("actions/{i}")).collect();
        let part = compress_to_vec(&vec![0; 6 << 20], 9);
        let crc = crc32(&vec![0; 6 << 20]);
        let parts: Vec<_> = names
            .iter()
            .map(|name| Raw { method: 8, size: 6 << 20, crc, ..Raw::new(name.as_bytes(), &part) })
            .collect();
        assert_eq!(read(&zip(&parts[..2]), &Limits::default()).unwrap().len(), 2);
        assert_eq!(reason(&zip(&parts)), "max_extracted_bytes");
        let names: Vec<_> = (0..4097).map(|i| format!("actions/{i}")).collect();
        let many: Vec<_> = names.iter().map(|name| Raw::new(name.as_bytes(), b"")).collect();
        assert_eq!(reason(&zip(&many)), "max_files");
        assert_eq!(reason(&vec![0; 2 << 20]), "Skill bundle exceeds configured size budget.");
    }

    #[test]
    fn entries_that_share_bytes() {
        // Two names for the same data (a bomb of another kind).
        let one = Raw::new(b"actions/x", b"xxxx");
        let mut out = one.local();
        let offset = out.len();
        let directory = [one.central(0), one.central(0)].concat();
        out.extend(&directory);
        out.extend(end(2, directory.len(), offset));
        assert_eq!(reason(&out), "duplicate_name");
        // An entry inside of another one's data.
        let inner = Raw::new(b"actions/b", b"yy");
        let hidden = inner.local();
        let outer = Raw::new(b"actions/a", &hidden);
        let mut out = outer.local();
        let at = (out.len() - hidden.len()) as u32;
        let offset = out.len();
        let directory = [outer.central(0), inner.central(at)].concat();
        out.extend(&directory);
        out.extend(end(2, directory.len(), offset));
        assert_eq!(reason(&out), "entries overlap");
    }

    proptest! {
        #[test]
        fn any_files_come_back(contents in prop::collection::btree_map("(actions|references)/f[a-zé]{0,8}", prop::collection::vec(any::<u8>(), 0..300), 0..6)) {
            let files: Vec<_> = contents.iter().map(|(path, content)| file(path, content)).collect();
            prop_assert_eq!(read(&write(&files).unwrap(), &Limits::default()).unwrap(), files);
        }

        /// Whatever is done to a bundle, reading it ends, and what is read keeps the rules.
        #[test]
        fn damage(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut bytes = write(&[file("actions/run.sh", &b"echo ".repeat(50)), file("references/a.md", b"text")]).unwrap();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            for file in read(&bytes, &Limits::default()).unwrap_or_default() {
                prop_assert!(is_in_bundle(&file.path) && !file.path.split('/').any(|part| matches!(part, "" | "." | "..")));
            }
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes, &Limits::default());
        }
    }
}
