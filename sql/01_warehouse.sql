-- 01_warehouse.sql: create_warehouse(), the whole model.
--
-- Repeats are harmless: everything is made only where it is missing.
-- Left out on purpose, with the quality check that stands in: foreign keys from facts to dimensions (they double the
-- cost of the fact step: check "referential"), from raw, staging, rejects and facts to ops.loads ("conservation"), an
-- exclusion constraint on the versions of a user ("version_intervals"), and a unique index over all partitions, which
-- PostgreSQL cannot make without the partition key (each has one; across them staging asks the filter, which "duplicate_event_id" checks).

CREATE FUNCTION dwh._set_aside_staging() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = to_regclass('staging.user_events') AND c.relkind = 'r') THEN
        RETURN false;
    END IF;
    ALTER TABLE staging.user_events RENAME TO user_events_model_2;
    ALTER INDEX IF EXISTS staging.user_events_load_id RENAME TO user_events_model_2_load_id;
    ALTER INDEX IF EXISTS staging.user_events_user_id RENAME TO user_events_model_2_user_id;
    RETURN true;
END
$$;
COMMENT ON FUNCTION dwh._set_aside_staging() IS 'Renames staging.user_events where it is a table of data model 2; true if it was.';

CREATE FUNCTION dwh._take_up_staging() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
BEGIN
    PERFORM dwh._make_partitions('staging.user_events', ARRAY(
        SELECT DISTINCT date_trunc('day', s.event_time) FROM staging.user_events_model_2 AS s));
    INSERT INTO staging.user_events (event_id, event_time, event_type, user_id, session_id, product_id, device, country, category,
           brand, price, revenue, quantity, attributes, load_id, line_no, flags)
    SELECT s.event_id, s.event_time, s.event_type, s.user_id, s.session_id, s.product_id, s.device, s.country, s.category,
           s.brand, s.price, s.revenue, s.quantity, s.attributes, s.load_id, s.line_no, s.flags
      FROM staging.user_events_model_2 AS s ORDER BY s.event_id;
    UPDATE ops.loads AS l SET first_event = b.first_event, last_event = b.last_event
      FROM (SELECT s.load_id, min(s.event_time) AS first_event, max(s.event_time) AS last_event
              FROM staging.user_events_model_2 AS s GROUP BY s.load_id) AS b
     WHERE l.load_id = b.load_id;
    PERFORM dwh._fill_event_filter(NULL);
    IF EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = 'staging.user_events_model_2'::regclass AND a.attnum > 17 AND NOT a.attisdropped)
       OR (SELECT count(*) > 3 FROM pg_index AS i WHERE i.indrelid = 'staging.user_events_model_2'::regclass)
       OR (SELECT c.relhastriggers OR c.relacl IS NOT NULL FROM pg_class AS c WHERE c.oid = 'staging.user_events_model_2'::regclass)
       OR EXISTS (SELECT FROM pg_depend AS d WHERE d.refobjid = 'staging.user_events_model_2'::regclass AND d.classid = 'pg_rewrite'::regclass) THEN
        RAISE WARNING 'the former table of staged events is kept as staging.user_events_model_2'
            USING DETAIL = 'It has columns, indexes, triggers or rights of yours, or a view reads it. Its events are in staging.user_events as well.',
                  HINT = 'Add what you need to staging.user_events, then DROP TABLE staging.user_events_model_2: forget_user() and drop_before() do not reach it.';
    ELSE
        DROP TABLE staging.user_events_model_2;
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._take_up_staging() IS
'Moves the events of data model 2 into the partitions of staging.user_events. A WARNING where the table stays, as something of the user''s hangs on it.';

