//! The command line: what may be called, and what was typed wrong.

use lexopt::prelude::*;
use skill_core::audit::keyring::{Keyring, MAX_KEYRING_BYTES};
use skill_core::ledger::checkpoint::{MAX_TEXT, VerifierKey};

use crate::checkpoints::Text;
use crate::report::Unusable;

pub const HELP: &str = "\
skill-verify checks what skill_system recorded, without a database.

  skill-verify export FILE --key KEY... [--keyring KEYRING] [--html PAGE]
      An export of the audit trail. Every leaf is recomputed from the values of its record, up to
      the root of the signed checkpoint. With --keyring also the signature of every record. With
      --html the records as a page to search in, which verifies each record's proof again.
  skill-verify proof FILE --record RECORD --key KEY...
      A tlog-proof. RECORD is a file with the record as JSON: a line of an export, or to_jsonb(row).
  skill-verify checkpoint FILE --key KEY...
      The signature of a checkpoint.
  skill-verify compare OLD NEW --key KEY... [--proof PROOF]
      Two checkpoints of one log: the new one has all leaves of the old one, in the same order.
      PROOF is the consistency proof, one base64 hash a line; for equal sizes none is needed.
  skill-verify watch --psql CONNINFO --state DIRECTORY --key KEY... [--once | --every SECONDS]
      The same against the last checkpoint, which is kept in DIRECTORY. psql seals the log and
      fetches checkpoint and proof; CONNINFO is its -d, such as service=prod. Again and again
      until a problem is found, every 300 seconds; --once is for cron.
  skill-verify watch CHECKPOINT --state FILE --key KEY... [--proof PROOF]
      The same with files. The last checkpoint in FILE is replaced by the new one; after a problem
      it stays as it is. The first checkpoint makes FILE.
  skill-verify snapshot FILE --key KEY...
      The document of one filing from compliance_snapshot(): its signature, the digests of its frozen
      rules, and each audit record that brings its proof.
  skill-verify rows FILE --keyring KEYRING --log-id UUID
      The signature of every row, one a line, as SELECT to_jsonb(a) FROM skill_system.audit_logs a
      prints them. The holder of the keyring could also forge: this finds changes made by others.

FILE, OLD, NEW, CHECKPOINT and RECORD may be - for standard input.

  --key KEY        Public key of the log as <origin>+<hash>+<base64>, or a file with one a line. May be
                   given several times. Get it from the log's owner, never from what you verify.
  --keyring FILE   The server's keyring, a JSON Web Key set. Secret: keep it where the server keeps it.
  --html PAGE      Writes an HTML page that needs no network, of at most 200,000 records.
  --threads N      Threads for export and rows; by default one per core.
  --json           One JSON object per line: {\"kind\":\"problem\"|\"note\"|\"result\", ...}.
  --help, --version

Checkpoints, proofs and keys may have empty lines around them, CRLF, a byte order mark, or no last
line feed.

An id that occurs twice is found when its records lie in neighbouring pieces of the file of 256 KiB:
a constant amount of memory holds no more. That the leaves of an export are all those of its time
range is the server's word; an export of the whole log leaves nothing out.

The first word on standard output is the verdict, and the exit status is the same:
  OK          0  all is as it was signed
  TAMPERED    1  it is not: the problems follow, one a line
              2  nothing on standard output: a wrong call, or a file that cannot be read as what it
                 should be; standard error tells which argument, file and line
  INCOMPLETE  3  nothing contradicts itself, but something is missing: no --key was given, the export
                 is cut off, or psql could not fetch what watch needs";

#[derive(Default)]
pub struct Options {
    pub command: String,
    pub files: Vec<String>,
    pub keys: Vec<VerifierKey>,
    pub keyring: Option<Keyring>,
    pub log_id: Option<[u8; 16]>,
    pub record: Option<String>,
    pub proof: Option<String>,
    pub state: Option<String>,
    pub html: Option<String>,
    pub psql: Option<String>,
    pub once: bool,
    pub every: Option<u64>,
    pub threads: Option<usize>,
    pub json: bool,
}

/// What a command takes.
struct Command {
    name: &'static str,
    files: &'static [&'static str],
    options: &'static [&'static str],
    needs: &'static [&'static str],
}

