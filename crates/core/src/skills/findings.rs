//! What reading a document reports: errors, warnings and notes.

use crate::error::Fault;
use crate::input::parse_choice;

const MAX_FINDINGS: usize = 200;

/// How strictly a document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To the letter of the specification.
    Strict,
    /// As clients load: what still makes sense is accepted, with a warning.
    Lenient,
}

impl Mode {
    /// From an argument of SQL.
    pub fn from_argument(text: Option<&str>) -> Result<Self, Fault> {
        Ok(if parse_choice("mode", text, &["strict", "lenient"])? == "strict" { Mode::Strict } else { Mode::Lenient })
    }

    /// An error in strict mode, a warning in lenient mode.
    pub fn soft(self) -> Severity {
        if self == Mode::Strict { Severity::Error } else { Severity::Warning }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The document is not registered.
    Error,
    Warning,
    Note,
}

impl Severity {
    /// As results show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// One observation about a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// A stable name for its kind.
    pub code: &'static str,
    /// Of the front matter or the manifest.
    pub field: Option<String>,
    pub line: Option<usize>,
    pub message: String,
}

/// Findings in order; at most [`MAX_FINDINGS`] are kept.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    error: bool,
}

impl Findings {
    pub fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        field: Option<&str>,
        line: Option<usize>,
        message: impl Into<String>,
    ) {
        self.error |= severity == Severity::Error;
        if self.list.len() < MAX_FINDINGS {
            self.list.push(Finding { severity, code, field: field.map(str::to_owned), line, message: message.into() });
        }
    }

    pub fn append(&mut self, other: Findings) {
        self.error |= other.error;
        let free = MAX_FINDINGS - self.list.len();
        self.list.extend(other.list.into_iter().take(free));
    }

    /// Drops those that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&Finding) -> bool) {
        self.list.retain(keep);
    }

    /// Turns errors into warnings.
    pub fn soften(&mut self) {
        self.error = false;
        for finding in self.list.iter_mut().filter(|finding| finding.severity == Severity::Error) {
            finding.severity = Severity::Warning;
        }
    }

    /// Whether one is an error, even one that was not kept.
    pub fn any_error(&self) -> bool {
        self.error
    }

    pub fn into_vec(self) -> Vec<Finding> {
        self.list
    }
}
