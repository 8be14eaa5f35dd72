-- Audit: the append-only, signed record.

CREATE TABLE skill_system.audit_state (
    only_one          boolean     NOT NULL DEFAULT true PRIMARY KEY CHECK (only_one),
    log_id            uuid        NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT pg_catalog.now(),
    system_identifier bigint      NOT NULL,
    database_oid      oid         NOT NULL,
    timeline          integer     NOT NULL,
    written_by        bigint      NOT NULL
);
COMMENT ON TABLE skill_system.audit_state IS
'Identity of this audit log, created with its first record. Part of the signed bytes of every record, so that a record of another log is '
'not valid here. One row for the whole database. Read it with SELECT log_id FROM skill_system.audit_state;';
COMMENT ON COLUMN skill_system.audit_state.only_one IS 'Always true: the table has one row.';
COMMENT ON COLUMN skill_system.audit_state.log_id IS 'The log''s UUID.';
COMMENT ON COLUMN skill_system.audit_state.created_at IS 'When the first record was written.';
COMMENT ON COLUMN skill_system.audit_state.system_identifier IS
'Database system of the first record. Until the first seal, nothing is sealed in another one without adopt_log().';
COMMENT ON COLUMN skill_system.audit_state.database_oid IS 'Database of the first record.';
COMMENT ON COLUMN skill_system.audit_state.timeline IS 'WAL timeline of the first record.';
COMMENT ON COLUMN skill_system.audit_state.written_by IS 'Transaction that wrote this row: another xmin means that it was restored.';

CREATE TABLE skill_system.audit_logs (
    id                uuid         NOT NULL,
    tenant_id         text         NOT NULL DEFAULT skill_system.current_tenant(),
    event_type        varchar(100) NOT NULL,
    event_data        jsonb        NOT NULL,
    actor_id          varchar(100),
    actor_type        varchar(20)  DEFAULT 'system',
    created_at        timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    signature         varchar(256) NOT NULL,
    recorded_at       timestamptz  NOT NULL,
    transaction_id    bigint       NOT NULL,
    session_user_name text         NOT NULL,
    current_user_name text         NOT NULL,
    key_id            text         NOT NULL
) PARTITION BY RANGE (created_at);
COMMENT ON TABLE skill_system.audit_logs IS
'Append-only audit trail, one partition per month, each row signed with HMAC-SHA256 over all its other columns. Write with append_audit() '
'or INSERT (event_type, event_data, actor_id, actor_type); UPDATE, DELETE and TRUNCATE are rejected. Check with SELECT * FROM '
'skill_system.verify_audit();';
COMMENT ON COLUMN skill_system.audit_logs.id IS 'UUID version 7, set by the server.';
COMMENT ON COLUMN skill_system.audit_logs.tenant_id IS 'Tenant of the session that wrote the row.';
COMMENT ON COLUMN skill_system.audit_logs.event_type IS
'What happened, for example run.logged. Claimed by the writer, but those of the modules are reserved for them.';
COMMENT ON COLUMN skill_system.audit_logs.event_data IS 'Details of the event. Claimed by the writer.';
COMMENT ON COLUMN skill_system.audit_logs.actor_id IS 'Who did it, as claimed by the writer; session_user_name is set by the server.';
COMMENT ON COLUMN skill_system.audit_logs.actor_type IS 'Kind of actor: system, user or agent. Claimed by the writer.';
COMMENT ON COLUMN skill_system.audit_logs.created_at IS
'Start of the writing transaction; decides the partition. recorded_at is the authoritative time.';
COMMENT ON COLUMN skill_system.audit_logs.signature IS 'v1:<key id>:<hex of HMAC-SHA256 over the SKR1 encoding of all other columns>.';
COMMENT ON COLUMN skill_system.audit_logs.recorded_at IS 'The server''s clock when the row was written.';
COMMENT ON COLUMN skill_system.audit_logs.transaction_id IS '64-bit id of the writing top-level transaction.';
COMMENT ON COLUMN skill_system.audit_logs.session_user_name IS 'Role that logged in.';
COMMENT ON COLUMN skill_system.audit_logs.current_user_name IS 'Role whose rights were in force.';
COMMENT ON COLUMN skill_system.audit_logs.key_id IS 'Key of the keyring that signed the row.';

