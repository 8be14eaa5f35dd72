//! What is reported, to a person or to a program: a verdict first, then what was found, then a table.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skill_core::ledger::checkpoint::{Checkpoint, VerifierKey};

/// The input or the call cannot be used: exit status 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable(pub String);

impl Unusable {
    /// The same, with the file that it is about.
    pub fn of(self, file: &str) -> Unusable {
        Unusable(format!("{}: {}", if file == "-" { "standard input" } else { file }, self.0))
    }
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is as it was signed.
    Valid,
    Problems,
    /// Nothing contradicts itself, but something that a verdict needs is missing.
    Incomplete,
}

impl Outcome {
    pub fn status(self) -> u8 {
        match self {
            Outcome::Valid => 0,
            Outcome::Problems => 1,
            Outcome::Incomplete => 3,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Outcome::Valid => "OK",
            Outcome::Problems => "TAMPERED",
            Outcome::Incomplete => "INCOMPLETE",
        }
    }

    fn colour(self) -> u8 {
        match self {
            Outcome::Valid => 32,
            Outcome::Problems => 31,
            Outcome::Incomplete => 33,
        }
    }
}

const CHANGED: &str = "it is not what was signed";
/// Why nothing is authenticated.
pub const NO_KEY: &str = "no --key was given, so it is not authenticated";

/// What the verdict lacks.
pub fn lacking(keys: &[VerifierKey]) -> &'static [&'static str] {
    if keys.is_empty() { &[NO_KEY] } else { &[] }
}

/// Something that is not as it should be, or that somebody must look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub code: &'static str,
    /// Line of the input, counted from 1.
    pub line: Option<u64>,
    /// Leaf of the log.
    pub leaf: Option<u64>,
    pub id: Option<[u8; 16]>,
    pub detail: String,
}

impl Finding {
    /// About the whole input.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Finding {
        Finding { code, line: None, leaf: None, id: None, detail: detail.into() }
    }

    /// For a person, on one line.
    pub fn sentence(&self) -> String {
        let Finding { code, line, leaf, id, detail } = self;
        let mut place = Vec::new();
        place.extend(line.map(|line| format!("line {line}: ")));
        place.extend(leaf.map(|leaf| format!("leaf {leaf}: ")));
        place.extend(id.map(|id| format!("record {}: ", uuid::Uuid::from_bytes(id))));
        harmless(&format!("{}{code}: {detail}", place.concat()))
    }
}

/// Escapes control characters, so that the input cannot control the terminal.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// "1 problem", "2 problems".
pub fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Lines of the table: what, and its value.
pub type Table = Vec<(&'static str, String)>;

/// The key that signed, of those that were given.
pub fn signer<'k>(keys: &'k [VerifierKey], note: &str) -> Option<&'k VerifierKey> {
    keys.iter().find(|key| Checkpoint::verify(note, std::slice::from_ref(*key)).is_ok())
}

/// The same for the table.
pub fn key_line(keys: &[VerifierKey], note: &str) -> (&'static str, String) {
    let what = match signer(keys, note) {
        Some(key) => key.fingerprint(),
        None if keys.is_empty() => "none given".to_owned(),
        None => "none of those given signed this".to_owned(),
    };
    ("key", what)
}

/// What was reported, once more for a page.
pub struct Finished {
    pub outcome: Outcome,
    pub sentence: String,
    pub table: Table,
    pub problems: u64,
    /// The first of them.
    pub findings: Vec<String>,
}

/// Most findings that are kept for the page of `export --html`.
const MAX_KEPT: usize = 1000;

/// Writes findings as they come and the result at the end. The first problem decides the verdict, so it comes first
/// although nothing is held back.
pub struct Report<W> {
    out: W,
    json: bool,
    colour: bool,
    /// How many problems were reported.
    pub problems: u64,
    begun: bool,
    notes: Vec<Finding>,
    kept: Vec<String>,
    finished: Option<Finished>,
    /// Only the verdict is written, without the table.
    brief: bool,
}

fn told(result: std::io::Result<()>) -> Result<(), Unusable> {
    result.map_err(|e| Unusable(format!("could not write the report: {e}")))
}

impl<W: Write> Report<W> {
    /// To standard output or a test; `json` is one object a line.
    pub fn new(out: W, json: bool) -> Report<W> {
        let colour = !json && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Report {
            out,
            json,
            colour,
            problems: 0,
            begun: false,
            notes: Vec::new(),
            kept: Vec::new(),
            finished: None,
            brief: false,
        }
    }

    fn begin(&mut self, outcome: Outcome, sentence: &str) -> Result<(), Unusable> {
        self.begun = true;
        let (on, off) =
            if self.colour { (format!("\x1b[1;{}m", outcome.colour()), "\x1b[0m") } else { (String::new(), "") };
        told(writeln!(self.out, "{on}{}{off}: {}", outcome.word(), harmless(sentence)))?;
        std::mem::take(&mut self.notes).iter().try_for_each(|note| self.write_finding("note", note))
    }

