//! What is reported, to a person or to a program.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The input or the call cannot be used: exit status 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable(pub String);

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is as it was signed.
    Valid,
    Problems,
    /// Nothing contradicts itself, and no key authenticates it.
    Unauthenticated,
}

impl Outcome {
    pub fn status(self) -> u8 {
        match self {
            Outcome::Valid => 0,
            Outcome::Problems => 1,
            Outcome::Unauthenticated => 3,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Outcome::Valid => "true",
            Outcome::Problems => "problems",
            Outcome::Unauthenticated => "not authenticated: no key was given",
        }
    }
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
}

/// Escapes control characters, so that the input cannot control the terminal.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Writes findings as they come and the result at the end.
pub struct Report<W> {
    out: W,
    json: bool,
    /// How many problems there were.
    pub problems: u64,
}

fn told(result: std::io::Result<()>) -> Result<(), Unusable> {
    result.map_err(|e| Unusable(format!("the report cannot be written: {e}")))
}

impl<W: Write> Report<W> {
    /// To standard output or a test; `json` is one object a line.
    pub fn new(out: W, json: bool) -> Report<W> {
        Report { out, json, problems: 0 }
    }

    pub fn problem(&mut self, finding: &Finding) -> Result<(), Unusable> {
        self.problems += 1;
        self.write_finding("problem", finding)
    }

    /// Nothing wrong, but something the verifier cannot see for itself.
    pub fn record_finding(&mut self, finding: &Finding) -> Result<(), Unusable> {
        self.write_finding("note", finding)
    }

    fn write_finding(&mut self, kind: &str, finding: &Finding) -> Result<(), Unusable> {
        let Finding { code, line, leaf, id, detail } = finding;
        let id = id.map(|id| uuid::Uuid::from_bytes(id).to_string());
        told(if self.json {
            let mut object = json!({ "kind": kind, "code": code, "detail": detail });
            for (name, value) in
                [("line", line.map(Value::from)), ("leaf", leaf.map(Value::from)), ("id", id.map(Value::from))]
            {
                if let Some(value) = value {
                    object[name] = value;
                }
            }
            writeln!(self.out, "{object}")
        } else {
            let mut place = Vec::new();
            place.extend(line.map(|line| format!("line {line}: ")));
            place.extend(leaf.map(|leaf| format!("leaf {leaf}: ")));
            place.extend(id.map(|id| format!("record {id}: ")));
            let mark = if kind == "note" { "note: " } else { "" };
            writeln!(self.out, "{mark}{}{code}: {}", place.concat(), harmless(detail))
        })
    }

    /// The last line. `sentence` is for a person, `facts` for a program.
    pub fn result(&mut self, outcome: Outcome, sentence: &str, facts: Value) -> Result<Outcome, Unusable> {
        told(if self.json {
            let mut object = json!({ "kind": "result", "result": outcome.as_str(), "problems": self.problems });
            if let (Value::Object(object), Value::Object(facts)) = (&mut object, facts) {
                object.extend(facts);
            }
            writeln!(self.out, "{object}")
        } else {
            writeln!(self.out, "{}", harmless(sentence))
        })?;
        told(self.out.flush())?;
        Ok(outcome)
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
