INSERT INTO skill_system.policy_profiles (id, name, allowed_effects, allowed_exec, allowed_write_roots, metadata, created_at)
SELECT $1, $2, ARRAY(SELECT jsonb_array_elements_text($4 -> 'effects')), ARRAY(SELECT jsonb_array_elements_text($4 -> 'exec')),
    ARRAY(SELECT jsonb_array_elements_text($4 -> 'roots')),
    CASE WHEN jsonb_typeof($3 -> 'metadata') = 'object' THEN $3 -> 'metadata'
         ELSE jsonb_build_object('legacy', $3 -> 'metadata') END || ($4 -> 'note'),
    ($3 ->> 'created_at')::timestamptz
