-- Search: the index of skills and one ranked result.

CREATE TABLE skill_system.skill_search (
    tenant_id text     NOT NULL DEFAULT skill_system.current_tenant(),
    skill_id  uuid     NOT NULL,
    document  tsvector NOT NULL,
    PRIMARY KEY (tenant_id, skill_id),
    FOREIGN KEY (tenant_id, skill_id) REFERENCES skill_system.skill_heads (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX skill_search_document ON skill_system.skill_search USING gin (document);
COMMENT ON TABLE skill_system.skill_search IS
'The words of each skill as served, for search_skills(). Updated by every function that changes a skill.';
COMMENT ON COLUMN skill_system.skill_search.tenant_id IS 'Tenant of the skill.';
COMMENT ON COLUMN skill_system.skill_search.skill_id IS 'The skill.';
COMMENT ON COLUMN skill_system.skill_search.document IS
'Words of its name (weight A), tags and description (B) and the beginning of its body (D), stemmed as English.';

CREATE TABLE skill_system.skill_embeddings (
    tenant_id  text    NOT NULL DEFAULT skill_system.current_tenant(),
    version_id uuid    NOT NULL,
    dimensions integer NOT NULL CHECK (dimensions BETWEEN 1 AND 8192),
    embedding  real[]  NOT NULL,
    PRIMARY KEY (tenant_id, version_id),
    CHECK (pg_catalog.array_ndims(embedding) OPERATOR(pg_catalog.=) 1
        AND pg_catalog.cardinality(embedding) OPERATOR(pg_catalog.=) dimensions
        AND pg_catalog.array_position(embedding, NULL) IS NULL),
    FOREIGN KEY (tenant_id, version_id) REFERENCES skill_system.skill_versions (tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE skill_system.skill_embeddings ALTER COLUMN embedding SET STORAGE EXTERNAL;
COMMENT ON TABLE skill_system.skill_embeddings IS
'Embeddings of versions, computed by the caller''s model, for search_skills(). Written by set_skill_embedding(). A new version has none '
'until one is set.';
COMMENT ON COLUMN skill_system.skill_embeddings.tenant_id IS 'Tenant of the skill.';
COMMENT ON COLUMN skill_system.skill_embeddings.version_id IS 'The version.';
COMMENT ON COLUMN skill_system.skill_embeddings.dimensions IS
'How many numbers; only embeddings with as many as the query''s are compared.';
COMMENT ON COLUMN skill_system.skill_embeddings.embedding IS 'The numbers.';

CREATE FUNCTION skill_system.set_skill_embedding(skill text, embedding double precision[], version text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_set_skill_embedding' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.set_skill_embedding(text, double precision[], text) IS
'Sets the embedding of a version of a skill, by default of the served one; NULL removes it. version is 12 digits. False when nothing '
'changed. Raises SK404, SK405, 22023 unless the embedding is 1 to 8192 finite numbers, not all 0. Example: SELECT '
'skill_system.set_skill_embedding(''pdf-forms'', ''{0.12, -0.4, 0.9}'');';

CREATE TYPE skill_system.skill_found AS (
    rank integer, namespace text, skill_name text, description text, score double precision, matched text[], version text, semver text,
    status text,
    domain_tags text[], skill_id uuid);
COMMENT ON TYPE skill_system.skill_found IS
'Row of search_skills(): a skill, its rank, and which of name, text, tags, spelling and embedding found it.';

CREATE FUNCTION skill_system.search_skills(
        query text, policy_name text DEFAULT NULL, namespace text DEFAULT NULL, tags text[] DEFAULT NULL, max_rows integer DEFAULT 20,
        embedding double precision[] DEFAULT NULL, include_drafts boolean DEFAULT false)
    RETURNS SETOF skill_system.skill_found
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_search_skills' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.search_skills(text, text, text, text[], integer, double precision[], boolean) IS
'Finds enabled skills, the best first: by words of name, tags, description and body (in web search syntax: "a phrase", -without, or; '
'without operators also skills with some of the words), by name, by tags, by similar spelling if pg_trgm is installed, and by embedding '
'if one is given. Each method ranks separately, and score is the sum of 1 / (60 + rank); matched lists the methods that found the skill. '
'tags: only skills with at least one of them. With a policy, only skills whose effects it allows are returned. include_drafts: also '
'skills that await approval. Raises 22023 when nothing is searched for or an argument is out of bounds, 42704 for an unknown '
'policy. Task 4: Find a skill. Example: SELECT * FROM skill_system.search_skills(''fill in forms'');';

GRANT SELECT ON skill_system.skill_search, skill_system.skill_embeddings
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT USAGE ON TYPE skill_system.skill_found TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.search_skills(text, text, text, text[], integer, double precision[], boolean)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.set_skill_embedding(text, double precision[], text) TO skill_system_reviewer, skill_system_admin;
