-- placeholder until the merge
CREATE FUNCTION dwh._forgotten(user_ids text[]) RETURNS integer[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS 'SELECT ''{}''::integer[]';
COMMENT ON FUNCTION dwh._forgotten(text[]) IS 'x';
