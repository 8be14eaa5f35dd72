-- Checklists: what a filing needs, who did what, and the rules it was started under.

CREATE TABLE skill_system.checklist_templates (
    id                 uuid        NOT NULL DEFAULT skill_system.uuid_v7(),
    tenant_id          text        NOT NULL DEFAULT skill_system.current_tenant(),
    compliance_domain  varchar(50) NOT NULL,
    version            integer     NOT NULL DEFAULT 1 CHECK (version > 0),
    items              jsonb       NOT NULL CHECK (pg_catalog.jsonb_typeof(items) = 'array'),
    min_required_items jsonb       CHECK (pg_catalog.jsonb_typeof(min_required_items) = 'array'),
    created_at         timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at         timestamptz NOT NULL DEFAULT pg_catalog.now(),
    rule_domains       text[],
    retired_at         timestamptz,
    retirement_reason  text,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, compliance_domain, version)
);
COMMENT ON TABLE skill_system.checklist_templates IS
'What a filing of a compliance domain needs, one row per domain and version. Write with create_template() and retire_template(); a version '
'that a checklist was created from never changes otherwise.';
COMMENT ON COLUMN skill_system.checklist_templates.id IS 'UUID of the template.';
COMMENT ON COLUMN skill_system.checklist_templates.tenant_id IS 'Tenant of the template.';
COMMENT ON COLUMN skill_system.checklist_templates.compliance_domain IS 'For example rule_37, rule_32, form_pr or flaring_monitor.';
COMMENT ON COLUMN skill_system.checklist_templates.version IS 'Counts from 1 for each domain.';
COMMENT ON COLUMN skill_system.checklist_templates.items IS
'Array of items in order: {"label": text, "item_type"?: text, and any other members}.';
COMMENT ON COLUMN skill_system.checklist_templates.min_required_items IS
'Array of the indexes, from 0, of the items that must be complete before submit_checklist().';
COMMENT ON COLUMN skill_system.checklist_templates.created_at IS 'When it was created.';
COMMENT ON COLUMN skill_system.checklist_templates.updated_at IS 'When it was changed last; kept by the server.';
COMMENT ON COLUMN skill_system.checklist_templates.rule_domains IS
'Rules of these domains apply to its filings, for example {spacing,density}. NULL: all rules.';
COMMENT ON COLUMN skill_system.checklist_templates.retired_at IS 'From when on no filing begins with it.';
COMMENT ON COLUMN skill_system.checklist_templates.retirement_reason IS 'Why.';

CREATE TABLE skill_system.filing_checklists (
    id                uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    tenant_id         text         NOT NULL DEFAULT skill_system.current_tenant(),
    entity_id         varchar(255) NOT NULL,
    entity_type       varchar(50)  NOT NULL,
    entity_name       varchar(500),
    compliance_domain varchar(50)  NOT NULL,
    template_id       uuid,
    status            varchar(20)  NOT NULL DEFAULT 'draft' CHECK (status::text IN
        ('draft', 'in_progress', 'ready_for_review', 'in_review', 'approved', 'rejected', 'filed', 'exception', 'withdrawn')),
    deadline          timestamptz,
    items             jsonb        NOT NULL CHECK (pg_catalog.jsonb_typeof(items) = 'array'),
    metadata          jsonb        NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(metadata) = 'object'),
    created_by        varchar(255),
    created_at        timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    updated_at        timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    version           integer      NOT NULL DEFAULT 1,
    entity_field      varchar(255),
    entity_district   varchar(10),
    idempotency_key   text,
    request_digest    bytea,
    created_by_role   text         NOT NULL DEFAULT CURRENT_USER,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, template_id) REFERENCES skill_system.checklist_templates (tenant_id, id)
);
CREATE INDEX idx_filing_checklists_entity ON skill_system.filing_checklists (entity_id, compliance_domain, tenant_id);
CREATE INDEX idx_filing_checklists_status ON skill_system.filing_checklists (status, tenant_id);
CREATE UNIQUE INDEX idx_filing_checklists_idempotency_key ON skill_system.filing_checklists
    (idempotency_key, created_by_role, created_by, tenant_id) NULLS NOT DISTINCT WHERE idempotency_key IS NOT NULL;
