//! The keyring of this server: a private file, or what a command prints.

use crate::settings;
use skill_pg::error::{check_for_interrupts, report};
use skill_pg::xact::End;
use skill_pg::{fault_point, sys};
use std::cell::RefCell;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use skill_core::audit::keyring::{Keyring, MAX_KEYRING_BYTES, RANDOM_BYTES, SigningKey};
use skill_core::{Code, Fault};
use zeroize::Zeroizing;

/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
/// How often the file is looked at for a change.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

struct Loaded {
    ring: Rc<Keyring>,
    from: Source,
    looked_at: Instant,
}

#[derive(PartialEq, Eq, Clone)]
enum Source {
    Command(String),
    File { path: PathBuf, device: u64, inode: u64, modified: (i64, i64), length: u64 },
}

thread_local! {
    static LOADED: RefCell<Option<Loaded>> = const { RefCell::new(None) };
    static ROTATION: RefCell<Option<Rotation>> = const { RefCell::new(None) };
}

/// The keyring, read again when its file or the setting changed.
pub fn keyring() -> Result<Rc<Keyring>, Fault> {
    if let Some(ring) = LOADED.with_borrow(|loaded| {
        loaded.as_ref().filter(|l| l.looked_at.elapsed() < RECHECK_INTERVAL).map(|l| l.ring.clone())
    }) {
        return Ok(ring);
    }
    let command = settings::keyring_command();
    let from = if command.is_empty() { file_source(&path())? } else { Source::Command(command) };
    if let Some(ring) = LOADED.with_borrow_mut(|loaded| {
        loaded.as_mut().filter(|l| l.from == from).map(|l| {
            l.looked_at = Instant::now();
            l.ring.clone()
        })
    }) {
        return Ok(ring);
    }
    let text = match &from {
        Source::Command(command) => run(command)?,
        Source::File { path, .. } => read(path)?,
    };
    let ring = Rc::new(Keyring::parse(&text)?);
    LOADED.set(Some(Loaded { ring: ring.clone(), from, looked_at: Instant::now() }));
    Ok(ring)
}

/// The keyring is read again when it is next used.
pub fn forget() {
    LOADED.set(None);
}

/// The key that signs for others; `so` tells what cannot be done without one.
pub fn signing<'r>(ring: &'r Keyring, so: &str) -> Result<&'r SigningKey, Fault> {
    ring.signing().ok_or_else(|| {
        Fault::new(Code::ConfigFileError, format!("the keyring has no active Ed25519 key, so {so}"))
            .hint("SELECT skill_system.rotate_audit_key(); adds one.")
    })
}

/// A command or a file gives the keyring now.
pub fn exists() -> bool {
    !settings::keyring_command().is_empty() || path().exists()
}

/// Where the keyring file is.
pub fn path() -> PathBuf {
    Path::new(&sys::data_directory()).join(settings::keyring_file())
}

/// The path is for those who may see the setting, so the message leaves it out.
fn unusable(why: &str) -> Fault {
    Fault::new(Code::ConfigFileError, "could not use the keyring file, so nothing can be signed or verified")
        .detail(format!("skill_system.keyring_file: {why}."))
        .hint(
            "Restore the file from its backup, or see skill_system.keyring_file; SELECT skill_system.create_keyring() \
             creates a new one, which cannot verify what older keys signed.",
        )
}

/// The file, if nobody but the server's user can read it.
fn file_source(path: &Path) -> Result<Source, Fault> {
    let meta = std::fs::metadata(path).map_err(|e| unusable(&e.kind().to_string()))?;
    if !meta.is_file() {
        return Err(unusable("not a regular file"));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(unusable(&format!(
            "its mode is {:04o}; others than the server's user can use it",
            meta.mode() & 0o7777
        ))
        .hint("Set its mode to 0600, and rotate the key if somebody may have read it."));
    }
    if meta.len() > MAX_KEYRING_BYTES as u64 {
        return Err(skill_core::audit::keyring::KeyringError::TooLarge.into());
    }
    Ok(Source::File {
        path: path.to_owned(),
        device: meta.dev(),
        inode: meta.ino(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        length: meta.len(),
    })
}

fn read(path: &Path) -> Result<Zeroizing<String>, Fault> {
    File::open(path).map_err(|e| unusable(&e.kind().to_string())).and_then(|file| read_file(&file))
}

fn read_file(file: &File) -> Result<Zeroizing<String>, Fault> {
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_KEYRING_BYTES as u64 + 1).read_to_string(&mut text).map_err(|e| unusable(&e.kind().to_string()))?;
    Ok(text)
}

