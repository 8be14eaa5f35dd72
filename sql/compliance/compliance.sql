-- Compliance: the matrix of entities and domains, what is due, reports.

CREATE TABLE skill_system.compliance_status (
    id                uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    tenant_id         text         NOT NULL DEFAULT skill_system.current_tenant(),
    entity_id         varchar(255) NOT NULL,
    entity_type       varchar(50)  NOT NULL,
    entity_name       varchar(500),
    entity_field      varchar(255),
    entity_district   varchar(10),
    compliance_domain varchar(50)  NOT NULL,
    status            varchar(20)  NOT NULL
        CHECK (status::text IN ('compliant', 'action_needed', 'overdue', 'not_applicable', 'in_review')),
    deadline          timestamptz,
    checklist_id      uuid,
    details           jsonb        NOT NULL DEFAULT '{}',
    last_assessed_at  timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT compliance_status_tenant_id_entity_id_compliance_domain_key UNIQUE (entity_id, compliance_domain, tenant_id),
    FOREIGN KEY (tenant_id, checklist_id) REFERENCES skill_system.filing_checklists (tenant_id, id) ON DELETE SET NULL (checklist_id)
);
CREATE INDEX idx_compliance_status_tenant ON skill_system.compliance_status (status, tenant_id);
CREATE INDEX idx_compliance_status_domain ON skill_system.compliance_status (compliance_domain, tenant_id);
CREATE INDEX idx_compliance_status_deadline ON skill_system.compliance_status (deadline, tenant_id);
CREATE INDEX idx_compliance_status_checklist ON skill_system.compliance_status (checklist_id, tenant_id);
COMMENT ON TABLE skill_system.compliance_status IS
'One row per entity and compliance domain. Maintained by triggers on filing_checklists and by assess_compliance(). Read the views '
'compliance_cells and compliance_counts, or compliance_matrix(): they compute overdue from the current time.';
COMMENT ON COLUMN skill_system.compliance_status.id IS 'UUID of the row.';
COMMENT ON COLUMN skill_system.compliance_status.tenant_id IS 'Tenant of the entity.';
COMMENT ON COLUMN skill_system.compliance_status.entity_id IS 'The entity: API number, facility id, lease number.';
COMMENT ON COLUMN skill_system.compliance_status.entity_type IS 'Kind of entity: well, lease, facility.';
COMMENT ON COLUMN skill_system.compliance_status.entity_name IS 'Display name.';
COMMENT ON COLUMN skill_system.compliance_status.entity_field IS 'Its oil or gas field.';
COMMENT ON COLUMN skill_system.compliance_status.entity_district IS 'Its district.';
COMMENT ON COLUMN skill_system.compliance_status.compliance_domain IS 'For example rule_37, rule_32, form_pr or flaring_monitor.';
COMMENT ON COLUMN skill_system.compliance_status.status IS
'compliant, action_needed, overdue, not_applicable or in_review, as last assessed.';
COMMENT ON COLUMN skill_system.compliance_status.deadline IS 'Next deadline in this domain.';
COMMENT ON COLUMN skill_system.compliance_status.checklist_id IS 'The newest checklist, which decides the status.';
COMMENT ON COLUMN skill_system.compliance_status.details IS 'Other metadata; checklist_status is that of the checklist.';
COMMENT ON COLUMN skill_system.compliance_status.last_assessed_at IS 'When the row was written last.';

CREATE FUNCTION skill_system.assess_checklist() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_assess_checklist' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.assess_checklist() IS
'Trigger function of filing_checklists: updates compliance_status of the entity and domain. Fires at the origin.';
-- Not for the rows that a restore brings back: compliance_status is restored too.
CREATE TRIGGER assess_insert AFTER INSERT ON skill_system.filing_checklists
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now()) EXECUTE FUNCTION skill_system.assess_checklist();
CREATE TRIGGER assess AFTER DELETE OR UPDATE OF status, deadline, entity_type, entity_name, entity_field, entity_district
    ON skill_system.filing_checklists
    FOR EACH ROW EXECUTE FUNCTION skill_system.assess_checklist();

