-- The statements that must differ for Postgres, by the same names.
-- One with unnest or ANY takes each parameter as the array of all rows.

-- name: flush
-- A record in the log for which the commit must wait.
SELECT pg_logical_emit_message(TRUE, 'gatekeeper', '');

-- name: has_migrations
-- Whether the table of migrations is there.
SELECT COUNT(to_regclass('schema_migration'));

-- name: be_patient
-- A migration takes as long as it takes, and so does waiting for one.
SELECT set_config('statement_timeout', '0', TRUE);

-- name: make_month
-- The partition of a month, made ahead.
SELECT make_usage_month(:month);

-- name: lock_migrations
-- Only one process may migrate; freed when its transaction ends. The number is ours for ever.
SELECT pg_advisory_xact_lock(7316202601);

-- name: lock_holds
-- The sort stands below the row locks, so the locks are taken in that order.
SELECT h.call_id, h.admitted_month, h.customer_id, h.key_id, h.user_id, h.agent_id, h.plan_id, h.route, h.upstream,
    h.model, h.owner, h.state, h.started_ms, h.expires_ms, h.output_tokens, h.progress_units_micro, h.output_seen, h.lines
FROM hold h WHERE h.call_id = ANY(CAST(:call_id AS TEXT[]))
ORDER BY h.call_id FOR UPDATE OF h;

-- name: forget_buckets
-- Those of them that are as they were found.
DELETE FROM bucket b
USING unnest(
    CAST(:scope AS TEXT[]), CAST(:subject AS TEXT[]), CAST(:dimension AS TEXT[]), CAST(:per_ms AS BIGINT[]),
    CAST(:spent AS BIGINT[]), CAST(:at_ms AS BIGINT[])
) w (scope, subject, dimension, per_ms, spent, at_ms)
WHERE b.scope = w.scope AND b.subject = w.subject AND b.dimension = w.dimension AND b.per_ms = w.per_ms
    AND b.spent = w.spent AND b.at_ms = w.at_ms;

-- name: forget_counters
-- Those of them that still count nothing.
DELETE FROM counter c
USING unnest(
    CAST(:scope AS TEXT[]), CAST(:subject AS TEXT[]), CAST(:dimension AS TEXT[]), CAST(:span AS TEXT[]),
    CAST(:start_ms AS BIGINT[]), CAST(:used AS BIGINT[]), CAST(:held AS BIGINT[])
) w (scope, subject, dimension, span, start_ms, used, held)
WHERE c.scope = w.scope AND c.subject = w.subject AND c.dimension = w.dimension AND c.span = w.span
    AND c.start_ms = w.start_ms AND c.used = w.used AND c.held = w.held;

-- name: lock_calls
-- The names of calls that have no hold to lock, until the transaction ends. The sort stands below the locks.
SELECT pg_advisory_xact_lock(hashtextextended(w.call_id, 0))
FROM (SELECT call_id FROM unnest(CAST(:call_id AS TEXT[])) u (call_id) ORDER BY call_id) w;

-- name: held_calls
-- Which of those calls are held.
SELECT h.call_id FROM hold h WHERE h.call_id = ANY(CAST(:call_id AS TEXT[]));

-- name: recorded_calls
-- Which of those calls are on record: they are over. LATERAL with its LIMIT asks, for each call, its own month alone.
SELECT r.call_id
FROM unnest(CAST(:call_id AS TEXT[]), CAST(:admitted_month AS TEXT[])) w (call_id, admitted_month)
CROSS JOIN LATERAL (
    SELECT u.call_id FROM usage_record u
    WHERE u.call_id = w.call_id AND u.admitted_month = w.admitted_month LIMIT 1
) r;

-- name: drop_holds
-- Calls that ended: what they took stands in their records.
DELETE FROM hold WHERE call_id = ANY(CAST(:call_id AS TEXT[]));