-- Keys and indexes belong to the partitions: with a key on the parent, a dump with
-- partitions created at run time could not be restored.
CREATE TABLE skill_system.audit_logs_default PARTITION OF skill_system.audit_logs DEFAULT;
-- The id comes first in the key, because proofs and exports look records up across tenants.
ALTER TABLE skill_system.audit_logs_default ADD PRIMARY KEY (id, tenant_id);
CREATE INDEX audit_logs_default_brin_idx ON skill_system.audit_logs_default USING brin (created_at, transaction_id);
COMMENT ON TABLE skill_system.audit_logs_default IS
'Partition of audit_logs for every month without a dedicated partition, so that no record is ever lost. CREATE EXTENSION, the background '
'worker and maintain() create the partitions of this month and the next two.';

CREATE FUNCTION skill_system.sign_audit_row() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_audit_sign';
COMMENT ON FUNCTION skill_system.sign_audit_row() IS
'Trigger function of audit_logs: sets id, times, transaction and users from the server''s state, and signs the row.';
CREATE FUNCTION skill_system.refuse_change() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_refuse_change';
COMMENT ON FUNCTION skill_system.refuse_change() IS
'Trigger function of append-only tables: rejects UPDATE, DELETE and TRUNCATE. make_append_only() creates the triggers.';

CREATE TRIGGER audit_logs_sign BEFORE INSERT ON skill_system.audit_logs
    FOR EACH ROW EXECUTE FUNCTION skill_system.sign_audit_row();
CREATE TRIGGER audit_logs_no_change BEFORE UPDATE OR DELETE ON skill_system.audit_logs
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER audit_logs_no_truncate BEFORE TRUNCATE ON skill_system.audit_logs
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER audit_logs_no_truncate BEFORE TRUNCATE ON skill_system.audit_logs_default
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();

CREATE TRIGGER audit_state_no_change BEFORE UPDATE OR DELETE ON skill_system.audit_state
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER audit_state_no_truncate BEFORE TRUNCATE ON skill_system.audit_state
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();

CREATE POLICY tenant ON skill_system.audit_logs FOR SELECT
    USING (tenant_id OPERATOR(pg_catalog.=) (SELECT skill_system.current_tenant()));
-- The signing trigger rejects rows of another tenant, at a fraction of the cost of a check here.
CREATE POLICY append ON skill_system.audit_logs FOR INSERT WITH CHECK (true);

CREATE FUNCTION skill_system.append_audit(
        event_type text, event_data jsonb, actor_id text DEFAULT NULL, actor_type text DEFAULT 'system') RETURNS uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_append_audit';
COMMENT ON FUNCTION skill_system.append_audit(text, jsonb, text, text) IS
'Appends one signed record to the audit trail and returns its id. Call it for any event that may have to be proved later. Raises 22023 '
'when event_type or event_data is NULL, a text is too long, or event_type has others than printable ASCII characters, 42501 when '
'event_type is one of those reserved for the modules, 25006 in a read-only transaction, F0000 without a usable key. Task 9: Record what '
'must be provable. Example: SELECT skill_system.append_audit(''form.sent'', ''{"form": "W-1"}'', ''my-agent'', ''agent'');';

CREATE FUNCTION skill_system.log_denial(
        event_type text, event_data jsonb, actor_id text DEFAULT NULL, actor_type text DEFAULT 'agent') RETURNS uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_log_denial';
COMMENT ON FUNCTION skill_system.log_denial(text, jsonb, text, text) IS
'Like append_audit(), but the record survives a rollback of the calling transaction and is committed when the call returns: a background '
'worker writes it. Call it for denials and failures; enforce_policy() calls it for each denial. Works in a READ ONLY transaction. '
'event_data must be an object; denied_in, with the session''s pid and transaction id, is added to it. Raises 53400 when the denial could '
'not be recorded, 25006 on a standby. Example: SELECT skill_system.log_denial(''tool.denied'', ''{"tool": "rm", "reason": "not on the '
'list"}'', ''rule37-agent'');';

