//! The hooks of the utility guard: they read statements, `guard.rs` judges them.
//!
//! Only a server that preloads the library has them: loaded later, by one session, they would bind that session alone.
//!
//! The hooks themselves are plain frames without destructors, and call on without pgrx's boundary, so that an error of
//! an ordinary statement passes as it is, with its position and context. Our own part runs in guarded functions.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use pgrx::pg_sys;
use pgrx::pg_sys::{NodeTag, ObjectType};

use crate::audit::guard::{self, Dropped, Name, Target};

static mut NEXT_UTILITY: pg_sys::ProcessUtility_hook_type = None;
static mut NEXT_ACCESS: pg_sys::object_access_hook_type = None;
static mut NEXT_PERMISSIONS: pg_sys::ExecutorCheckPerms_hook_type = None;
static mut INSTALLED: bool = false;

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
pub fn register() {
    // SAFETY: hooks are set while libraries are loaded, before there is anything to run; the functions live as long as
    // the library, which is never unloaded.
    unsafe {
        if !pg_sys::process_shared_preload_libraries_in_progress {
            return;
        }
        NEXT_UTILITY = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(utility);
        NEXT_ACCESS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(object_access);
        NEXT_PERMISSIONS = pg_sys::ExecutorCheckPerms_hook;
        pg_sys::ExecutorCheckPerms_hook = Some(permissions);
        INSTALLED = true;
    }
}

/// This server refuses what would take away protection.
pub fn installed() -> bool {
    // SAFETY: set once, before there is a second process.
    unsafe { INSTALLED }
}

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