CREATE INDEX idx_filing_checklists_template ON skill_system.filing_checklists (template_id, tenant_id);
COMMENT ON TABLE skill_system.filing_checklists IS
'Open and completed filings: one checklist per entity, domain and filing. Written by create_checklist(), update_checklist_item(), '
'submit_checklist(), review_checklist(), file_checklist(), mark_exception() and withdraw_checklist(); checklist_transitions() shows which '
'status may follow which.';
COMMENT ON COLUMN skill_system.filing_checklists.id IS 'UUID of the checklist.';
COMMENT ON COLUMN skill_system.filing_checklists.tenant_id IS 'Tenant of the filing.';
COMMENT ON COLUMN skill_system.filing_checklists.entity_id IS 'The entity: API number, facility id, lease number.';
COMMENT ON COLUMN skill_system.filing_checklists.entity_type IS
'Type of the entity: well, lease, facility. create_checklist() takes one of entity_type_definitions, or any if the tenant defines none.';
COMMENT ON COLUMN skill_system.filing_checklists.entity_name IS 'Display name.';
COMMENT ON COLUMN skill_system.filing_checklists.compliance_domain IS 'Domain of the filing.';
COMMENT ON COLUMN skill_system.filing_checklists.template_id IS 'Template version its items were copied from.';
COMMENT ON COLUMN skill_system.filing_checklists.status IS
'draft, in_progress, ready_for_review, in_review, approved, rejected, filed, exception or withdrawn.';
COMMENT ON COLUMN skill_system.filing_checklists.deadline IS 'When it must be filed.';
COMMENT ON COLUMN skill_system.filing_checklists.items IS
'The template''s items, each with index, status and, once worked on, note, data, updated_by and updated_at.';
COMMENT ON COLUMN skill_system.filing_checklists.metadata IS 'Other metadata; reviews collects the decisions of the reviewers.';
COMMENT ON COLUMN skill_system.filing_checklists.created_by IS 'Who began it.';
COMMENT ON COLUMN skill_system.filing_checklists.created_at IS 'When it was begun.';
COMMENT ON COLUMN skill_system.filing_checklists.updated_at IS 'When it was changed last.';
COMMENT ON COLUMN skill_system.filing_checklists.version IS 'Counts the changes; pass it as expected_version to detect concurrent changes.';
COMMENT ON COLUMN skill_system.filing_checklists.entity_field IS
'Oil or gas field of the entity; decides which field-specific rules apply.';
COMMENT ON COLUMN skill_system.filing_checklists.entity_district IS 'District of the entity.';
COMMENT ON COLUMN skill_system.filing_checklists.idempotency_key IS
'Key of the call that created the checklist; a repeated call with it returns this one. Unique for the role and created_by.';
COMMENT ON COLUMN skill_system.filing_checklists.request_digest IS
'SHA-256 of the arguments of the call that used idempotency_key; a call with others is not a repeated one.';
COMMENT ON COLUMN skill_system.filing_checklists.created_by_role IS 'Role that created it; set by the server.';

