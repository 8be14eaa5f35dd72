//! The one error form: SQLSTATE, message, detail, hint.
//!
//! Each module has an error enum that converts into a [`Fault`]; the
//! extension turns a fault into an `ereport`, the verifier prints it.

use std::fmt;

/// The SQLSTATEs this project raises (PostgreSQL documentation, appendix A; class `SK` is its own).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// `22023` invalid_parameter_value
    InvalidParameterValue,
    /// `23502` not_null_violation
    NotNullViolation,
    /// `23505` unique_violation
    UniqueViolation,
    /// `25001` active_sql_transaction
    ActiveTransaction,
    /// `25006` read_only_sql_transaction
    ReadOnlyTransaction,
    /// `40001` serialization_failure
    SerializationFailure,
    /// `39P01` trigger_protocol_violated
    TriggerProtocolViolated,
    /// `42501` insufficient_privilege
    InsufficientPrivilege,
    /// `42704` undefined_object
    UndefinedObject,
    /// `53200` out_of_memory
    OutOfMemory,
    /// `53400` configuration_limit_exceeded
    ConfigurationLimitExceeded,
    /// `54000` program_limit_exceeded
    ProgramLimitExceeded,
    /// `55000` object_not_in_prerequisite_state
    NotInPrerequisiteState,
    /// `55P03` lock_not_available
    LockNotAvailable,
    /// `F0000` config_file_error
    ConfigFileError,
    /// `P0004` assert_failure
    AssertFailure,
    /// `SK403` approval_rejected
    ApprovalRejected,
    /// `SK404` skill_not_found
    SkillNotFound,
    /// `SK405` skill_version_not_found
    VersionNotFound,
    /// `SK409` skill_conflict
    SkillConflict,
    /// `XX000` internal_error
    Internal,
    /// `XX001` data_corrupted
    DataCorrupted,
}

impl Code {
    /// Whether it is of class `SK`, which this project defines.
    pub fn is_own(self) -> bool {
        self.sqlstate().starts_with("SK")
    }

    /// The five characters of the SQLSTATE.
    pub fn sqlstate(self) -> &'static str {
        match self {
            Code::InvalidParameterValue => "22023",
            Code::NotNullViolation => "23502",
            Code::UniqueViolation => "23505",
            Code::ActiveTransaction => "25001",
            Code::ReadOnlyTransaction => "25006",
            Code::SerializationFailure => "40001",
            Code::TriggerProtocolViolated => "39P01",
            Code::InsufficientPrivilege => "42501",
            Code::UndefinedObject => "42704",
            Code::OutOfMemory => "53200",
            Code::ConfigurationLimitExceeded => "53400",
            Code::ProgramLimitExceeded => "54000",
            Code::NotInPrerequisiteState => "55000",
            Code::LockNotAvailable => "55P03",
            Code::ConfigFileError => "F0000",
            Code::AssertFailure => "P0004",
            Code::ApprovalRejected => "SK403",
            Code::SkillNotFound => "SK404",
            Code::VersionNotFound => "SK405",
            Code::SkillConflict => "SK409",
            Code::Internal => "XX000",
            Code::DataCorrupted => "XX001",
        }
    }
}

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    /// The primary message.
    pub message: String,
    /// DETAIL: which row, rule or value.
    pub detail: Option<String>,
    /// HINT: the call or change that fixes it.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault with neither detail nor hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Fault { code, message: message.into(), detail: None, hint: None }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.sqlstate())?;
        if let Some(detail) = &self.detail {
            write!(f, "\ndetail: {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// At most 80 characters of an untrusted text, without control characters, for a message.
pub fn shorten(text: &str) -> String {
    let mut out: String = text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if out.len() < text.len() && text.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}
