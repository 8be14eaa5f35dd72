-- Rules: versioned, immutable, in force for periods that do not overlap.

CREATE TABLE skill_system.rule_books (
    tenant_id text   NOT NULL DEFAULT skill_system.current_tenant(),
    revision  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id)
);
COMMENT ON TABLE skill_system.rule_books IS
'One row per tenant that has rules or filings. Publishing a rule and freezing rules lock the row against each other, so that no filing '
'misses a change.';
COMMENT ON COLUMN skill_system.rule_books.tenant_id IS 'Tenant of the rules.';
COMMENT ON COLUMN skill_system.rule_books.revision IS 'Counts the changes of rules and templates.';

CREATE TABLE skill_system.rule_identifiers (
    tenant_id       text         NOT NULL DEFAULT skill_system.current_tenant(),
    rule_identifier varchar(255) NOT NULL,
    rule_key        bigserial    NOT NULL,
    PRIMARY KEY (tenant_id, rule_identifier),
    UNIQUE (rule_key),
    -- Target of the foreign key, which binds the number to the rule.
    UNIQUE (tenant_id, rule_identifier, rule_key)
);
COMMENT ON TABLE skill_system.rule_identifiers IS
'A number for each rule of each tenant, by which the exclusion constraint of rule_versions tells rules apart. Written when the first '
'version of a rule is.';
COMMENT ON COLUMN skill_system.rule_identifiers.tenant_id IS 'Tenant of the rule.';
COMMENT ON COLUMN skill_system.rule_identifiers.rule_identifier IS 'Key of the rule in its tenant.';
COMMENT ON COLUMN skill_system.rule_identifiers.rule_key IS 'Number of the rule, unique in the database.';