CREATE TABLE skill_system.checklist_artifacts (
    id             uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    checklist_id   uuid         NOT NULL,
    item_index     integer      NOT NULL CHECK (item_index >= 0),
    artifact_type  varchar(50)  NOT NULL CHECK (pg_catalog.btrim(artifact_type) <> ''),
    name           varchar(500) NOT NULL,
    content_type   varchar(100),
    content        text,
    file_path      varchar(1000),
    metadata       jsonb        NOT NULL DEFAULT '{}',
    generated_by   varchar(50)  CHECK (generated_by::text IN ('agent', 'user', 'system')),
    created_at     timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    tenant_id      text         NOT NULL DEFAULT skill_system.current_tenant(),
    content_sha256 text         NOT NULL CHECK (content_sha256 ~ '^sha256:[0-9a-f]{64}$'),
    size_bytes     bigint       NOT NULL CHECK (size_bytes >= 0),
    expires_at     timestamptz,
    withdrawn_at   timestamptz,
    withdrawn_by   varchar(255),
    withdrawal_reason text,
    superseded_by  uuid,
    PRIMARY KEY (tenant_id, id),
    CHECK ((withdrawn_at IS NULL) = (withdrawn_by IS NULL) AND (withdrawn_at IS NOT NULL OR superseded_by IS NULL)),
    CHECK (content IS NOT NULL OR file_path IS NOT NULL),
    FOREIGN KEY (tenant_id, checklist_id) REFERENCES skill_system.filing_checklists (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX idx_checklist_artifacts_checklist ON skill_system.checklist_artifacts (tenant_id, checklist_id, item_index);
COMMENT ON TABLE skill_system.checklist_artifacts IS
'The evidence of a filing: documents, plats, exports, each belonging to an item of a checklist. Written by add_artifact(); a row never '
'changes, but that withdraw_artifact() marks what does not count any more.';
COMMENT ON COLUMN skill_system.checklist_artifacts.id IS 'UUID of the artifact.';
COMMENT ON COLUMN skill_system.checklist_artifacts.checklist_id IS 'Checklist it belongs to.';
COMMENT ON COLUMN skill_system.checklist_artifacts.item_index IS 'Item it is evidence for, from 0.';
COMMENT ON COLUMN skill_system.checklist_artifacts.artifact_type IS
'A term of the kind artifact_type, for example document, pdf or waiver.';
COMMENT ON COLUMN skill_system.checklist_artifacts.name IS 'Its name.';
COMMENT ON COLUMN skill_system.checklist_artifacts.content_type IS 'MIME type.';
COMMENT ON COLUMN skill_system.checklist_artifacts.content IS 'The text itself; NULL when it is kept elsewhere.';
COMMENT ON COLUMN skill_system.checklist_artifacts.file_path IS 'Where a binary artifact is kept.';
COMMENT ON COLUMN skill_system.checklist_artifacts.metadata IS 'Source, version, confidence.';
COMMENT ON COLUMN skill_system.checklist_artifacts.generated_by IS 'agent, user or system.';
COMMENT ON COLUMN skill_system.checklist_artifacts.created_at IS 'When it was added.';
COMMENT ON COLUMN skill_system.checklist_artifacts.tenant_id IS 'Tenant of the checklist.';
COMMENT ON COLUMN skill_system.checklist_artifacts.content_sha256 IS
'sha256: and the SHA-256 of the content''s bytes: computed for a text, given by the caller for a file.';
COMMENT ON COLUMN skill_system.checklist_artifacts.size_bytes IS 'Size of the content.';
COMMENT ON COLUMN skill_system.checklist_artifacts.expires_at IS 'When it expires as evidence.';
COMMENT ON COLUMN skill_system.checklist_artifacts.withdrawn_at IS 'From when on it does not count as evidence.';
COMMENT ON COLUMN skill_system.checklist_artifacts.withdrawn_by IS 'Who withdrew it.';
COMMENT ON COLUMN skill_system.checklist_artifacts.withdrawal_reason IS 'Why.';
COMMENT ON COLUMN skill_system.checklist_artifacts.superseded_by IS 'The artifact that takes its place, if one does.';

CREATE TABLE skill_system.filing_rule_snapshots (
    id                    uuid        NOT NULL DEFAULT skill_system.uuid_v7(),
    checklist_id          uuid        NOT NULL,
    rule_version_id       uuid        NOT NULL,
    snapshotted_at        timestamptz NOT NULL DEFAULT pg_catalog.now(),
    rule_data_at_snapshot jsonb       NOT NULL,
    is_current            boolean     NOT NULL DEFAULT true,
    superseded_by         uuid,
    acknowledged          boolean     NOT NULL DEFAULT false,
    acknowledged_by       varchar(255),
    acknowledged_at       timestamptz,
    tenant_id             text        NOT NULL DEFAULT skill_system.current_tenant(),
    content_sha256        text        NOT NULL,
    acknowledged_comment  text,
    replaced_by           uuid,
    PRIMARY KEY (tenant_id, id),
    CHECK (is_current = (superseded_by IS NULL)),
    CHECK (NOT acknowledged OR (NOT is_current AND acknowledged_by IS NOT NULL AND acknowledged_at IS NOT NULL)),
    FOREIGN KEY (tenant_id, checklist_id) REFERENCES skill_system.filing_checklists (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, rule_version_id) REFERENCES skill_system.rule_versions (tenant_id, id),
    FOREIGN KEY (tenant_id, superseded_by) REFERENCES skill_system.rule_versions (tenant_id, id)
);
CREATE INDEX idx_filing_rule_snapshots_checklist ON skill_system.filing_rule_snapshots (checklist_id, tenant_id);
-- The stale snapshots that still need a decision, in the order of stale_filings().
CREATE INDEX idx_filing_rule_snapshots_stale ON skill_system.filing_rule_snapshots (tenant_id, id)
    WHERE is_current = false AND NOT acknowledged AND replaced_by IS NULL;
CREATE INDEX idx_filing_rule_snapshots_rule ON skill_system.filing_rule_snapshots (rule_version_id, tenant_id);
COMMENT ON TABLE skill_system.filing_rule_snapshots IS
'The rules a filing is checked against, frozen when the filing began. publish_rule() marks them stale; acknowledge_stale() or '
'refresh_snapshot() settles that. Read stale_filings() and snapshot_diff().';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.id IS 'UUID of the frozen copy.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.checklist_id IS 'The filing.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.rule_version_id IS 'The version that was frozen.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.snapshotted_at IS 'When.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.rule_data_at_snapshot IS 'The rule''s parameters at that time.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.is_current IS 'No later version of the rule has been published.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.superseded_by IS 'The newest version of the rule, when it is not the frozen one.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.acknowledged IS
'Somebody has reviewed the change up to superseded_by and files under the frozen rule.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.acknowledged_by IS 'Who.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.acknowledged_at IS 'When.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.tenant_id IS 'Tenant of the filing.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.content_sha256 IS
'sha256: and the SHA-256 of rule_data_at_snapshot, as in rule_versions.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.acknowledged_comment IS 'Why the change does not matter, or what was done about it.';
COMMENT ON COLUMN skill_system.filing_rule_snapshots.replaced_by IS
'The copy that refresh_snapshot() created in its place; this row is then history only.';

CREATE FUNCTION skill_system.guard_template() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_guard_template' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.guard_template() IS
'Trigger function of checklist_templates: rejects malformed items, and changing or deleting a version that a checklist was created from, '
'but for its retirement. Fires at the origin.';
CREATE FUNCTION skill_system.guard_checklist() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_guard_checklist' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.guard_checklist() IS
'Trigger function of filing_checklists: rejects a change of status that checklist_transitions() does not list, and any change to a filed '
'checklist. Fires at the origin.';
CREATE TRIGGER guard_template BEFORE INSERT OR UPDATE OR DELETE ON skill_system.checklist_templates
    FOR EACH ROW EXECUTE FUNCTION skill_system.guard_template();
CREATE TRIGGER trg_updated BEFORE UPDATE ON skill_system.checklist_templates
    FOR EACH ROW EXECUTE FUNCTION skill_system.keep_updated_at();
CREATE TRIGGER skill_system_audit_insert AFTER INSERT ON skill_system.checklist_templates
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now())
        EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'updated_at');
