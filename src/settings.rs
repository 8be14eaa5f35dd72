//! The settings, all under the reserved prefix `skill_system.`

use std::ffi::{CStr, CString};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use skill_core::{Code, Fault};
use skill_pg::settings::{override_value, reserve_prefix, startup_value};
use skill_pg::{background, error, sys};

static TENANT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static KEYRING_FILE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"skill_system_keyring.json"));
static KEYRING_COMMAND: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static RUN_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(-1);
static STUCK_AFTER: GucSetting<i32> = GucSetting::<i32>::new(3600);
static ALLOW_UNPROTECTED: GucSetting<bool> = GucSetting::<bool>::new(false);
static SEAL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(1000);
static INTEGRITY_FAIL_LOUD: GucSetting<bool> = GucSetting::<bool>::new(false);
static SIGNED_APPROVALS: GucSetting<SignedApprovals> = GucSetting::<SignedApprovals>::new(SignedApprovals::Default);

/// Values of skill_system.signed_approvals. That of whoever set none has a name of its own, so that a refused value shows.
#[derive(Clone, Copy, PartialEq, Eq, pgrx::PostgresGucEnum)]
enum SignedApprovals {
    #[name = c"default"]
    Default,
    #[name = c"off"]
    Off,
    #[name = c"on"]
    On,
}

/// Tenant of whoever set none.
pub const DEFAULT_TENANT: &str = "default";

const TENANT_NAME: &CStr = c"skill_system.tenant";
const SIGNED_APPROVALS_NAME: &CStr = c"skill_system.signed_approvals";
/// Stands for a tenant that was asked for without the right to: no tenant at all.
const REFUSED: &CStr = c"\x01";

/// Declares the settings; called once when the library is loaded.
pub fn register() {
    let (tenant, signed_approvals) = (startup_value(TENANT_NAME), startup_value(SIGNED_APPROVALS_NAME));
    GucRegistry::define_string_guc(
        TENANT_NAME,
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
    GucRegistry::define_bool_guc(
        c"skill_system.allow_unprotected",
        c"Lets this session run statements that take away the protection of the audit trail.",
        c"Off by default, and only a superuser can set it. Without it a server with skill_system in shared_preload_libraries refuses them; what was changed is reported by verify_audit() and recorded with the next seal.",
        &ALLOW_UNPROTECTED,
        GucContext::Suset,
        GucFlags::NOT_WHILE_SEC_REST,
    );
    GucRegistry::define_int_guc(
        c"skill_system.seal_interval",
        c"Time between two sealings of the audit trail by the background worker.",
        c"Milliseconds when no unit is given. Workers run only with skill_system in shared_preload_libraries.",
        &SEAL_INTERVAL,
        10,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_enum_guc(
        SIGNED_APPROVALS_NAME,
        c"A skill is approved only with the signature of a registered approver.",
        c"on or off. The default is off: a member of skill_system_reviewer or skill_system_admin approves without one. Only a superuser can set it.",
        &SIGNED_APPROVALS,
        GucContext::Suset,
        GucFlags::NOT_WHILE_SEC_REST,
    );
    GucRegistry::define_bool_guc(
        c"skill_system.integrity_fail_loud",
        c"Report unresolved references as errors instead of warnings.",
        c"Off by default. check_integrity() reports accordingly, and assert_integrity() raises.",
        &INTEGRITY_FAIL_LOUD,
        GucContext::Userset,
        GucFlags::default(),
    );
    reserve_prefix(c"skill_system");
    // The server refused the value. Falling back to the default would let a role out of its own tenant, and approve
    // without a signature.
    if tenant.is_some_and(|asked| !asked.is_empty()) && text(&TENANT).is_empty() {
        override_value(TENANT_NAME, REFUSED);
    }
    if signed_approvals.is_some() && SIGNED_APPROVALS.get() == SignedApprovals::Default {
        override_value(SIGNED_APPROVALS_NAME, c"on");
    }
}

fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Calls `body` with the session's tenant. Raises 42501 for a session that asked for
/// one without the right to.
fn with_tenant<T>(body: impl FnOnce(&str) -> T) -> T {
    let setting = TENANT.get();
    let tenant = setting.as_deref().unwrap_or_default();
    if tenant == REFUSED {
        error::raise(
            Fault::new(
                Code::InsufficientPrivilege,
                "this session asked for a tenant without the right to, so it has none",
            )
            .hint("Connect again without skill_system.tenant in the connection options."),
        );
    }
    body(if tenant.is_empty() { DEFAULT_TENANT } else { tenant.to_str().unwrap_or_default() })
}

/// The session's tenant.
pub fn tenant() -> String {
    with_tenant(str::to_owned)
}

/// Makes this the tenant of a worker's session.
pub fn set_tenant(tenant: &str) {
    background::set(TENANT_NAME, &sys::c_string(tenant));
}

/// The session's tenant is this one.
pub fn is_tenant(tenant: &str) -> bool {
    with_tenant(|mine| mine == tenant)
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
    Some(RUN_RETENTION.get()).filter(|minutes| *minutes >= 0)
}

/// Milliseconds between two steps of a sealer.
pub fn seal_interval_millis() -> u64 {
    SEAL_INTERVAL.get().unsigned_abs().into()
}

/// Seconds of silence that make a run stuck.
pub fn stuck_after_seconds() -> i32 {
    STUCK_AFTER.get()
}

/// `skill_system.signed_approvals`
pub fn signed_approvals() -> bool {
    SIGNED_APPROVALS.get() == SignedApprovals::On
}

/// `skill_system.integrity_fail_loud`
pub fn integrity_fail_loud() -> bool {
    INTEGRITY_FAIL_LOUD.get()
}

/// `skill_system.allow_unprotected`
pub fn allow_unprotected() -> bool {
    ALLOW_UNPROTECTED.get()
}
