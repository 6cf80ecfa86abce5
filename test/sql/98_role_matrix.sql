-- 98_role_matrix: who may do what, from the catalog: a new function, table or column changes this list, so that somebody looks.
-- What the functions then do with these rights: 008_roles.pl.
SET client_min_messages = warning;
SET search_path = pg_catalog;
SELECT test.begin();
SELECT test.put('x.jsonl', test.event('{}'));
SELECT count(*) > 0 AS ran FROM dwh.run_pipeline();   -- so that there is a partition
CREATE ROLE regress_stranger;
CREATE ROLE regress_reader;
CREATE ROLE regress_operator;
SELECT * FROM dwh.grant_roles('regress_reader', 'regress_operator') WHERE kind <> 'database' AND missing > 0;
-- a repeat grants nothing, in either form
SELECT * FROM dwh.grant_roles('regress_reader', 'regress_operator') WHERE granted + missing > 0;
SELECT * FROM dwh.grant_roles(reader => 'regress_reader') WHERE granted + missing > 0;
SELECT DISTINCT role, part FROM dwh.grant_roles(operator => 'regress_operator');

-- functions: x = may call
SELECT p.oid::regprocedure AS function,
       CASE WHEN has_function_privilege('regress_stranger', p.oid, 'EXECUTE') THEN 'x' ELSE '-' END AS stranger,
       CASE WHEN has_function_privilege('regress_reader', p.oid, 'EXECUTE') THEN 'x' ELSE '-' END AS reader,
       CASE WHEN has_function_privilege('regress_operator', p.oid, 'EXECUTE') THEN 'x' ELSE '-' END AS operator
  FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace ORDER BY p.oid::regprocedure::text COLLATE "C";

-- tables, views and sequences: r select, a insert, w update, d delete, D truncate, x references, t trigger, U usage;
-- in brackets the columns, where it is not all of them
CREATE FUNCTION test.rights(role name, relation oid) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT coalesce(string_agg(p.letter || coalesce('(' || p.columns || ')', ''), '' ORDER BY p.position), '-') FROM (
        SELECT v.position, v.letter,
               CASE WHEN NOT CASE c.relkind WHEN 'S' THEN false ELSE has_table_privilege(role, c.oid, v.privilege) END AND c.relkind <> 'S' THEN
                    (SELECT string_agg(a.attname, ' ' ORDER BY a.attnum) FROM pg_attribute AS a
                      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND has_column_privilege(role, c.oid, a.attnum, v.privilege)) END AS columns
          FROM pg_class AS c
         CROSS JOIN (VALUES (1, 'r', 'SELECT'), (2, 'a', 'INSERT'), (3, 'w', 'UPDATE'), (4, 'x', 'REFERENCES')) AS v (position, letter, privilege)
         WHERE c.oid = relation AND c.relkind <> 'S' AND has_any_column_privilege(role, c.oid, v.privilege)
         UNION ALL
        SELECT v.position, v.letter, NULL FROM pg_class AS c
         CROSS JOIN (VALUES (5, 'd', 'DELETE'), (6, 'D', 'TRUNCATE'), (7, 't', 'TRIGGER')) AS v (position, letter, privilege)
         WHERE c.oid = relation AND c.relkind <> 'S' AND has_table_privilege(role, c.oid, v.privilege)
         UNION ALL
        SELECT v.position, v.letter, NULL FROM pg_class AS c
         CROSS JOIN (VALUES (1, 'r', 'SELECT'), (3, 'w', 'UPDATE'), (8, 'U', 'USAGE')) AS v (position, letter, privilege)
         WHERE c.oid = relation AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(role, c.oid, v.privilege) ELSE false END) AS p $$;
SELECT c.oid::regclass AS relation, test.rights('regress_stranger', c.oid) AS stranger, test.rights('regress_reader', c.oid) AS reader,
       test.rights('regress_operator', c.oid) AS operator
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('raw', 'staging', 'marts', 'ops') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT c.relispartition
 ORDER BY n.nspname, c.relname COLLATE "C";
-- partitions are reached through their tables alone
SELECT c.oid::regclass AS partition_of_its_own FROM pg_class AS c
 WHERE c.relispartition AND c.relkind = 'r' AND (c.relacl IS NOT NULL OR test.rights('regress_operator', c.oid) <> '-' OR test.rights('regress_reader', c.oid) <> '-');