CREATE FUNCTION dwh._create_layers() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    CREATE TABLE IF NOT EXISTS raw.user_events (
        load_id bigint NOT NULL,
        line_no bigint NOT NULL,
        byte_offset bigint NOT NULL,
        loaded_at timestamptz NOT NULL,
        payload jsonb NOT NULL,
        PRIMARY KEY (load_id, line_no));
    ALTER TABLE raw.user_events ADD COLUMN IF NOT EXISTS altered boolean;
    -- several times as fast as pglz, which no cancel interrupts: a long line would keep one waiting
    IF (SELECT 'lz4' = ANY (s.enumvals) FROM pg_settings AS s WHERE s.name = 'default_toast_compression') THEN
        ALTER TABLE raw.user_events ALTER COLUMN payload SET COMPRESSION lz4;
    END IF;
    COMMENT ON TABLE raw.user_events IS 'Every accepted line as it came, with where it stood. Holds personal data.';
    PERFORM dwh._comment_columns('raw.user_events', ARRAY[
        ['load_id', 'ops.loads'],
        ['line_no', 'Number of the line in the whole content, from 1.'],
        ['byte_offset', 'Of the line''s first byte in the whole decompressed content, from 0.'],
        ['loaded_at', 'The clock that the line is judged by: the load''s own time, or that of the retry_rejects() that accepted it.'],
        ['payload', 'The object, equal to what ::jsonb makes of the line.'],
        ['altered', 'True where \u0000 was replaced by U+FFFD, as dwh.nul_escapes asked; else NULL.']]);

    CREATE TABLE IF NOT EXISTS staging.user_events (
        event_id uuid NOT NULL,
        event_time timestamptz NOT NULL,
        event_type text COLLATE "C" NOT NULL,
        user_id text COLLATE "C" NOT NULL,
        session_id text COLLATE "C",
        product_id text COLLATE "C",
        device text COLLATE "C",
        country text COLLATE "C",
        category text COLLATE "C",
        brand text COLLATE "C",
        price numeric,
        revenue numeric,
        quantity integer CHECK (quantity >= 0),
        attributes jsonb,
        load_id bigint NOT NULL,
        line_no bigint NOT NULL,
        flags text[]) PARTITION BY RANGE (event_time);
    CREATE INDEX IF NOT EXISTS user_events_load_id ON staging.user_events (load_id);
    CREATE INDEX IF NOT EXISTS user_events_user_id ON staging.user_events (user_id, event_time);
    CREATE INDEX IF NOT EXISTS user_events_price ON staging.user_events (product_id, event_time)
        WHERE product_id IS NOT NULL AND price IS NOT NULL;
    COMMENT ON TABLE staging.user_events IS
        'Typed events, each event_id once. Range-partitioned by event_time (UTC) as the facts are. These are the observations that marts.dim_user is a function of.';
    PERFORM dwh._comment_columns('staging.user_events', ARRAY[
        ['event_id', 'Identity: dwh.event_id(payload).'],
        ['event_time', 'When it happened.'],
        ['event_type', 'page_view, add_to_cart, purchase, or any other.'],
        ['user_id', 'Who.'],
        ['session_id', 'The client''s session.'],
        ['product_id', 'NULL = no product.'],
        ['device', 'NULL = no information.'],
        ['country', 'NULL = no information.'],
        ['category', 'Of the product.'],
        ['brand', 'Of the product.'],
        ['price', 'A piece, as sent.'],
        ['revenue', 'As sent; of a purchase without it price times quantity, flagged revenue_computed.'],
        ['quantity', 'Pieces.'],
        ['attributes', 'What the payload holds beyond the model; NULL = nothing.'],
        ['load_id', 'ops.loads'],
        ['line_no', 'Line in raw.user_events.'],
        ['flags', 'negative_price, negative_revenue, revenue_mismatch (not price times quantity), revenue_computed, revenue_outside_purchase; NULL = none.']]);

    CREATE TABLE IF NOT EXISTS marts.dim_user (
        user_key bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
        user_id text COLLATE "C" NOT NULL,
        device text COLLATE "C",
        country text COLLATE "C",
        valid_from timestamptz NOT NULL,
        valid_to timestamptz,
        is_current boolean NOT NULL,
        UNIQUE (user_id, valid_from),
        CHECK (valid_from < valid_to),
        CHECK (is_current = (valid_to IS NULL)));
    CREATE UNIQUE INDEX IF NOT EXISTS dim_user_current ON marts.dim_user (user_id) WHERE is_current;
    COMMENT ON TABLE marts.dim_user IS
        'SCD2: the versions of each user, half-open intervals [valid_from, valid_to) without gap or overlap. A function of all observations, whatever order they arrived in.';
    PERFORM dwh._comment_columns('marts.dim_user', ARRAY[
        ['user_key', 'Surrogate key of the version, minted once.'],
        ['user_id', 'Natural key.'],
        ['device', 'Last known at that time; NULL = never known before.'],
        ['country', 'Last known at that time; NULL = never known before.'],
        ['valid_from', 'Included. The first version starts at the user''s first event.'],
        ['valid_to', 'Excluded; NULL = open.'],
        ['is_current', 'True for the open version, one a user.']]);

    CREATE TABLE IF NOT EXISTS marts.dim_product (
        product_key bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
        product_id text COLLATE "C" NOT NULL UNIQUE,
        category text COLLATE "C",
        brand text COLLATE "C",
        price numeric,
        is_inferred boolean NOT NULL,
        category_time timestamptz,
        category_event_id uuid,
        brand_time timestamptz,
        brand_event_id uuid,
        price_time timestamptz,
        price_event_id uuid);
    INSERT INTO marts.dim_product (product_key, product_id, is_inferred) VALUES (0, '', false) ON CONFLICT DO NOTHING;
    COMMENT ON TABLE marts.dim_product IS
        'One row a product: each attribute is the newest one known, by event time. Key 0 is the member for events without a product.';
    PERFORM dwh._comment_columns('marts.dim_product', ARRAY[
        ['product_key', 'Surrogate key; 0 = no product.'],
        ['product_id', 'Natural key; empty for key 0.'],
        ['category', 'Newest known.'],
        ['brand', 'Newest known.'],
        ['price', 'Newest known; facts keep the price of their own time.'],
        ['is_inferred', 'Known by its id alone so far; completed in place, under the same key.'],
        ['category_time', 'event_time of the event that says so.'],
        ['category_event_id', 'Its event_id, which breaks ties.'],
        ['brand_time', 'The same for brand.'],
        ['brand_event_id', 'The same for brand.'],
        ['price_time', 'The same for price.'],
        ['price_event_id', 'The same for price.']]);

    CREATE TABLE IF NOT EXISTS marts.dim_product_price (
        product_key bigint NOT NULL,
        price numeric NOT NULL,
        valid_from timestamptz NOT NULL,
        valid_to timestamptz,
        is_current boolean NOT NULL,
        PRIMARY KEY (product_key, valid_from),
        CHECK (valid_from < valid_to),
        CHECK (is_current = (valid_to IS NULL)));
    COMMENT ON TABLE marts.dim_product_price IS
        'The prices of each product: half-open intervals [valid_from, valid_to) without gap or overlap from the first price on. A function of all observations, whatever order they arrived in.';
    PERFORM dwh._comment_columns('marts.dim_product_price', ARRAY[
        ['product_key', 'marts.dim_product'],
        ['price', 'A piece, as last sent at that time.'],
        ['valid_from', 'Included: an event that said this price when the one before, if any, was another.'],
        ['valid_to', 'Excluded; NULL = open.'],
        ['is_current', 'True for the open interval, one a product that has a price.']]);

    CREATE TABLE IF NOT EXISTS marts.fact_user_events (
        event_id uuid NOT NULL,
        event_time timestamptz NOT NULL,
        event_type text COLLATE "C" NOT NULL,
        session_id text COLLATE "C",
        user_key bigint NOT NULL,
        product_key bigint NOT NULL,
        quantity integer,
        price numeric,
        revenue numeric,
        attributes jsonb,
        load_id bigint NOT NULL,
        line_no bigint NOT NULL) PARTITION BY RANGE (event_time);
    CREATE INDEX IF NOT EXISTS fact_user_events_load_id ON marts.fact_user_events (load_id);
    COMMENT ON TABLE marts.fact_user_events IS
        'One row an event. Range-partitioned by event_time (UTC), partitions made on demand; event_id is unique over the whole table.';
    PERFORM dwh._comment_columns('marts.fact_user_events', ARRAY[
        ['event_id', 'Identity, unique.'],
        ['event_time', 'When it happened.'],
        ['event_type', 'page_view, add_to_cart, purchase, or any other.'],
        ['session_id', 'The client''s session.'],
        ['user_key', 'marts.dim_user: the version valid at event_time.'],
        ['product_key', 'marts.dim_product; 0 = no product.'],
        ['quantity', 'Pieces.'],
        ['price', 'A piece, at that time.'],
        ['revenue', 'As staged.'],
        ['attributes', 'What the payload holds beyond the model.'],
        ['load_id', 'ops.loads'],
        ['line_no', 'Line in the load''s content.']]);