-- name: records_of
-- What those calls took.
SELECT r.call_id, r.admitted_month, r.customer_id, r.key_id, r.user_id, r.agent_id, r.plan_id, r.route, r.upstream,
    r.model, r.method, r.path, r.status, r.outcome, r.streamed, r.started_ms, r.ended_ms, r.first_byte_ms,
    r.units_micro, r.source, r.note, r.charge_nano, r.cost_nano, r.usage, r.meters, r.evidence, r.meter_hash,
    r.request_bytes, r.response_bytes, r.response_id, r.overrun_micro, r.model_requested, r.lines
FROM unnest(CAST(:call_id AS TEXT[]), CAST(:admitted_month AS TEXT[])) w (call_id, admitted_month)
CROSS JOIN LATERAL (
    SELECT * FROM usage_record u WHERE u.call_id = w.call_id AND u.admitted_month = w.admitted_month LIMIT 1
) r;

-- name: anchors_of
-- Where those customers' billing periods start.
SELECT c.id, c.anchor_ms FROM customer c
WHERE c.id = ANY(CAST(:customer_id AS TEXT[]));

-- name: lock_counters
-- The sort stands below the row locks, so the locks are taken in that order.
SELECT c.scope, c.subject, c.dimension, c.span, c.start_ms, c.used, c.held
FROM unnest(
    CAST(:scope AS TEXT[]), CAST(:subject AS TEXT[]), CAST(:dimension AS TEXT[]), CAST(:span AS TEXT[]),
    CAST(:start_ms AS BIGINT[])
) w (scope, subject, dimension, span, start_ms)
JOIN counter c ON c.scope = w.scope AND c.subject = w.subject AND c.dimension = w.dimension AND c.span = w.span
    AND c.start_ms = w.start_ms
ORDER BY c.scope, c.subject, c.dimension, c.span, c.start_ms FOR UPDATE OF c;

-- name: lock_buckets
-- The same, with the database's clock. Read before a lock is waited for it is too early, which drains too little.
SELECT b.scope, b.subject, b.dimension, b.per_ms, b.spent, b.at_ms,
    CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT)
FROM unnest(
    CAST(:scope AS TEXT[]), CAST(:subject AS TEXT[]), CAST(:dimension AS TEXT[]), CAST(:per_ms AS BIGINT[])
) w (scope, subject, dimension, per_ms)
JOIN bucket b ON b.scope = w.scope AND b.subject = w.subject AND b.dimension = w.dimension AND b.per_ms = w.per_ms
ORDER BY b.scope, b.subject, b.dimension, b.per_ms FOR UPDATE OF b;

-- name: counters
-- Counters as they stand, for a reader.
SELECT c.scope, c.subject, c.dimension, c.span, c.start_ms, c.used, c.held
FROM jsonb_array_elements(CAST(:keys AS JSONB)) w JOIN counter c
    ON c.scope = w ->> 0 AND c.subject = w ->> 1 AND c.dimension = w ->> 2 AND c.span = w ->> 3
    AND c.start_ms = CAST(w ->> 4 AS BIGINT);

-- name: buckets
-- Buckets as they stand, for a reader, with the database's clock.
SELECT b.scope, b.subject, b.dimension, b.per_ms, b.spent, b.at_ms,
    CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT)
FROM jsonb_array_elements(CAST(:keys AS JSONB)) w JOIN bucket b
    ON b.scope = w ->> 0 AND b.subject = w ->> 1 AND b.dimension = w ->> 2 AND b.per_ms = CAST(w ->> 3 AS BIGINT);

-- name: unbalanced_counters
-- The doctor's question: counters whose figures are not the sums over the records and the open holds; also sums that
-- stand on no counter.
SELECT scope, subject, dimension, span, start_ms, CAST(SUM(used) AS BIGINT), CAST(SUM(held) AS BIGINT),
    CAST(SUM(taken) AS BIGINT), CAST(SUM(amount) AS BIGINT), COUNT(*) OVER ()