    pub fn problem(&mut self, finding: &Finding) -> Result<(), Unusable> {
        self.problems += 1;
        if self.kept.len() < MAX_KEPT {
            self.kept.push(finding.sentence());
        }
        if !self.begun && !self.json {
            self.begin(Outcome::Problems, CHANGED)?;
        }
        self.write_finding("problem", finding)
    }

    /// Nothing wrong, but something the verifier cannot see for itself.
    pub fn record_finding(&mut self, finding: &Finding) -> Result<(), Unusable> {
        if self.begun || self.json {
            return self.write_finding("note", finding);
        }
        self.notes.push(finding.clone());
        Ok(())
    }

    fn write_finding(&mut self, kind: &str, finding: &Finding) -> Result<(), Unusable> {
        let Finding { code, line, leaf, id, detail } = finding;
        told(if self.json {
            let mut object = json!({ "kind": kind, "code": code, "detail": detail });
            let id = id.map(|id| uuid::Uuid::from_bytes(id).to_string());
            for (name, value) in
                [("line", line.map(Value::from)), ("leaf", leaf.map(Value::from)), ("id", id.map(Value::from))]
            {
                if let Some(value) = value {
                    object[name] = value;
                }
            }
            writeln!(self.out, "{object}")
        } else {
            let mark = if kind == "note" { "note: " } else { "" };
            writeln!(self.out, "{mark}{}", finding.sentence())
        })
    }

    /// The end: OK with `sentence`, unless problems were reported or something is `lacking`. `facts` are for a program.
    pub fn finish(
        &mut self,
        sentence: &str,
        lacking: &[&str],
        table: Table,
        facts: Value,
    ) -> Result<Outcome, Unusable> {
        let (outcome, sentence) = match (self.problems, lacking) {
            (1.., _) => (Outcome::Problems, CHANGED.to_owned()),
            (0, []) => (Outcome::Valid, sentence.to_owned()),
            (0, lacking) => (Outcome::Incomplete, lacking.join("; ")),
        };
        if self.json {
            let mut object = json!({ "kind": "result", "verdict": outcome.word(), "problems": self.problems });
            if let (Value::Object(object), Value::Object(facts)) = (&mut object, facts) {
                object.extend(facts);
            }
            if outcome == Outcome::Incomplete {
                object["lacking"] = sentence.as_str().into();
            }
            told(writeln!(self.out, "{object}"))?;
        } else {
            if !self.begun {
                self.begin(outcome, &sentence)?;
            }
            if !self.brief {
                self.write_table(outcome, &table)?;
            }
        }
        told(self.out.flush())?;
        let (problems, findings) = (self.problems, std::mem::take(&mut self.kept));
        self.finished = Some(Finished { outcome, sentence, table, problems, findings });
        Ok(outcome)
    }

    /// What `finish` was given.
    pub fn finished(&self) -> Option<&Finished> {
        self.finished.as_ref()
    }

    fn write_table(&mut self, outcome: Outcome, table: &Table) -> Result<(), Unusable> {
        let problems = (outcome == Outcome::Problems).then(|| ("problems", self.problems.to_string()));
        let rows: Vec<_> = problems.iter().chain(table).collect();
        let width = rows.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
        for (what, value) in rows {
            told(writeln!(self.out, "  {what:width$}  {}", harmless(value)))?;
        }
        Ok(())
    }

    /// The next round of a loop: from now on only its verdict.
    pub fn again(&mut self) {
        (self.problems, self.begun, self.brief) = (0, false, true);
    }

    /// Reading stopped. What was found before decides: nothing, and the input is unusable; a problem, and it stays one.
    pub fn stopped(&mut self, error: Unusable) -> Result<Outcome, Unusable> {
        if self.problems == 0 {
            return Err(error);
        }
        let facts = json!({ "stopped": error.0 });
        self.finish("", &[], vec![("stopped", error.0)], facts)
    }
}

/// How far a long run has come, on a terminal.
pub struct Progress {
    total: Option<u64>,
    done: u64,
    records: u64,
    started: Instant,
    shown: Option<Instant>,
    visible: bool,
}

impl Progress {
    /// `total` bytes, when they are known.
    pub fn new(total: Option<u64>) -> Progress {
        Progress {
            total,
            done: 0,
            records: 0,
            started: Instant::now(),
            shown: None,
            visible: std::io::stderr().is_terminal(),
        }
    }

    /// So much more is done.
    pub fn add(&mut self, bytes: usize, records: u64) {
        self.done += bytes as u64;
        self.records += records;
        let now = Instant::now();
        if !self.visible || now - self.shown.unwrap_or(self.started) < Duration::from_millis(250) {
            return;
        }
        self.shown = Some(now);
        let rate = self.records as f64 / (now - self.started).as_secs_f64();
        let part = self
            .total
            .filter(|total| *total > 0)
            .map(|total| format!("{:3.0} % ", 100.0 * self.done as f64 / total as f64));
        eprint!("\r{}{} records, {rate:.0}/s \x1b[K", part.unwrap_or_default(), self.records);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
