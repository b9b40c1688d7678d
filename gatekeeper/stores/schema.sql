-- The whole database as it should stand, for SQLite and Postgres alike. Building it from migrations/ gives the same.
-- Ids are TEXT made by us. Money is nano-dollars, units are millionths, times are epoch milliseconds: all BIGINT.

CREATE TABLE customer (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    anchor_ms BIGINT NOT NULL,
    email TEXT,
    disabled_ms BIGINT,
    stripe_customer_id TEXT
);

-- routes and models are JSON lists; NULL allows all.
CREATE TABLE api_key (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    customer_id TEXT NOT NULL REFERENCES customer (id),
    name TEXT NOT NULL,
    shown TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    revoked_ms BIGINT,
    last_used_ms BIGINT,
    routes TEXT,
    models TEXT,
    user_id TEXT,
    agent_id TEXT,
    may_assert BIGINT NOT NULL DEFAULT 0 CHECK (may_assert IN (0, 1))
);
CREATE INDEX api_key_by_customer ON api_key (customer_id, id);

-- A stock counter. A new window is a new row; nothing is ever set back to 0.
CREATE TABLE counter (
    scope TEXT NOT NULL,
    subject TEXT NOT NULL,
    dimension TEXT NOT NULL,
    span TEXT NOT NULL,
    start_ms BIGINT NOT NULL,
    used BIGINT NOT NULL DEFAULT 0 CHECK (used >= 0),
    held BIGINT NOT NULL DEFAULT 0 CHECK (held >= 0),
    PRIMARY KEY (scope, subject, dimension, span, start_ms)
);

-- A rate limit's leaky bucket: spent at the instant at_ms.
CREATE TABLE bucket (
    scope TEXT NOT NULL,
    subject TEXT NOT NULL,
    dimension TEXT NOT NULL,
    per_ms BIGINT NOT NULL CHECK (per_ms > 0),
    spent BIGINT NOT NULL DEFAULT 0 CHECK (spent >= 0),
    at_ms BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, subject, dimension, per_ms)
);

-- The calls in flight: whoever extends or ends one locks it here first, and its end deletes the row. One that the sweeper
-- closed stays for 35 days ('recovered'), so that the true settle, should it come late, knows what was counted.
-- lines is JSON, in the order of the lines: {"stock": [[scope, subject, dimension, span, start_ms, limit, cap, mode, fixed,
-- per_output, ends_ms], ...], "rates": [[scope, subject, dimension, per_ms, limit, cap, amount], ...]}.
-- A counter holds the largest fixed + per_output * output_tokens of the call's lines on it.
CREATE TABLE hold (
    call_id TEXT PRIMARY KEY,
    admitted_month TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    key_id TEXT,
    user_id TEXT,
    agent_id TEXT,
    plan_id TEXT NOT NULL,
    route TEXT NOT NULL,
    upstream TEXT NOT NULL,
    model TEXT,
    owner TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'recovered')),
    started_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL CHECK (output_tokens >= 0),
    progress_units_micro BIGINT NOT NULL DEFAULT 0 CHECK (progress_units_micro >= 0),
    output_seen BIGINT NOT NULL DEFAULT 0 CHECK (output_seen IN (0, 1)),
    lines TEXT NOT NULL
);
CREATE INDEX hold_by_expiry ON hold (state, expires_ms);

-- What is known of one call when it is over. Append only. The primary key is the guard of settle: a call counts once.
-- A true settle that comes after a recovery appends the difference as call_id || '#correction', with corrects = call_id.
-- usage, meters, evidence and lines are JSON. day is the UTC day of started_ms, YYYY-MM-DD. lines is what the call took of
-- each counter: [[scope, subject, dimension, span, start_ms, limit, taken, used], ...], where used is how the counter stood
-- afterwards; a correction has the differences. model_requested is the model that the caller asked for, where another served.
CREATE TABLE usage_record (
    call_id TEXT NOT NULL,
    admitted_month TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    key_id TEXT,
    user_id TEXT,
    agent_id TEXT,
    plan_id TEXT NOT NULL,
    route TEXT NOT NULL,
    upstream TEXT NOT NULL,
    model TEXT,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    status BIGINT,
    outcome TEXT NOT NULL,
    streamed BIGINT NOT NULL CHECK (streamed IN (0, 1)),
    started_ms BIGINT NOT NULL,
    ended_ms BIGINT NOT NULL,
    first_byte_ms BIGINT,
    units_micro BIGINT NOT NULL,
    source TEXT NOT NULL,
    note TEXT,
    charge_nano BIGINT NOT NULL,
    cost_nano BIGINT,
    usage TEXT,
    meters TEXT NOT NULL,
    evidence TEXT NOT NULL,
    meter_hash TEXT NOT NULL,
    request_bytes BIGINT NOT NULL CHECK (request_bytes >= 0),
    response_bytes BIGINT NOT NULL CHECK (response_bytes >= 0),
    response_id TEXT,
    overrun_micro BIGINT NOT NULL CHECK (overrun_micro >= 0),
    day TEXT NOT NULL,
    corrects TEXT,
    lines TEXT NOT NULL,
    model_requested TEXT,
    PRIMARY KEY (call_id, admitted_month),
    CHECK (corrects IS NOT NULL OR (units_micro >= 0 AND charge_nano >= 0))
);
CREATE INDEX usage_by_customer ON usage_record (customer_id, started_ms);
CREATE INDEX usage_by_key ON usage_record (key_id, started_ms);
CREATE INDEX usage_by_start ON usage_record (started_ms);