CREATE TRIGGER skill_system_audit AFTER UPDATE OR DELETE ON skill_system.checklist_templates
    FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'updated_at');
CREATE TRIGGER guard_checklist BEFORE UPDATE ON skill_system.filing_checklists
    FOR EACH ROW EXECUTE FUNCTION skill_system.guard_checklist();
CREATE TRIGGER checklist_artifacts_guard BEFORE UPDATE ON skill_system.checklist_artifacts
    FOR EACH ROW EXECUTE FUNCTION skill_system.guard_columns('withdrawn_at', 'withdrawn_by', 'withdrawal_reason', 'superseded_by');
COMMENT ON TRIGGER checklist_artifacts_guard ON skill_system.checklist_artifacts IS
'What an artifact is never changes. Fires at the origin.';
-- Not on every update: publishing a rule touches thousands of rows, and may change the other columns.
CREATE TRIGGER filing_rule_snapshots_guard
    BEFORE UPDATE OF id, checklist_id, rule_version_id, snapshotted_at, rule_data_at_snapshot, tenant_id, content_sha256
    ON skill_system.filing_rule_snapshots
    FOR EACH ROW EXECUTE FUNCTION skill_system.guard_columns(
        'is_current', 'superseded_by', 'acknowledged', 'acknowledged_by', 'acknowledged_at', 'acknowledged_comment', 'replaced_by');
COMMENT ON TRIGGER filing_rule_snapshots_guard ON skill_system.filing_rule_snapshots IS
'A frozen rule of an open filing never changes. Fires at the origin.';

