-- The whole database as it should stand, for SQLite and Postgres alike. Building it from migrations/ gives the same.
-- Postgres takes what follows "-- postgres: " too.
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

-- Who used most of a limit in its present window.
CREATE INDEX counter_by_start ON counter (scope, dimension, span, start_ms);

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
) -- postgres: PARTITION BY LIST (admitted_month)
;
-- postgres: CREATE TABLE usage_record_other PARTITION OF usage_record DEFAULT;
CREATE INDEX usage_by_customer ON usage_record (customer_id, started_ms);
CREATE INDEX usage_by_key ON usage_record (key_id, started_ms);
-- Holds all that sums are made of: a report over a million records reads this and none of them.
CREATE INDEX usage_by_start ON usage_record (started_ms, customer_id, user_id, agent_id, key_id, plan_id, route, model, day,
    units_micro, charge_nano, cost_nano, corrects);

-- Makes the partition of a month (YYYY-MM), with what usage_record_other has of it; 1 when there was none.
-- postgres: CREATE FUNCTION make_usage_month(month TEXT) RETURNS BIGINT LANGUAGE plpgsql AS $$
-- postgres: DECLARE
-- postgres:     part TEXT := 'usage_record_' || replace(month, '-', '_');
-- postgres: BEGIN
-- postgres:     IF month !~ '^[0-9]{4}-[0-9]{2}$' OR to_regclass(part) IS NOT NULL THEN
-- postgres:         RETURN 0;
-- postgres:     END IF;
-- postgres:     PERFORM pg_advisory_xact_lock(7316202602);
-- postgres:     IF to_regclass(part) IS NOT NULL THEN
-- postgres:         RETURN 0;
-- postgres:     END IF;
-- postgres:     PERFORM set_config('lock_timeout', '1s', TRUE);
-- postgres:     LOCK TABLE usage_record_other IN ACCESS EXCLUSIVE MODE;
-- postgres:     EXECUTE format('CREATE TABLE %I (LIKE usage_record INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part);
-- postgres:     EXECUTE format(
-- postgres:         'WITH moved AS (DELETE FROM usage_record_other WHERE admitted_month = %L RETURNING *) '
-- postgres:         'INSERT INTO %I SELECT * FROM moved', month, part
-- postgres:     );
-- postgres:     EXECUTE format('ALTER TABLE usage_record ATTACH PARTITION %I FOR VALUES IN (%L)', part, month);
-- postgres:     RETURN 1;
-- postgres: END $$;

-- What the biller is still to be told, of plans that are billed: written with the record, frozen into a batch later.
-- batch_id '-': of a plan that is billed without a meter. period_end_ms is NULL on rows from before it was noted.
CREATE TABLE owed (
    call_id TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    period_start_ms BIGINT NOT NULL,
    started_ms BIGINT NOT NULL,
    settled_ms BIGINT NOT NULL,
    units_micro BIGINT NOT NULL,
    charge_nano BIGINT NOT NULL,
    batch_id TEXT,
    period_end_ms BIGINT
);
-- Who owes, for whoever freezes; and the rows of a batch.
CREATE INDEX owed_unbatched ON owed (customer_id, settled_ms) WHERE batch_id IS NULL;
CREATE INDEX owed_by_batch ON owed (batch_id) WHERE batch_id IS NOT NULL;

-- A customer on a meter: what is less than a unit and goes into the next batch, and the lease under which one batch at a
-- time is sent.
CREATE TABLE meter_account (
    customer_id TEXT NOT NULL,
    meter TEXT NOT NULL,
    residue_micro BIGINT NOT NULL DEFAULT 0,
    lease_ms BIGINT NOT NULL DEFAULT 0,
    leased_for TEXT,
    PRIMARY KEY (customer_id, meter)
);

-- Usage as it is reported. Value, period, ts_ms and the rows in it are fixed when it is made; carried_micro + its rows =
-- value in millionths + left_micro. first_sent_ms is when it was first sent without a clear no since. identifier only
-- changes when the biller has said that it did not count what it had accepted.
CREATE TABLE meter_batch (
    id TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL,
    meter TEXT NOT NULL,
    period_start_ms BIGINT NOT NULL,
    period_end_ms BIGINT NOT NULL,
    value BIGINT NOT NULL CHECK (value >= 0),
    ts_ms BIGINT NOT NULL,
    identifier TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'dead', 'empty')),
    late BIGINT NOT NULL CHECK (late IN (0, 1)),
    carried_micro BIGINT NOT NULL,
    left_micro BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    next_ms BIGINT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    reopened BIGINT NOT NULL DEFAULT 0,
    first_sent_ms BIGINT,
    sent_ms BIGINT,
    error TEXT
);
CREATE INDEX meter_batch_waiting ON meter_batch (next_ms) WHERE state = 'waiting';
CREATE INDEX meter_batch_due ON meter_batch (customer_id, meter, next_ms) WHERE state = 'waiting';
CREATE INDEX meter_batch_of_account ON meter_batch (customer_id, meter, ts_ms);
CREATE INDEX meter_batch_by_time ON meter_batch (created_ms, id);
CREATE INDEX meter_batch_dead ON meter_batch (created_ms) WHERE state = 'dead';