END
$$;
COMMENT ON FUNCTION dwh._create_layers() IS 'Makes the tables that are missing in raw, staging and marts.';

CREATE FUNCTION dwh._claim_schemas() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted text;
    foreign_owner text;
    foreign_object text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['raw', 'staging', 'marts', 'ops'] LOOP
        SELECT n.nspowner::regrole::text INTO foreign_owner
          FROM pg_namespace AS n WHERE n.nspname = wanted AND n.nspowner <> current_user::regrole;
        IF FOUND THEN
            RAISE EXCEPTION 'schema "%" exists and belongs to another role', wanted
                USING ERRCODE = 'insufficient_privilege',
                      DETAIL = format('Its owner is %s, the warehouse''s owner would be %I.', foreign_owner, current_user),
                      HINT = 'Call create_warehouse() as that role, or rename the schema.';
        END IF;
        IF to_regnamespace(wanted) IS NULL THEN
            EXECUTE format('CREATE SCHEMA %I', wanted);
        END IF;
        SELECT format('%I.%I', wanted, c.relname), c.relowner::regrole
          INTO foreign_object, foreign_owner
          FROM pg_class AS c
         WHERE c.relnamespace = to_regnamespace(wanted) AND c.relowner <> current_user::regrole
           AND c.relkind NOT IN ('i', 'I', 't') LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'schema "%" holds objects of another role', wanted
                USING ERRCODE = 'insufficient_privilege',
                      DETAIL = format('%s belongs to %s, the warehouse''s owner would be %I.', foreign_object, foreign_owner, current_user),
                      HINT = 'Move the object to another schema, or change its owner.';
        END IF;
    END LOOP;
    COMMENT ON SCHEMA raw IS 'dwh_ext: events as they came.';
    COMMENT ON SCHEMA staging IS 'dwh_ext: typed events, each once.';
    COMMENT ON SCHEMA marts IS 'dwh_ext: dimensions, facts and KPI views.';
    COMMENT ON SCHEMA ops IS 'dwh_ext: ledgers of loads, rejects, runs, checks and alerts.';