CREATE TYPE skill_system.template_state AS (template_id uuid, version integer);
COMMENT ON TYPE skill_system.template_state IS 'Result of create_template(): the id and the version of the new template.';
CREATE FUNCTION skill_system.create_template(
        compliance_domain text, items jsonb, min_required_items jsonb DEFAULT '[]', rule_domains text[] DEFAULT NULL)
    RETURNS skill_system.template_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_create_template' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.create_template(text, jsonb, jsonb, text[]) IS
'Creates the next version of the template of a compliance domain. Each item is an object with a label; min_required_items are indexes '
'from 0; rule_domains selects the rules that apply to the filings (NULL: all). Raises 22023 naming the first malformed item. Example: '
'SELECT * FROM skill_system.create_template(''rule_37'', ''[{"label": "Plat"}, {"label": "Offset operators notified"}]'', ''[0]'', '
'''{spacing}'');';

CREATE FUNCTION skill_system.retire_template(compliance_domain text, reason text DEFAULT NULL) RETURNS skill_system.template_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_retire_template' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.retire_template(text, text) IS
'From now on no filing of the compliance domain begins; those begun go on. create_template() opens the domain again, with the next '
'version. Raises 42704 when the domain has no template, 55000 when it is retired already. Example: SELECT * FROM '
'skill_system.retire_template(''flaring_monitor'', ''reported by another system'');';

CREATE TYPE skill_system.checklist_state AS (checklist_id uuid, status text, version integer);
COMMENT ON TYPE skill_system.checklist_state IS
'Result of the functions that change a checklist: its id, its status now, and its version for the next expected_version.';

CREATE FUNCTION skill_system.create_checklist(
        entity_id text, entity_type text, compliance_domain text, entity_name text DEFAULT NULL, deadline timestamptz DEFAULT NULL,
        entity_field text DEFAULT NULL, entity_district text DEFAULT NULL, metadata jsonb DEFAULT '{}', actor_id text DEFAULT NULL,
        idempotency_key text DEFAULT NULL)
    RETURNS skill_system.checklist_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_create_checklist' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.create_checklist(text, text, text, text, timestamptz, text, text, jsonb, text, text) IS
'Begins a filing: copies the items of the domain''s newest template and freezes every rule that applies. A call repeated with its '
'idempotency_key, by the same role for the same actor_id, returns that checklist as it is now and writes nothing; without a key each call '
'begins another filing, also each column of (create_checklist(...)).*. Raises 42704 when the domain has no template, or when the tenant '
'defines entity types and entity_type is none of them, 55000 when the template was retired, 22023 for texts out of bounds, a deadline in '
'the past or an idempotency_key used with other arguments. Task 10: Begin a filing. Example: SELECT * FROM '
'skill_system.create_checklist(''42-501-20130'', ''well'', ''rule_37'', idempotency_key => ''job-17'');';

CREATE FUNCTION skill_system.update_checklist_item(
        checklist_id uuid, item_index integer, status text, expected_version integer DEFAULT NULL, note text DEFAULT NULL,
        data jsonb DEFAULT NULL, actor_id text DEFAULT NULL) RETURNS skill_system.checklist_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_update_checklist_item' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.update_checklist_item(uuid, integer, text, integer, text, jsonb, text) IS
'Sets the status of one item (from 0): pending, in_progress, complete, blocked or not_applicable; note and data stay when left out. Only '
'this item is touched, so concurrent work on different items is not lost; with expected_version any change since then raises 40001. '
'Raises 42704 for an unknown checklist or item, 55000 when the checklist is not open for work. Example: SELECT * FROM '
'skill_system.update_checklist_item(''01900000-0000-7000-8000-000000000001'', 0, ''complete'');';

CREATE FUNCTION skill_system.missing_items(checklist_id uuid) RETURNS TABLE (item_index integer, label text, status text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_missing_items' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.missing_items(uuid) IS
'The items that must be complete before submit_checklist() and are not. Raises 42704 for an unknown checklist. Task 11: What does a '
'filing lack? Example: SELECT * FROM skill_system.missing_items(''<checklist_id>'');';

CREATE FUNCTION skill_system.submit_checklist(checklist_id uuid, actor_id text DEFAULT NULL, expected_version integer DEFAULT NULL)
    RETURNS skill_system.checklist_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_submit_checklist' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.submit_checklist(uuid, text, integer) IS
'Submits a checklist for review. Raises 55000 naming the required items that are not complete, or when its status does not allow it; '
'40001 when it was changed since expected_version; 42704 for an unknown checklist. Task 12: Submit a filing for review. Example: SELECT * '
'FROM skill_system.submit_checklist(''<checklist_id>'');';

CREATE FUNCTION skill_system.review_checklist(
        checklist_id uuid, decision text, actor_id text DEFAULT NULL, reason text DEFAULT NULL, expected_version integer DEFAULT NULL)
    RETURNS skill_system.checklist_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_review_checklist' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.review_checklist(uuid, text, text, text, integer) IS
'Decides on a submitted checklist: approved, rejected, or in_review when the review has begun. approved needs expected_version, the '
'version that was read, which evidence and refreshed rules change too. The decision is kept in metadata->''reviews''. Raises 55000 when '
'its status does not allow it, 22023 for another decision or an approval without a version, 40001 when it was changed since '
'expected_version, 42704 for an unknown checklist. Task 21: Decide about a filing. Example: SELECT * FROM '
'skill_system.review_checklist(''<checklist_id>'', ''approved'', expected_version => 2);';

CREATE FUNCTION skill_system.file_checklist(checklist_id uuid, actor_id text DEFAULT NULL, reference text DEFAULT NULL)
    RETURNS skill_system.checklist_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_file_checklist' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.file_checklist(uuid, text, text) IS
'Marks an approved checklist as filed; it cannot change any more. reference is the receipt of the authority. Raises 55000 when a frozen '
'rule is stale and not acknowledged, naming the rule and how it changed, or when the checklist is not approved; 42704 for an unknown '
'checklist. Example: SELECT * FROM skill_system.file_checklist(''01900000-0000-7000-8000-000000000001'', ''j.doe'', ''RRC 881204'');';

CREATE FUNCTION skill_system.mark_exception(checklist_id uuid, reason text, actor_id text DEFAULT NULL,
    expected_version integer DEFAULT NULL)
    RETURNS skill_system.checklist_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_mark_exception' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.mark_exception(uuid, text, text, integer) IS
'Ends a checklist without filing: a person decides, with a reason, that the requirement does not apply. The entity counts as '
'not_applicable in the domain. Raises 22023 without a reason, 55000 for a checklist that has ended, 42704 for an unknown one. Example: '
'SELECT * FROM skill_system.mark_exception(''01900000-0000-7000-8000-000000000001'', ''well plugged before the deadline'');';

CREATE FUNCTION skill_system.withdraw_checklist(
        checklist_id uuid, reason text DEFAULT NULL, actor_id text DEFAULT NULL, expected_version integer DEFAULT NULL)
    RETURNS skill_system.checklist_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_withdraw_checklist' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.withdraw_checklist(uuid, text, text, integer) IS
'Ends a checklist that should not have been begun, or is not needed any more; the filing before it decides the status of the entity again. '
'Its author (the role that created it, with the same actor_id) may until it is approved, reviewers until it is filed, with a reason. '
'mark_exception() ends one whose requirement does not apply. Raises 42501 for others, 22023 for a reviewer without a reason, 55000 for a '
'checklist that has ended, 40001 when it was changed since expected_version, 42704 for an unknown checklist. Task 23: Withdraw a filing. '
'Example: SELECT * FROM skill_system.withdraw_checklist(''<checklist_id>'', ''begun twice'');';

CREATE FUNCTION skill_system.checklist_transitions() RETURNS TABLE (action text, from_status text, to_status text, condition text)
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_checklist_transitions' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.checklist_transitions() IS
'Every change of status a checklist can make: by which function, from what, to what, and on which condition. All others are rejected. '
'Example: SELECT * FROM skill_system.checklist_transitions() WHERE from_status = ''approved'';';

CREATE TYPE skill_system.artifact_reference AS (artifact_id uuid, content_sha256 text, size_bytes bigint);
COMMENT ON TYPE skill_system.artifact_reference IS 'Result of add_artifact(): the artifact''s id, digest and size in bytes.';
CREATE FUNCTION skill_system.add_artifact(
        checklist_id uuid, item_index integer, artifact_type text, name text, content text DEFAULT NULL,
        content_type text DEFAULT 'text/plain',
        file_path text DEFAULT NULL, content_sha256 text DEFAULT NULL, size_bytes bigint DEFAULT NULL, actor_type text DEFAULT 'agent',
        metadata jsonb DEFAULT '{}', expires_at timestamptz DEFAULT NULL) RETURNS skill_system.artifact_reference
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_add_artifact' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.add_artifact(uuid, integer, text, text, text, text, text, text, bigint, text, jsonb, timestamptz) IS
'Adds evidence to an item of a checklist that nobody has approved yet: a text of up to 4 MiB, whose digest is computed, or the path, '
'digest and size of a file kept elsewhere. Raises 54000 for a larger text, 22023 for values out of bounds, an artifact_type that '
'compliance_terms does not list or a digest that is not that of the content, 55000 for a checklist that is approved or has ended, 42704 '
'for an unknown checklist or item. Example: SELECT * FROM skill_system.add_artifact(''01900000-0000-7000-8000-000000000001'', 0, '
'''plat_draft'', ''plat.md'', ''# Plat'', ''text/markdown'');';