const COMMANDS: [Command; 7] = [
    Command { name: "export", files: &["FILE"], options: &["--key", "--keyring", "--threads", "--html"], needs: &[] },
    Command { name: "proof", files: &["FILE"], options: &["--key", "--record"], needs: &["--record"] },
    Command { name: "checkpoint", files: &["FILE"], options: &["--key"], needs: &[] },
    Command { name: "compare", files: &["OLD", "NEW"], options: &["--key", "--proof"], needs: &[] },
    Command { name: "watch", files: &["CHECKPOINT"], options: &["--key", "--proof", "--state"], needs: &["--state"] },
    Command { name: "snapshot", files: &["FILE"], options: &["--key"], needs: &[] },
    Command {
        name: "rows",
        files: &["FILE"],
        options: &["--keyring", "--log-id", "--threads"],
        needs: &["--keyring", "--log-id"],
    },
];
/// `watch` that fetches what it needs.
const WATCH_PSQL: Command = Command {
    name: "watch",
    files: &[],
    options: &["--psql", "--key", "--state", "--once", "--every"],
    needs: &["--state"],
};

impl From<lexopt::Error> for Unusable {
    fn from(error: lexopt::Error) -> Unusable {
        usage(&error.to_string())
    }
}

fn usage(what: &str) -> Unusable {
    Unusable(format!("{what}; see skill-verify --help"))
}