CREATE FUNCTION skill_system.audit_problem(
        log_id uuid, record_id uuid, tenant_id text, event_type text, event_data jsonb, actor_id text, actor_type text,
        created_at timestamptz,
        recorded_at timestamptz, transaction_id bigint, session_user_name text, current_user_name text, key_id text, signature text)
    RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_audit_problem';
COMMENT ON FUNCTION skill_system.audit_problem(uuid, uuid, text, text, jsonb, text, text, timestamptz, timestamptz, bigint, text, text,
    text, text) IS
'What is wrong with one audit record, given all its values and the log''s id; NULL when its signature is valid. verify_audit() calls it '
'for every row.';

CREATE FUNCTION skill_system.audit_record_digest(
        log_id uuid, record_id uuid, tenant_id text, event_type text, event_data jsonb, actor_id text, actor_type text,
        created_at timestamptz,
        recorded_at timestamptz, transaction_id bigint, session_user_name text, current_user_name text, key_id text, signature text,
        nonce bytea)
    RETURNS bigint
    -- It reports progress, and a volatile function is called once a row however often its result is used.
    LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_audit_record_digest';
COMMENT ON FUNCTION skill_system.audit_record_digest(uuid, uuid, text, text, jsonb, text, text, timestamptz, timestamptz, bigint, text,
    text, text, text, bytea) IS
'A number for one audit record and its leaf, given all its values, the log''s id and a random nonce; NULL when its signature is invalid. '
'verify_audit() compares the sum over all records with that over all leaves.';

CREATE FUNCTION skill_system.audit_leaf_hash(
        log_id uuid, record_id uuid, tenant_id text, event_type text, event_data jsonb, actor_id text, actor_type text,
        created_at timestamptz,
        recorded_at timestamptz, transaction_id bigint, session_user_name text, current_user_name text, key_id text, signature text)
    RETURNS bytea
    LANGUAGE c STABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'skill_audit_leaf_hash';
COMMENT ON FUNCTION skill_system.audit_leaf_hash(uuid, uuid, text, text, jsonb, text, text, timestamptz, timestamptz, bigint, text, text,
    text, text) IS
'Leaf hash of one audit record, given all its values and the log''s id: SHA-256 of a zero byte, the SKR1 encoding and the signature. '
'seal_audit() calls it for every record.';

CREATE FUNCTION skill_system.audit_status()
    RETURNS TABLE (key_id text, records bigint, first_recorded_at timestamptz, last_recorded_at timestamptz, key_present boolean,
        key_active boolean)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_audit_status' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.audit_status() IS
'How many audit records each key has signed, and whether the keyring still contains it: records whose key is not present cannot be '
'verified. Example: SELECT * FROM skill_system.audit_status();';

CREATE FUNCTION skill_system.create_keyring() RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_create_keyring' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.create_keyring() IS
'Creates skill_system.keyring_file with one new key if the file does not exist, for example after a restore into a new cluster without '
'the old keyring, and records that the log continues with it. If a keyring exists that contains no key the log knows, records that. '
'Raises 55000 otherwise. Records signed by older keys cannot be verified with it. Superusers only.';

CREATE FUNCTION skill_system.create_audit_partition(month date DEFAULT NULL) RETURNS regclass
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_create_audit_partition' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.create_audit_partition(date) IS
'Creates the partition of audit_logs for the month of the given date (default: next month), with its key, index and protection, and '
'returns it; an existing one is returned as it is. Records of that month in audit_logs_default are moved there, signatures and leaves as '
'they are. Raises 55P03 when transactions that use audit_logs_default do not end within two seconds. maintain() calls it. Example: SELECT '
'skill_system.create_audit_partition(''2027-01-01'');';

CREATE FUNCTION skill_system.make_append_only(table_name regclass) RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_make_append_only' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.make_append_only(regclass) IS
'Protects a table: UPDATE, DELETE and TRUNCATE are rejected from now on, also on its partitions and inheritance children, those that '
'come later and those that are detached included, and under session_replication_role = replica. The caller must own them. The owner of a '
'partitioned table gets EXECUTE on refuse_change(), which creating a partition needs. Raises 22023 for a table of the extension. Example: '
'SELECT skill_system.make_append_only(''public.invoices'');';

CREATE FUNCTION skill_system.capture_change() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_capture_change';
COMMENT ON FUNCTION skill_system.capture_change() IS
'Trigger function that writes each changed row to the audit trail. audit_table() creates the triggers. Fires at the origin.';