/// Ends the command when its caller is cancelled or gives up.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &str) -> Result<Zeroizing<String>, Fault> {
    // What the command prints may be a secret, so neither it nor its errors are shown.
    let failed = |why: String| {
        Fault::new(
            Code::ConfigFileError,
            "could not get a keyring from skill_system.keyring_command, so nothing can be signed or verified",
        )
        .detail(why)
        .hint("Run it as the server's user; it must print a JSON Web Key set and end with status 0 within ten seconds.")
    };
    let mut running = Running(
        Command::new("/bin/sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| failed(format!("It could not be started: {}.", e.kind())))?,
    );
    let started = Instant::now();
    let mut text = Zeroizing::new(Vec::new());
    let mut piece = Zeroizing::new([0u8; 4096]);
    let mut output = running.0.stdout.take();
    if let Some(output) = &output {
        sys::set_nonblocking(output);
    }
    // The output is read while the command runs, or a long one would fill the pipe.
    let status = loop {
        if let Some(pipe) = &mut output {
            match pipe.read(&mut piece[..]) {
                Ok(0) => output = None,
                Ok(n) => {
                    text.extend_from_slice(&piece[..n]);
                    if text.len() > MAX_KEYRING_BYTES {
                        return Err(failed("It printed more than a keyring can have.".into()));
                    }
                    continue;
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Err(failed(format!("Its output could not be read: {}.", e.kind()))),
            }
        } else if let Ok(Some(status)) = running.0.try_wait() {
            break status;
        }
        if started.elapsed() > COMMAND_LIMIT {
            return Err(failed("It did not end within ten seconds.".into()));
        }
        check_for_interrupts();
        std::thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        return Err(failed(format!("It ended with {status}.")));
    }
    match std::str::from_utf8(&text) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(failed("Its output is not UTF-8 text.".into())),
    }
}