unsafe extern "C-unwind" fn object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: i32,
    argument: *mut std::ffi::c_void,
) {
    // SAFETY: as above; the argument of a drop says how it came about.
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
unsafe extern "C-unwind" fn permissions(tables: *mut pg_sys::List, raise: bool) -> bool {
    // SAFETY: as above.
    unsafe {
        for entry in items::<pg_sys::RangeTblEntry>(tables) {
            if writes((*entry).requiredPerms, (*entry).updatedCols) {
                check_catalogue((*entry).relid);
            }
        }
        NEXT_PERMISSIONS.is_none_or(|next| next(tables, raise))
    }
}

#[cfg(not(feature = "pg15"))]
unsafe extern "C-unwind" fn permissions(tables: *mut pg_sys::List, wanted: *mut pg_sys::List, raise: bool) -> bool {
    // SAFETY: as above.
    unsafe {
        for entry in items::<pg_sys::RTEPermissionInfo>(wanted) {
            if writes((*entry).requiredPerms, (*entry).updatedCols) {
                check_catalogue((*entry).relid);
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

/// The catalogues that say what a table is and what runs when it is written to.
const CATALOGUES: [(u32, &str); 15] = [
    (1247, "pg_type"),
    (1249, "pg_attribute"),
    (1255, "pg_proc"),
    (1259, "pg_class"),
    (2604, "pg_attrdef"),
    (2606, "pg_constraint"),
    (2608, "pg_depend"),
    (2610, "pg_index"),
    (2611, "pg_inherits"),
    (2612, "pg_language"),
    (2615, "pg_namespace"),
    (2618, "pg_rewrite"),
    (2620, "pg_trigger"),
    (3079, "pg_extension"),
    (3256, "pg_policy"),
];

unsafe fn check_catalogue(table: pg_sys::Oid) {
    if let Some((_, name)) = CATALOGUES.iter().find(|(oid, _)| *oid == table.to_u32()) {
        // SAFETY: a constant.
        unsafe { refuse_catalogue(name.as_ptr(), name.len()) };
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn refuse_catalogue(name: *const u8, length: usize) {
    // SAFETY: the parts of a constant of `CATALOGUES`.
    guard::check_catalogue(unsafe { std::str::from_utf8_unchecked(std::slice::from_raw_parts(name, length)) });
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check_drop(class: pg_sys::Oid, object: pg_sys::Oid) {
    // SAFETY: catalogue look-ups inside a transaction; the name is copied at once.
    let named =
        |name: *const c_char| (!name.is_null()).then(|| Dropped::Named(unsafe { CStr::from_ptr(name) }.to_owned()));
    let dropped = match class.to_u32() {
        // pg_proc, pg_class, pg_rewrite, pg_trigger, pg_policy
        1255 | 1259 | 2618 | 2620 | 3256 => Some(Dropped::Object { class, oid: object }),
        3079 => named(unsafe { pg_sys::get_extension_name(object) }),
        2615 => named(unsafe { pg_sys::get_namespace_name(object) }),
        _ => None,
    };
    if let Some(dropped) = dropped {
        guard::check_drop(&dropped);
    }
}

/// The elements of a list of pointers.
unsafe fn items<'a, T: 'a>(list: *const pg_sys::List) -> impl Iterator<Item = *mut T> + 'a {
    // SAFETY: a valid list of pointers to T, or none; it outlives the statement.
    let cells = if list.is_null() {
        &[][..]
    } else {
        unsafe { std::slice::from_raw_parts((*list).elements, (*list).length as usize) }
    };
    // SAFETY: as above.
    cells.iter().map(|cell| unsafe { cell.ptr_value }.cast())
}

unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: a NUL-terminated text of the statement, or none.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// The table a statement names.
unsafe fn table<'a>(range: *const pg_sys::RangeVar) -> Option<Target<'a>> {
    // SAFETY: a part of the statement, or none.
    unsafe {
        let range = range.as_ref()?;
        Some(Target::Table(Name { schema: text(range.schemaname), name: text(range.relname)? }))
    }
}

unsafe fn list_name<'a>(list: *mut pg_sys::List) -> Option<Name<'a>> {
    let (mut schema, mut name) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: a list of strings as the parser makes it for a name; raises what the statement itself would.
    unsafe {
        pg_sys::DeconstructQualifiedName(list, &mut schema, &mut name);
        Some(Name { schema: text(schema), name: text(name)? })
    }
}

/// A function, aggregate or procedure the statement names with its arguments.
unsafe fn function<'a>(object: *const pg_sys::Node) -> Option<Target<'a>> {
    // SAFETY: the parser puts this node where a function is named.
    unsafe { list_name((*object.cast::<pg_sys::ObjectWithArgs>()).objname).map(Target::Function) }
}

/// A function about to be made or replaced.
unsafe fn new_function<'a>(names: *mut pg_sys::List) -> Option<Target<'a>> {
    let mut name = std::ptr::null_mut();
    // SAFETY: as `list_name`.
    unsafe {
        let schema = pg_sys::QualifiedNameGetCreationNamespace(names, &mut name);
        text(name).map(|name| Target::NewFunction(schema, name))
    }
}

/// `table`, a function or a schema, as statements that alter objects of many kinds name them.
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
    let refuse_if = |target: Option<Target>, loss: &str| {
        if let Some(target) = target {
            guard::check(&target, loss);
        }
    };
    // SAFETY: a node starts with its tag, and the tag says which structure it is.
    unsafe {
        match (*node).type_ {
            NodeTag::T_AlterTableStmt => check_alter_table(&*node.cast()),
            NodeTag::T_CreateStmt | NodeTag::T_CreateForeignTableStmt => {
                for parent in items::<pg_sys::RangeVar>((*node.cast::<pg_sys::CreateStmt>()).inhRelations) {
                    refuse_if(table(parent), "add rows from outside to");
                }
            }
            NodeTag::T_CreateTrigStmt => {
                let statement = &*node.cast::<pg_sys::CreateTrigStmt>();
                if !only_refuses(statement) {
                    refuse_if(table(statement.relation), "let a trigger change or swallow records of");
                }
            }
            NodeTag::T_RuleStmt => {
                refuse_if(table((*node.cast::<pg_sys::RuleStmt>()).relation), "let a rule change or swallow records of")
            }
            NodeTag::T_CreatePolicyStmt => {
                let statement = &*node.cast::<pg_sys::CreatePolicyStmt>();
                if !only_shows_auditors(statement) {
                    refuse_if(table(statement.table), "change who sees the rows of");
                }
            }
            NodeTag::T_AlterPolicyStmt => {
                refuse_if(table((*node.cast::<pg_sys::AlterPolicyStmt>()).table), "change who sees the rows of")
            }
            NodeTag::T_CreateFunctionStmt => refuse_if(
                new_function((*node.cast::<pg_sys::CreateFunctionStmt>()).funcname),
                "put code of your own in the place of",
            ),
            NodeTag::T_DefineStmt => {
                let statement = &*node.cast::<pg_sys::DefineStmt>();
                if statement.kind == ObjectType::OBJECT_AGGREGATE {
                    refuse_if(new_function(statement.defnames), "put code of your own in the place of");
                }
            }
            NodeTag::T_AlterFunctionStmt => {
                refuse_if(function((*node.cast::<pg_sys::AlterFunctionStmt>()).func.cast()), "change the function")
            }
            NodeTag::T_RenameStmt => {
                let statement = &*node.cast::<pg_sys::RenameStmt>();
                refuse_if(
                    object(statement.renameType, statement.relation, statement.object, statement.subname),
                    "rename, or rename a part of,",
                );
            }
            NodeTag::T_AlterObjectSchemaStmt => {
                let statement = &*node.cast::<pg_sys::AlterObjectSchemaStmt>();
                refuse_if(
                    object(statement.objectType, statement.relation, statement.object, std::ptr::null()),
                    "put out of sight",
                );
            }
            NodeTag::T_AlterOwnerStmt => {
                let statement = &*node.cast::<pg_sys::AlterOwnerStmt>();
                let schema = if statement.objectType == ObjectType::OBJECT_SCHEMA {
                    (*statement.object.cast::<pg_sys::String>()).sval
                } else {
                    std::ptr::null_mut()
                };
                refuse_if(object(statement.objectType, statement.relation, statement.object, schema), "give away");
            }
            NodeTag::T_AlterExtensionContentsStmt => {
                let statement = &*node.cast::<pg_sys::AlterExtensionContentsStmt>();
                refuse_if(text(statement.extname).map(Target::Extension), "change what belongs to the extension");
            }
            NodeTag::T_ReassignOwnedStmt => {
                for role in items::<pg_sys::RoleSpec>((*node.cast::<pg_sys::ReassignOwnedStmt>()).roles) {
                    refuse_if(Some(Target::BelongingTo(pg_sys::get_rolespec_oid(role, true))), "give away");
                }
            }
            _ => {}
        }
    }
}

unsafe fn check_alter_table(statement: &pg_sys::AlterTableStmt) {
    // SAFETY: the parser's structures; the definition of a subcommand is of the kind that belongs to it.
    unsafe {
        let named = table(statement.relation);
        for command in items::<pg_sys::AlterTableCmd>(statement.cmds) {
            let command = &*command;
            let other = match command.subtype {
                pg_sys::AlterTableType::AT_AddInherit => table(command.def.cast()),
                pg_sys::AlterTableType::AT_AttachPartition => table((*command.def.cast::<pg_sys::PartitionCmd>()).name),
                _ => None,
            };
            if let Some(other) = other {
                guard::check(&other, "put into a hierarchy of tables");
            }
            let primary_key = command.subtype == pg_sys::AlterTableType::AT_AddConstraint
                && (*command.def.cast::<pg_sys::Constraint>()).contype == pg_sys::ConstrType::CONSTR_PRIMARY;
            if let (Some(named), Some(loss), false) = (&named, guard::loss_of(command.subtype), primary_key) {
                guard::check(named, loss);
            }
        }
    }
}

/// A new trigger against TRUNCATE, as a restore makes it for each partition, can only protect more.
unsafe fn only_refuses(statement: &pg_sys::CreateTrigStmt) -> bool {
    // SAFETY: as above.
    unsafe {
        let function = list_name(statement.funcname);
        !statement.replace
            && !statement.row
            && statement.whenClause.is_null()
            && statement.transitionRels.is_null()
            && statement.events == pg_sys::TRIGGER_TYPE_TRUNCATE as i16
            && function.is_some_and(|name| name.schema == Some(c"skill_system") && name.name == c"refuse_change")
    }
}

/// The policy that shows auditors everything, as a restore makes it for each partition.
unsafe fn only_shows_auditors(statement: &pg_sys::CreatePolicyStmt) -> bool {
    // SAFETY: as above.
    unsafe {
        let mut roles = items::<pg_sys::RoleSpec>(statement.roles);
        statement.permissive
            && text(statement.cmd_name) == Some(c"select")
            && statement.with_check.is_null()
            && is_true(statement.qual)
            && roles.all(|role| text((*role).rolename) == Some(c"skill_system_auditor"))
    }
}

/// The expression is the constant `true` as the parser makes it: a boolean, in some versions with a cast to its type.
unsafe fn is_true(expression: *const pg_sys::Node) -> bool {
    // SAFETY: a node starts with its tag, and the tag says which structure it is.
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