-- What the biller is still to be told, of plans that are billed: written with the record, frozen into a batch later.
CREATE TABLE owed (
    call_id TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    period_start_ms BIGINT NOT NULL,
    started_ms BIGINT NOT NULL,
    settled_ms BIGINT NOT NULL,
    units_micro BIGINT NOT NULL,
    charge_nano BIGINT NOT NULL,
    batch_id TEXT
);
CREATE INDEX owed_unbatched ON owed (call_id) WHERE batch_id IS NULL;

-- Responses that were billed, by the provider's id: whoever fetches one again is not billed twice.
CREATE TABLE billed_response (
    customer_id TEXT NOT NULL,
    upstream TEXT NOT NULL,
    response_id TEXT NOT NULL,
    call_id TEXT NOT NULL,
    started_ms BIGINT NOT NULL,
    PRIMARY KEY (customer_id, upstream, response_id)
);
CREATE INDEX billed_response_by_start ON billed_response (started_ms);

-- Limits as an operator set them: each beats what is declared for the same scope, subject, dimension and span. cap NULL is
-- unlimited; span is a window ('day') or, for rates, the milliseconds ('60000'). version counts the changes of a row.
CREATE TABLE limit_overlay (
    id TEXT PRIMARY KEY,
    family TEXT NOT NULL CHECK (family IN ('stock', 'rate')),
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    subject TEXT NOT NULL,
    dimension TEXT NOT NULL,
    span TEXT NOT NULL,
    cap BIGINT CHECK (cap >= 0),
    mode TEXT NOT NULL,
    zone TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1,
    UNIQUE (family, scope, subject, dimension, span)
);

-- From reset_ms on a limit counts on a row of its own; what was used before stays on record.
CREATE TABLE limit_reset (
    scope TEXT NOT NULL,
    subject TEXT NOT NULL,
    dimension TEXT NOT NULL,
    span TEXT NOT NULL,
    reset_ms BIGINT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (scope, subject, dimension, span, reset_ms)
);

-- What somebody is to be told. The id is made of what happened, so that it is told once. content is JSON. fanned_ms is
-- when it was given to those who asked for it.
CREATE TABLE event (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    customer_id TEXT,
    created_ms BIGINT NOT NULL,
    content TEXT NOT NULL,
    fanned_ms BIGINT
);
CREATE INDEX event_unfanned ON event (created_ms, id) WHERE fanned_ms IS NULL;

-- One event on its way to one target, sent again until it was taken or given up.
CREATE TABLE delivery (
    event_id TEXT NOT NULL,
    target TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'dead')),
    attempts BIGINT NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_ms BIGINT NOT NULL,
    sent_ms BIGINT,
    error TEXT,
    PRIMARY KEY (event_id, target)
);
CREATE INDEX delivery_waiting ON delivery (next_ms, event_id) WHERE state = 'waiting';

-- The tries of a call that did not serve it: the customer pays the one that did.
CREATE TABLE attempt (
    call_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    upstream TEXT NOT NULL,
    model TEXT,
    started_ms BIGINT NOT NULL,
    ended_ms BIGINT NOT NULL,
    status BIGINT,
    fault TEXT,
    PRIMARY KEY (call_id, number)
);

-- Stable for readers outside: one row a key and UTC day. tokens are whole units.
CREATE VIEW api_key_usage AS
SELECT key_id AS api_key_id,
    day AS date,
    CAST(SUM(units_micro) AS BIGINT) / 1000000 AS tokens,
    COUNT(*) - COUNT(corrects) AS requests
FROM usage_record
WHERE key_id IS NOT NULL
GROUP BY key_id, day;
