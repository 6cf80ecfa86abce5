-- The seed's tables: the user's design in plain SQL, with the keys and checks that it would have in earnest.
CREATE SCHEMA seed;
CREATE TABLE seed.raw_user_events (
    raw_id bigserial PRIMARY KEY, batch_id bigint NOT NULL, payload jsonb NOT NULL);
CREATE INDEX ON seed.raw_user_events (batch_id);
CREATE TABLE seed.staging_user_events (
    event_id uuid PRIMARY KEY, event_time timestamptz NOT NULL, event_type text NOT NULL CHECK (event_type <> ''),
    user_id text NOT NULL CHECK (user_id <> ''), session_id text, product_id text, device text, country text, category text, brand text,
    price numeric CHECK (price >= 0), revenue numeric CHECK (revenue >= 0), quantity integer CHECK (quantity >= 0), batch_id bigint NOT NULL);
CREATE INDEX ON seed.staging_user_events (batch_id);
CREATE TABLE seed.dim_user (
    user_key bigserial PRIMARY KEY, user_id text NOT NULL, device text, country text,
    valid_from timestamptz NOT NULL, valid_to timestamptz, is_current boolean NOT NULL);
CREATE INDEX ON seed.dim_user (user_id, valid_from);
CREATE TABLE seed.dim_product (
    product_key bigserial PRIMARY KEY, product_id text NOT NULL UNIQUE, category text, brand text, price numeric);
CREATE TABLE seed.fact_user_events (
    event_id uuid PRIMARY KEY, event_time timestamptz NOT NULL, event_type text NOT NULL, session_id text, user_key bigint NOT NULL,
    product_key bigint, quantity integer, price numeric, revenue numeric);