FROM (
    SELECT scope, subject, dimension, span, start_ms, used, held, 0 AS taken, 0 AS amount FROM counter
    UNION ALL
    SELECT l ->> 0 AS scope, l ->> 1 AS subject, l ->> 2 AS dimension, l ->> 3 AS span,
            CAST(l ->> 4 AS BIGINT) AS start_ms, 0, 0, CAST(l ->> 6 AS BIGINT), 0
    FROM usage_record r CROSS JOIN jsonb_array_elements(CAST(r.lines AS JSONB)) l
    UNION ALL
    SELECT scope, subject, dimension, span, start_ms, 0, 0, 0, MAX(amount) FROM (
        SELECT h.call_id, l ->> 0 AS scope, l ->> 1 AS subject, l ->> 2 AS dimension, l ->> 3 AS span,
            CAST(l ->> 4 AS BIGINT) AS start_ms, CAST(l ->> 8 AS BIGINT) + CAST(l ->> 9 AS BIGINT) * h.output_tokens AS amount
        FROM hold h CROSS JOIN jsonb_array_elements(CAST(h.lines AS JSONB) -> 'stock') l WHERE h.state = 'open'
    ) each_line GROUP BY call_id, scope, subject, dimension, span, start_ms
) each_figure
GROUP BY scope, subject, dimension, span, start_ms HAVING SUM(used) <> SUM(taken) OR SUM(held) <> SUM(amount)
ORDER BY scope, subject, dimension, span, start_ms LIMIT :limit;

-- name: unbalanced_calls
-- The doctor's question: records that took something else of a counter of units than they say. A correction may take
-- from one model what it gives to another.
SELECT r.call_id, CAST(l ->> 6 AS BIGINT), r.units_micro
FROM usage_record r CROSS JOIN jsonb_array_elements(CAST(r.lines AS JSONB)) l
WHERE l ->> 2 = 'units' AND CAST(l ->> 6 AS BIGINT) <> r.units_micro
    AND (r.corrects IS NULL OR l ->> 0 NOT LIKE '%model')
ORDER BY r.call_id;

-- name: ensure_counter
-- A row to lock, where there is none.
INSERT INTO counter (
    scope, subject, dimension, span, start_ms
) SELECT * FROM unnest(
    CAST(:scope AS TEXT[]), CAST(:subject AS TEXT[]), CAST(:dimension AS TEXT[]), CAST(:span AS TEXT[]),
    CAST(:start_ms AS BIGINT[])
) ON CONFLICT DO NOTHING;

-- name: ensure_bucket
-- A row to lock, where there is none.
INSERT INTO bucket (
    scope, subject, dimension, per_ms
) SELECT * FROM unnest(
    CAST(:scope AS TEXT[]), CAST(:subject AS TEXT[]), CAST(:dimension AS TEXT[]), CAST(:per_ms AS BIGINT[])
) ON CONFLICT DO NOTHING;

-- name: add_hold
-- A new call. One that is held already breaks the primary key, one that is on record the CHECK of its state: the batch
-- fails, and each of its calls is tried again by itself, in doubt. Nothing is asked for all those that are new.
-- (A scalar subquery: what stands within EXISTS may be read whole and hashed.)
INSERT INTO hold (
    call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model, owner, state,
    started_ms, expires_ms, output_tokens, progress_units_micro, output_seen, lines
) SELECT w.call_id, w.admitted_month, w.customer_id, w.key_id, w.user_id, w.agent_id, w.plan_id, w.route, w.upstream,
    w.model, w.owner, CASE WHEN (
        SELECT 1 FROM usage_record r WHERE r.call_id = w.call_id AND r.admitted_month = w.admitted_month LIMIT 1
    ) = 1 THEN 'over' ELSE w.state END, w.started_ms, w.expires_ms, w.output_tokens, w.progress_units_micro,
    w.output_seen, w.lines
FROM unnest(
    CAST(:call_id AS TEXT[]), CAST(:admitted_month AS TEXT[]), CAST(:customer_id AS TEXT[]),
    CAST(:key_id AS TEXT[]), CAST(:user_id AS TEXT[]), CAST(:agent_id AS TEXT[]), CAST(:plan_id AS TEXT[]),
    CAST(:route AS TEXT[]), CAST(:upstream AS TEXT[]), CAST(:model AS TEXT[]), CAST(:owner AS TEXT[]),
    CAST(:state AS TEXT[]), CAST(:started_ms AS BIGINT[]), CAST(:expires_ms AS BIGINT[]),
    CAST(:output_tokens AS BIGINT[]), CAST(:progress_units_micro AS BIGINT[]), CAST(:output_seen AS BIGINT[]),
    CAST(:lines AS TEXT[])
) w (call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model, owner, state,
    started_ms, expires_ms, output_tokens, progress_units_micro, output_seen, lines);

