//! Namespaces number the changes in them without gaps, in the order of commits.

use std::collections::HashMap;
use std::ffi::CStr;

use skill_core::error::shorten;
use skill_core::input::invalid;
use skill_core::skills::changes::Token;
use skill_core::{Code, Fault};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{FromRow, arg};

use crate::{locks, settings};

/// Most namespaces of a tenant: agents create them.
const MAX_NAMESPACES: i64 = 1000;
/// What a row takes, about. Tokens have all namespaces: rows have one as often as the tokens come to as much as the rows.
const ROW_SIZE: usize = 256;

/// The statements of a table of namespaces and of the history of what is in them. They name the tenant themselves.
pub struct Namespaces {
    pub table: &'static CStr,
    /// Locks namespace $1 against other changes.
    pub lock: &'static str,
    /// Whether namespace $1 exists.
    pub exists: &'static str,
    /// Adds namespace $1, unless it exists or $2 of them do. It goes on where one of this name ended.
    pub insert: &'static str,
    /// Namespace and last revision, of $1 or, where that is NULL, of all.
    pub revisions: &'static str,
    /// The history of namespace $1 after revision $2, in its order, at most $3 rows.
    pub history: &'static str,
}

fn too_many() -> Fault {
    Fault::new(Code::ProgramLimitExceeded, format!("a tenant has at most {MAX_NAMESPACES} namespaces"))
        .hint("An administrator removes one that is not needed with drop_skill_namespace().")
}

impl Namespaces {
    /// Every change holds this lock to the end of the transaction, so revisions count in the order of commits.
    pub fn lock(&self, namespace: &str) -> Result<(), Fault> {
        self.lock_of(&settings::tenant()?, namespace)?;
        // Twice, because another session may remove what this one has just waited for.
        for _ in 0..2 {
            if self.lock_existing(namespace) {
                return Ok(());
            }
            spi::execute(self.insert, As::Owner, See::OwnWrites, &[arg(namespace), arg(MAX_NAMESPACES)]);
        }
        if self.lock_existing(namespace) { Ok(()) } else { Err(too_many()) }
    }

    /// As [`Namespaces::lock`]; false when the namespace does not exist.
    pub fn lock_existing(&self, namespace: &str) -> bool {
        spi::execute(self.lock, As::Owner, See::OwnWrites, &[arg(namespace)]) > 0
    }

    /// The lock of a tenant's namespace, for one that exists.
    pub fn lock_of(&self, tenant: &str, namespace: &str) -> Result<(), Fault> {
        let what = format!("the namespace \"{}\"", shorten(namespace));
        locks::acquire(self.table, &[tenant, namespace], Mode::Exclusive, &what).map(|_| ())
    }

    /// Keeps other registrations in the namespace out, to the end of the transaction, but nobody who decides about what is
    /// registered. Its revisions are counted when the transaction commits.
    pub fn lock_registrations(&self, namespace: &str) -> Result<(), Fault> {
        let what = format!("the namespace \"{}\"", shorten(namespace));
        locks::acquire(self.table, &[&settings::tenant()?, namespace, "registrations"], Mode::Exclusive, &what)?;
        let exists = || spi::one::<bool>(self.exists, As::Owner, See::OwnWrites, &[arg(namespace)]);
        if exists() {
            return Ok(());
        }
        spi::execute(self.insert, As::Owner, See::OwnWrites, &[arg(namespace), arg(MAX_NAMESPACES)]);
        if exists() { Ok(()) } else { Err(too_many()) }
    }

    /// Revisions of one namespace or of all, as the calling query sees them.
    fn revisions(&self, namespace: Option<&str>) -> Vec<(String, i64)> {
        spi::collect(self.revisions, As::Caller, See::Statement, &[arg(namespace)])
    }

    /// The token of now.
    pub fn token(&self, namespace: Option<&str>) -> Result<Token, Fault> {
        let mut token = Token::default();
        for (namespace, revision) in self.revisions(namespace) {
            token.read(&namespace, revision);
        }
        Ok(token)
    }

    /// Gives the changes since `token` to `push`; the last of them with the token that stands after it, and so many of the
    /// others that the answer grows with its rows only. A token of at most [`ROW_SIZE`] is with each.
    ///
    /// A revision is given out under the lock of its namespace: any query that sees revision n sees all before it, so a
    /// token never passes over what is not committed yet.
    pub fn changes_since<T: for<'r> FromRow<'r>>(
        &self,
        mut token: Token,
        namespace: Option<&str>,
        max_rows: u64,
        revision: impl Fn(&T) -> i64,
        mut push: impl FnMut(&T, Option<String>),
    ) -> Result<(), Fault> {
        let now = self.revisions(namespace);
        check_not_ahead(&token, namespace, &now)?;
        let (mut left, mut last, mut spare, mut size) = (max_rows, None::<T>, 0, 0);
        for (namespace, newest) in &now {
            let since = token.revision(namespace);
            if left == 0 {
                break;
            }
            if since >= *newest {
                continue;
            }
            let args = [arg(namespace), arg(since), arg(left as i64)];
            let changes: Vec<T> = spi::collect(self.history, As::Caller, See::Statement, &args);
            left -= changes.len() as u64;
            for change in changes {
                let read = revision(&change);
                if let Some(before) = last.replace(change) {
                    spare += ROW_SIZE;
                    // It does not become shorter: one that is not written is not made.
                    let text = (spare >= size).then(|| token.to_string());
                    size = text.as_ref().map_or(size, String::len);
                    let text = text.filter(|text| text.len() <= spare);
                    spare = if text.is_some() { 0 } else { spare };
                    push(&before, text);
                }
                token.read(namespace, read);
            }
        }
        if let Some(last) = last {
            push(&last, Some(token.to_string()));
        }
        Ok(())
    }
}

/// A token of another database, or of a primary that this standby has not reached, is refused.
fn check_not_ahead(token: &Token, namespace: Option<&str>, now: &[(String, i64)]) -> Result<(), Fault> {
    let now: HashMap<&str, i64> = now.iter().map(|(namespace, revision)| (namespace.as_str(), *revision)).collect();
    let now = |namespace: &str| now.get(namespace).copied().unwrap_or(0);
    let mut wanted = token.namespaces().filter(|other| namespace.is_none_or(|namespace| namespace == *other));
    let Some(ahead) = wanted.find(|namespace| token.revision(namespace) > now(namespace)) else {
        return Ok(());
    };
    Err(invalid(format!("the token is ahead of this database in the namespace \"{}\"", shorten(ahead)))
        .detail(format!("The token has revision {}, the last change here is {}.", token.revision(ahead), now(ahead)))
        .hint(
            "A standby may be behind: ask again later. A database that was restored has another history: begin with NULL.",
        ))
}
