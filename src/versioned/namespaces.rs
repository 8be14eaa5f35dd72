//! Namespaces number the changes in them without gaps, in the order of commits.

use std::collections::HashMap;
use std::ffi::CStr;

use skill_core::error::shorten;
use skill_core::input::invalid;
use skill_core::skills::changes::Token;
use skill_core::{Code, Fault};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{Row, arg};

use crate::{locks, settings};

/// Most namespaces of a tenant: agents create them.
const MAX_NAMESPACES: i64 = 1000;
/// Most bytes of tokens in one answer, which is shorter then: each row has a token, and each token all namespaces.
const MAX_TOKENS: usize = 16 << 20;

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
    /// The history of namespace $1 after revision $2, in its order, at most $3 rows. Column 2 is the revision.
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

    /// Gives the changes since `token` to `push`, each with the token that stands after it.
    ///
    /// A revision is given out under the lock of its namespace: any query that sees revision n sees all before it, so a
    /// token never passes over what is not committed yet.
    pub fn changes_since(
        &self,
        mut token: Token,
        namespace: Option<&str>,
        max_rows: u64,
        mut push: impl FnMut(&Row<'_>, String),
    ) -> Result<(), Fault> {
        let now = self.revisions(namespace);
        check_not_ahead(&token, namespace, &now)?;
        let (mut left, mut bytes) = (max_rows, 0);
        for (namespace, revision) in &now {
            let since = token.revision(namespace);
            if left == 0 || bytes >= MAX_TOKENS {
                break;
            }
            if since >= *revision {
                continue;
            }
            let args = [arg(namespace), arg(since), arg(left as i64)];
            left -= spi::each(self.history, As::Caller, See::Statement, &args, |row| {
                token.read(namespace, row.get(2));
                if bytes < MAX_TOKENS {
                    let text = token.to_string();
                    bytes += text.len();
                    push(row, text);
                }
                Ok(())
            })?;
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