-- name: add_record
-- The guard of settle: a second record of one call breaks the whole transaction, and nothing is counted.
INSERT INTO usage_record (
    call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model, method, path,
    status, outcome, streamed, started_ms, ended_ms, first_byte_ms, units_micro, source, note, charge_nano,
    cost_nano, usage, meters, evidence, meter_hash, request_bytes, response_bytes, response_id, overrun_micro, model_requested, day,
    corrects, lines
) SELECT * FROM unnest(
    CAST(:call_id AS TEXT[]), CAST(:admitted_month AS TEXT[]), CAST(:customer_id AS TEXT[]),
    CAST(:key_id AS TEXT[]), CAST(:user_id AS TEXT[]), CAST(:agent_id AS TEXT[]), CAST(:plan_id AS TEXT[]),
    CAST(:route AS TEXT[]), CAST(:upstream AS TEXT[]), CAST(:model AS TEXT[]), CAST(:method AS TEXT[]),
    CAST(:path AS TEXT[]), CAST(:status AS BIGINT[]), CAST(:outcome AS TEXT[]), CAST(:streamed AS BIGINT[]),
    CAST(:started_ms AS BIGINT[]), CAST(:ended_ms AS BIGINT[]), CAST(:first_byte_ms AS BIGINT[]),
    CAST(:units_micro AS BIGINT[]), CAST(:source AS TEXT[]), CAST(:note AS TEXT[]), CAST(:charge_nano AS BIGINT[]),
    CAST(:cost_nano AS BIGINT[]), CAST(:usage AS TEXT[]), CAST(:meters AS TEXT[]), CAST(:evidence AS TEXT[]),
    CAST(:meter_hash AS TEXT[]), CAST(:request_bytes AS BIGINT[]), CAST(:response_bytes AS BIGINT[]),
    CAST(:response_id AS TEXT[]), CAST(:overrun_micro AS BIGINT[]), CAST(:model_requested AS TEXT[]),
    CAST(:day AS TEXT[]), CAST(:corrects AS TEXT[]), CAST(:lines AS TEXT[])
);

-- name: claim_response
-- Who pays for a response: whoever was first. The rows come sorted, so they are locked in that order.
INSERT INTO billed_response (customer_id, upstream, response_id, call_id, started_ms)
SELECT * FROM unnest(
    CAST(:customer_id AS TEXT[]), CAST(:upstream AS TEXT[]), CAST(:response_id AS TEXT[]), CAST(:call_id AS TEXT[]),
    CAST(:started_ms AS BIGINT[])
)
ON CONFLICT (customer_id, upstream, response_id) DO UPDATE SET call_id = billed_response.call_id
RETURNING customer_id, upstream, response_id, call_id;

-- name: response_payers
-- The calls that pay for these responses, where anyone does.
SELECT b.customer_id, b.upstream, b.response_id, b.call_id
FROM unnest(CAST(:customer_id AS TEXT[]), CAST(:upstream AS TEXT[]), CAST(:response_id AS TEXT[]))
    w (customer_id, upstream, response_id)
JOIN billed_response b ON b.customer_id = w.customer_id AND b.upstream = w.upstream AND b.response_id = w.response_id;

-- name: unclaim_response
-- A call that could not be settled pays for nothing.
DELETE FROM billed_response b
USING unnest(CAST(:customer_id AS TEXT[]), CAST(:upstream AS TEXT[]), CAST(:response_id AS TEXT[]))
    w (customer_id, upstream, response_id)
WHERE b.customer_id = w.customer_id AND b.upstream = w.upstream AND b.response_id = w.response_id;

-- name: add_attempt
-- A try that did not serve its call.
INSERT INTO attempt (call_id, number, upstream, model, started_ms, ended_ms, status, fault) SELECT * FROM unnest(
    CAST(:call_id AS TEXT[]), CAST(:number AS BIGINT[]), CAST(:upstream AS TEXT[]), CAST(:model AS TEXT[]),
    CAST(:started_ms AS BIGINT[]), CAST(:ended_ms AS BIGINT[]), CAST(:status AS BIGINT[]), CAST(:fault AS TEXT[])
) ON CONFLICT (call_id, number) DO NOTHING;