CREATE FUNCTION skill_system.withdraw_artifact(
        artifact_id uuid, reason text, replacement_id uuid DEFAULT NULL, actor_id text DEFAULT NULL) RETURNS skill_system.checklist_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_withdraw_artifact' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.withdraw_artifact(uuid, text, uuid, text) IS
'Takes evidence out of a checklist that nobody has approved yet: reports and assessments leave it out, the row stays. With replacement_id, '
'an artifact of the same item that was added before, that one takes its place. Raises 42704 for an unknown artifact, 22023 without a '
'reason or for a replacement of another item or that is withdrawn itself, 55000 for an artifact that is withdrawn already or of a '
'checklist that is approved or has ended. Example: SELECT * FROM '
'skill_system.withdraw_artifact(''01900000-0000-7000-8000-000000000001'', ''wrong scale'');';

CREATE FUNCTION skill_system.snapshot_rules(checklist_id uuid) RETURNS integer
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_snapshot_rules' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.snapshot_rules(uuid) IS
'Freezes for a filing every rule that applies today and that it has not frozen yet, and returns how many. create_checklist() does it; '
'call it again when rules have been added since. Raises 55000 for a filing that is not open for work, 42704 for an unknown one. Example: '
'SELECT skill_system.snapshot_rules(''01900000-0000-7000-8000-000000000001'');';