/// Nothing when the call only asked for help.
pub fn read(mut given: lexopt::Parser) -> Result<Option<Options>, Unusable> {
    let mut options = Options::default();
    let mut words = Vec::new();
    let once = |name: &str, slot: &mut Option<String>, value: std::ffi::OsString| match slot.replace(value.string()?) {
        None => Ok(()),
        Some(_) => Err(usage(&format!("{name} is given twice"))),
    };
    while let Some(word) = given.next()? {
        match word {
            Long("help") | Short('h') => {
                println!("{HELP}");
                return Ok(None);
            }
            Long("version") | Short('V') => {
                println!("skill-verify {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Long("json") => options.json = true,
            Long("key") => keys(&given.value()?.string()?, &mut options.keys)?,
            Long("keyring") => {
                let file = Text::read(&given.value()?.string()?, MAX_KEYRING_BYTES)?;
                let ring = Keyring::parse(&file.text);
                options.keyring = Some(ring.map_err(|e| Unusable(format!("not a keyring: {e}")).of(&file.name))?);
            }
            Long("log-id") => {
                let text = given.value()?.string()?;
                let uuid = uuid::Uuid::parse_str(&text);
                options.log_id = Some(uuid.map_err(|e| usage(&format!("--log-id \"{text}\": {e}")))?.into_bytes());
            }
            Long("threads") => options.threads = Some(number("--threads", given.value()?, 1024)? as usize),
            Long("every") => options.every = Some(number("--every", given.value()?, 1_000_000)?),
            Long("once") => options.once = true,
            Long("record") => once("--record", &mut options.record, given.value()?)?,
            Long("proof") => once("--proof", &mut options.proof, given.value()?)?,
            Long("state") => once("--state", &mut options.state, given.value()?)?,
            Long("html") => once("--html", &mut options.html, given.value()?)?,
            Long("psql") => once("--psql", &mut options.psql, given.value()?)?,
            Value(word) => words.push(word.string()?),
            _ => return Err(word.unexpected().into()),
        }
    }
    options.judge(words)?;
    Ok(Some(options))
}

fn number(name: &str, value: std::ffi::OsString, most: u64) -> Result<u64, Unusable> {
    let text = value.string()?;
    let number = text.parse().ok().filter(|n| (1..=most).contains(n));
    number.ok_or_else(|| usage(&format!("{name} \"{text}\": must be 1 to {most}")))
}

impl Options {
    /// Takes command and files from the words, and refuses what the command has no use for: it is a mistake.
    fn judge(&mut self, mut words: Vec<String>) -> Result<(), Unusable> {
        let names = || COMMANDS.map(|command| command.name).join(", ");
        if words.is_empty() {
            return Err(usage(&format!("a command is missing: one of {}", names())));
        }
        let word = words.remove(0);
        let Some(mut command) = COMMANDS.iter().find(|command| command.name == word) else {
            let near = COMMANDS.iter().map(|command| command.name).min_by_key(|name| distance(name, &word));
            let near = near.filter(|name| distance(name, &word) <= 3);
            let near = near.map(|name| format!(" (\"{name}\"?)")).unwrap_or_default();
            return Err(usage(&format!("\"{word}\" is not a command{near}: one of {}", names())));
        };
        if command.name == "watch" && self.psql.is_some() {
            command = &WATCH_PSQL;
        }
        let given = self.given();
        if let Some((name, _)) = given.iter().find(|(name, given)| *given && !command.options.contains(name)) {
            return Err(usage(&format!(
                "{word} takes no {name}{}",
                if self.psql.is_some() { " with --psql" } else { "" }
            )));
        }
        if let Some(extra) = words.get(command.files.len()) {
            let takes =
                if command.files.is_empty() { "no file with --psql".to_owned() } else { command.files.join(" and ") };
            return Err(usage(&format!("\"{extra}\" is one word too many: {word} takes {takes}")));
        }
        if let Some(missing) = command.files.get(words.len()) {
            let psql = if word == "watch" { ", or --psql CONNINFO" } else { "" };
            return Err(usage(&format!("{word}: {missing} is missing{psql}")));
        }
        let missing = |name: &&&str| !given.iter().any(|(given, there)| given == *name && *there);
        if let Some(name) = command.needs.iter().find(missing) {
            return Err(usage(&format!("{word} needs {name}")));
        }
        if self.once && self.every.is_some() {
            return Err(usage("--once and --every contradict each other"));
        }
        if self.html.is_some() && words.iter().any(|file| file == "-") {
            return Err(usage("--html reads the export twice: standard input will not do"));
        }
        (self.command, self.files) = (word, words);
        Ok(())
    }

    fn given(&self) -> [(&'static str, bool); 11] {
        [
            ("--key", !self.keys.is_empty()),
            ("--keyring", self.keyring.is_some()),
            ("--log-id", self.log_id.is_some()),
            ("--record", self.record.is_some()),
            ("--proof", self.proof.is_some()),
            ("--state", self.state.is_some()),
            ("--html", self.html.is_some()),
            ("--psql", self.psql.is_some()),
            ("--once", self.once),
            ("--every", self.every.is_some()),
            ("--threads", self.threads.is_some()),
        ]
    }
}

/// How many letters must be changed, added or removed to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let best = (diagonal + usize::from(a != *b)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[other.len()]
}

/// A key, or a file with one a line.
fn keys(given: &str, keys: &mut Vec<VerifierKey>) -> Result<(), Unusable> {
    if let Ok(key) = VerifierKey::parse(given) {
        keys.push(key);
        return Ok(());
    }
    let file = Text::read(given, MAX_TEXT)
        .map_err(|Unusable(why)| Unusable(format!("--key: neither a key nor a file with keys: {why}")))?;
    let before = keys.len();
    for (n, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            let wrong = |e| Unusable(format!("line {}: {e}", n + 1)).of(given);
            keys.push(VerifierKey::parse(line).map_err(wrong)?);
        }
    }
    if keys.len() == before { Err(Unusable("no key in this file".into()).of(given)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_near() {
        for (one, other, wanted) in
            [("export", "export", 0), ("export", "exprot", 2), ("rows", "", 4), ("watch", "wach", 1)]
        {
            assert_eq!((distance(one, other), distance(other, one)), (wanted, wanted));
        }
    }
}
