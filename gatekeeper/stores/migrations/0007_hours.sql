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