/// Makes the file with one new key of each kind. Two sessions may try at once: one file wins.
pub fn create() -> Result<(), Fault> {
    let path = path();
    let failed = |e: std::io::Error| unusable(&format!("could not create it: {}", e.kind()));
    let mut random = Zeroizing::new([0; RANDOM_BYTES]);
    sys::strong_random(&mut random[..]);
    let text = Keyring::generate(&random);
    let temporary = path.with_extension(format!("tmp.{}", std::process::id()));
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        // A link, unlike a rename, never replaces a keyring that is already there.
        .and_then(|()| std::fs::hard_link(&temporary, &path));
    let _ = std::fs::remove_file(&temporary);
    match created {
        Ok(()) => {
            // The name must survive a crash before anything signed with the key does.
            sync_directory(&path).map_err(failed)
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.exists() => Ok(()),
        Err(e) => Err(failed(e)),
    }
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    match path.parent().map(File::open) {
        Some(Ok(directory)) => directory.sync_all(),
        _ => Ok(()),
    }
}

/// A new keyring that takes the place of the old one when the transaction commits.
///
/// Not before, because the record that announces the keys comes first: a crash in between leaves a key that is announced and
/// never used, which harms nobody.
struct Rotation {
    path: PathBuf,
    /// The keyring that was read, which must still be the one.
    old: Source,
    temporary: PathBuf,
    new: Source,
    /// Held so that nobody else rotates: databases of one server share the file.
    _lock: File,
    /// Where it ends when it is rolled back.
    subtransaction: pgrx::pg_sys::SubTransactionId,
}

impl Drop for Rotation {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Writes a keyring with new active keys, used from the commit on.
pub fn rotate() -> Result<Keyring, Fault> {
    let refused = |message: &str| Fault::new(Code::NotInPrerequisiteState, message);
    if !settings::keyring_command().is_empty() {
        return Err(refused("skill_system.keyring_command gives the keyring, so only its source can get a new key").hint(
            "Where the command reads from, add a key of each kind with \"active\":true (RFC 7517: kty oct, alg HS256; kty OKP, \
             crv Ed25519, alg EdDSA), set \"active\":false on the old ones and keep them. Then announce them: SELECT \
             skill_system.rotate_audit_key(); in a new session.",
        ));
    }
    if ROTATION.with_borrow(Option::is_some) {
        return Err(refused("the key was already rotated in this transaction").hint("COMMIT first."));
    }
    let path = std::fs::canonicalize(path()).map_err(|e| unusable(&e.kind().to_string()))?;
    let lock = File::open(&path).map_err(|e| unusable(&e.kind().to_string()))?;
    let busy = || refused("another session is rotating the key").hint("Try again when it has ended.");
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(busy()),
        Err(TryLockError::Error(e)) => return Err(unusable(&format!("could not lock it: {}", e.kind()))),
    }
    let old = file_source(&path)?;
    // The lock may be on a file that was replaced before it was got.
    let locked = lock.metadata().map_err(|e| unusable(&e.kind().to_string()))?;
    if !matches!(old, Source::File { device, inode, .. } if (device, inode) == (locked.dev(), locked.ino())) {
        return Err(busy());
    }
    let mut random = Zeroizing::new([0; RANDOM_BYTES]);
    sys::strong_random(&mut random[..]);
    let text = Keyring::rotate(&read_file(&lock)?, &random)?;
    let ring = Keyring::parse(&text)?;
    let mut name = path.clone().into_os_string();
    name.push(".rotation");
    let temporary = PathBuf::from(name);
    // What a crash left behind; nobody else is at work here.
    let _ = std::fs::remove_file(&temporary);
    let failed = |e: std::io::Error| unusable(&format!("could not write the new file next to it: {}", e.kind()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let new = written.map_err(failed).and_then(|()| file_source(&temporary));
    let new = new.inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
    ROTATION.set(Some(Rotation { path, old, temporary, new, _lock: lock, subtransaction: sys::subtransaction() }));
    Ok(ring)
}

/// Called at the ends of transactions and of their parts.
pub fn at_transaction_end(end: End) -> Result<(), Fault> {
    match end {
        End::BeforeCommit => before_commit()?,
        End::BeforePrepare => before_prepare()?,
        End::Committed => committed(),
        End::Aborted => ROTATION.set(None),
        End::SubAborted(ended) => ROTATION.with_borrow_mut(|rotation| {
            rotation.take_if(|rotation| rotation.subtransaction == ended);
        }),
        // From here on it is rolled back with the part around it.
        End::SubCommitted(ended, parent) => ROTATION.with_borrow_mut(|rotation| {
            if let Some(rotation) = rotation.as_mut().filter(|rotation| rotation.subtransaction == ended) {
                rotation.subtransaction = parent;
            }
        }),
        End::Prepared | End::ParallelCommitted | End::ParallelAborted => {}
    }
    Ok(())
}

/// The last moment at which a rotation can still be refused.
fn before_commit() -> Result<(), Fault> {
    let intact = ROTATION.with_borrow(|rotation| {
        rotation.as_ref().is_none_or(|rotation| {
            let same = |path: &Path, source: &Source| file_source(path).is_ok_and(|found| found == *source);
            let here = std::fs::canonicalize(path()).is_ok_and(|path| path == rotation.path);
            here && settings::keyring_command().is_empty()
                && same(&rotation.path, &rotation.old)
                && same(&rotation.temporary, &rotation.new)
        })
    });
    if intact {
        return Ok(());
    }
    let message = "the keyring is not the one that rotate_audit_key() read, so the key is not rotated";
    Err(Fault::new(Code::ConfigFileError, message)
        .detail("Its file, the new file next to it, or the settings that name them have changed since.")
        .hint("Find out who did that, then call rotate_audit_key() again."))
}

/// The new keyring cannot wait for COMMIT PREPARED, which another session may run.
fn before_prepare() -> Result<(), Fault> {
    if ROTATION.with_borrow(Option::is_none) {
        return Ok(());
    }
    let message = "a transaction that has rotated the audit key cannot be prepared";
    Err(Fault::new(Code::NotInPrerequisiteState, message).hint("COMMIT it."))
}

/// Puts the new keyring in place. The transaction is committed, so nothing may be raised here.
fn committed() {
    let Some(rotation) = ROTATION.take() else { return };
    fault_point::reached("key_announced");
    let moved = std::fs::rename(&rotation.temporary, &rotation.path).and_then(|()| sync_directory(&rotation.path));
    if let Err(e) = moved {
        let fault = Fault::new(Code::ConfigFileError, format!("could not put the new keyring in place: {}", e.kind()));
        report(
            fault.detail("The old key continues to sign.").hint("SELECT skill_system.rotate_audit_key(); again."),
            pgrx::PgLogLevel::WARNING,
        );
    }
    forget();
}