CREATE FUNCTION skill_system.stale_filings(after uuid DEFAULT NULL, max_rows integer DEFAULT 100)
    RETURNS TABLE (snapshot_id uuid, checklist_id uuid, entity_id text, compliance_domain text, status text, deadline timestamptz,
                   rule_identifier text, frozen_version integer, current_version integer, change_summary text)
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT s.id, c.id, c.entity_id::text, c.compliance_domain::text, c.status::text, c.deadline,
           f.rule_identifier::text, f.version, n.version, n.change_summary
    FROM skill_system.filing_rule_snapshots s
    JOIN skill_system.filing_checklists c ON c.tenant_id = s.tenant_id AND c.id = s.checklist_id
    JOIN skill_system.rule_versions f ON f.tenant_id = s.tenant_id AND f.id = s.rule_version_id
    JOIN skill_system.rule_versions n ON n.tenant_id = s.tenant_id AND n.id = s.superseded_by
    WHERE s.tenant_id = (SELECT skill_system.current_tenant())
        AND s.is_current = false AND NOT s.acknowledged AND s.replaced_by IS NULL
        -- A subquery, because row security keeps coalesce() out of index conditions.
        AND s.id > (SELECT coalesce(stale_filings.after, '00000000-0000-0000-0000-000000000000'::uuid))
        AND c.status NOT IN ('filed', 'exception', 'withdrawn')
    ORDER BY s.id
    LIMIT least(greatest(stale_filings.max_rows, 0), 10000);
END;
COMMENT ON FUNCTION skill_system.stale_filings(uuid, integer) IS
'Open filings with a frozen rule that a later version has superseded and that is not acknowledged, one row per frozen rule, oldest first. '
'Pass the last snapshot_id of a page as after to get the next page. Example: SELECT * FROM skill_system.stale_filings(max_rows => 20);';

