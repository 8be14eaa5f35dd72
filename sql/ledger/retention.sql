-- Retention: legal holds, retirement of old partitions, key rotation. All three are based on records of the log about itself.

CREATE TABLE skill_system.audit_kept (
    id                uuid         NOT NULL PRIMARY KEY,
    tenant_id         text         NOT NULL,
    event_type        varchar(100) NOT NULL,
    event_data        jsonb        NOT NULL,
    actor_id          varchar(100),
    actor_type        varchar(20),
    created_at        timestamptz  NOT NULL,
    signature         varchar(256) NOT NULL,
    recorded_at       timestamptz  NOT NULL,
    transaction_id    bigint       NOT NULL,
    session_user_name text         NOT NULL,
    current_user_name text         NOT NULL,
    key_id            text         NOT NULL
);
CREATE INDEX audit_kept_event_type_idx ON skill_system.audit_kept (event_type);
COMMENT ON TABLE skill_system.audit_kept IS
'Copies of the audit records that must outlive the partition they are in: requests, withdrawals and retirements, legal holds and their '
'releases, announcements of keys. Each copy is authenticated by its signature and its leaf; one that is not is ignored. Read it through '
'audit_retirements and audit_legal_holds, or with SELECT event_type, event_data FROM skill_system.audit_kept;';
COMMENT ON COLUMN skill_system.audit_kept.id IS 'Id of the record in audit_logs.';
COMMENT ON COLUMN skill_system.audit_kept.tenant_id IS 'As in audit_logs: the default tenant.';
COMMENT ON COLUMN skill_system.audit_kept.event_type IS
'audit.retirement_requested, audit.retirement_withdrawn, audit.partition_retired, audit.legal_hold_set, audit.legal_hold_released, '
'audit.keyring_created or audit.key_rotated.';
COMMENT ON COLUMN skill_system.audit_kept.event_data IS 'What was requested, retired, held, released or announced.';
COMMENT ON COLUMN skill_system.audit_kept.actor_id IS 'As in audit_logs: skill_system.';
COMMENT ON COLUMN skill_system.audit_kept.actor_type IS 'As in audit_logs: system.';
COMMENT ON COLUMN skill_system.audit_kept.created_at IS 'Start of the writing transaction.';
COMMENT ON COLUMN skill_system.audit_kept.signature IS 'The signature of the record.';
COMMENT ON COLUMN skill_system.audit_kept.recorded_at IS 'The server''s clock when the record was written.';
COMMENT ON COLUMN skill_system.audit_kept.transaction_id IS '64-bit id of the writing top-level transaction.';
COMMENT ON COLUMN skill_system.audit_kept.session_user_name IS 'Role that logged in: who requested, approved, held, released or rotated.';
COMMENT ON COLUMN skill_system.audit_kept.current_user_name IS 'Role whose rights were in force: the owner.';
COMMENT ON COLUMN skill_system.audit_kept.key_id IS 'Key that signed the record.';

CREATE VIEW skill_system.audit_retirements WITH (security_invoker = true) AS
    SELECT id AS record_id, event_data ->> 'partition' AS partition, (event_data ->> 'since')::timestamptz AS since,
           (event_data ->> 'until')::timestamptz AS until, (event_data ->> 'leaves')::int8multirange AS leaves,
           (event_data ->> 'count')::bigint AS records, pg_catalog.decode(event_data ->> 'root_hash', 'hex') AS root_hash,
           event_data ->> 'policy_reference' AS policy_reference, event_data ->> 'requested_by' AS requested_by,
           event_data ->> 'approved_by' AS approved_by, (event_data ->> 'checkpoint_size')::bigint AS checkpoint_size,
           recorded_at AS retired_at
    FROM skill_system.audit_kept WHERE event_type::text = 'audit.partition_retired';
COMMENT ON VIEW skill_system.audit_retirements IS
'Partitions of the audit trail that were retired: what they held, under which policy, and who agreed. Example: SELECT partition, records, '
'policy_reference FROM skill_system.audit_retirements;';
COMMENT ON COLUMN skill_system.audit_retirements.record_id IS 'The signed audit.partition_retired record.';
COMMENT ON COLUMN skill_system.audit_retirements.partition IS 'Name the partition had.';
COMMENT ON COLUMN skill_system.audit_retirements.since IS 'First moment of its month (UTC).';
COMMENT ON COLUMN skill_system.audit_retirements.until IS 'First moment of the month after it.';
COMMENT ON COLUMN skill_system.audit_retirements.leaves IS 'The leaves of the tree whose records are gone with it.';
COMMENT ON COLUMN skill_system.audit_retirements.records IS 'How many records it held.';
COMMENT ON COLUMN skill_system.audit_retirements.root_hash IS 'RFC 6962 root of the tree of the retired leaf hashes alone, in leaf order.';
COMMENT ON COLUMN skill_system.audit_retirements.policy_reference IS 'The retention rule, as given by the two persons.';
COMMENT ON COLUMN skill_system.audit_retirements.requested_by IS 'Login role of the first person.';
COMMENT ON COLUMN skill_system.audit_retirements.approved_by IS 'Login role of the second person.';
COMMENT ON COLUMN skill_system.audit_retirements.checkpoint_size IS 'Size of the newest checkpoint at that time; NULL when none existed.';
COMMENT ON COLUMN skill_system.audit_retirements.retired_at IS 'When.';

