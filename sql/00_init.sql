-- 00_init.sql: the schema of the extension, run once.
--
-- Only schema dwh and the code in it belong to the extension. Tables are made by dwh.create_warehouse() and belong to
-- its caller, so that pg_dump carries their rows and DROP EXTENSION leaves them.

\echo Use "CREATE EXTENSION dwh_ext" to load this file. \quit

-- Bodies name tables that do not exist yet.
SET LOCAL check_function_bodies = off;

-- Fails where somebody else made the schema before: its functions would be called instead of ours.
CREATE SCHEMA dwh;
GRANT USAGE ON SCHEMA dwh TO PUBLIC;
COMMENT ON SCHEMA dwh IS 'dwh_ext: functions and types of the user-behaviour warehouse. Holds no data.';
