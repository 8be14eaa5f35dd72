//! The settings, all under the reserved prefix `skill_system.`

use std::ffi::CString;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};

static TENANT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static KEYRING_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"skill_system_keyring.json"));
static KEYRING_COMMAND: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static RUN_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(-1);
static STUCK_AFTER: GucSetting<i32> = GucSetting::<i32>::new(3600);

/// Tenant of whoever set none.
pub const DEFAULT_TENANT: &str = "default";

/// Declares the settings; called once when the library is loaded.
pub fn register() {
    GucRegistry::define_string_guc(
        c"skill_system.tenant",
        c"Tenant whose rows this session sees and writes.",
        c"Empty means the tenant \"default\". Only a superuser, or a role with GRANT SET ON PARAMETER skill_system.tenant, can change it; ALTER ROLE ... SET binds a role to a tenant.",
        &TENANT,
        GucContext::Suset,
        GucFlags::NOT_WHILE_SEC_REST,
    );
    GucRegistry::define_string_guc(
        c"skill_system.keyring_file",
        c"File with the signing keys, a JSON Web Key set.",
        c"Relative to the data directory. Must be readable by the server's user only (mode 0600). Made at first use when it does not exist.",
        &KEYRING_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"skill_system.keyring_command",
        c"Command that prints the keyring instead of keyring_file.",
        c"Run by the shell of the server's user, once in a session; ends within ten seconds or fails.",
        &KEYRING_COMMAND,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_int_guc(
        c"skill_system.run_retention",
        c"Age at which maintain() deletes finished runs with their events.",
        c"Minutes when no unit is given, for example '90d'. -1, the default, keeps runs for ever.",
        &RUN_RETENTION,
        -1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MIN,
    );
    GucRegistry::define_int_guc(
        c"skill_system.stuck_after",
        c"Silence after which an unfinished run counts as stuck.",
        c"Seconds when no unit is given. The view stuck_runs and health() use it.",
        &STUCK_AFTER,
        1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    // SAFETY: a NUL-terminated constant; called while the library is loaded.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"skill_system".as_ptr()) };
}

fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The session's tenant.
pub fn tenant() -> String {
    let tenant = text(&TENANT);
    if tenant.is_empty() { DEFAULT_TENANT.to_owned() } else { tenant }
}

/// `skill_system.keyring_file`
pub fn keyring_file() -> String {
    text(&KEYRING_FILE)
}

/// `skill_system.keyring_command`, empty when not set.
pub fn keyring_command() -> String {
    text(&KEYRING_COMMAND)
}

/// Minutes after which finished runs may be deleted; `None` is never.
pub fn run_retention_minutes() -> Option<i32> {
    u32::try_from(RUN_RETENTION.get()).ok().map(|minutes| minutes as i32)
}

/// Seconds of silence that make a run stuck.
pub fn stuck_after_seconds() -> i32 {
    STUCK_AFTER.get()
}