CREATE TABLE skill_system.rule_versions (
    id               uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    tenant_id        text         NOT NULL DEFAULT skill_system.current_tenant(),
    rule_type        varchar(50)  NOT NULL CHECK (pg_catalog.btrim(rule_type) <> ''),
    rule_domain      varchar(50)  NOT NULL,
    rule_identifier  varchar(255) NOT NULL,
    version          integer      NOT NULL CHECK (version > 0),
    effective_date   date         NOT NULL CHECK (pg_catalog.isfinite(effective_date)),
    superseded_date  date         CHECK (superseded_date >= effective_date),
    source           varchar(50)  NOT NULL CHECK (pg_catalog.btrim(source) <> ''),
    source_reference varchar(500),
    rule_data        jsonb        NOT NULL CHECK (pg_catalog.jsonb_typeof(rule_data) = 'object'),
    graph_node_id    varchar(255),
    change_summary   text,
    detected_at      timestamptz  DEFAULT pg_catalog.now(),
    detected_by      varchar(100),
    status           varchar(20)  DEFAULT 'active' NOT NULL CHECK (status::text IN
        ('active', 'superseded', 'pending_review', 'draft', 'withdrawn')),
    content_sha256   text         NOT NULL,
    approved_by      text,
    approved_at      timestamptz,
    rejected_by      text,
    rejected_at      timestamptz,
    rejection_reason text,
    withdrawn_by     text,
    withdrawn_at     timestamptz,
    withdrawal_reason text,
    created_by_role  text         NOT NULL DEFAULT CURRENT_USER,
    rule_key         bigint       NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT rule_versions_tenant_id_rule_identifier_version_key UNIQUE (rule_identifier, version, tenant_id),
    FOREIGN KEY (tenant_id, rule_identifier, rule_key)
        REFERENCES skill_system.rule_identifiers (tenant_id, rule_identifier, rule_key),
    -- GiST has ranges without another extension; a range of one number compares exactly.
    CONSTRAINT rule_versions_one_in_force EXCLUDE USING gist (
        pg_catalog.int8range(rule_key, rule_key, '[]') WITH =,
        pg_catalog.daterange(effective_date, superseded_date) WITH &&
    ) WHERE (status::text IN ('active', 'superseded'))
);
-- The tenant last, as in all indexes of large tables but the keys: sharing its first column with the primary key, an index would be taken
-- for look-ups by that in a table without statistics.
CREATE INDEX idx_rule_versions_active ON skill_system.rule_versions (rule_identifier, status, tenant_id) WHERE status = 'active';
CREATE INDEX idx_rule_versions_domain ON skill_system.rule_versions (rule_domain, tenant_id);
COMMENT ON TABLE skill_system.rule_versions IS
'Every version of every rule. Only status, superseded_date, approval, rejection and withdrawal of a row ever change. Write with '
'publish_rule() or propose_rule(), review_rule() and withdraw_rule(); read with rule_as_of(). An exclusion constraint guarantees that no '
'two versions of a rule are in force on the same day.';
COMMENT ON COLUMN skill_system.rule_versions.id IS 'UUID of the version.';
COMMENT ON COLUMN skill_system.rule_versions.tenant_id IS 'Tenant of the rule.';
COMMENT ON COLUMN skill_system.rule_versions.rule_type IS
'A term of the kind rule_type, for example statewide or notice. field_specific applies only where rule_data->>''field'' is the entity''s '
'field, all others everywhere.';
COMMENT ON COLUMN skill_system.rule_versions.rule_domain IS
'For example spacing, density, flaring or reporting. A checklist template names the domains it is about.';
COMMENT ON COLUMN skill_system.rule_versions.rule_identifier IS 'Key of the rule in its tenant, for example SWR_37.';
COMMENT ON COLUMN skill_system.rule_versions.version IS 'Counts from 1 without gaps for each rule.';
COMMENT ON COLUMN skill_system.rule_versions.effective_date IS 'First day in force.';
COMMENT ON COLUMN skill_system.rule_versions.superseded_date IS 'First day of its successor; NULL if none exists yet.';
COMMENT ON COLUMN skill_system.rule_versions.source IS
'Where it comes from: a term of the kind rule_source, for example manual.';
COMMENT ON COLUMN skill_system.rule_versions.source_reference IS 'Citation, docket number or URL.';
COMMENT ON COLUMN skill_system.rule_versions.rule_data IS 'The rule''s parameters, a JSON object.';
COMMENT ON COLUMN skill_system.rule_versions.graph_node_id IS 'Its node in a knowledge graph elsewhere.';
COMMENT ON COLUMN skill_system.rule_versions.change_summary IS 'What changed in this version, in words.';
COMMENT ON COLUMN skill_system.rule_versions.detected_at IS 'When the row was written.';
COMMENT ON COLUMN skill_system.rule_versions.detected_by IS 'Who or what found the change.';
COMMENT ON COLUMN skill_system.rule_versions.status IS
'draft, pending_review, active, superseded or withdrawn. Only active and superseded versions have a period in force.';
COMMENT ON COLUMN skill_system.rule_versions.content_sha256 IS 'sha256: and the SHA-256 of rule_data as compact JSON, keys in byte order.';
COMMENT ON COLUMN skill_system.rule_versions.approved_by IS 'Who published or approved it.';
COMMENT ON COLUMN skill_system.rule_versions.approved_at IS 'When it was published or approved.';
COMMENT ON COLUMN skill_system.rule_versions.rejected_by IS 'Who rejected it last.';
COMMENT ON COLUMN skill_system.rule_versions.rejected_at IS 'When it was rejected last.';
COMMENT ON COLUMN skill_system.rule_versions.rejection_reason IS 'Why, for its author.';
COMMENT ON COLUMN skill_system.rule_versions.withdrawn_by IS 'Who withdrew it.';
COMMENT ON COLUMN skill_system.rule_versions.withdrawn_at IS 'When it was withdrawn.';
COMMENT ON COLUMN skill_system.rule_versions.withdrawal_reason IS 'Why it was withdrawn.';
COMMENT ON COLUMN skill_system.rule_versions.created_by_role IS 'Role that wrote the version; set by the server.';
COMMENT ON COLUMN skill_system.rule_versions.rule_key IS 'Number of the rule in rule_identifiers; set by the server.';