END
$$;
COMMENT ON FUNCTION dwh._claim_schemas() IS
'Makes the schemas of the warehouse that are missing. 42501 where one exists that is not the caller''s, or holds what is not.';

CREATE FUNCTION dwh.create_warehouse(OUT status text, OUT model_version integer)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    is_model_2 boolean;
BEGIN
    IF getdatabaseencoding() <> 'UTF8' THEN
        RAISE EXCEPTION 'a warehouse needs a database in UTF8'
            USING ERRCODE = 'feature_not_supported',
                  DETAIL = format('This database is in %s, which cannot hold every JSON text.', getdatabaseencoding()),
                  HINT = 'CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0, and create the extension there.';
    END IF;
    PERFORM pg_advisory_xact_lock(7239369275230650370);   -- two callers at once
    status := CASE WHEN EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                                 WHERE n.nspname = 'ops' AND c.relname = 'warehouse') THEN 'already_there' ELSE 'created' END;
    PERFORM dwh._claim_schemas();
    PERFORM dwh._create_load_ledgers();
    PERFORM dwh._create_run_ledgers();
    PERFORM dwh._index_loads();
    is_model_2 := dwh._set_aside_staging();
    PERFORM dwh._create_layers();
    IF is_model_2 THEN
        PERFORM dwh._take_up_staging();
    END IF;
    PERFORM dwh._fill_prices();
    PERFORM dwh._create_kpis();
    PERFORM dwh._add_quality_checks();
    INSERT INTO ops.warehouse AS w (model_version) VALUES (dwh._model_version())
        ON CONFLICT (only_row) DO UPDATE SET model_version = excluded.model_version
        WHERE w.model_version < excluded.model_version;
    SELECT w.model_version INTO create_warehouse.model_version FROM ops.warehouse AS w;
    PERFORM dwh._require_warehouse();
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.create_warehouse() FROM PUBLIC;
COMMENT ON FUNCTION dwh.create_warehouse() IS
'Makes the warehouse: schemas raw, staging, marts and ops with their tables and views, owned by the caller, and adds what is missing after an upgrade. Returns status (created, already_there) and the data model''s version. Errors: 0A000 where the database is not UTF8, 42501 where a schema belongs to somebody else, WH004 where the tables are of a later model. A repeat changes nothing.';