-- name: add_owed
-- What the biller is to be told of one call.
INSERT INTO owed (
    call_id, customer_id, plan_id, period_start_ms, period_end_ms, started_ms, settled_ms, units_micro, charge_nano
) SELECT * FROM unnest(
    CAST(:call_id AS TEXT[]), CAST(:customer_id AS TEXT[]), CAST(:plan_id AS TEXT[]),
    CAST(:period_start_ms AS BIGINT[]), CAST(:period_end_ms AS BIGINT[]), CAST(:started_ms AS BIGINT[]),
    CAST(:settled_ms AS BIGINT[]), CAST(:units_micro AS BIGINT[]), CAST(:charge_nano AS BIGINT[])
);

-- name: add_event
-- What happened, once.
INSERT INTO event (
    id, kind, customer_id, created_ms, content
) SELECT * FROM unnest(
    CAST(:id AS TEXT[]), CAST(:kind AS TEXT[]), CAST(:customer_id AS TEXT[]), CAST(:created_ms AS BIGINT[]),
    CAST(:content AS TEXT[])
) ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: unfanned_events
-- The oldest events that wait to be handed out and that nobody else is handing out.
SELECT id, kind, customer_id, created_ms, content FROM event WHERE fanned_ms IS NULL
ORDER BY created_ms, id LIMIT :limit FOR UPDATE SKIP LOCKED;

-- name: add_delivery
-- An event for a target.
INSERT INTO delivery (
    event_id, target, state, next_ms
) SELECT * FROM unnest(
    CAST(:event_id AS TEXT[]), CAST(:target AS TEXT[]), CAST(:state AS TEXT[]), CAST(:next_ms AS BIGINT[])
) ON CONFLICT (event_id, target) DO NOTHING;