CREATE FUNCTION skill_system.audit_table(table_name regclass, columns text[] DEFAULT NULL, ignored_columns text[] DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_audit_table' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.audit_table(regclass, text[], text[]) IS
'From now on every row inserted into, updated in or deleted from the table is written to the audit trail as row.inserted, row.updated or '
'row.deleted, with the primary key and the old and new values of the chosen columns (default: all but the ignored ones); an UPDATE that '
'changes neither them nor the key is not. Partitions and inheritance children are audited too, also those that come later or are '
'detached; the owner of a partitioned table gets EXECUTE on capture_change(), which creating a partition needs. Rows that a restore '
'brings are not recorded again. Call it again to change the choice; stop_audit_table() ends it. Raises 22023 for a '
'table of the extension. Values of types that are not the server''s, and arrays and rows with such parts, are recorded as text, because '
'their casts to json would run code of the types'' owners. The caller must own the tables. Task 42: Record each change of a table. '
'Example: SELECT skill_system.audit_table(''public.wells'');';

CREATE FUNCTION skill_system.stop_audit_table(table_name regclass, reason text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_stop_audit_table' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.stop_audit_table(regclass, text) IS
'Ends audit_table() for a table with its partitions and inheritance children, and records that as table.audit_stopped; a child of another '
'audited table stays audited. The caller must own the tables. Raises 55000 for a table that is not audited, or is with a table above it; '
'22023 for a table of the extension. Example: SELECT skill_system.stop_audit_table(''public.wells'', ''moved to another database'');';

-- Without a search_path, so that a name in DETACH PARTITION means what it means to the statement.
CREATE FUNCTION skill_system.protect_children() RETURNS event_trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_protect_children';
COMMENT ON FUNCTION skill_system.protect_children() IS
'Function of the event trigger skill_system_protect_children: a partition or an inheritance child of a table under audit_table() or '
'make_append_only() gets its triggers when it is created or attached, and keeps them when it is detached; the owner of a partitioned '
'table may use their functions, without which the server lets nobody create partitions.';
CREATE EVENT TRIGGER skill_system_protect_children ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'CREATE FOREIGN TABLE', 'CREATE SCHEMA', 'ALTER TABLE', 'ALTER FOREIGN TABLE')
    EXECUTE FUNCTION skill_system.protect_children();
COMMENT ON EVENT TRIGGER skill_system_protect_children IS
'Lets protect_children() look after partitions and inheritance children that are created or attached later.';
ALTER EVENT TRIGGER skill_system_protect_children ENABLE ALWAYS;

GRANT INSERT (event_type, event_data, actor_id, actor_type) ON skill_system.audit_logs
    TO skill_system_agent, skill_system_reviewer, skill_system_admin;
GRANT SELECT ON skill_system.audit_logs, skill_system.audit_logs_default, skill_system.audit_state TO skill_system_auditor;
GRANT SELECT ON skill_system.audit_logs TO skill_system_admin;

GRANT EXECUTE ON FUNCTION skill_system.append_audit(text, jsonb, text, text), skill_system.log_denial(text, jsonb, text, text)
    TO skill_system_agent, skill_system_reviewer, skill_system_admin;
GRANT EXECUTE ON FUNCTION
    skill_system.audit_problem(uuid, uuid, text, text, jsonb, text, text, timestamptz, timestamptz, bigint, text, text, text, text),
    skill_system.audit_record_digest(uuid, uuid, text, text, jsonb, text, text, timestamptz, timestamptz, bigint, text, text, text, text,
    bytea),
    skill_system.audit_leaf_hash(uuid, uuid, text, text, jsonb, text, text, timestamptz, timestamptz, bigint, text, text, text, text),
    skill_system.audit_status()
    TO skill_system_auditor;
-- Protecting a table creates triggers on it, which needs EXECUTE on the trigger functions.
GRANT EXECUTE ON FUNCTION
    skill_system.refuse_change(), skill_system.capture_change(),
    skill_system.make_append_only(regclass), skill_system.audit_table(regclass, text[], text[]),
    skill_system.stop_audit_table(regclass, text)
    TO skill_system_admin;
