//! The program as its users call it: what is true passes, what was changed does not.

mod support;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use serde_json::{Value, json};
use skill_core::audit;
use skill_core::audit::keyring::{Keyring, RANDOM_BYTES};
use support::{LOG_ID, Log, Row, ring};

/// Status, output and errors of a call with this standard input.
fn call(arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_skill-verify"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // The program may end before it has read everything.
        scope.spawn(move || drop(pipe.write_all(input)));
        let done = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(done.stdout), text(done.stderr));
        assert!(!err.contains("panicked"), "{err}");
        (done.status.code().unwrap(), out, err)
    })
}

/// A separate directory for each test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("skill-verify-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
    fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn log_of(rows: &[Row]) -> Log {
    Log::new(ring(7), rows.iter().map(Row::leaf_hash))
}

fn typical(count: u64) -> (Vec<Row>, Log) {
    let ring = ring(7);
    let rows: Vec<Row> = (0..count).map(|i| Row::typical(i, &ring)).collect();
    let log = log_of(&rows);
    (rows, log)
}

fn text(log: &Log, rows: &[Row], start: u64, end: u64) -> String {
    let mut out = Vec::new();
    log.export(start, end, |leaf| rows[leaf as usize].line(leaf), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Status and output of `export` with the right key.
fn export(log: &Log, text: &str) -> (i32, String) {
    let (status, out, err) = call(&["export", "-", "--key", &log.vkey()], text.as_bytes());
    (status, out + &err)
}

#[test]
fn a_true_export_passes() {
    let (rows, log) = typical(700);
    let directory = Directory::new("true");
    let (export, key) = (text(&log, &rows, 0, 700), log.vkey());
    let keyring = directory.file("keyring", &Keyring::generate(&[7; RANDOM_BYTES]));
    let keys = directory.file("keys", &format!("# of the owner\n\n{key}\n"));
    let file = directory.file("export", &export);
    for arguments in [
        &["export", "-", "--key", &key][..],
        &["export", &file, "--key", &keys],
        &["export", "--threads", "1", "-", "--key", &key],
        &["export", "-", "--key", &key, "--keyring", &keyring, "--threads", "3"],
    ] {
        let (status, out, err) = call(arguments, export.as_bytes());
        assert_eq!((status, err.as_str()), (0, ""), "{out}");
        assert!(out.starts_with("OK: every leaf was recomputed"), "{out}");
        for row in [
            "log         skill_system/0198c0de-",
            "records     700, 0 missing, 0 retired",
            "leaves      [0,700) of 700",
            "time span   2026-11-21T12:12:57.699023Z to 2026-11-21T12:12:57.873773Z",
            "checkpoint  700 leaves, root ",
            "key         SHA256:",
        ] {
            assert!(out.contains(&format!("\n  {row}")), "{row}: {out}");
        }
    }
    let (status, out, _) = call(&["export", "-"], export.as_bytes());
    assert_eq!(status, 3);
    assert!(out.starts_with("INCOMPLETE: no --key was given, so it is not authenticated\n"), "{out}");
    let other = Log { ring: ring(8), ..log_of(&rows) }.vkey();
    let (status, out, _) = call(&["export", "-", "--key", &other], export.as_bytes());
    assert_eq!(status, 1);
    assert!(out.starts_with("TAMPERED: ") && out.contains("\ncheckpoint_not_signed: "), "{out}");
    // A key that the export brings along is none.
    let (status, ..) = call(&["export", "-", "--key", &file], export.as_bytes());
    assert_eq!(status, 2);
    let (status, out, _) = call(&["export", "-", "--json", "--key", &key], export.as_bytes());
    let result: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (status, &result["kind"], &result["verdict"], &result["records"]),
        (0, &json!("result"), &json!("OK"), &json!(700))
    );
}

#[test]
fn any_range_passes() {
    let (rows, log) = typical(700);
    for (start, end) in
        [(0, 0), (0, 1), (1, 700), (255, 257), (256, 512), (300, 300), (699, 700), (700, 700), (13, 605)]
    {
        let (status, out) = export(&log, &text(&log, &rows, start, end));
        assert_eq!(status, 0, "[{start},{end}): {out}");
    }
    let (none, empty) = typical(0);
    assert_eq!(export(&empty, &text(&empty, &none, 0, 0)).0, 0);
}

#[test]
fn long_exports_pass_on_all_cores() {
    let (rows, log) = typical(5_000);
    let whole = text(&log, &rows, 100, 4_900);
    for threads in ["1", "2", "7"] {
        let (status, out, _) = call(&["export", "-", "--threads", threads, "--key", &log.vkey()], whole.as_bytes());
        assert_eq!(status, 0, "{out}");
    }
    // In the second piece of the file; the line is that of the file.
    let changed =
        whole.replacen(&format!("\"transaction_id\":{}", rows[4_000].transaction_id), "\"transaction_id\":1", 1);
    for threads in ["1", "2", "7"] {
        let (status, out, _) = call(&["export", "-", "--threads", threads, "--key", &log.vkey()], changed.as_bytes());
        assert_eq!(status, 1);
        assert!(out.contains("root_differs"), "{out}");
    }
    let broken = whole.replacen(&format!("\"leaf\":{}", 4_000), "\"leaf\":x", 1);
    for threads in ["1", "2", "7"] {
        let (status, _, err) = call(&["export", "-", "--threads", threads, "--key", &log.vkey()], broken.as_bytes());
        assert_eq!(status, 2);
        assert!(err.contains("standard input: line 3902: no JSON"), "{err}");
    }
}

/// What the server writes in odd cases.
#[test]
fn odd_values_pass() {
    let ring = ring(7);
    let data = [
        r#"{"a": 1.50, "b": -0.0, "c": 12345678901234567890.1230, "": [[], {}, [{}]], "é": "\u0001\n\"\\", "aa": null, "B": true}"#.to_owned(),
        "null".into(), "[]".into(), "\"x\"".into(), "1".repeat(400), "\"ä😀\"".into(), format!("\"{}\"", "x".repeat(600_000)),
        format!("[{}]", vec!["1"; 40_000].join(", ")), "[".repeat(120) + &"]".repeat(120),
    ];
    let mut rows: Vec<Row> =
        data.into_iter().enumerate().map(|(i, data)| Row::new(i as u64, "odd \"\\ \t", data, &ring)).collect();
    rows[0].actor_id = None;
    let log = log_of(&rows);
    let (status, out) = export(&log, &text(&log, &rows, 0, rows.len() as u64));
    assert_eq!(status, 0, "{out}");
    // Another number that a double would not tell from it.
    let changed =
        text(&log, &rows, 0, rows.len() as u64).replace("12345678901234567890.1230", "12345678901234567890.123");
    assert_eq!(export(&log, &changed).0, 1);
}

#[test]
fn another_order_of_members_is_the_same_record() {
    let (rows, log) = typical(20);
    let mixed = |leaf: u64| {
        let mut members: Vec<(String, Value)> =
            serde_json::from_str::<serde_json::Map<_, _>>(&rows[leaf as usize].line(leaf))
                .unwrap()
                .into_iter()
                .collect();
        let at = leaf as usize % members.len();
        members.rotate_left(at);
        let members: Vec<String> = members.iter().map(|(k, v)| format!("{} : {}", json!(k), v)).collect();
        format!("{{ {} }}", members.join(" ,\t"))
    };
    let mut out = Vec::new();
    log.export(0, 20, mixed, &mut out).unwrap();
    let (status, out) = export(&log, &String::from_utf8(out).unwrap());
    assert_eq!(status, 0, "{out}");
}

#[test]
fn removed_added_and_moved_records_are_found() {
    let (rows, log) = typical(10);
    let whole = text(&log, &rows, 0, 10);
    let lines: Vec<&str> = whole.lines().collect();
    let join = |lines: Vec<&str>| lines.join("\n") + "\n";
    let mut removed = lines.clone();
    removed.remove(5);
    let mut twice = lines.clone();
    twice.insert(5, lines[5]);
    let mut moved = lines.clone();
    moved.swap(5, 6);
    let mut after = lines.clone();
    after.push(lines[5]);
    let mut renumbered = lines.clone();
    let (five, six) = (lines[6].replace("\"leaf\":5", "\"leaf\":4"), lines[5].replace("\"leaf\":4", "\"leaf\":5"));
    renumbered[5] = &five;
    renumbered[6] = &six;
    let short: Vec<&str> = lines[..9].iter().chain(&lines[11..]).copied().collect();
    for (lines, status, word) in [
        (removed, 1, "leaves_not_in_order"),
        (twice, 1, "leaves_not_in_order"),
        (moved, 1, "leaves_not_in_order"),
        (renumbered, 1, "root_differs"),
        (short, 1, "leaves_not_in_order"),
        (after, 2, "follows the last line"),
        (lines[..11].to_vec(), 3, "INCOMPLETE: the export ends before its last line"),
        (lines[1..].to_vec(), 2, "not an export"),
        (vec![], 2, "line 1: no JSON"),
    ] {
        let (found, out) = export(&log, &join(lines));
        assert_eq!(found, status, "{out}");
        assert!(out.contains(word), "{word}: {out}");
    }
}

#[test]
fn first_last_line_and_checkpoint_must_agree() {
    let (rows, mut log) = typical(10);
    let whole = text(&log, &rows, 2, 8);
    let with = |change: &dyn Fn(&mut Value, &mut Value)| {
        let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        let (mut first, mut last): (Value, Value) =
            (serde_json::from_str(&lines[0]).unwrap(), serde_json::from_str(&lines[7]).unwrap());
        change(&mut first, &mut last);
        (lines[0], lines[7]) = (first.to_string(), last.to_string());
        export(&log, &(lines.join("\n") + "\n"))
    };
    let (small, other_root) = (log.checkpoint(9), log.root(9));
    let root = serde_json::to_value(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, other_root)).unwrap();
    type Change<'a> = &'a dyn Fn(&mut Value, &mut Value);
    let both = |name: &'static str, value: Value| {
        move |first: &mut Value, last: &mut Value| {
            first[name] = value.clone();
            last[name] = value.clone();
        }
    };
    let cases: [(Change<'_>, i32, &str); 14] = [
        (&|_, _| (), 0, "records     6, 0 missing"),
        (&|_, last| last["records"] = 5.into(), 1, "counts_differ"),
        (&|_, last| last["missing"] = 1.into(), 1, "counts_differ"),
        (&|_, last| last["since"] = "x".into(), 1, "last_line_differs"),
        (&|first, _| first["until"] = "x".into(), 1, "last_line_differs"),
        (&both("checkpoint", small.into()), 1, "checkpoint_differs"),
        (&both("root", root), 1, "root_differs"),
        (&both("origin", "skill_system/other/1".into()), 1, "checkpoint_differs"),
        (&both("log_id", "0198c0de-0000-7000-8000-000000000002".into()), 1, "checkpoint_differs"),
        (&both("end", 9.into()), 1, "leaves_not_in_order"),
        (&both("start", 9.into()), 2, "not in order"),
        (&both("left", json!([])), 2, "cannot cover"),
        (&both("more", json!(1)), 2, "has the members"),
        (&both("skill_system_export", json!(2)), 2, "not an export"),
    ];
    for (change, status, word) in cases {
        let (found, out) = with(change);
        assert_eq!(found, status, "{word}: {out}");
        assert!(out.contains(word), "{word}: {out}");
    }
    // The key of one incarnation says nothing about another.
    log.incarnation = 2;
    assert_eq!(export(&log, &whole).0, 1);
}