SELECT n.nspname AS schema, r.role, has_schema_privilege(r.role, n.nspname, 'USAGE') AS usage, has_schema_privilege(r.role, n.nspname, 'CREATE') AS create
  FROM pg_namespace AS n CROSS JOIN (VALUES ('regress_stranger'), ('regress_reader'), ('regress_operator')) AS r (role)
 WHERE n.nspname IN ('raw', 'staging', 'marts', 'ops', 'dwh') ORDER BY 1, 2 DESC;
-- every column that a reader does not see, for who adds one
SELECT a.attrelid::regclass AS relation, string_agg(a.attname, ' ' ORDER BY a.attnum) AS closed_to_readers
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
 WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
   AND has_any_column_privilege('regress_reader', c.oid, 'SELECT') AND NOT has_column_privilege('regress_reader', c.oid, a.attnum, 'SELECT')
   AND c.relnamespace::regnamespace::text IN ('raw', 'staging', 'marts', 'ops')
 GROUP BY 1 ORDER BY 1::text COLLATE "C";

-- What is granted is what the nouns name, and nothing of it is left out.
SELECT m.* FROM (VALUES ('reader', 'regress_reader'), ('operator', 'regress_operator')) AS r (part, role)
 CROSS JOIN LATERAL dwh._missing_rights(r.part, r.role) AS m WHERE m.kind <> 'database';
SELECT t.relation AS named_but_missing FROM dwh._table_rights() AS t WHERE to_regclass(t.relation) IS NULL;
SELECT t.relation, c AS named_but_missing FROM dwh._table_rights() AS t CROSS JOIN unnest(t.columns) AS c
 WHERE NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = to_regclass(t.relation) AND a.attname = c AND NOT a.attisdropped);
-- a right that was taken comes back
REVOKE SELECT ON ops.loads FROM regress_reader;
REVOKE EXECUTE ON FUNCTION dwh.stage_events FROM regress_operator;
SELECT * FROM dwh.grant_roles('regress_reader', 'regress_operator') WHERE granted > 0;

-- Partitions as the owner: two tables, months and days, for who may write.
\set VERBOSITY sqlstate
SELECT dwh._make_partition_as_owner('ops.loads', 'month', '2020-01-01Z');
SELECT dwh._make_partition_as_owner('marts.fact_user_events', 'year', '2020-01-01Z');
SELECT dwh._make_partition_as_owner('marts.fact_user_events', 'month', '2020-01-02Z');
SELECT dwh._make_partition_as_owner('marts.fact_user_events', 'day', 'infinity');
GRANT EXECUTE ON FUNCTION dwh._make_partition_as_owner TO regress_reader;
SET ROLE regress_reader;
SELECT dwh._make_partition_as_owner('marts.fact_user_events', 'month', '2020-01-01Z');
SET ROLE regress_operator;
SELECT dwh._make_partition_as_owner('marts.fact_user_events', 'month', '2020-01-01Z');
SELECT current_user, c.relowner::regrole::text <> current_user AS is_the_owners FROM pg_class AS c WHERE c.oid = to_regclass('marts.fact_user_events_2020_01');
-- an error inside gives the owner's rights back as well
SELECT dwh._make_partition_as_owner('marts.fact_user_events', 'month', '2020-01-01Z');
DO $$
BEGIN
    PERFORM dwh._make_partition_as_owner('marts.fact_user_events', 'month', '2020-01-01Z');
EXCEPTION WHEN duplicate_table THEN
    IF current_user <> 'regress_operator' THEN
        RAISE EXCEPTION 'still %', current_user;
    END IF;
END $$;
SELECT current_user;
DROP TABLE marts.fact_user_events_2020_01;
CREATE TABLE marts.mine ();
SELECT dwh.grant_roles('regress_reader');
RESET ROLE;
SELECT dwh.grant_roles();
SELECT dwh.grant_roles('regress_nobody');
SELECT dwh.grant_roles(operator => 'public');
\set VERBOSITY terse

DROP FUNCTION test.rights;
DROP OWNED BY regress_reader, regress_operator, regress_stranger;
SELECT count(*) AS rights_left FROM dwh._missing_rights('reader', 'regress_reader') AS m WHERE m.kind = 'table';
DROP ROLE regress_reader, regress_operator, regress_stranger;