CREATE FUNCTION skill_system.set_rule_key() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_set_rule_key' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.set_rule_key() IS
'Trigger function of rule_versions: gives a version the number of its rule, and a new rule a new number.';
CREATE TRIGGER rule_versions_key BEFORE INSERT ON skill_system.rule_versions
    FOR EACH ROW WHEN (NEW.rule_key IS NULL) EXECUTE FUNCTION skill_system.set_rule_key();

CREATE TRIGGER rule_versions_guard BEFORE UPDATE ON skill_system.rule_versions FOR EACH ROW
    EXECUTE FUNCTION skill_system.guard_columns('superseded_date', 'status', 'approved_by', 'approved_at', 'rejected_by', 'rejected_at',
        'rejection_reason', 'withdrawn_by', 'withdrawn_at', 'withdrawal_reason');
CREATE TRIGGER rule_versions_no_delete BEFORE DELETE ON skill_system.rule_versions
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER rule_versions_no_truncate BEFORE TRUNCATE ON skill_system.rule_versions
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();

CREATE TYPE skill_system.rule_state AS (
    rule_version_id uuid, rule_identifier text, version integer, status text, supersedes_id uuid, stale_snapshots bigint);
COMMENT ON TYPE skill_system.rule_state IS
'Result of publish_rule() and related functions: the version, its number and status, the version it superseded, and how many frozen '
'copies in open filings it made stale.';

CREATE FUNCTION skill_system.publish_rule(
        rule_identifier text, rule_domain text, effective_date date, rule_data jsonb, source text,
        rule_type text DEFAULT 'statewide', source_reference text DEFAULT NULL, change_summary text DEFAULT NULL,
        graph_node_id text DEFAULT NULL, actor_id text DEFAULT NULL) RETURNS skill_system.rule_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_publish_rule' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.publish_rule(text, text, date, jsonb, text, text, text, text, text, text) IS
'Creates the next version of a rule and puts it in force from effective_date. In the same transaction the version before is superseded, '
'every open filing that froze an older version becomes stale, and audit records rule.published and filing.stale are written. For '
'administrators; agents call propose_rule(). Raises 22023 for values out of bounds, a term that compliance_terms does not list or an '
'effective_date before that of the version in force, 55000 under REPEATABLE READ. Task 41: Publish a rule. Example: SELECT * FROM '
'skill_system.publish_rule(''SWR_37'', ''spacing'', ''2027-01-01'', ''{"feet": 467}'', ''manual'');';

CREATE FUNCTION skill_system.propose_rule(
        rule_identifier text, rule_domain text, effective_date date, rule_data jsonb, source text,
        rule_type text DEFAULT 'statewide', source_reference text DEFAULT NULL, change_summary text DEFAULT NULL,
        graph_node_id text DEFAULT NULL, actor_id text DEFAULT NULL, draft boolean DEFAULT false) RETURNS skill_system.rule_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_propose_rule' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.propose_rule(text, text, date, jsonb, text, text, text, text, text, text, boolean) IS
