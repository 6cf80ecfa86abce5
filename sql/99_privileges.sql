-- 99_privileges.sql: nothing private, and nothing that writes or reads files, may be called by everybody.

DO $$
DECLARE
    private regprocedure;
BEGIN
    FOR private IN
        SELECT p.oid::pg_catalog.regprocedure FROM pg_catalog.pg_proc AS p
         WHERE p.pronamespace = 'dwh'::pg_catalog.regnamespace AND pg_catalog.starts_with(p.proname::pg_catalog.text, '_')
    LOOP
        EXECUTE pg_catalog.format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', private);
    END LOOP;
END
$$;