fn missing_line(row: &Row, leaf: u64) -> String {
    let hash = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, row.leaf_hash());
    json!({ "leaf": leaf, "id": row.id(), "missing": true, "hash": hash }).to_string()
}

#[test]
fn a_missing_record_is_a_problem_although_its_leaf_is_there() {
    let (rows, log) = typical(10);
    let mut lines: Vec<String> = text(&log, &rows, 0, 10).lines().map(str::to_owned).collect();
    lines[5] = missing_line(&rows[4], 4);
    lines[11] = Log::last_line(&log.manifest(0, 10, 10), [9, 1, 0]).to_string();
    let (status, out) = export(&log, &(lines.join("\n") + "\n"));
    assert_eq!(status, 1);
    assert!(out.contains(&format!("line 6: leaf 4: record {}: record_missing", rows[4].id())), "{out}");
    assert!(out.contains("\n  problems    1\n"), "{out}");
}

/// Leaves 2 to 8 retired; the record that says so is leaf `at` of 20.
fn retired(at: Option<u64>, tenant: &str, leaves: &str, end: u64) -> (i32, String) {
    let ring = ring(7);
    let mut rows: Vec<Row> = (0..20).map(|i| Row::typical(i, &ring)).collect();
    if let Some(at) = at {
        let mut row = Row::new(at, "audit.partition_retired", format!(r#"{{"leaves": "{leaves}"}}"#), &ring);
        row.tenant_id = tenant.into();
        rows[at as usize] = row;
    }
    let log = log_of(&rows);
    let manifest = log.manifest(0, end, 20);
    let mut lines = vec![manifest.to_string(), rows[0].line(0), rows[1].line(1)];
    lines.push(json!({ "leaf": 2, "count": 2, "retired": true, "hashes": log.cover(2, 4) }).to_string());
    lines.push(json!({ "leaf": 4, "count": 4, "retired": true, "hashes": log.cover(4, 8) }).to_string());
    lines.extend((8..end).map(|leaf| rows[leaf as usize].line(leaf)));
    lines.push(Log::last_line(&manifest, [end - 6, 0, 6]).to_string());
    export(&log, &(lines.join("\n") + "\n"))
}

#[test]
fn retired_leaves_need_the_record_that_retired_them() {
    for (at, tenant, leaves, end, status, word) in [
        (Some(12), "default", "{[2,8)}", 20, 0, "note: leaf 12: record"),
        (Some(12), "default", "{[0,1),[2,4),[4,8),[19,20)}", 20, 0, "note: leaf 12: record"),
        (Some(12), "default", "{[0,100)}", 20, 0, "[0,12)"),
        (Some(12), "default", "{[2,4),[5,8)}", 20, 1, "retired_without_record: leaves [4,5)"),
        (Some(12), "default", "{[2,7)}", 20, 1, "leaves [7,8)"),
        (Some(12), "default", "{}", 20, 1, "leaves [2,8)"),
        (Some(12), "default", "{[8,2)}", 20, 1, "leaves [2,8)"),
        (Some(12), "default", "[2,8)", 20, 1, "leaves [2,8)"),
        // An ordinary tenant cannot retire anything.
        (Some(12), "other", "{[2,8)}", 20, 1, "leaves [2,8)"),
        // A record tells only of what was before it.
        (Some(1), "default", "{[2,8)}", 20, 1, "leaves [2,8)"),
        (None, "", "", 20, 1, "retired_without_record: leaves [2,8)"),
        (Some(12), "default", "{[2,8)}", 10, 0, "note: leaf 2: retirement_not_in_export"),
    ] {
        let (found, out) = retired(at, tenant, leaves, end);
        assert_eq!(found, status, "{leaves}: {out}");
        assert!(out.contains(word), "{leaves}: {out}");
    }
}

#[test]
fn counts_that_no_log_has_are_refused() {
    let (rows, log) = typical(4);
    let head = text(&log, &rows, 0, 4).lines().take(2).collect::<Vec<_>>().join("\n");
    for count in [u64::MAX, u64::MAX / 2 + 1, 1 << 62] {
        let run = json!({ "leaf": 1, "count": count, "retired": true, "hashes": [] }).to_string();
        let (status, out) = export(&log, &format!("{head}\n{run}\n{run}\n{run}\n"));
        assert_eq!(status, 1);
        assert!(out.starts_with("TAMPERED: ") && out.contains("leaves_malformed"), "{out}");
    }
}

#[test]
fn an_id_twice_is_a_problem() {
    let ring = ring(7);
    let mut rows: Vec<Row> = (0..1200).map(|i| Row::typical(i, &ring)).collect();
    rows[3] = Row::typical(2, &ring);
    // In another piece of the file than its double.
    rows[700] = Row::typical(300, &ring);
    let log = log_of(&rows);
    for threads in ["1", "2"] {
        let (status, out, _) =
            call(&["export", "-", "--threads", threads, "--key", &log.vkey()], text(&log, &rows, 0, 1200).as_bytes());
        assert_eq!(status, 1);
        for row in [&rows[3], &rows[700]] {
            assert!(out.contains(&format!("record {}: id_twice", row.id())), "{out}");
        }
        assert!(out.contains("\n  problems    2\n"), "{out}");
    }
}

#[test]
fn a_row_that_the_server_could_not_encode_is_named() {
    let (rows, _) = typical(10);
    let damaged = audit::damaged_leaf_hash(&LOG_ID, &rows[4].id);
    let log = Log::new(ring(7), rows.iter().enumerate().map(|(i, row)| if i == 4 { damaged } else { row.leaf_hash() }));
    let whole = text(&log, &rows, 0, 10);
    let null = rows[4].line(4).replace("\"tenant_id\":\"default\"", "\"tenant_id\":null");
    let (status, out) = export(&log, &whole.replace(&rows[4].line(4), &null));
    assert_eq!(status, 1);
    assert!(out.contains("value_missing") && out.contains("\n  problems    1\n"), "{out}");
    assert!(export(&log, &whole).1.contains("root_differs"));
}

#[test]
fn signatures_are_checked_with_the_keyring() {
    let directory = Directory::new("keyring");
    let (mut rows, _) = typical(5);
    let good = rows[1].signature.clone();
    rows[1].signature = good.replace("0123", "3210").chars().rev().collect();
    rows[2].signature = rows[3].signature.clone();
    let log = log_of(&rows);
    let whole = text(&log, &rows, 0, 5);
    // The tree holds what was sealed, forged signatures too; only the key tells.
    assert_eq!(export(&log, &whole).0, 0);
    let keyring = directory.file("keyring", &Keyring::generate(&[7; RANDOM_BYTES]));
    let (status, out, _) = call(&["export", "-", "--key", &log.vkey(), "--keyring", &keyring], whole.as_bytes());
    assert_eq!(status, 1);
    assert!(out.contains(&format!("leaf 1: record {}: signature_malformed", rows[1].id())), "{out}");
    assert!(out.contains(&format!("leaf 2: record {}: signature_mismatch", rows[2].id())), "{out}");
    let other = directory.file("other", &Keyring::generate(&[8; RANDOM_BYTES]));
    let (status, out, _) = call(&["export", "-", "--key", &log.vkey(), "--keyring", &other], whole.as_bytes());
    assert_eq!((status, out.matches("key_unknown").count()), (1, 4), "{out}");
}

#[test]
fn proofs() {
    let directory = Directory::new("proof");
    let (rows, log) = typical(300);
    let row = |i: usize| directory.file(&format!("{i}.json"), &rows[i].line(i as u64));
    for i in [0, 17, 255, 299] {
        let proof = directory.file("proof", &log.inclusion(i as u64, 300));
        let (status, out, err) = call(&["proof", &proof, "--record", &row(i), "--key", &log.vkey()], b"");
        assert_eq!(status, 0, "{out}{err}");
        assert!(out.contains(&format!("is leaf {i} of the 300 leaves")), "{out}");
        assert_eq!(call(&["proof", &proof, "--record", &row(i)], b"").0, 3);
        assert_eq!(
            call(&["proof", &proof, "--record", &row(i), "--key", &Log { ring: ring(8), ..log_of(&[]) }.vkey()], b"").0,
            1
        );
        let (status, out, _) = call(&["proof", &proof, "--record", &row(18), "--key", &log.vkey()], b"");
        assert_eq!(status, 1);
        assert!(out.contains("not_in_log"), "{out}");
    }
    let proof = directory.file("proof", &log.inclusion(17, 300));
    // As to_jsonb prints the row: no leaf, another order, another zone.
    let mut plain: Value = serde_json::from_str(&rows[17].line(17)).unwrap();
    plain.as_object_mut().unwrap().remove("leaf");
    plain["created_at"] = plain["created_at"].as_str().unwrap().replace('Z', "+00:00").into();
    let file = directory.file("plain.json", &format!("{plain:#}\n"));
    assert_eq!(call(&["proof", &proof, "--record", &file, "--key", &log.vkey()], b"").0, 0);
    plain["event_type"] = "run.logge".into();
    let file = directory.file("changed.json", &plain.to_string());
    assert_eq!(call(&["proof", &proof, "--record", &file, "--key", &log.vkey()], b"").0, 1);
    for broken in ["", "c2sp.org/tlog-proof@v1\n\n", "x"] {
        let proof = directory.file("broken", broken);
        assert_eq!(call(&["proof", &proof, "--record", &row(0), "--key", &log.vkey()], b"").0, 2);
    }
    assert_eq!(call(&["proof", &proof, "--key", &log.vkey()], b"").0, 2);
}

#[test]
fn checkpoints_and_comparisons() {
    let directory = Directory::new("compare");
    let (mut rows, log) = typical(300);
    let (old, new) = (directory.file("old", &log.checkpoint(100)), directory.file("new", &log.checkpoint(300)));
    let (key, proof) = (log.vkey(), directory.file("proof", &log.consistency(100, 300)));
    assert_eq!(call(&["checkpoint", &old, "--key", &key], b"").0, 0);
    assert_eq!(call(&["checkpoint", &old], b"").0, 3);
    assert_eq!(
        call(&["checkpoint", "-", "--key", &key], log.checkpoint(100).replace("\n100\n", "\n101\n").as_bytes()).0,
        1
    );
    assert_eq!(call(&["checkpoint", "-", "--key", &key], b"x\n").0, 2);

    rows[5] = Row::typical(1000, &ring(7));
    let rewritten = log_of(&rows);
    let other = Log { incarnation: 2, ..log_of(&rows) };
    let (forked, forked_proof) =
        (directory.file("forked", &rewritten.checkpoint(300)), directory.file("fp", &rewritten.consistency(100, 300)));
    let same_size = directory.file("same", &rewritten.checkpoint(100));
    let adopted = directory.file("adopted", &other.checkpoint(300));
    let garbage = directory.file("garbage", "AAAA\n");
    let other_key = other.vkey();
    for (arguments, status, word) in [
        (&[&old, &new, "--proof", &proof, "--key", &key][..], 0, "grew from 100 to 300"),
        (&[&old, &old, "--key", &key], 0, "OK: the log still has the same 100 leaves"),
        (&[&old, &new, "--proof", &proof], 3, "not authenticated"),
        (&[&old, &new, "--key", &key], 2, "--proof FILE with the consistency proof from 100 to 300"),
        (&[&old, &new, "--proof", &garbage, "--key", &key], 2, "one base64 hash a line"),
        (&[&new, &old, "--proof", &proof, "--key", &key], 1, "older"),
        (&[&old, &forked, "--proof", &forked_proof, "--key", &key], 1, "not_consistent"),
        (&[&old, &forked, "--proof", &proof, "--key", &key], 1, "not_consistent"),
        (&[&old, &same_size, "--key", &key], 1, "other_root"),
        (&[&old, &adopted, "--key", &key, "--key", &other_key], 1, "other_incarnation"),
        (&[&old, &adopted, "--key", &key], 1, "checkpoint_not_signed"),
    ] {
        let (found, out, err) = call(&[&["compare"], arguments].concat(), b"");
        assert_eq!(found, status, "{arguments:?}: {out}{err}");
        assert!((out.clone() + &err).contains(word), "{word}: {out}{err}");
    }
}

#[test]
fn watching_keeps_the_last_true_checkpoint() {
    let directory = Directory::new("watch");
    let (mut rows, log) = typical(300);
    let (key, state) = (log.vkey(), directory.path("state"));
    let proof = directory.file("proof", &log.consistency(100, 300));
    let held = || std::fs::read_to_string(&state).unwrap_or_default();
    let watch = |note: String, more: &[&str]| {
        call(&[&["watch", "-", "--state", &state, "--key", &key], more].concat(), note.as_bytes()).0
    };
    assert_eq!(call(&["watch", "-", "--state", &state], log.checkpoint(100).as_bytes()).0, 3);
    assert_eq!(held(), "");
    assert_eq!(watch(log.checkpoint(100).replace("\n100\n", "\n101\n"), &[]), 1);
    assert_eq!(held(), "");
    assert_eq!(watch(log.checkpoint(100), &[]), 0);
    assert_eq!(held(), log.checkpoint(100));
    assert_eq!(watch(log.checkpoint(100), &[]), 0);
    assert_eq!(watch(log.checkpoint(300), &[]), 2);
    rows[5] = Row::typical(1000, &ring(7));
    let rewritten = log_of(&rows);
    assert_eq!(watch(rewritten.checkpoint(300), &["--proof", &proof]), 1);
    assert_eq!(watch(rewritten.checkpoint(100), &[]), 1);
    assert_eq!(held(), log.checkpoint(100));
    assert_eq!(watch(log.checkpoint(300), &["--proof", &proof]), 0);
    assert_eq!(held(), log.checkpoint(300));
    assert_eq!(watch(log.checkpoint(100), &[]), 1);
    let other = Log { incarnation: 2, ..log_of(&rows) };
    assert_eq!(watch(other.checkpoint(300), &["--key", &other.vkey()]), 1);
    assert_eq!(held(), log.checkpoint(300));
    // A state that no key signed is nobody's.
    std::fs::write(&state, log.checkpoint(300).replace("\n300\n", "\n1\n")).unwrap();
    assert_eq!(watch(log.checkpoint(300), &[]), 2);
    assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 2, "no temporary file stays");
}

#[test]
fn wrong_calls() {
    assert_eq!(call(&["--help"], b"").0, 0);
    assert!(call(&["--version"], b"").1.starts_with("skill-verify "));
    let directory = Directory::new("wrong");
    let (rows, log) = typical(3);
    let key = log.vkey();
    let keys = directory.file("keys", &format!("# of the owner\n{key}\n{}\n", &key[1..]));
    let none = directory.file("none", "# nothing\n\n");
    let whole = directory.file("export", &text(&log, &rows, 0, 3));
    let checkpoint = directory.file("checkpoint", &log.checkpoint(3));
    let hashes = directory.file("hashes", &format!("\n{}x\n", log.consistency(1, 3)));
    let record = directory.file("record", &rows[0].line(0));
    let state = directory.path("state");
    for (arguments, wanted) in [
        (&[][..], "a command is missing: one of export, proof"),
        (&["exprot", "-"], "\"exprot\" is not a command (\"export\"?): one of export, proof"),
        (&["nothing", "-"], "\"nothing\" is not a command: one of"),
        (&["export"], "export: FILE is missing;"),
        (&["export", "a", "b"], "\"b\" is one word too many: export takes FILE;"),
        (&["export", "/nowhere"], "/nowhere: No such file"),
        (&["export", "-", "--record", "x"], "export takes no --record;"),
        (&["export", "-", "--key", "x"], "--key: neither a key nor a file with keys: x: No such file"),
        (&["export", "-", "--key", &keys], "keys: line 3: invalid verifier key: "),
        (&["export", "-", "--key", &none], "none: no key in this file"),
        (&["export", "-", "--threads", "0"], "--threads \"0\": must be 1 to 1024;"),
        (&["export", "-", "--what"], "invalid option '--what'"),
        (&["export", &checkpoint], "checkpoint: line 1: no JSON"),
        (&["proof", "-"], "proof needs --record;"),
        (&["proof", &checkpoint, "--record", &record], "another first line; it looks like a checkpoint"),
        (&["proof", &whole, "--record", &record], "it looks like an export"),
        (&["watch", "-"], "watch needs --state;"),
        (&["watch"], "watch: CHECKPOINT is missing, or --psql CONNINFO;"),
        (&["watch", "--psql", "dbname=x"], "watch needs --state;"),
        (
            &["watch", "x", "--psql", "dbname=x", "--state", "y"],
            "\"x\" is one word too many: watch takes no file with --psql",
        ),
        (&["watch", "--psql", "", "--state", "y", "--proof", "z"], "watch takes no --proof with --psql"),
        (
            &["watch", "--psql", "", "--state", "y", "--once", "--every", "9"],
            "--once and --every contradict each other",
        ),
        (&["watch", "x", "--state", "y", "--once"], "watch takes no --once;"),
        (&["watch", "-", "--state", "x", "--state", "y"], "--state is given twice;"),
        (
            &["watch", &checkpoint, "--state", &state, "--proof", &hashes],
            "hashes: line 4: the proof is not one base64 hash a line",
        ),
        (&["compare", "-"], "compare: NEW is missing;"),
        (&["rows", "-"], "rows needs --keyring;"),
        (&["rows", "-", "--log-id", "x"], "--log-id \"x\": "),
        (&["checkpoint", "-", "--state", "x"], "checkpoint takes no --state;"),
        (
            &["checkpoint", &whole],
            "export: the checkpoint is not a signed note with origin, size and root; it looks like an export",
        ),
        (&["checkpoint", &keys], "keys: the checkpoint is not a signed note"),
        (&["checkpoint", &record], "; it looks like a record"),
        (&["checkpoint", &none], "the checkpoint is not a signed note"),
    ] {
        let (status, out, err) = call(arguments, b"");
        assert_eq!((status, out.as_str()), (2, ""), "{arguments:?} {err}");
        assert!(err.starts_with("skill-verify: ") && err.contains(wanted), "{arguments:?}: {err}");
    }
}

/// A row says things that a terminal would act on.
#[test]
fn what_is_printed_is_harmless() {
    let (rows, log) = typical(3);
    let whole = text(&log, &rows, 0, 3).replace("\"actor_type\":\"agent\"", "\"act\\u001b[2Jor\":1");
    let (status, out) = export(&log, &whole);
    assert_eq!(status, 2);
    assert!(!out.contains('\u{1b}') && out.contains("not a column"), "{out:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_flipped_bit_is_found(at in any::<prop::sample::Index>(), bit in 0u8..8, threads in 1usize..3) {
        let (rows, log) = typical(12);
        let mut bytes = text(&log, &rows, 3, 9).into_bytes();
        // All but the end of the last line, which may be missing.
        let at = at.index(bytes.len() - 1);
        bytes[at] ^= 1 << bit;
        let (status, out, err) = call(&["export", "-", "--key", &log.vkey(), "--threads", &threads.to_string()], &bytes);
        prop_assert!((1..=3).contains(&status), "bit {bit} of byte {at}: {status} {out}{err}");
    }

    #[test]
    fn any_truncation_is_found(at in any::<prop::sample::Index>()) {
        let (rows, log) = typical(12);
        let bytes = text(&log, &rows, 3, 9).into_bytes();
        let (status, ..) = call(&["export", "-", "--key", &log.vkey()], &bytes[..at.index(bytes.len() - 1)]);
        prop_assert!((1..=3).contains(&status));
    }

    #[test]
    fn garbage_is_unusable(head in any::<bool>(), garbage in prop::collection::vec(any::<u8>(), 0..400), likely in "([{}\\[\\]\",:\n]|\"leaf\":|\"missing\":true|\"retired\"|\"count\":|[0-9]{1,20}|\\PC){0,60}") {
        let (rows, log) = typical(3);
        let whole = text(&log, &rows, 0, 3);
        let mut bytes = if head { whole.lines().take(2).flat_map(|line| [line.as_bytes(), b"\n"]).collect::<Vec<_>>().concat() } else { Vec::new() };
        bytes.extend(likely.as_bytes());
        bytes.extend(garbage);
        prop_assert_eq!(call(&["checkpoint", "-", "--key", &log.vkey()], &bytes).0, 2);
        let (status, out, _) = call(&["export", "-", "--key", &log.vkey()], &bytes);
        prop_assert!(status == 2 || status == 3 && out.starts_with("INCOMPLETE: the export ends"), "{status} {out}");
    }
}
