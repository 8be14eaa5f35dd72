//! The settings, all under the reserved prefix `skill_system.`

use std::ffi::{CStr, CString};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use skill_core::error::shorten;
use skill_core::limits::{MAX_JSON_TEXT, MAX_VALUE, RECORD_SIZES};
use skill_core::{Code, Fault};
use skill_pg::call::register_max_argument;
use skill_pg::settings::{connection_options, early_value, override_value, reserve_prefix};
use skill_pg::{background, sys};

static TENANT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static KEYRING_FILE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"skill_system_keyring.json"));
static KEYRING_COMMAND: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static RUN_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(-1);
static STUCK_AFTER: GucSetting<i32> = GucSetting::<i32>::new(3600);
static ALLOW_UNPROTECTED: GucSetting<bool> = GucSetting::<bool>::new(false);
static MAX_RECORD_SIZE: GucSetting<i32> = GucSetting::<i32>::new((MAX_JSON_TEXT >> 10) as i32);
static SEAL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(1000);
static INTEGRITY_FAIL_LOUD: GucSetting<bool> = GucSetting::<bool>::new(false);
static SINGLE_USER_STORE: GucSetting<bool> = GucSetting::<bool>::new(false);
static SIGNED_APPROVALS: GucSetting<SignedApprovals> = GucSetting::<SignedApprovals>::new(SignedApprovals::Default);

/// Values of skill_system.signed_approvals. A session that set none has `Default`, so that a refused value can be told
/// from a missing one.
#[derive(Clone, Copy, PartialEq, Eq, pgrx::PostgresGucEnum)]
enum SignedApprovals {
    #[name = c"default"]
    Default,
    #[name = c"off"]
    Off,
    #[name = c"on"]
    On,
}

/// The tenant of sessions that set none.
pub const DEFAULT_TENANT: &str = "default";

const TENANT_NAME: &CStr = c"skill_system.tenant";
const SIGNED_APPROVALS_NAME: &CStr = c"skill_system.signed_approvals";
/// In place of a tenant that a session may not choose: every use of the tenant raises an error.
const REFUSED: &CStr = c"\x01";

const PREFIX: &str = "skill_system.";
/// Those that any user may set, also in the connection options.
const FREE: [&str; 1] = ["skill_system.integrity_fail_loud"];
/// Those that only the server's configuration sets.
const FROM_CONFIGURATION: [&str; 3] =
    ["skill_system.keyring_file", "skill_system.keyring_command", "skill_system.seal_interval"];

/// Refuses to load the library into a session whose connection options set what they may not, to whatever value: the server
/// could not refuse them before it knew the settings, and they have taken the place of what an administrator set. A server
/// that preloads the library refuses the connection. Called first, because it is called again after an error.
pub fn refuse_connection_options() -> Result<(), Fault> {
    for option in connection_options(PREFIX) {
        let is_one_of = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(&option.name));
        let from_configuration = is_one_of(&FROM_CONFIGURATION);
        if is_one_of(&FREE) || option.may_set && !from_configuration {
            continue;
        }
        let detail = if from_configuration {
            "Only the configuration of the server sets it."
        } else {
            "Connection options would replace what an administrator has set for the role or the database."
        };
        let message = format!("permission denied to set parameter \"{}\"", shorten(&option.name));
        return Err(Fault::new(Code::InsufficientPrivilege, message)
            .detail(detail)
            .hint("Connect again without it in the connection options (PGOPTIONS)."));
    }
    Ok(())
}

/// Declares the settings; called once when the library is loaded.
pub fn register() {
    let (tenant, signed_approvals) = (early_value(TENANT_NAME), early_value(SIGNED_APPROVALS_NAME));
    define_tenant();
    define_audit_settings();
    define_run_settings();
    define_skill_settings();
    reserve_prefix(c"skill_system");
    register_max_argument(max_argument_bytes);
    // The server refused the value. With the default instead, a role would leave its tenant, or approve without a
    // signature.
    if tenant.is_some_and(|wanted| !wanted.is_empty()) && text(&TENANT).is_empty() {
        override_value(TENANT_NAME, REFUSED);
    }
    if signed_approvals.is_some() && SIGNED_APPROVALS.get() == SignedApprovals::Default {
        override_value(SIGNED_APPROVALS_NAME, c"on");
    }
}

fn define_tenant() {
    GucRegistry::define_string_guc(
        TENANT_NAME,
        c"Tenant whose rows this session sees and writes.",
        c"Empty means the tenant \"default\". Only a superuser, or a role with \
            GRANT SET ON PARAMETER skill_system.tenant, can change it; ALTER ROLE ... SET binds a role to a tenant.",
        &TENANT,
        GucContext::Suset,
        GucFlags::NOT_WHILE_SEC_REST,
    );
}