CREATE TYPE skill_system.snapshot_difference AS (
    rule_identifier text, frozen_version integer, current_version integer, is_current boolean, acknowledged boolean, patch jsonb,
    lines text[]);
COMMENT ON TYPE skill_system.snapshot_difference IS
'Result of snapshot_diff(): the rule, the frozen and the newest version, and the difference as JSON Patch and as readable lines.';
CREATE FUNCTION skill_system.snapshot_diff(snapshot_id uuid) RETURNS skill_system.snapshot_difference
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_snapshot_diff' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.snapshot_diff(uuid) IS
'How a frozen rule differs from the newest version of it. Raises 42704 for an unknown snapshot. Example: SELECT s.entity_id, d.* FROM '
'skill_system.stale_filings() s, skill_system.snapshot_diff(s.snapshot_id) d;';

CREATE FUNCTION skill_system.acknowledge_stale(
        snapshot_id uuid, actor_id text, reason text, expected_version integer DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_acknowledge_stale' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.acknowledge_stale(uuid, text, text, integer) IS
'Records that somebody has reviewed how a frozen rule changed and files under the frozen version for the given reason. expected_version '
'is the version that was compared: 40001 is raised if a newer one exists by now. A newer version also revokes an acknowledgement. Raises '
'22023 without actor_id or reason, 55000 for a snapshot that is not stale, 42704 for an unknown one. Example: SELECT '
'skill_system.acknowledge_stale(''01900000-0000-7000-8000-000000000001'', ''j.doe'', ''permit predates the change'', 3);';

CREATE FUNCTION skill_system.refresh_snapshot(snapshot_id uuid, actor_id text DEFAULT NULL) RETURNS uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_refresh_snapshot' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.refresh_snapshot(uuid, text) IS
'Freezes the newest version of a stale rule in place of the old one and returns the new copy''s id; the old one is kept. A filing that '
'was submitted or approved returns to in_progress, because it was reviewed under the old rule. Raises 55000 for a snapshot that is not '
'stale or a filing that has ended, 42704 for an unknown one. Example: SELECT '
'skill_system.refresh_snapshot(''01900000-0000-7000-8000-000000000001'', ''j.doe'');';

GRANT USAGE ON TYPE skill_system.template_state, skill_system.checklist_state, skill_system.artifact_reference,
    skill_system.snapshot_difference
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
-- Filings are changed through the functions, which write with the owner's privileges for the session's tenant.
GRANT SELECT ON skill_system.checklist_templates, skill_system.filing_checklists, skill_system.checklist_artifacts,
    skill_system.filing_rule_snapshots
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT INSERT (compliance_domain, version, items, min_required_items, rule_domains),
    UPDATE (items, min_required_items, rule_domains, retired_at, retirement_reason)
    ON skill_system.checklist_templates TO skill_system_admin;

-- Agents and reviewers work on filings; only people with the reviewer's role decide, accept a stale rule or make an exception.
GRANT EXECUTE ON FUNCTION skill_system.create_template(text, jsonb, jsonb, text[]), skill_system.retire_template(text, text)
    TO skill_system_admin;
GRANT EXECUTE ON FUNCTION
    skill_system.create_checklist(text, text, text, text, timestamptz, text, text, jsonb, text, text),
    skill_system.withdraw_checklist(uuid, text, text, integer),
    skill_system.update_checklist_item(uuid, integer, text, integer, text, jsonb, text),
    skill_system.submit_checklist(uuid, text, integer), skill_system.file_checklist(uuid, text, text),
    skill_system.add_artifact(uuid, integer, text, text, text, text, text, text, bigint, text, jsonb, timestamptz),
    skill_system.withdraw_artifact(uuid, text, uuid, text),
    skill_system.snapshot_rules(uuid), skill_system.refresh_snapshot(uuid, text)
    TO skill_system_agent, skill_system_reviewer;
GRANT EXECUTE ON FUNCTION
    skill_system.review_checklist(uuid, text, text, text, integer), skill_system.mark_exception(uuid, text, text, integer),
    skill_system.acknowledge_stale(uuid, text, text, integer)
    TO skill_system_reviewer;
GRANT EXECUTE ON FUNCTION
    skill_system.missing_items(uuid), skill_system.checklist_transitions(), skill_system.stale_filings(uuid, integer),
    skill_system.snapshot_diff(uuid)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