CREATE FUNCTION skill_system.assess_compliance(
        tenant_id text, entity_id text, entity_type text DEFAULT NULL, compliance_domain text DEFAULT NULL, status text DEFAULT NULL,
        deadline timestamptz DEFAULT NULL, entity_name text DEFAULT NULL, entity_field text DEFAULT NULL, entity_district text DEFAULT NULL,
        details jsonb DEFAULT NULL, actor_id text DEFAULT NULL)
    RETURNS TABLE (domain text, previous_status text, current_status text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_assess_compliance' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.assess_compliance(text, text, text, text, text, timestamptz, text, text, text, jsonb, text) IS
'Assesses an entity. Without a status: recomputes the status of each of its domains (or of the given one) from the newest checklist. With '
'a compliance_domain and a status (compliant, action_needed, in_review or not_applicable): sets it, unless an open checklist determines '
'it. tenant_id must be the session''s tenant. Raises 42501 for another tenant, 55000 when an open checklist determines the status, 22023 '
'for values out of bounds, 42704 for an unknown entity. Example: SELECT * FROM '
'skill_system.assess_compliance(skill_system.current_tenant(), ''42-501-20130'', ''well'', ''form_pr'', ''compliant'');';

CREATE VIEW skill_system.compliance_cells WITH (security_invoker = true) AS
SELECT s.tenant_id, s.entity_id, s.entity_type, s.entity_name, s.entity_field, s.entity_district, s.compliance_domain,
       CASE WHEN s.status IN ('action_needed', 'in_review') AND s.deadline < pg_catalog.now() THEN 'overdue'::text ELSE s.status::text END
           AS status,
       s.deadline,
       CASE WHEN pg_catalog.isfinite(s.deadline) THEN s.deadline - pg_catalog.now() END AS time_left,
       s.checklist_id, s.details, s.last_assessed_at
FROM skill_system.compliance_status s;
COMMENT ON VIEW skill_system.compliance_cells IS
'compliance_status as of now: a cell that is not done and past its deadline is overdue. Example: SELECT entity_id, compliance_domain, '
'deadline FROM skill_system.compliance_cells WHERE status = ''overdue'' ORDER BY deadline LIMIT 20;';
COMMENT ON COLUMN skill_system.compliance_cells.tenant_id IS 'Tenant of the entity.';
COMMENT ON COLUMN skill_system.compliance_cells.entity_id IS 'The entity.';
COMMENT ON COLUMN skill_system.compliance_cells.entity_type IS 'Kind of entity.';
COMMENT ON COLUMN skill_system.compliance_cells.entity_name IS 'Display name.';
COMMENT ON COLUMN skill_system.compliance_cells.entity_field IS 'Its oil or gas field.';
COMMENT ON COLUMN skill_system.compliance_cells.entity_district IS 'Its district.';
COMMENT ON COLUMN skill_system.compliance_cells.compliance_domain IS 'The domain.';
COMMENT ON COLUMN skill_system.compliance_cells.status IS 'compliant, action_needed, overdue, not_applicable or in_review, now.';
COMMENT ON COLUMN skill_system.compliance_cells.deadline IS 'Next deadline.';
COMMENT ON COLUMN skill_system.compliance_cells.time_left IS 'Time to the deadline; negative when it has passed.';
COMMENT ON COLUMN skill_system.compliance_cells.checklist_id IS 'The newest checklist.';
COMMENT ON COLUMN skill_system.compliance_cells.details IS 'Other metadata.';
COMMENT ON COLUMN skill_system.compliance_cells.last_assessed_at IS 'When it was assessed last.';

CREATE VIEW skill_system.compliance_counts WITH (security_invoker = true) AS
SELECT c.tenant_id, c.compliance_domain, c.entity_district, c.status, pg_catalog.count(*) AS entities,
       pg_catalog.min(c.deadline) FILTER (WHERE c.status IN ('action_needed', 'in_review', 'overdue')) AS next_deadline
FROM skill_system.compliance_cells c
GROUP BY c.tenant_id, c.compliance_domain, c.entity_district, c.status;
COMMENT ON VIEW skill_system.compliance_counts IS
'How many entities are in which status, per tenant, domain and district. Example: SELECT compliance_domain, sum(entities) FROM '
'skill_system.compliance_counts WHERE status = ''overdue'' GROUP BY 1;';
COMMENT ON COLUMN skill_system.compliance_counts.tenant_id IS 'Tenant of the entities.';
COMMENT ON COLUMN skill_system.compliance_counts.compliance_domain IS 'The domain.';
COMMENT ON COLUMN skill_system.compliance_counts.entity_district IS 'Their district.';
COMMENT ON COLUMN skill_system.compliance_counts.status IS 'The status, now.';
COMMENT ON COLUMN skill_system.compliance_counts.entities IS 'Number of entities.';
COMMENT ON COLUMN skill_system.compliance_counts.next_deadline IS 'Earliest deadline of cells that are not done.';

CREATE FUNCTION skill_system.compliance_matrix(
        after text DEFAULT '', max_rows integer DEFAULT 100, district text DEFAULT NULL, type text DEFAULT NULL,
        worst_only text DEFAULT NULL)
    RETURNS TABLE (entity_id text, entity_type text, entity_name text, entity_field text, entity_district text,
                   statuses jsonb, worst text, next_deadline timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT c.entity_id::text, min(c.entity_type)::text, min(c.entity_name)::text, min(c.entity_field)::text, min(c.entity_district)::text,
           jsonb_object_agg(c.compliance_domain, c.status),
           (ARRAY['overdue', 'action_needed', 'in_review', 'compliant', 'not_applicable'])[
               min(array_position(ARRAY['overdue', 'action_needed', 'in_review', 'compliant', 'not_applicable'], c.status))],
           min(c.deadline) FILTER (WHERE c.status IN ('action_needed', 'in_review', 'overdue'))
    FROM skill_system.compliance_cells c
    WHERE c.tenant_id = (SELECT skill_system.current_tenant())
        -- A subquery, because row security keeps coalesce() out of index conditions.
        AND c.entity_id > (SELECT coalesce(compliance_matrix.after, ''))
        AND (compliance_matrix.district IS NULL OR c.entity_district = compliance_matrix.district)
        AND (compliance_matrix.type IS NULL OR c.entity_type = compliance_matrix.type)
    GROUP BY c.tenant_id, c.entity_id
    HAVING compliance_matrix.worst_only IS NULL
        OR min(array_position(ARRAY['overdue', 'action_needed', 'in_review', 'compliant', 'not_applicable'], c.status))
           = array_position(ARRAY['overdue', 'action_needed', 'in_review', 'compliant', 'not_applicable'], compliance_matrix.worst_only)
    ORDER BY c.tenant_id, c.entity_id
    LIMIT least(greatest(compliance_matrix.max_rows, 0), 10000);
END;
COMMENT ON FUNCTION skill_system.compliance_matrix(text, integer, text, text, text) IS
'The matrix of entities and domains as of now, one row per entity in the order of entity_id: statuses is {"domain": "status"}, worst the '
'most urgent of them. Pass the last entity_id of a page as after to get the next page; filter by district, type of entity, and worst '
'status. Example: SELECT entity_id, statuses->>''rule_37'', worst FROM skill_system.compliance_matrix(max_rows => 20, worst_only => '
'''overdue'');';

CREATE FUNCTION skill_system.due_filings(days integer DEFAULT 30, max_rows integer DEFAULT 100)
    RETURNS TABLE (entity_id text, entity_type text, entity_name text, entity_district text, compliance_domain text,
                   status text, deadline timestamptz, time_left interval, checklist_id uuid)
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT c.entity_id::text, c.entity_type::text, c.entity_name::text, c.entity_district::text, c.compliance_domain::text,
           c.status, c.deadline, c.time_left, c.checklist_id
    FROM skill_system.compliance_cells c
    WHERE c.tenant_id = (SELECT skill_system.current_tenant())
        -- The server has no time further away than about 290000 years.
        AND c.deadline < now() + make_interval(days => least(greatest(due_filings.days, -1000000), 100000000))
        AND c.status IN ('overdue', 'action_needed', 'in_review')
    ORDER BY c.deadline
    LIMIT least(greatest(due_filings.max_rows, 0), 10000);
END;
COMMENT ON FUNCTION skill_system.due_filings(integer, integer) IS
'Filings that are overdue or due within the given number of days and not done, the most urgent first. Example: SELECT * FROM '
'skill_system.due_filings(14);';

CREATE FUNCTION skill_system.compliance_report(
        format text DEFAULT 'html', title text DEFAULT 'Compliance report', max_rows integer DEFAULT 100) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_compliance_report' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.compliance_report(text, text, integer) IS
'The state of the session''s tenant as html (one self-contained printable page), markdown or json: counts, the matrix as a heat map, '
'deadlines on a time line, stale rules, the evidence. The counts cover everything; each list shows the max_rows (up to 1000) most urgent '
'rows. Raises 22023 for another format. Task 34: What is due, as a web page. Example: SELECT skill_system.compliance_report(''html'');';

CREATE FUNCTION skill_system.oscal_assessment_results(
        entity_id text DEFAULT NULL, compliance_domain text DEFAULT NULL, title text DEFAULT 'Compliance assessment',
        max_rows integer DEFAULT 1000)
    RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_oscal_assessment_results' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.oscal_assessment_results(text, text, text, integer) IS
'The matrix (of one entity, of one domain, or of all, up to max_rows cells, at most 10000) as OSCAL assessment results, a document for '
'other compliance tools: one observation with its evidence and one finding per cell. Raises 22023 for max_rows out of bounds. Example: '
'SELECT skill_system.oscal_assessment_results(''42-501-20130'');';

CREATE FUNCTION skill_system.compliance_snapshot(checklist_id uuid) RETURNS json
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_compliance_snapshot' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.compliance_snapshot(uuid) IS
'Everything about one filing as one signed JSON document: the entity, the checklist with its items and reviews, the digests of its '
'evidence, the frozen rules, and its audit records, each with its proof where a checkpoint covers it (call seal_audit() and '
'audit_checkpoint() before). skill-verify snapshot checks it without a database. Raises 42704 for an unknown checklist, 54000 for more '
'than 64 MiB, F0000 without a signing key. Example: psql -Atc "SELECT skill_system.'
'compliance_snapshot(''01900000-0000-7000-8000-000000000001'')" > filing.json';

GRANT SELECT ON skill_system.compliance_status, skill_system.compliance_cells, skill_system.compliance_counts
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT EXECUTE ON FUNCTION
    skill_system.assess_compliance(text, text, text, text, text, timestamptz, text, text, text, jsonb, text)
    TO skill_system_reviewer, skill_system_admin;
GRANT EXECUTE ON FUNCTION
    skill_system.compliance_matrix(text, integer, text, text, text), skill_system.due_filings(integer, integer),
    skill_system.compliance_report(text, text, integer), skill_system.oscal_assessment_results(text, text, text, integer)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
-- It shows audit records, so only the roles responsible for filings may call it.
GRANT EXECUTE ON FUNCTION skill_system.compliance_snapshot(uuid) TO skill_system_reviewer, skill_system_auditor, skill_system_admin;