-- Which process does what only one has to do.
CREATE TABLE elected (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    lease_ms BIGINT NOT NULL
);

-- Whose account at the biller one is. Nobody shares his: link_account sees to that.
CREATE INDEX customer_by_account ON customer (stripe_customer_id) WHERE stripe_customer_id IS NOT NULL;

-- What was decided of a customer's subscription the last time. grace_ms: until when he is served although a payment
-- failed. blocked_ms is the disabled_ms that this set on the customer. items_ms: since when it is sold by these prices.
-- version counts decisions: whoever decides has read the one before.
CREATE TABLE subscription (
    customer_id TEXT PRIMARY KEY,
    subscription_id TEXT NOT NULL,
    status TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    prices TEXT NOT NULL,
    period_start_ms BIGINT NOT NULL,
    period_end_ms BIGINT NOT NULL,
    anchor_ms BIGINT NOT NULL,
    items_ms BIGINT NOT NULL,
    trial_end_ms BIGINT,
    cancel_ms BIGINT,
    grace_ms BIGINT,
    blocked_ms BIGINT,
    version BIGINT NOT NULL CHECK (version > 0)
);
CREATE INDEX subscription_in_grace ON subscription (grace_ms) WHERE grace_ms IS NOT NULL AND blocked_ms IS NULL;

-- What the biller has sent, once for each id, as it came; kept before it is answered, worked on afterwards.
CREATE TABLE biller_event (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'dead')),
    received_ms BIGINT NOT NULL,
    next_ms BIGINT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    error TEXT
);
CREATE INDEX biller_event_waiting ON biller_event (next_ms, id) WHERE state = 'waiting';
CREATE INDEX biller_event_ended ON biller_event (next_ms, id) WHERE state <> 'waiting';

-- Invoices as they were seen last at the biller. Amounts are whole cents.
CREATE TABLE invoice (
    id TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL,
    account TEXT NOT NULL,
    number TEXT,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    currency TEXT NOT NULL,
    total_cents BIGINT NOT NULL,
    due_cents BIGINT NOT NULL,
    paid_cents BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    period_start_ms BIGINT NOT NULL,
    period_end_ms BIGINT NOT NULL,
    subscription_id TEXT,
    page TEXT,
    pdf TEXT,
    seen_ms BIGINT NOT NULL
);
CREATE INDEX invoice_by_customer ON invoice (customer_id, created_ms, id);

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
-- release says when a limit that was hit opens again: when its window turns, or with the customer's billing period.
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
    release TEXT NOT NULL DEFAULT 'window',
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