'Creates the next version of a rule without putting it in force: pending_review, or draft. A reviewer decides with review_rule(). Errors '
'as publish_rule(). Task 13: Propose a rule. Example: SELECT * FROM skill_system.propose_rule(''SWR_37'', ''spacing'', ''2027-01-01'', '
'''{"feet": 467}'', ''manual'');';

CREATE FUNCTION skill_system.submit_rule(rule_version_id uuid, actor_id text DEFAULT NULL) RETURNS skill_system.rule_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_submit_rule' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.submit_rule(uuid, text) IS
'Submits a draft version of a rule for review: draft becomes pending_review. Raises 42704 for an unknown version, 55000 for one that is '
'not a draft. Example: SELECT * FROM skill_system.submit_rule(''01900000-0000-7000-8000-000000000001'');';

CREATE FUNCTION skill_system.review_rule(
        rule_version_id uuid, decision text, actor_id text DEFAULT NULL, reason text DEFAULT NULL) RETURNS skill_system.rule_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_review_rule' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.review_rule(uuid, text, text, text) IS
'Decides on a version in pending_review: approved puts it in force as publish_rule() does, rejected turns it back into a draft, '
'which has the reason in rejection_reason for its author. Raises 42704 for an unknown version, 55000 for one that is not pending or is '
'superseded by a later version, 22023 for another decision. Task 22: Decide about a rule. Example: SELECT * FROM '
'skill_system.review_rule(''<rule_version_id>'', ''approved'');';

CREATE FUNCTION skill_system.withdraw_rule(rule_version_id uuid, reason text DEFAULT NULL, actor_id text DEFAULT NULL)
    RETURNS skill_system.rule_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_withdraw_rule' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.withdraw_rule(uuid, text, text) IS
'Withdraws a version of a rule that is not in force yet. Its author (the role that proposed it, with the same actor_id) may while it is a '
'draft or in pending_review; reviewers also when it was published for a later day, with a reason: then the version before stays in force, '
'and what froze the withdrawn one is stale. A version that is or was in force is superseded with publish_rule(). Raises 42501 for others, '
'22023 for a reviewer without a reason, 55000 for a version that is or was in force or is withdrawn, 42704 for an unknown one. Task 24: '
'Withdraw a rule. Example: SELECT * FROM skill_system.withdraw_rule(''<rule_version_id>'', ''wrong docket'');';

CREATE FUNCTION skill_system.rule_as_of(rule_identifier text, as_of date DEFAULT (pg_catalog.now() AT TIME ZONE 'UTC')::date)
    RETURNS SETOF skill_system.rule_versions
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT v.* FROM skill_system.rule_versions v
    WHERE v.tenant_id = (SELECT skill_system.current_tenant()) AND v.rule_identifier = rule_as_of.rule_identifier
        AND v.status IN ('active', 'superseded')
        AND v.effective_date <= rule_as_of.as_of AND (v.superseded_date IS NULL OR v.superseded_date > rule_as_of.as_of);
END;
COMMENT ON FUNCTION skill_system.rule_as_of(text, date) IS
'The version of a rule that was, is or will be in force on a day (default: today in UTC); no row if none exists. Example: SELECT '
'version, rule_data FROM skill_system.rule_as_of(''SWR_37'', ''2025-06-30'');';

CREATE TYPE skill_system.json_difference AS (patch jsonb, lines text[]);
COMMENT ON TYPE skill_system.json_difference IS
'Difference of two JSON values. patch: JSON Patch (RFC 6902) that turns the first into the second. lines: the same, readable.';
CREATE FUNCTION skill_system.diff_rules(old_version_id uuid, new_version_id uuid) RETURNS skill_system.json_difference
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_diff_rules' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.diff_rules(uuid, uuid) IS
'What changed in rule_data from the old version to the new one. Raises 42704 for an unknown version. Example: SELECT * FROM '
'skill_system.diff_rules(''01900000-0000-7000-8000-000000000001'', ''01900000-0000-7000-8000-000000000002'');';

GRANT USAGE ON TYPE skill_system.rule_state, skill_system.json_difference
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT SELECT ON skill_system.rule_books, skill_system.rule_identifiers, skill_system.rule_versions
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
-- Agents propose, reviewers decide, administrators publish.
GRANT EXECUTE ON FUNCTION
    skill_system.propose_rule(text, text, date, jsonb, text, text, text, text, text, text, boolean), skill_system.submit_rule(uuid, text)
    TO skill_system_agent, skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.review_rule(uuid, text, text, text) TO skill_system_reviewer;
GRANT EXECUTE ON FUNCTION skill_system.withdraw_rule(uuid, text, text)
    TO skill_system_agent, skill_system_reviewer, skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.publish_rule(text, text, date, jsonb, text, text, text, text, text, text) TO skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.rule_as_of(text, date), skill_system.diff_rules(uuid, uuid)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
