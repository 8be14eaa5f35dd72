//! What statements are about to change, described for a module that may refuse it.
//!
//! Only a server that preloads the library has these hooks: loaded later, by one session, they would bind that session alone.
//!
//! The hooks themselves are plain frames without destructors, and call on without pgrx's boundary, so that an error of
//! an ordinary statement passes as it is, with its position and context. What is registered runs in guarded functions.

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::pg_sys::{NodeTag, ObjectType, Oid};
use skill_core::Fault;

use super::error::OrRaise;

pub use pgrx::pg_sys::AlterTableType;

/// What is asked before a statement does something. An error is raised.
pub struct Hooks {
    /// A statement would make a change.
    pub change: fn(&Target, &Change) -> Result<(), Fault>,
    /// An object of a catalogue would be dropped, named by the statement or reached by CASCADE.
    pub drop: fn(class: Oid, object: Oid) -> Result<(), Fault>,
    /// INSERT, UPDATE or DELETE on one of `tables`, given by its place there.
    pub write: fn(usize) -> Result<(), Fault>,
    /// The tables for `write`.
    pub tables: &'static [u32],
}

/// What a statement changes.
pub enum Target<'a> {
    /// A table, as the statement names it.
    Table(Name<'a>),
    /// A function, as the statement names it.
    Function(Name<'a>),
    /// A function that would be created in this schema.
    NewFunction(Oid, &'a CStr),
    Schema(&'a CStr),
    Extension(&'a CStr),
    /// Everything that belongs to a role.
    BelongingTo(Oid),
}

/// A name as it stands in a statement.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    /// The schema, where the statement names one.
    pub schema: Option<&'a CStr>,
    /// The name in it.
    pub name: &'a CStr,
}

/// What a statement would do to its target.
pub enum Change<'a> {
    /// A subcommand of ALTER TABLE.
    Alter(AlterTableType::Type),
    /// ALTER TABLE ... ADD PRIMARY KEY
    AddPrimaryKey,
    /// The table becomes a child or a parent of another that the statement alters.
    JoinHierarchy,
    /// A new table becomes its child.
    AddChild,
    /// CREATE TRIGGER
    CreateTrigger(NewTrigger<'a>),
    /// CREATE RULE
    CreateRule,
    /// CREATE POLICY
    CreatePolicy(NewPolicy<'a>),
    /// ALTER POLICY
    AlterPolicy,
    /// CREATE FUNCTION, perhaps OR REPLACE
    CreateFunction,
    /// ALTER FUNCTION
    AlterFunction,
    /// ALTER ... RENAME, also of a part
    Rename,
    /// ALTER ... SET SCHEMA
    SetSchema,
    /// ALTER ... OWNER TO, REASSIGN OWNED
    ChangeOwner,
    /// ALTER EXTENSION ... ADD or DROP
    AlterContents,
}

/// CREATE TRIGGER
pub struct NewTrigger<'a> {
    /// The function that it calls.
    pub function: Option<Name<'a>>,
    /// A new trigger that fires for each statement of TRUNCATE and nothing else, without a condition.
    pub is_plain_truncate: bool,
}

/// CREATE POLICY
pub struct NewPolicy<'a> {
    /// A permissive policy FOR SELECT that shows all rows.
    pub shows_all: bool,
    /// For whom; `None` where that is not a role, PUBLIC for example.
    pub roles: Vec<Option<&'a CStr>>,
}

static HOOKS: OnceLock<&'static Hooks> = OnceLock::new();
// Written while the library is loaded, by the only thread, and never again.
static mut NEXT_UTILITY: pg_sys::ProcessUtility_hook_type = None;
static mut NEXT_ACCESS: pg_sys::object_access_hook_type = None;
static mut NEXT_PERMISSIONS: pg_sys::ExecutorCheckPerms_hook_type = None;

unsafe extern "C-unwind" {
    #[link_name = "standard_ProcessUtility"]
    fn standard_utility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Installs the hooks when the server is loading its preloaded libraries.
pub fn register(hooks: &'static Hooks) {
    // SAFETY: hooks are set while libraries are loaded, before anything runs; the functions live as long as
    // the library, which is never unloaded.
    unsafe {
        if !pg_sys::process_shared_preload_libraries_in_progress || HOOKS.set(hooks).is_err() {
            return;
        }
        NEXT_UTILITY = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(utility);
        NEXT_ACCESS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(object_access);
        NEXT_PERMISSIONS = pg_sys::ExecutorCheckPerms_hook;
        pg_sys::ExecutorCheckPerms_hook = Some(permissions);
    }
}

/// The hooks are installed in this server.
pub fn installed() -> bool {
    HOOKS.get().is_some()
}

#[allow(ffi_unwind_calls)] // An error of the statement passes on purpose.
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: what the server passed is passed on; see the head of this file.
    unsafe {
        check_utility((*statement).utilityStmt);
        match NEXT_UTILITY {
            Some(next) => next(statement, text, read_only_tree, context, parameters, environment, receiver, completion),
            None => standard_utility(
                statement,
                text,
                read_only_tree,
                context,
                parameters,
                environment,
                receiver,
                completion,
            ),
        }
    }
}

#[allow(ffi_unwind_calls)] // As above.
unsafe extern "C-unwind" fn object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    part: i32,
    argument: *mut std::ffi::c_void,
) {
    // SAFETY: as above; the argument of a drop shows how it came about.
    unsafe {
        if access == pg_sys::ObjectAccessType::OAT_DROP {
            let flags = (*argument.cast::<pg_sys::ObjectAccessDrop>()).dropflags;
            // The server's own housekeeping, temporary tables for instance, drops with this flag.
            if flags & pg_sys::PERFORM_DELETION_INTERNAL as i32 == 0 {
                check_drop(class, object);
            }
        }
        if let Some(next) = NEXT_ACCESS {
            next(access, class, object, part, argument);
        }
    }
}

#[cfg(feature = "pg15")]
#[allow(ffi_unwind_calls)] // As above.
unsafe extern "C-unwind" fn permissions(tables: *mut pg_sys::List, raise: bool) -> bool {
    // SAFETY: as above.
    unsafe {
        for entry in items::<pg_sys::RangeTblEntry>(tables) {
            if writes((*entry).requiredPerms, (*entry).updatedCols) {
                check_write((*entry).relid);
            }
        }
        NEXT_PERMISSIONS.is_none_or(|next| next(tables, raise))
    }
}

#[cfg(not(feature = "pg15"))]
#[allow(ffi_unwind_calls)] // As above.
unsafe extern "C-unwind" fn permissions(tables: *mut pg_sys::List, wanted: *mut pg_sys::List, raise: bool) -> bool {
    // SAFETY: as above.
    unsafe {
        for entry in items::<pg_sys::RTEPermissionInfo>(wanted) {
            if writes((*entry).requiredPerms, (*entry).updatedCols) {
                check_write((*entry).relid);
            }
        }
        NEXT_PERMISSIONS.is_none_or(|next| next(tables, wanted, raise))
    }
}

/// INSERT, DELETE or UPDATE; SELECT ... FOR UPDATE asks for the same right and sets no column.
fn writes(wanted: pg_sys::AclMode, updated: *const pg_sys::Bitmapset) -> bool {
    wanted & (pg_sys::ACL_INSERT | pg_sys::ACL_DELETE) as pg_sys::AclMode != 0
        || wanted & pg_sys::ACL_UPDATE as pg_sys::AclMode != 0 && !updated.is_null()
}

/// Runs for every statement: the guard is entered only for one that matters.
fn check_write(table: Oid) {
    if let Some(hooks) = HOOKS.get()
        && let Some(place) = hooks.tables.iter().position(|oid| *oid == table.to_u32())
    {
        // SAFETY: no preconditions.
        unsafe { refuse_write(place) };
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn refuse_write(place: usize) {
    if let Some(hooks) = HOOKS.get() {
        (hooks.write)(place).or_raise();
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check_drop(class: Oid, object: Oid) {
    if let Some(hooks) = HOOKS.get() {
        (hooks.drop)(class, object).or_raise();
    }
}

/// The elements of a list of pointers.
///
/// # Safety
/// A valid list of pointers to T, or none; it outlives `'a`.
pub(crate) unsafe fn items<'a, T: 'a>(list: *const pg_sys::List) -> impl Iterator<Item = *mut T> + 'a {
    let cells = if list.is_null() {
        &[][..]
    } else {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts((*list).elements, (*list).length as usize) }
    };
    // SAFETY: as above.
    cells.iter().map(|cell| unsafe { cell.ptr_value }.cast())
}

/// # Safety
/// A NUL-terminated text that outlives `'a`, or none.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: the caller's.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// The table a statement names.
///
/// # Safety
/// A part of the statement, or none.
unsafe fn table<'a>(range: *const pg_sys::RangeVar) -> Option<Target<'a>> {
    // SAFETY: the caller's.
    unsafe {
        let range = range.as_ref()?;
        Some(Target::Table(Name { schema: text(range.schemaname), name: text(range.relname)? }))
    }
}

/// # Safety
/// A list of strings as the parser creates it for a name.
unsafe fn list_name<'a>(list: *mut pg_sys::List) -> Option<Name<'a>> {
    let (mut schema, mut name) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the caller's; raises what the statement itself would.
    unsafe {
        pg_sys::DeconstructQualifiedName(list, &mut schema, &mut name);
        Some(Name { schema: text(schema), name: text(name)? })
    }
}

/// A function, aggregate or procedure the statement names with its arguments.
///
/// # Safety
/// An ObjectWithArgs, which the parser puts where a function is named.
unsafe fn function<'a>(object: *const pg_sys::Node) -> Option<Target<'a>> {
    // SAFETY: the caller's.
    unsafe { list_name((*object.cast::<pg_sys::ObjectWithArgs>()).objname).map(Target::Function) }
}

/// A function about to be created or replaced.
///
/// # Safety
/// As [`list_name`].
unsafe fn new_function<'a>(names: *mut pg_sys::List) -> Option<Target<'a>> {
    let mut name = std::ptr::null_mut();
    // SAFETY: the caller's.
    unsafe {
        let schema = pg_sys::QualifiedNameGetCreationNamespace(names, &mut name);
        text(name).map(|name| Target::NewFunction(schema, name))
    }
}

/// A table, a function or a schema, as statements that alter objects of many kinds name them.
///
/// # Safety
/// The parts of such a statement.
unsafe fn object<'a>(
    kind: ObjectType::Type,
    relation: *const pg_sys::RangeVar,
    object: *const pg_sys::Node,
    schema: *const c_char,
) -> Option<Target<'a>> {
    // SAFETY: which of the parts is set depends on the kind of object.
    unsafe {
        match kind {
            ObjectType::OBJECT_FUNCTION
            | ObjectType::OBJECT_PROCEDURE
            | ObjectType::OBJECT_ROUTINE
            | ObjectType::OBJECT_AGGREGATE => function(object),
            ObjectType::OBJECT_SCHEMA => text(schema).map(Target::Schema),
            _ => table(relation),
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check_utility(node: *mut pg_sys::Node) {
    let Some(hooks) = HOOKS.get() else { return };
    let mut on_change = |target: Option<Target>, change: Change| match target {
        Some(target) => (hooks.change)(&target, &change),
        None => Ok(()),
    };
    // SAFETY: the server passed the node; it outlives the call.
    unsafe {
        match (*node).type_ {
            NodeTag::T_AlterTableStmt => describe_alter_table(&*node.cast(), &mut on_change),
            NodeTag::T_CreateStmt
            | NodeTag::T_CreateForeignTableStmt
            | NodeTag::T_CreateTrigStmt
            | NodeTag::T_RuleStmt
            | NodeTag::T_CreatePolicyStmt
            | NodeTag::T_AlterPolicyStmt => describe_part_of_table(node, &mut on_change),
            _ => describe_other(node, &mut on_change),
        }
    }
    .or_raise();
}

type OnChange<'t> = &'t mut dyn FnMut(Option<Target>, Change) -> Result<(), Fault>;

/// # Safety
/// A node, and what it points to, lives as long as the call.
unsafe fn describe_part_of_table(node: *mut pg_sys::Node, on_change: OnChange) -> Result<(), Fault> {
    // SAFETY: a node starts with its tag, and the tag tells which structure it is.
    unsafe {
        match (*node).type_ {
            NodeTag::T_CreateStmt | NodeTag::T_CreateForeignTableStmt => {
                items::<pg_sys::RangeVar>((*node.cast::<pg_sys::CreateStmt>()).inhRelations)
                    .try_for_each(|parent| on_change(table(parent), Change::AddChild))
            }
            NodeTag::T_CreateTrigStmt => {
                let statement = &*node.cast::<pg_sys::CreateTrigStmt>();
                let trigger = NewTrigger {
                    function: list_name(statement.funcname),
                    is_plain_truncate: !statement.replace
                        && !statement.row
                        && statement.whenClause.is_null()
                        && statement.transitionRels.is_null()
                        && statement.events == pg_sys::TRIGGER_TYPE_TRUNCATE as i16,
                };
                on_change(table(statement.relation), Change::CreateTrigger(trigger))
            }
            NodeTag::T_RuleStmt => on_change(table((*node.cast::<pg_sys::RuleStmt>()).relation), Change::CreateRule),
            NodeTag::T_CreatePolicyStmt => {
                let statement = &*node.cast::<pg_sys::CreatePolicyStmt>();
                let policy = NewPolicy {
                    shows_all: statement.permissive
                        && text(statement.cmd_name) == Some(c"select")
                        && statement.with_check.is_null()
                        && is_true(statement.qual),
                    roles: items::<pg_sys::RoleSpec>(statement.roles).map(|role| text((*role).rolename)).collect(),
                };
                on_change(table(statement.table), Change::CreatePolicy(policy))
            }
            NodeTag::T_AlterPolicyStmt => {
                on_change(table((*node.cast::<pg_sys::AlterPolicyStmt>()).table), Change::AlterPolicy)
            }
            _ => Ok(()),
        }
    }
}

/// # Safety
/// As [`describe_part_of_table`].
unsafe fn describe_other(node: *mut pg_sys::Node, on_change: OnChange) -> Result<(), Fault> {
    // SAFETY: as `describe_part_of_table`.
    unsafe {
        match (*node).type_ {
            NodeTag::T_CreateFunctionStmt => {
                let names = (*node.cast::<pg_sys::CreateFunctionStmt>()).funcname;
                on_change(new_function(names), Change::CreateFunction)
            }
            NodeTag::T_DefineStmt => {
                let statement = &*node.cast::<pg_sys::DefineStmt>();
                if statement.kind != ObjectType::OBJECT_AGGREGATE {
                    return Ok(());
                }
                on_change(new_function(statement.defnames), Change::CreateFunction)
            }
            NodeTag::T_AlterFunctionStmt => {
                let named = (*node.cast::<pg_sys::AlterFunctionStmt>()).func;
                on_change(function(named.cast()), Change::AlterFunction)
            }
            NodeTag::T_RenameStmt => {
                let statement = &*node.cast::<pg_sys::RenameStmt>();
                let named = object(statement.renameType, statement.relation, statement.object, statement.subname);
                on_change(named, Change::Rename)
            }
            NodeTag::T_AlterObjectSchemaStmt => {
                let statement = &*node.cast::<pg_sys::AlterObjectSchemaStmt>();
                let named = object(statement.objectType, statement.relation, statement.object, std::ptr::null());
                on_change(named, Change::SetSchema)
            }
            NodeTag::T_AlterOwnerStmt => {
                let statement = &*node.cast::<pg_sys::AlterOwnerStmt>();
                let schema = if statement.objectType == ObjectType::OBJECT_SCHEMA {
                    (*statement.object.cast::<pg_sys::String>()).sval
                } else {
                    std::ptr::null_mut()
                };
                let named = object(statement.objectType, statement.relation, statement.object, schema);
                on_change(named, Change::ChangeOwner)
            }
            NodeTag::T_AlterExtensionContentsStmt => {
                let name = (*node.cast::<pg_sys::AlterExtensionContentsStmt>()).extname;
                on_change(text(name).map(Target::Extension), Change::AlterContents)
            }
            NodeTag::T_ReassignOwnedStmt => {
                items::<pg_sys::RoleSpec>((*node.cast::<pg_sys::ReassignOwnedStmt>()).roles).try_for_each(|role| {
                    let role = pg_sys::get_rolespec_oid(role, true);
                    on_change(Some(Target::BelongingTo(role)), Change::ChangeOwner)
                })
            }
            _ => Ok(()),
        }
    }
}

/// # Safety
/// What the statement points to lives as long as the call.
unsafe fn describe_alter_table(statement: &pg_sys::AlterTableStmt, on_change: OnChange) -> Result<(), Fault> {
    // SAFETY: the parser's structures; the definition of a subcommand is of the kind that belongs to it.
    unsafe {
        for command in items::<pg_sys::AlterTableCmd>(statement.cmds) {
            let command = &*command;
            let other = match command.subtype {
                AlterTableType::AT_AddInherit => table(command.def.cast()),
                AlterTableType::AT_AttachPartition => table((*command.def.cast::<pg_sys::PartitionCmd>()).name),
                _ => None,
            };
            on_change(other, Change::JoinHierarchy)?;
            let is_primary_key = command.subtype == AlterTableType::AT_AddConstraint
                && (*command.def.cast::<pg_sys::Constraint>()).contype == pg_sys::ConstrType::CONSTR_PRIMARY;
            let change = if is_primary_key { Change::AddPrimaryKey } else { Change::Alter(command.subtype) };
            on_change(table(statement.relation), change)?;
        }
    }
    Ok(())
}

/// The expression is the constant `true` as the parser creates it: a boolean, in some versions with a cast to its type.
///
/// # Safety
/// A node, or none.
unsafe fn is_true(expression: *const pg_sys::Node) -> bool {
    // SAFETY: a node starts with its tag, and the tag tells which structure it is.
    unsafe {
        let Some(tag) = expression.as_ref().map(|node| node.type_) else {
            return false;
        };
        let constant = if tag == NodeTag::T_TypeCast {
            (*expression.cast::<pg_sys::TypeCast>()).arg
        } else {
            expression.cast_mut()
        };
        if (*constant).type_ != NodeTag::T_A_Const {
            return false;
        }
        let constant = &*constant.cast::<pg_sys::A_Const>();
        !constant.isnull && constant.val.node.type_ == NodeTag::T_Boolean && constant.val.boolval.boolval
    }
}
