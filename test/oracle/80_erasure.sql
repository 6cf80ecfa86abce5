-- What the trials of 80_erasure.py need: an empty warehouse, what a warehouse means, and a search of all of it.
CREATE TABLE public.meaning (trial int, is_erased boolean, part text, meaning text);
CREATE TABLE public.trouble (trial int, what text);

CREATE FUNCTION public.begin() RETURNS void LANGUAGE plpgsql SET client_min_messages = error AS $$
BEGIN
    DROP SCHEMA IF EXISTS raw, staging, marts, ops CASCADE;
    PERFORM dwh.create_warehouse();
END $$;

CREATE FUNCTION public.keep(trial int, is_erased boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.meaning
    SELECT trial, is_erased, m.* FROM (
        SELECT 'user', ROW(user_id, device, country, valid_from, valid_to, is_current)::text FROM marts.dim_user
        UNION ALL
        SELECT 'product', ROW(product_id, category, brand, price, is_inferred, category_time, category_event_id, brand_time, brand_event_id, price_time, price_event_id)::text FROM marts.dim_product
        UNION ALL
        SELECT 'price', ROW(p.product_id, c.price, c.valid_from, c.valid_to, c.is_current)::text FROM marts.dim_product_price AS c JOIN marts.dim_product AS p USING (product_key)
        UNION ALL
        SELECT 'fact', ROW(f.event_id, f.event_time, f.event_type, f.session_id, f.quantity, f.price, f.revenue, f.attributes, u.user_id, u.valid_from, p.product_id)::text
          FROM marts.fact_user_events AS f LEFT JOIN marts.dim_user AS u USING (user_key) LEFT JOIN marts.dim_product AS p USING (product_key)
        UNION ALL
        SELECT 'staging', ROW(event_id, event_time, user_id, device, country, product_id, category, brand, price, attributes)::text FROM staging.user_events
        UNION ALL
        SELECT 'conflict', ROW(payload)::text FROM ops.event_conflicts JOIN ops.loads USING (load_id) WHERE NOT forced
        UNION ALL
        SELECT 'ledger', ROW(sum(loaded - forgotten), sum(staged), sum(replayed), sum(conflicting), sum(stage_rejected), sum(facts))::text FROM ops.loads WHERE NOT forced) AS m;
    INSERT INTO public.trouble SELECT trial, 'check ' || c.name FROM dwh.run_quality_checks("full" => true) AS c WHERE c.status = 'fail' AND c.severity = 'error';
    INSERT INTO public.trouble SELECT trial, 'load ' || l.load_id || ' is not through' FROM ops.loads AS l WHERE l.checked_at IS NULL;
END $$;

-- Every table, as the catalog has it, for the word: quotes aside, which texts escape.
CREATE FUNCTION public.search(trial int, word text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    t record;
    found bigint;
BEGIN
    FOR t IN SELECT c.oid::regclass AS name FROM pg_class AS c
              WHERE c.relnamespace::regnamespace::text IN ('raw', 'staging', 'marts', 'ops') AND c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition LOOP
        EXECUTE format($q$SELECT count(*) FROM %s AS r WHERE translate(r::text, '"\', '') ~ $1 %s$q$, t.name, CASE t.name::text WHEN 'ops.rejects'
            THEN $q$ OR translate(convert_from(r.raw, 'UTF8'), '"\', '') ~ $1 OR r.raw <> '' AND r.stage = 'load' AND $2 = ANY (ARRAY(SELECT dwh._words(r.raw)))$q$ ELSE $q$ AND $2 <> ''$q$ END)
           INTO found USING '\m' || translate(word, '"', '') || '\M', word;
        IF found > 0 THEN
            INSERT INTO public.trouble VALUES (trial, format('%s rows of %s name %s', found, t.name, word));
        END IF;
    END LOOP;
END $$;