-- How often anything of the two tables above was changed: one row, so that every process sees cheaply that it must read
-- them again.
CREATE TABLE limit_revision (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    number BIGINT NOT NULL
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
CREATE INDEX event_fanned ON event (fanned_ms, id) WHERE fanned_ms IS NOT NULL;

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
CREATE INDEX delivery_of_target ON delivery (target, next_ms, event_id) WHERE state = 'waiting';
CREATE INDEX delivery_ended ON delivery (state, next_ms) WHERE state <> 'waiting';

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
CREATE INDEX attempt_by_start ON attempt (started_ms);

-- Operators have a role, the people of a customer his id. password is an Argon2 hash; NULL: sign in by a link.
CREATE TABLE login (
    id TEXT PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    created_ms BIGINT NOT NULL,
    role TEXT CHECK (role IN ('viewer', 'admin', 'owner')),
    customer_id TEXT REFERENCES customer (id),
    password TEXT,
    disabled_ms BIGINT,
    last_ms BIGINT,
    CHECK ((role IS NULL) <> (customer_id IS NULL))
);
CREATE INDEX login_by_customer ON login (customer_id, id) WHERE customer_id IS NOT NULL;

-- A browser that is signed in: the SHA-256 of its cookie, never the cookie.
CREATE TABLE session (
    digest TEXT PRIMARY KEY,
    login_id TEXT NOT NULL REFERENCES login (id),
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX session_by_login ON session (login_id);
CREATE INDEX session_by_end ON session (expires_ms);

-- Links that sign in, once: the SHA-256 of what is in the link.
CREATE TABLE link (
    digest TEXT PRIMARY KEY,
    login_id TEXT NOT NULL REFERENCES login (id),
    expires_ms BIGINT NOT NULL
);
CREATE INDEX link_by_login ON link (login_id);
CREATE INDEX link_by_end ON link (expires_ms);

-- Tokens that were signed out before they expire, by the SHA-256 of their id.
CREATE TABLE ended_token (
    digest TEXT PRIMARY KEY,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX ended_token_by_end ON ended_token (expires_ms);

-- How often somebody tried to sign in in vain: a digest of an address. count is of the window that began at since_ms.
CREATE TABLE failure (
    name TEXT PRIMARY KEY,
    count BIGINT NOT NULL CHECK (count >= 0),
    since_ms BIGINT NOT NULL,
    closed_ms BIGINT NOT NULL
);
CREATE INDEX failure_by_start ON failure (since_ms);

-- The audit log. ids are in the order of time; detail is JSON and holds no secret.
CREATE TABLE deed (
    id TEXT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'done', 'refused')),
    detail TEXT NOT NULL
);
CREATE INDEX deed_by_actor ON deed (actor, id);
CREATE INDEX deed_by_subject ON deed (subject, id);

-- The answers to requests with an Idempotency-Key, without secrets. status 0: not answered yet.
CREATE TABLE repeat (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    status BIGINT NOT NULL,
    answer TEXT NOT NULL,
    at_ms BIGINT NOT NULL
);
CREATE INDEX repeat_by_time ON repeat (at_ms);

-- What customers want to be told of: their own thresholds, which limit nothing. threshold is in millionths of a unit or
-- nano-dollars; told_ms is the start of the window in which it was told last.
CREATE TABLE alert (
    id TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL,
    measure TEXT NOT NULL CHECK (measure IN ('units', 'charge')),
    span TEXT NOT NULL,
    threshold BIGINT NOT NULL CHECK (threshold > 0),
    created_ms BIGINT NOT NULL,
    told_ms BIGINT,
    UNIQUE (customer_id, measure, span, threshold)
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

-- Sums over closed hours and whole UTC days, so that a report reads thousands of rows instead of a million records. What is
-- not summed up yet is read from the records: reports are the same either way (see stores/rolling.py).

-- Settled when their hour was over by the clock of whoever settled: the sums of that hour are to be made again. Written
-- with the record, and deleted only by whoever has summed it up.
CREATE TABLE late_record (
    hour_ms BIGINT NOT NULL,
    call_id TEXT NOT NULL,
    PRIMARY KEY (hour_ms, call_id)
);

-- What of a UTC day is summed up: bit n of hours for its hour n, and of fine where that hour is also told apart in full
-- (until its day is); whole 1 for the day itself, 2 when it was compared with the records once more after some days.
-- Every change counts version up, and whoever read an older one changes nothing.
CREATE TABLE usage_rolled (
    day_ms BIGINT PRIMARY KEY,
    hours BIGINT NOT NULL DEFAULT 0 CHECK (hours >= 0 AND hours < 16777216),
    fine BIGINT NOT NULL DEFAULT 0 CHECK (fine >= 0 AND fine < 16777216),
    whole BIGINT NOT NULL DEFAULT 0 CHECK (whole IN (0, 1, 2)),
    version BIGINT NOT NULL DEFAULT 1 CHECK (version > 0)
);

-- The sums of one hour or day (span), told apart as finely as depth says; columns that it does not tell apart are NULL.
-- part numbers the rows. failed, refused, left_early and cut are disjoint and no more than requests; so are measured,
-- defaulted, estimated and unread. answered counts the calls with a first byte, of which first_byte_ms and duration_ms are.
CREATE TABLE usage_sum (
    depth TEXT NOT NULL CHECK (depth IN ('each', 'sold', 'customer', 'key', 'user', 'agent', 'all')),
    span TEXT NOT NULL CHECK (span IN ('hour', 'day')),
    start_ms BIGINT NOT NULL,
    part BIGINT NOT NULL,
    customer_id TEXT,
    key_id TEXT,
    user_id TEXT,
    agent_id TEXT,
    plan_id TEXT,
    route TEXT,
    upstream TEXT,
    model TEXT,
    requests BIGINT NOT NULL,
    units_micro BIGINT NOT NULL,
    charge_nano BIGINT NOT NULL,
    cost_nano BIGINT NOT NULL,
    unpriced BIGINT NOT NULL,
    first_ms BIGINT NOT NULL,
    last_ms BIGINT NOT NULL,
    measured BIGINT NOT NULL,
    defaulted BIGINT NOT NULL,
    estimated BIGINT NOT NULL,
    unread BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    left_early BIGINT NOT NULL,
    cut BIGINT NOT NULL,
    answered BIGINT NOT NULL,
    first_byte_ms BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    PRIMARY KEY (depth, span, start_ms, part)
) -- postgres: /*
WITHOUT ROWID -- postgres: */
;
CREATE INDEX usage_sum_of_customer ON usage_sum (customer_id, depth, span, start_ms) WHERE customer_id IS NOT NULL;
CREATE INDEX usage_sum_of_key ON usage_sum (key_id, depth, span, start_ms) WHERE key_id IS NOT NULL;

-- How many calls waited how long for their first byte, in milliseconds rounded down to two digits.
CREATE TABLE wait_sum (
    span TEXT NOT NULL CHECK (span IN ('hour', 'day')),
    start_ms BIGINT NOT NULL,
    wait_ms BIGINT NOT NULL,
    calls BIGINT NOT NULL,
    PRIMARY KEY (span, start_ms, wait_ms)
);

-- The calls that somebody looks for: those that did not end well.
CREATE INDEX usage_odd ON usage_record (started_ms, customer_id, outcome, status) WHERE outcome <> 'complete' OR status >= 400;

-- What a record adds to sums. A correction is no request, and takes back that its call was estimated and cut.
CREATE VIEW usage_counted AS
SELECT started_ms AS at_ms, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model,
    CASE WHEN corrects IS NULL THEN 1 ELSE 0 END AS requests,
    units_micro,
    charge_nano,
    COALESCE(cost_nano, 0) AS cost_nano,
    CASE WHEN cost_nano IS NULL AND corrects IS NULL THEN 1 ELSE 0 END AS unpriced,
    started_ms AS first_ms,
    started_ms AS last_ms,
    CASE WHEN source = 'measured' THEN 1 ELSE 0 END AS measured,
    CASE WHEN source = 'default' THEN 1 ELSE 0 END AS defaulted,
    CASE WHEN source = 'estimated' THEN 1 ELSE 0 END - CASE WHEN corrects IS NULL THEN 0 ELSE 1 END AS estimated,
    CASE WHEN source = 'error' THEN 1 ELSE 0 END AS unread,
    CASE WHEN outcome IN ('upstream_failed', 'upstream_error', 'timed_out') OR status >= 500 THEN 1 ELSE 0 END AS failed,
    CASE WHEN outcome IN ('upstream_failed', 'upstream_error', 'timed_out') OR status >= 500 THEN 0
        WHEN status >= 400 THEN 1 ELSE 0 END AS refused,
    CASE WHEN outcome = 'client_closed' AND COALESCE(status, 0) < 400 THEN 1 ELSE 0 END AS left_early,
    CASE WHEN outcome = 'cut' AND COALESCE(status, 0) < 400 THEN 1 ELSE 0 END
        - CASE WHEN corrects IS NULL THEN 0 ELSE 1 END AS cut,
    CASE WHEN first_byte_ms IS NULL THEN 0 ELSE 1 END AS answered,
    COALESCE(first_byte_ms, 0) AS first_byte_ms,
    CASE WHEN first_byte_ms IS NULL THEN 0 ELSE ended_ms - started_ms END AS duration_ms,
    CASE WHEN first_byte_ms < 100 THEN first_byte_ms WHEN first_byte_ms < 1000 THEN first_byte_ms / 10 * 10
        WHEN first_byte_ms < 10000 THEN first_byte_ms / 100 * 100 ELSE first_byte_ms / 1000 * 1000 END AS wait_ms
FROM usage_record;