fn define_audit_settings() {
    GucRegistry::define_string_guc(
        c"skill_system.keyring_file",
        c"File with the signing keys, a JSON Web Key set.",
        c"Relative to the data directory. Must be readable by the server's user only (mode 0600). \
            Created at first use when it does not exist.",
        &KEYRING_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"skill_system.keyring_command",
        c"Command that prints the keyring instead of keyring_file.",
        c"Run by the shell of the server's user, once per session. It fails if it takes longer than ten seconds.",
        &KEYRING_COMMAND,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_bool_guc(
        c"skill_system.allow_unprotected",
        c"Allows statements that remove the protection of the audit trail in this session.",
        c"Off by default; only a superuser can set it. When it is off, \
            a server with skill_system in shared_preload_libraries refuses such statements. \
            verify_audit() reports what was changed, and the next seal records it.",
        &ALLOW_UNPROTECTED,
        GucContext::Suset,
        GucFlags::NOT_WHILE_SEC_REST,
    );
    GucRegistry::define_int_guc(
        c"skill_system.seal_interval",
        c"Time between two seals of the audit trail by the background worker.",
        c"Milliseconds when no unit is given. Workers run only with skill_system in shared_preload_libraries.",
        &SEAL_INTERVAL,
        10,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"skill_system.max_record_size",
        c"Largest event_data of an audit record, in the length of its text.",
        c"Kilobytes when no unit is given. Larger ones are refused; verify_audit() reports, \
            and audit_export() writes by digest, larger ones that were recorded before. Only a superuser can set it.",
        &MAX_RECORD_SIZE,
        (RECORD_SIZES.start() >> 10) as i32,
        (RECORD_SIZES.end() >> 10) as i32,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
}

fn define_run_settings() {
    GucRegistry::define_int_guc(
        c"skill_system.run_retention",
        c"Age at which maintain() deletes finished runs with their events.",
        c"For example '90d'; minutes when no unit is given. -1, the default, keeps runs forever.",
        &RUN_RETENTION,
        -1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MIN,
    );
    GucRegistry::define_int_guc(
        c"skill_system.stuck_after",
        c"Time without an event after which an unfinished run counts as stuck.",
        c"Seconds when no unit is given. Used by the view stuck_runs and by health().",
        &STUCK_AFTER,
        1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
}

fn define_skill_settings() {
    GucRegistry::define_enum_guc(
        SIGNED_APPROVALS_NAME,
        c"Requires the signature of a registered approver to approve a skill.",
        c"When it is off, the default, members of skill_system_reviewer and skill_system_admin approve without a signature. \
            Only a superuser can set it.",
        &SIGNED_APPROVALS,
        GucContext::Suset,
        GucFlags::NOT_WHILE_SEC_REST,
    );
    GucRegistry::define_bool_guc(
        c"skill_system.single_user_store",
        c"Lets agents take approved skills out of service, and approvals name no version, as for a store of one user.",
        c"Off by default; only a superuser can set it. When it is off, \
            only members of skill_system_reviewer and skill_system_admin change what was approved or disabled.",
        &SINGLE_USER_STORE,
        GucContext::Suset,
        GucFlags::NOT_WHILE_SEC_REST,
    );
    GucRegistry::define_bool_guc(
        c"skill_system.integrity_fail_loud",
        c"Reports unresolved references as errors instead of warnings.",
        c"Off by default. check_integrity() reports accordingly, and assert_integrity() raises.",
        &INTEGRITY_FAIL_LOUD,
        GucContext::Userset,
        GucFlags::default(),
    );
}

fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Calls `body` with the session's tenant; 42501 when the session chose one without the right to.
pub fn with_tenant<T>(body: impl FnOnce(&str) -> T) -> Result<T, Fault> {
    let setting = TENANT.get();
    let tenant = setting.as_deref().unwrap_or_default();
    if tenant == REFUSED {
        let message = "permission denied to set parameter \"skill_system.tenant\"";
        return Err(Fault::new(Code::InsufficientPrivilege, message)
            .detail("The session has no tenant, because it set one before the library was loaded.")
            .hint("Connect again, and leave the setting to an administrator."));
    }
    if tenant.is_empty() {
        return Ok(body(DEFAULT_TENANT));
    }
    let invalid = || Fault::new(Code::InvalidParameterValue, "skill_system.tenant must be UTF-8");
    tenant.to_str().map(body).map_err(|_| invalid())
}

/// The session's tenant.
pub fn tenant() -> Result<String, Fault> {
    with_tenant(str::to_owned)
}

/// Sets the tenant of a worker's session.
pub fn set_tenant(tenant: &str) {
    background::set(TENANT_NAME, &sys::c_string(tenant));
}

/// Whether this is the session's tenant.
pub fn is_tenant(tenant: &str) -> Result<bool, Fault> {
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

/// The longest text of the data of an audit record.
pub fn max_record_bytes() -> usize {
    (MAX_RECORD_SIZE.get().unsigned_abs() as usize) << 10
}

/// The largest argument of a function: it may be the data of a record.
pub fn max_argument_bytes() -> usize {
    max_record_bytes().max(MAX_VALUE)
}

/// Seconds of silence that make a run stuck.
pub fn stuck_after_seconds() -> i32 {
    STUCK_AFTER.get()
}

/// `skill_system.signed_approvals`
pub fn signed_approvals() -> bool {
    SIGNED_APPROVALS.get() == SignedApprovals::On
}

/// `skill_system.single_user_store`
pub fn single_user_store() -> bool {
    SINGLE_USER_STORE.get()
}

/// `skill_system.integrity_fail_loud`
pub fn integrity_fail_loud() -> bool {
    INTEGRITY_FAIL_LOUD.get()
}

/// `skill_system.allow_unprotected`
pub fn allow_unprotected() -> bool {
    ALLOW_UNPROTECTED.get()
}
