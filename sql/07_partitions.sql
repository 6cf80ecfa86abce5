-- 07_partitions.sql: the partitions of a table.

CREATE FUNCTION dwh._partitions(parent text)
RETURNS TABLE (partition regclass, since timestamptz, until timestamptz)
LANGUAGE sql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET jit = off AS $$
    SELECT c.oid::regclass,
           coalesce((regexp_match(b.bound, 'FROM \(''([^'']*)''\)'))[1]::timestamptz, '-infinity'),
           coalesce((regexp_match(b.bound, 'TO \(''([^'']*)''\)'))[1]::timestamptz, 'infinity')
      FROM pg_inherits AS i
      JOIN pg_class AS c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS b (bound)
     WHERE i.inhparent = to_regclass(parent)
     ORDER BY 2
$$;
COMMENT ON FUNCTION dwh._partitions(text) IS
'The partitions of a table with their half-open intervals, in order of time; none where the table is missing.';