CREATE VIEW skill_system.audit_legal_holds WITH (security_invoker = true) AS
    SELECT (h.event_data ->> 'hold')::bigint AS hold_id, (h.event_data ->> 'since')::timestamptz AS since,
           (h.event_data ->> 'until')::timestamptz AS until, h.event_data ->> 'reason' AS reason,
           h.session_user_name AS set_by, h.recorded_at AS set_at, r.recorded_at AS released_at, r.session_user_name AS released_by,
           r.event_data ->> 'reason' AS release_reason
    FROM skill_system.audit_kept h LEFT JOIN skill_system.audit_kept r
        ON r.event_type::text = 'audit.legal_hold_released' AND r.event_data -> 'hold' = h.event_data -> 'hold'
    WHERE h.event_type::text = 'audit.legal_hold_set';
COMMENT ON VIEW skill_system.audit_legal_holds IS
'Legal holds on the audit trail, released ones included. Example: SELECT hold_id, since, until, reason FROM '
'skill_system.audit_legal_holds WHERE released_at IS NULL;';
COMMENT ON COLUMN skill_system.audit_legal_holds.hold_id IS 'For release_legal_hold().';
COMMENT ON COLUMN skill_system.audit_legal_holds.since IS 'Records created from this moment on are held; NULL means from the beginning.';
COMMENT ON COLUMN skill_system.audit_legal_holds.until IS 'Records created before this moment are held; NULL means no end.';
COMMENT ON COLUMN skill_system.audit_legal_holds.reason IS 'Reason, for example the matter.';
COMMENT ON COLUMN skill_system.audit_legal_holds.set_by IS 'Login role that set it.';
COMMENT ON COLUMN skill_system.audit_legal_holds.set_at IS 'When it was set.';
COMMENT ON COLUMN skill_system.audit_legal_holds.released_at IS 'When it was released; NULL while it holds.';
COMMENT ON COLUMN skill_system.audit_legal_holds.released_by IS 'Login role that released it.';
COMMENT ON COLUMN skill_system.audit_legal_holds.release_reason IS 'Why it was released.';

CREATE TRIGGER audit_kept_no_change BEFORE UPDATE OR DELETE ON skill_system.audit_kept
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER audit_kept_no_truncate BEFORE TRUNCATE ON skill_system.audit_kept
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();
-- Roles that may release a hold must see it: the administrators of the default tenant, whose records these are.
CREATE POLICY tenant ON skill_system.audit_kept FOR SELECT USING (tenant_id OPERATOR(pg_catalog.=) (SELECT skill_system.current_tenant()));

CREATE FUNCTION skill_system.retire_audit_partition(month date, policy_reference text)
    RETURNS TABLE (step text, partition text, records bigint, root_hash bytea, detail text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_retire_audit_partition' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.retire_audit_partition(date, text) IS
'Removes the partition of the audit trail for the month of the given date, when two persons agree: the first call records a request, '
'which is valid for 7 days; a call with the same arguments by another login role, also a member of skill_system_admin, removes the '
'partition. Rejected for records younger than 183 days or under a legal hold, and unless every record of the partition is sealed, validly '
'signed and equal to its leaf. Appends an audit.partition_retired record; proofs of everything else, and inclusion proofs of the retired '
'ids, keep verifying. step is requested, waiting (requested by the same role) or retired. Raises 42501 when it is not called by a SELECT '
'of the client that reads no table or view and calls no other function, 42704 when the month has no partition, 55000 when rejected. '
'Example: SELECT * FROM skill_system.retire_audit_partition(''2026-01-01'', ''retention schedule 4.2'');';

CREATE FUNCTION skill_system.withdraw_audit_retirement(month date, reason text) RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_withdraw_audit_retirement' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.withdraw_audit_retirement(date, text) IS
'Withdraws the request to retire the partition of a month; either of the two persons can. Raises 42704 when no request is open. Example: '
'SELECT skill_system.withdraw_audit_retirement(''2026-01-01'', ''wrong month'');';

CREATE FUNCTION skill_system.set_legal_hold(since timestamptz, until timestamptz, reason text) RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_set_legal_hold' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.set_legal_hold(timestamptz, timestamptz, text) IS
'From now on no partition with a moment since <= t < until can be retired; until NULL means no end, since ''-infinity'' from the '
'beginning. Returns the hold''s id. Raises 22023 for times that are not in the years 1 to 9999, an end before the begin or no reason. '
'Example: SELECT skill_system.set_legal_hold(''2026-01-01'', NULL, ''matter 17/2026'');';

CREATE FUNCTION skill_system.release_legal_hold(hold_id bigint, reason text) RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_release_legal_hold' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.release_legal_hold(bigint, text) IS
'Ends a legal hold. Raises 42501 when it is not called by a SELECT of the client that reads no table or view and calls no other '
'function, 42704 when the hold does not exist, 55000 when it was already released. Example: SELECT '
'skill_system.release_legal_hold(1, ''matter 17/2026 is closed'');';

CREATE FUNCTION skill_system.rotate_audit_key() RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_rotate_audit_key' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.rotate_audit_key() IS
'Adds a new key of each kind (HS256 for records, Ed25519 for checkpoints) to skill_system.keyring_file and signs with them from the '
'commit on; the old ones still verify. Appends audit.key_rotated, signed by the old key, with the new ids and the new public key, and '
'returns the id of the key that signs records. If the log does not know the keyring''s active key yet, because it was added by hand or by '
'another database of this server, that key is announced and no new one is created. Raises 55000 with the manual steps when the keyring '
'comes from skill_system.keyring_command. Example: SELECT skill_system.rotate_audit_key();';

GRANT SELECT ON skill_system.audit_kept, skill_system.audit_retirements, skill_system.audit_legal_holds
    TO skill_system_auditor, skill_system_admin;

GRANT EXECUTE ON FUNCTION
    skill_system.retire_audit_partition(date, text), skill_system.withdraw_audit_retirement(date, text),
    skill_system.set_legal_hold(timestamptz, timestamptz, text), skill_system.release_legal_hold(bigint, text),
    skill_system.rotate_audit_key()
    TO skill_system_admin;