-- name: claim_deliveries
-- The rows are locked first, past those that somebody else has locked; the condition stands again outside.
WITH due AS MATERIALIZED (
    SELECT event_id, target FROM delivery WHERE state = 'waiting' AND target = :target AND next_ms <= :now_ms
    ORDER BY next_ms, event_id LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE delivery d SET next_ms = :lease_ms, attempts = d.attempts + 1, error = NULL FROM due
WHERE d.event_id = due.event_id AND d.target = due.target AND d.state = 'waiting' AND d.next_ms <= :now_ms
RETURNING d.event_id, d.attempts;

-- name: events_of
-- Those events.
SELECT id, kind, customer_id, created_ms, content FROM event WHERE id = ANY(CAST(:id AS TEXT[]));

-- name: set_counter
-- The figures of a counter that is locked.
UPDATE counter t SET used = v.used, held = v.held
FROM unnest(
    CAST(:scope AS TEXT[]), CAST(:subject AS TEXT[]), CAST(:dimension AS TEXT[]), CAST(:span AS TEXT[]),
    CAST(:start_ms AS BIGINT[]), CAST(:used AS BIGINT[]), CAST(:held AS BIGINT[])
) v (scope, subject, dimension, span, start_ms, used, held)
WHERE t.scope = v.scope AND t.subject = v.subject AND t.dimension = v.dimension AND t.span = v.span AND t.start_ms = v.start_ms;

-- name: set_bucket
-- The figures of a bucket that is locked.
UPDATE bucket t SET spent = v.spent, at_ms = v.at_ms
FROM unnest(
    CAST(:scope AS TEXT[]), CAST(:subject AS TEXT[]), CAST(:dimension AS TEXT[]), CAST(:per_ms AS BIGINT[]),
    CAST(:spent AS BIGINT[]), CAST(:at_ms AS BIGINT[])
) v (scope, subject, dimension, per_ms, spent, at_ms)
WHERE t.scope = v.scope AND t.subject = v.subject AND t.dimension = v.dimension AND t.per_ms = v.per_ms;

-- name: unlike_counters
-- The same by another way: counters of units against the units of the records that stand on them, each record once,
-- whatever its lines say that it took; but what a correction takes from one model or gives to another only they say.
SELECT scope, subject, dimension, span, start_ms, CAST(SUM(used) AS BIGINT), CAST(SUM(units) AS BIGINT),
    COUNT(*) OVER ()
FROM (
    SELECT scope, subject, dimension, span, start_ms, used, 0 AS units FROM counter WHERE dimension = 'units'
    UNION ALL
    SELECT scope, subject, dimension, span, start_ms, 0, units_micro FROM (
        SELECT DISTINCT r.call_id, CASE WHEN r.corrects IS NOT NULL AND l ->> 0 LIKE '%model'
                THEN CAST(l ->> 6 AS BIGINT) ELSE r.units_micro END AS units_micro,
            l ->> 0 AS scope, l ->> 1 AS subject, l ->> 2 AS dimension, l ->> 3 AS span,
            CAST(l ->> 4 AS BIGINT) AS start_ms
        FROM usage_record r CROSS JOIN jsonb_array_elements(CAST(r.lines AS JSONB)) l
    ) each_record WHERE dimension = 'units'
) each_figure
GROUP BY scope, subject, dimension, span, start_ms HAVING SUM(used) <> SUM(units)
ORDER BY scope, subject, dimension, span, start_ms LIMIT :limit;

-- name: strange_lines
-- Records that count on a counter of somebody else or of another time, or take something else than they say. A
-- correction may take from one model what it gives to another: the rest of the subject must be its own.
SELECT call_id, what, COUNT(*) OVER () FROM (
    SELECT call_id, CASE
        WHEN subject <> COALESCE(CASE scope WHEN 'global' THEN '*' WHEN 'customer' THEN customer_id
            WHEN 'user' THEN customer_id || '/' || user_id WHEN 'agent' THEN customer_id || '/' || agent_id
            WHEN 'key' THEN key_id WHEN 'plan' THEN plan_id WHEN 'route' THEN route WHEN 'model' THEN model
            WHEN 'plan,route' THEN plan_id || ',' || route WHEN 'plan,model' THEN plan_id || ',' || model
            WHEN 'customer,route' THEN customer_id || ',' || route
            WHEN 'customer,model' THEN customer_id || ',' || model
            WHEN 'user,agent' THEN customer_id || '/' || user_id || ',' || customer_id || '/' || agent_id
            WHEN 'user,key' THEN customer_id || '/' || user_id || ',' || key_id
            WHEN 'user,route' THEN customer_id || '/' || user_id || ',' || route
            WHEN 'user,model' THEN customer_id || '/' || user_id || ',' || model
            WHEN 'agent,key' THEN customer_id || '/' || agent_id || ',' || key_id
            WHEN 'agent,route' THEN customer_id || '/' || agent_id || ',' || route
            WHEN 'agent,model' THEN customer_id || '/' || agent_id || ',' || model
            WHEN 'key,route' THEN key_id || ',' || route WHEN 'key,model' THEN key_id || ',' || model
            WHEN 'route,model' THEN route || ',' || model END, '')
            THEN 'counts on the ' || scope || ' ' || subject
        WHEN start_ms > started_ms OR started_ms - start_ms >= CASE span WHEN 'hour' THEN 3600000
            WHEN 'day' THEN 90000000 WHEN 'total' THEN 9000000000000 ELSE 2682000000 END
            THEN 'counts in a ' || span || ' that it was not in'
        WHEN dimension = 'units' AND taken <> units_micro AND (corrects IS NULL OR scope NOT LIKE '%model')
            THEN 'counts other units than it has'
        WHEN dimension = 'requests' AND corrects IS NULL AND taken NOT IN (0, 1000000) THEN 'is not one request'
        WHEN dimension = 'dollars' AND corrects IS NULL AND taken <> COALESCE(cost_nano, 0)
            THEN 'counts other dollars than it cost' END AS what
    FROM (
        SELECT r.call_id, r.customer_id, r.user_id, r.agent_id, r.key_id, r.plan_id, r.route, r.started_ms,
            CASE WHEN r.corrects IS NULL OR l ->> 0 NOT LIKE '%model' THEN r.model
                WHEN l ->> 0 = 'model' THEN l ->> 1
                ELSE substr(l ->> 1, strpos(l ->> 1, ',') + 1) END AS model,
            r.corrects, r.note, r.units_micro, r.cost_nano, l ->> 0 AS scope, l ->> 1 AS subject, l ->> 2 AS dimension, l ->> 3 AS span,
            CAST(l ->> 4 AS BIGINT) AS start_ms, CAST(l ->> 6 AS BIGINT) AS taken
        FROM usage_record r CROSS JOIN jsonb_array_elements(CAST(r.lines AS JSONB)) l
    ) each_line
) each_line WHERE what IS NOT NULL ORDER BY call_id LIMIT :limit;

-- name: strange_figures
-- Figures below nothing, and readings that are no plain number. The types of the columns keep everything else out.
SELECT place, what, COUNT(*) OVER () FROM (
    SELECT 'record ' || r.call_id AS place, 'a negative figure' AS what FROM usage_record r
    WHERE r.cost_nano < 0 AND r.corrects IS NULL OR r.overrun_micro < 0
        OR (r.corrects IS NULL AND (r.units_micro < 0 OR r.charge_nano < 0))
    UNION ALL
    SELECT 'record ' || r.call_id, 'a meter that reads ' || m.value
    FROM usage_record r CROSS JOIN jsonb_each_text(CAST(r.meters AS JSONB)) m WHERE m.value !~ '^[0-9]+([.][0-9]+)?$'
    UNION ALL
    SELECT 'counter ' || scope || ' ' || subject, 'a negative figure' FROM counter WHERE used < 0 OR held < 0
    UNION ALL
    SELECT 'hold ' || call_id, 'a negative figure' FROM hold WHERE output_tokens < 0 OR progress_units_micro < 0
) each_place ORDER BY place LIMIT :limit;

-- name: lock_account
-- What the next batch has to carry, locked: whoever freezes for this customer waits here.
SELECT residue_micro FROM meter_account WHERE customer_id = :customer_id AND meter = :meter FOR UPDATE;

-- name: claim_accounts
-- The rows are locked first, past those that somebody else has locked; the condition stands again outside.
WITH due AS MATERIALIZED (
    SELECT a.customer_id, a.meter FROM meter_account a WHERE a.lease_ms <= :now_ms AND EXISTS (
        SELECT 1 FROM meter_batch b WHERE b.state = 'waiting' AND b.next_ms <= :now_ms
            AND b.customer_id = a.customer_id AND b.meter = a.meter
    ) AND (CAST(:customer_id AS TEXT) = '' OR a.customer_id = :customer_id)
    ORDER BY a.customer_id, a.meter LIMIT :limit FOR UPDATE OF a SKIP LOCKED
)
UPDATE meter_account m SET lease_ms = :lease_ms FROM due
WHERE m.customer_id = due.customer_id AND m.meter = due.meter AND m.lease_ms <= :now_ms
RETURNING m.customer_id, m.meter;

-- name: claim_events
-- The rows are locked first, past those that somebody else has locked; the condition stands again outside.
WITH due AS MATERIALIZED (
    SELECT id FROM biller_event WHERE state = 'waiting' AND next_ms <= :now_ms
    ORDER BY next_ms, id LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE biller_event e SET next_ms = :lease_ms, attempts = e.attempts + 1 FROM due
WHERE e.id = due.id AND e.state = 'waiting' AND e.next_ms <= :now_ms
RETURNING e.id, e.kind, e.body, e.attempts;

-- name: lock_logins
-- Nobody else changes who may sign in meanwhile. The number is ours for ever.
SELECT pg_advisory_xact_lock(7316202606);

-- name: failure
-- How somebody stands, locked until the end of the transaction.
SELECT count, since_ms, closed_ms FROM failure WHERE name = :name FOR UPDATE;

-- name: customer_locked
-- One customer, locked until the end of the transaction.
SELECT id, name, plan_id, created_ms, anchor_ms, email, disabled_ms, stripe_customer_id FROM customer WHERE id = :id
FOR UPDATE;
