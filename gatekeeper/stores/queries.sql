-- Every statement of the store, by name. `:name` is a parameter; Postgres sees `$n`. A list travels as one JSON text.
-- `{who}` makes four queries of one: NAME, NAME/customer, NAME/key and NAME/both, filtered so.
-- A statement that must differ for Postgres stands again in queries_postgres.sql.

-- name: ping
-- Whether the database answers.
SELECT 1;

-- name: flush
-- Nothing: SQLite flushes its log by itself.
SELECT 1;

-- name: has_migrations
-- Whether the table of migrations is there.
SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_migration';

-- name: lock_migrations
-- Only one process may migrate; in SQLite the open write transaction sees to that.
SELECT 1;

-- name: create_migrations
-- The numbers of the migrations that were applied.
CREATE TABLE IF NOT EXISTS schema_migration (number BIGINT PRIMARY KEY, name TEXT NOT NULL);

-- name: migrations
-- What was applied, in order.
SELECT number, name FROM schema_migration ORDER BY number;

-- name: add_migration
-- Remembers one.
INSERT INTO schema_migration (number, name) VALUES (:number, :name);

-- name: create_customer
-- A row back says that it is new.
INSERT INTO customer (id, name, plan_id, created_ms, anchor_ms, email, disabled_ms, stripe_customer_id)
VALUES (:id, :name, :plan_id, :created_ms, :anchor_ms, :email, :disabled_ms, :stripe_customer_id)
ON CONFLICT DO NOTHING RETURNING id;

-- name: customer
-- One customer.
SELECT id, name, plan_id, created_ms, anchor_ms, email, disabled_ms, stripe_customer_id FROM customer WHERE id = :id;

-- name: customers
-- A page of customers.
SELECT id, name, plan_id, created_ms, anchor_ms, email, disabled_ms, stripe_customer_id
FROM customer WHERE id > :after ORDER BY id LIMIT :limit;

-- name: update_customer
-- A row back says that there was one.
UPDATE customer SET name = :name, plan_id = :plan_id, anchor_ms = :anchor_ms, email = :email,
    disabled_ms = :disabled_ms, stripe_customer_id = :stripe_customer_id
WHERE id = :id RETURNING id;

-- name: create_key
-- A row back says that id and digest are new.
INSERT INTO api_key (id, digest, customer_id, name, shown, created_ms, expires_ms, revoked_ms, last_used_ms,
    routes, models, user_id, agent_id, may_assert)
VALUES (:id, :digest, :customer_id, :name, :shown, :created_ms, :expires_ms, :revoked_ms, :last_used_ms,
    :routes, :models, :user_id, :agent_id, :may_assert)
ON CONFLICT DO NOTHING RETURNING id;

-- name: holder
-- A key with its customer, by digest.
SELECT k.id, k.customer_id, k.name, k.shown, k.created_ms, k.expires_ms, k.revoked_ms, k.last_used_ms, k.routes,
    k.models, k.user_id, k.agent_id, k.may_assert,
    c.id, c.name, c.plan_id, c.created_ms, c.anchor_ms, c.email, c.disabled_ms, c.stripe_customer_id
FROM api_key k JOIN customer c ON c.id = k.customer_id WHERE k.digest = :digest;

-- name: key
-- One key.
SELECT id, customer_id, name, shown, created_ms, expires_ms, revoked_ms, last_used_ms, routes, models, user_id,
    agent_id, may_assert
FROM api_key WHERE id = :id;

-- name: keys
-- A page of all keys.
SELECT id, customer_id, name, shown, created_ms, expires_ms, revoked_ms, last_used_ms, routes, models, user_id,
    agent_id, may_assert
FROM api_key WHERE id > :after ORDER BY id LIMIT :limit;

-- name: keys_of_customer
-- A page of one customer's keys.
SELECT id, customer_id, name, shown, created_ms, expires_ms, revoked_ms, last_used_ms, routes, models, user_id,
    agent_id, may_assert
FROM api_key WHERE customer_id = :customer_id AND id > :after ORDER BY id LIMIT :limit;

-- name: revoke_key
-- The first time stays. A row back says that there is such a key.
UPDATE api_key SET revoked_ms = COALESCE(revoked_ms, :now_ms) WHERE id = :id RETURNING id;

-- name: touch_key
-- Never moves the time of last use back.
UPDATE api_key SET last_used_ms = :used_ms WHERE id = :id AND (last_used_ms IS NULL OR last_used_ms < :used_ms);

-- name: lock_holds
-- The calls of a batch, locked.
SELECT h.call_id, h.admitted_month, h.customer_id, h.key_id, h.user_id, h.agent_id, h.plan_id, h.route, h.upstream,
    h.model, h.owner, h.state, h.started_ms, h.expires_ms, h.output_tokens, h.progress_units_micro, h.output_seen, h.lines
FROM hold h WHERE h.call_id IN (VALUES (:call_id));

-- name: recorded_calls
-- Which of those calls are on record: they are over.
SELECT call_id FROM usage_record WHERE call_id IN (VALUES (:call_id));

-- name: records_of
-- What those calls took.
SELECT r.call_id, r.admitted_month, r.customer_id, r.key_id, r.user_id, r.agent_id, r.plan_id, r.route, r.upstream,
    r.model, r.method, r.path, r.status, r.outcome, r.streamed, r.started_ms, r.ended_ms, r.first_byte_ms,
    r.units_micro, r.source, r.note, r.charge_nano, r.cost_nano, r.usage, r.meters, r.evidence, r.meter_hash,
    r.request_bytes, r.response_bytes, r.response_id, r.overrun_micro, r.lines
FROM usage_record r WHERE r.call_id IN (VALUES (:call_id));

-- name: anchors_of
-- Where those customers' billing periods start.
SELECT id, anchor_ms FROM customer WHERE id IN (VALUES (:customer_id));

-- name: ensure_counter
-- A row to lock, where there is none.
INSERT INTO counter (scope, subject, dimension, span, start_ms)
VALUES (:scope, :subject, :dimension, :span, :start_ms) ON CONFLICT DO NOTHING;

-- name: ensure_bucket
-- A row to lock, where there is none.
INSERT INTO bucket (scope, subject, dimension, per_ms)
VALUES (:scope, :subject, :dimension, :per_ms) ON CONFLICT DO NOTHING;

-- name: lock_counters
-- The counters of a batch, locked in the order of their keys.
WITH w (scope, subject, dimension, span, start_ms) AS (VALUES (:scope, :subject, :dimension, :span, :start_ms))
SELECT c.scope, c.subject, c.dimension, c.span, c.start_ms, c.used, c.held
FROM w CROSS JOIN counter c ON c.scope = w.scope AND c.subject = w.subject AND c.dimension = w.dimension
    AND c.span = w.span AND c.start_ms = w.start_ms;

-- name: lock_buckets
-- The buckets of a batch, locked in the order of their keys. Where the database has a clock, it dates them.
WITH w (scope, subject, dimension, per_ms) AS (VALUES (:scope, :subject, :dimension, :per_ms))
SELECT b.scope, b.subject, b.dimension, b.per_ms, b.spent, b.at_ms, NULL
FROM w CROSS JOIN bucket b ON b.scope = w.scope AND b.subject = w.subject AND b.dimension = w.dimension
    AND b.per_ms = w.per_ms;

-- name: counters
-- Counters as they stand, for a reader.
SELECT c.scope, c.subject, c.dimension, c.span, c.start_ms, c.used, c.held
FROM json_each(:keys) w CROSS JOIN counter c
    ON c.scope = json_extract(w.value, '$[0]') AND c.subject = json_extract(w.value, '$[1]')
    AND c.dimension = json_extract(w.value, '$[2]') AND c.span = json_extract(w.value, '$[3]')
    AND c.start_ms = json_extract(w.value, '$[4]');

-- name: buckets
-- Buckets as they stand, for a reader, with the instant that dates them.
SELECT b.scope, b.subject, b.dimension, b.per_ms, b.spent, b.at_ms, :now_ms
FROM json_each(:keys) w CROSS JOIN bucket b
    ON b.scope = json_extract(w.value, '$[0]') AND b.subject = json_extract(w.value, '$[1]')
    AND b.dimension = json_extract(w.value, '$[2]') AND b.per_ms = json_extract(w.value, '$[3]');

-- name: add_hold
-- A new call. That its id is new was seen under the lock; if another process was quicker, this fails and is tried again.
INSERT INTO hold (call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model,
    owner, state, started_ms, expires_ms, output_tokens, progress_units_micro, output_seen, lines)
VALUES (:call_id, :admitted_month, :customer_id, :key_id, :user_id, :agent_id, :plan_id, :route, :upstream,
    :model, :owner, :state, :started_ms, :expires_ms, :output_tokens, :progress_units_micro, :output_seen, :lines);

-- name: extend_hold
-- More output is held for; neither expiry nor progress goes back.
UPDATE hold SET output_tokens = :output_tokens, expires_ms = :expires_ms, progress_units_micro = :units_micro,
    output_seen = :output_seen
WHERE call_id = :call_id;

-- name: drop_holds
-- Calls that ended: what they took stands in their records.
DELETE FROM hold WHERE call_id IN (VALUES (:call_id));

-- name: recover_hold
-- The sweeper closed it.
UPDATE hold SET state = 'recovered' WHERE call_id = :call_id;

-- name: forget_recovered
-- Calls that nobody will settle any more.
DELETE FROM hold WHERE state = 'recovered' AND expires_ms <= :before_ms;

-- name: renew_hold
-- A sign of life: neither expiry nor progress goes back.
UPDATE hold SET expires_ms = CASE WHEN expires_ms < :expires_ms THEN :expires_ms ELSE expires_ms END,
    progress_units_micro = CASE WHEN progress_units_micro < :units_micro THEN :units_micro
        ELSE progress_units_micro END,
    output_seen = CASE WHEN output_seen < :output_seen THEN :output_seen ELSE output_seen END
WHERE call_id = :call_id AND state = 'open';

-- name: expired_holds
-- Calls whose owner gave no sign of life in time.
SELECT call_id FROM hold WHERE state = 'open' AND expires_ms <= :now_ms ORDER BY expires_ms, call_id LIMIT :limit;

-- name: set_counter
-- The figures of a counter that is locked.
INSERT INTO counter (scope, subject, dimension, span, start_ms, used, held)
VALUES (:scope, :subject, :dimension, :span, :start_ms, :used, :held)
ON CONFLICT (scope, subject, dimension, span, start_ms) DO UPDATE SET used = excluded.used, held = excluded.held;

-- name: set_bucket
-- The figures of a bucket that is locked.
INSERT INTO bucket (scope, subject, dimension, per_ms, spent, at_ms)
VALUES (:scope, :subject, :dimension, :per_ms, :spent, :at_ms)
ON CONFLICT (scope, subject, dimension, per_ms) DO UPDATE SET spent = excluded.spent, at_ms = excluded.at_ms;

-- name: add_record
-- The guard of settle: a second record of one call breaks the whole transaction, and nothing is counted.
INSERT INTO usage_record (call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream,
    model, method, path, status, outcome, streamed, started_ms, ended_ms, first_byte_ms, units_micro, source, note,
    charge_nano, cost_nano, usage, meters, evidence, meter_hash, request_bytes, response_bytes, response_id,
    overrun_micro, day, corrects, lines)
VALUES (:call_id, :admitted_month, :customer_id, :key_id, :user_id, :agent_id, :plan_id, :route, :upstream,
    :model, :method, :path, :status, :outcome, :streamed, :started_ms, :ended_ms, :first_byte_ms, :units_micro,
    :source, :note, :charge_nano, :cost_nano, :usage, :meters, :evidence, :meter_hash, :request_bytes,
    :response_bytes, :response_id, :overrun_micro, :day, :corrects, :lines);

-- name: add_owed
-- What the biller is to be told of one call.
INSERT INTO owed (call_id, customer_id, plan_id, period_start_ms, started_ms, settled_ms, units_micro, charge_nano)
VALUES (:call_id, :customer_id, :plan_id, :period_start_ms, :started_ms, :settled_ms, :units_micro, :charge_nano);

-- name: record
-- One call: its record, and its correction where there is one.
SELECT r.call_id, r.admitted_month, r.customer_id, r.key_id, r.user_id, r.agent_id, r.plan_id, r.route, r.upstream,
    r.model, r.method, r.path, r.status, r.outcome, r.streamed, r.started_ms, r.ended_ms, r.first_byte_ms,
    r.units_micro, r.source, r.note, r.charge_nano, r.cost_nano, r.usage, r.meters, r.evidence, r.meter_hash,
    r.request_bytes, r.response_bytes, r.response_id, r.overrun_micro
FROM usage_record r WHERE r.call_id IN (:call_id, :call_id || '#correction') ORDER BY r.call_id;

-- name: records
-- The latest records before an instant.
SELECT call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model, method, path,
    status, outcome, streamed, started_ms, ended_ms, first_byte_ms, units_micro, source, note, charge_nano, cost_nano,
    usage, meters, evidence, meter_hash, request_bytes, response_bytes, response_id, overrun_micro
FROM usage_record WHERE started_ms < :before_ms {who} ORDER BY started_ms DESC, call_id DESC LIMIT :limit;

-- name: usage_total
-- Sums over records. A correction is no request.
SELECT COUNT(*) - COUNT(corrects), COALESCE(CAST(SUM(units_micro) AS BIGINT), 0),
    COALESCE(CAST(SUM(charge_nano) AS BIGINT), 0), COALESCE(CAST(SUM(cost_nano) AS BIGINT), 0), MAX(started_ms)
FROM usage_record WHERE started_ms >= :start_ms AND started_ms < :end_ms {who};

-- name: usage_by_day
-- The same sums for each UTC day.
SELECT day, COUNT(*) - COUNT(corrects), COALESCE(CAST(SUM(units_micro) AS BIGINT), 0),
    COALESCE(CAST(SUM(charge_nano) AS BIGINT), 0), COALESCE(CAST(SUM(cost_nano) AS BIGINT), 0), MAX(started_ms)
FROM usage_record WHERE started_ms >= :start_ms AND started_ms < :end_ms {who} GROUP BY day ORDER BY day;

-- name: unbalanced_counters
-- The doctor's question: counters whose figures are not the sums over the records and the open holds; also sums that
-- stand on no counter.
SELECT scope, subject, dimension, span, start_ms, CAST(SUM(used) AS BIGINT), CAST(SUM(held) AS BIGINT),
    CAST(SUM(taken) AS BIGINT), CAST(SUM(amount) AS BIGINT), COUNT(*) OVER ()
FROM (
    SELECT scope, subject, dimension, span, start_ms, used, held, 0 AS taken, 0 AS amount FROM counter
    UNION ALL
    SELECT json_extract(l.value, '$[0]') AS scope, json_extract(l.value, '$[1]') AS subject,
            json_extract(l.value, '$[2]') AS dimension, json_extract(l.value, '$[3]') AS span,
            json_extract(l.value, '$[4]') AS start_ms, 0, 0, json_extract(l.value, '$[6]'), 0
    FROM usage_record r CROSS JOIN json_each(r.lines) l
    UNION ALL
    SELECT scope, subject, dimension, span, start_ms, 0, 0, 0, MAX(amount) FROM (
        SELECT h.call_id, json_extract(l.value, '$[0]') AS scope, json_extract(l.value, '$[1]') AS subject,
            json_extract(l.value, '$[2]') AS dimension, json_extract(l.value, '$[3]') AS span,
            json_extract(l.value, '$[4]') AS start_ms, json_extract(l.value, '$[8]') + json_extract(l.value, '$[9]') * h.output_tokens AS amount
        FROM hold h CROSS JOIN json_each(h.lines, '$.stock') l WHERE h.state = 'open'
    ) each_line GROUP BY call_id, scope, subject, dimension, span, start_ms
) each_figure
GROUP BY scope, subject, dimension, span, start_ms HAVING SUM(used) <> SUM(taken) OR SUM(held) <> SUM(amount)
ORDER BY scope, subject, dimension, span, start_ms LIMIT :limit;

-- name: unbalanced_calls
-- The doctor's question: records that took something else of a counter of units than they say.
SELECT r.call_id, json_extract(l.value, '$[6]'), r.units_micro FROM usage_record r CROSS JOIN json_each(r.lines) l
WHERE json_extract(l.value, '$[2]') = 'units' AND json_extract(l.value, '$[6]') <> r.units_micro
ORDER BY r.call_id;

-- name: unlike_counters
-- The same by another way: counters of units against the units of the records that stand on them, each record once,
-- whatever its lines say that it took.
SELECT scope, subject, dimension, span, start_ms, CAST(SUM(used) AS BIGINT), CAST(SUM(units) AS BIGINT),
    COUNT(*) OVER ()
FROM (
    SELECT scope, subject, dimension, span, start_ms, used, 0 AS units FROM counter WHERE dimension = 'units'
    UNION ALL
    SELECT scope, subject, dimension, span, start_ms, 0, units_micro FROM (
        SELECT DISTINCT r.call_id, r.units_micro, json_extract(l.value, '$[0]') AS scope, json_extract(l.value, '$[1]') AS subject,
            json_extract(l.value, '$[2]') AS dimension, json_extract(l.value, '$[3]') AS span,
            json_extract(l.value, '$[4]') AS start_ms
        FROM usage_record r CROSS JOIN json_each(r.lines) l
    ) each_record WHERE dimension = 'units'
) each_figure
GROUP BY scope, subject, dimension, span, start_ms HAVING SUM(used) <> SUM(units)
ORDER BY scope, subject, dimension, span, start_ms LIMIT :limit;

-- name: strange_lines
-- Records that count on a counter of somebody else or of another time, or take something else than they say.
SELECT call_id, what, COUNT(*) OVER () FROM (
    SELECT call_id, CASE
        WHEN subject <> COALESCE(CASE scope WHEN 'global' THEN '*' WHEN 'customer' THEN customer_id
            WHEN 'user' THEN customer_id || '/' || user_id WHEN 'agent' THEN customer_id || '/' || agent_id
            WHEN 'key' THEN key_id WHEN 'plan' THEN plan_id WHEN 'route' THEN route WHEN 'model' THEN model END, '')
            THEN 'counts on the ' || scope || ' ' || subject
        WHEN start_ms > started_ms OR started_ms - start_ms >= CASE span WHEN 'hour' THEN 3600000
            WHEN 'day' THEN 90000000 WHEN 'total' THEN 9000000000000 ELSE 2682000000 END
            THEN 'counts in a ' || span || ' that it was not in'
        WHEN dimension = 'units' AND taken <> units_micro THEN 'counts other units than it has'
        WHEN dimension = 'requests' AND corrects IS NULL AND taken NOT IN (0, 1000000) THEN 'is not one request'
        WHEN dimension = 'dollars' AND corrects IS NULL AND COALESCE(note, '') <> 'recovered'
            AND taken <> COALESCE(cost_nano, 0) THEN 'counts other dollars than it cost' END AS what
    FROM (
        SELECT r.call_id, r.customer_id, r.user_id, r.agent_id, r.key_id, r.plan_id, r.route, r.model, r.started_ms,
            r.corrects, r.note, r.units_micro, r.cost_nano, json_extract(l.value, '$[0]') AS scope, json_extract(l.value, '$[1]') AS subject,
            json_extract(l.value, '$[2]') AS dimension, json_extract(l.value, '$[3]') AS span,
            json_extract(l.value, '$[4]') AS start_ms, json_extract(l.value, '$[6]') AS taken
        FROM usage_record r CROSS JOIN json_each(r.lines) l
    ) each_line
) each_line WHERE what IS NOT NULL ORDER BY call_id LIMIT :limit;

-- name: strange_figures
-- Figures below nothing or that are no whole numbers (an SQLite column takes anything), and readings that are no plain
-- number.
SELECT place, what, COUNT(*) OVER () FROM (
    SELECT 'record ' || r.call_id AS place, 'a figure that is no whole number' AS what FROM usage_record r
    WHERE typeof(r.units_micro) <> 'integer' OR typeof(r.charge_nano) <> 'integer'
        OR typeof(r.overrun_micro) <> 'integer' OR typeof(r.started_ms) <> 'integer'
        OR typeof(r.cost_nano) NOT IN ('integer', 'null')
    UNION ALL
    SELECT 'record ' || r.call_id, 'a negative figure' FROM usage_record r
    WHERE r.cost_nano < 0 AND r.corrects IS NULL OR r.overrun_micro < 0
        OR (r.corrects IS NULL AND (r.units_micro < 0 OR r.charge_nano < 0))
    UNION ALL
    SELECT 'record ' || r.call_id, 'a meter that reads ' || m.value FROM usage_record r CROSS JOIN json_each(r.meters) m
    WHERE m.value GLOB '*[^0-9.]*' OR m.value = ''
    UNION ALL
    SELECT 'counter ' || scope || ' ' || subject, 'a negative figure, or one that is no whole number' FROM counter
    WHERE used < 0 OR held < 0 OR typeof(used) <> 'integer' OR typeof(held) <> 'integer'
    UNION ALL
    SELECT 'hold ' || call_id, 'a negative figure, or one that is no whole number' FROM hold
    WHERE output_tokens < 0 OR progress_units_micro < 0 OR typeof(output_tokens) <> 'integer'
        OR typeof(progress_units_micro) <> 'integer'
    UNION ALL
    SELECT 'owed ' || call_id, 'a figure that is no whole number' FROM owed
    WHERE typeof(charge_nano) <> 'integer' OR typeof(units_micro) <> 'integer'
) each_place ORDER BY place LIMIT :limit;

-- name: counts
-- How many rows there are.
SELECT (SELECT COUNT(*) FROM usage_record), (SELECT COUNT(*) FROM usage_record WHERE corrects IS NOT NULL),
    (SELECT COUNT(*) FROM counter), (SELECT COUNT(*) FROM owed);

-- name: holds_now
-- The calls in flight, and those that were recovered and may yet be settled truly.
SELECT CAST(COALESCE(SUM(CASE WHEN state = 'open' THEN 1 ELSE 0 END), 0) AS BIGINT),
    MIN(CASE WHEN state = 'open' THEN started_ms END), MIN(CASE WHEN state = 'open' THEN expires_ms END),
    CAST(COALESCE(SUM(CASE WHEN state = 'recovered' THEN 1 ELSE 0 END), 0) AS BIGINT)
FROM hold;

-- name: held_now
-- What the counters say is held.
SELECT dimension, CAST(SUM(held) AS BIGINT) FROM counter WHERE held <> 0 GROUP BY dimension ORDER BY dimension;

-- name: overdue_holds
-- Calls that the sweeper should have settled.
SELECT call_id, expires_ms, COUNT(*) OVER () FROM hold
WHERE state = 'open' AND expires_ms <= :overdue_ms ORDER BY expires_ms, call_id LIMIT :limit;

-- name: ghost_holds
-- Calls that hold although they are on record, and recovered ones that are not.
SELECT h.call_id, CASE WHEN r.call_id IS NULL THEN 'was recovered and has no record'
    ELSE 'holds and is on record' END, COUNT(*) OVER ()
FROM hold h LEFT JOIN usage_record r ON r.call_id = h.call_id AND r.admitted_month = h.admitted_month
WHERE (h.state = 'open') = (r.call_id IS NOT NULL) ORDER BY h.call_id LIMIT :limit;

-- name: unbalanced_customers
-- Customers whose charges are not what the biller is to be told.
SELECT customer_id, CAST(SUM(charge) AS BIGINT), CAST(SUM(owed) AS BIGINT), COUNT(*) OVER () FROM (
    SELECT customer_id, charge_nano AS charge, 0 AS owed FROM usage_record WHERE charge_nano <> 0
    UNION ALL SELECT customer_id, 0, charge_nano FROM owed
) each_call GROUP BY customer_id HAVING SUM(charge) <> SUM(owed) ORDER BY customer_id LIMIT :limit;

-- name: strange_owed
-- What is owed without its record, or unlike it; what is charged and not owed.
SELECT call_id, what, COUNT(*) OVER () FROM (
    SELECT o.call_id, CASE
        WHEN r.call_id IS NULL THEN 'is owed and has no record'
        WHEN r.customer_id <> o.customer_id THEN 'is owed by another customer than its record says'
        WHEN r.charge_nano <> o.charge_nano THEN 'is owed with another charge than its record says'
        WHEN r.units_micro <> o.units_micro THEN 'is owed with other units than its record says' END AS what
    FROM owed o LEFT JOIN usage_record r ON r.call_id = o.call_id
    UNION ALL
    SELECT r.call_id, 'has a charge and is not owed' FROM usage_record r
    WHERE r.charge_nano <> 0 AND NOT EXISTS (SELECT 1 FROM owed o WHERE o.call_id = r.call_id)
) each_call WHERE what IS NOT NULL ORDER BY call_id LIMIT :limit;

-- name: strange_marks
-- Records whose source or outcome nobody writes, or whose units nothing accounts for.
SELECT call_id, what, COUNT(*) OVER () FROM (
    SELECT call_id, CASE
        WHEN source NOT IN ('measured', 'default', 'estimated', 'none', 'error') THEN 'has an unknown source'
        WHEN outcome NOT IN ('complete', 'client_closed', 'upstream_failed', 'upstream_error', 'timed_out', 'cut')
            THEN 'has an unknown outcome'
        WHEN corrects IS NULL AND source IN ('none', 'error') AND units_micro <> 0
            THEN 'has units although nothing was read'
        WHEN corrects IS NULL AND note = 'recovered' AND source <> 'estimated'
            THEN 'was recovered and is not marked as estimated' END AS what
    FROM usage_record
) each_call WHERE what IS NOT NULL ORDER BY call_id LIMIT :limit;

-- name: strange_corrections
-- Corrections of nothing, and those that leave less than nothing.
SELECT call_id, what, COUNT(*) OVER () FROM (
    SELECT k.call_id, CASE
        WHEN r.call_id IS NULL THEN 'corrects a call that has no record'
        WHEN r.customer_id <> k.customer_id THEN 'corrects the call of another customer'
        WHEN r.units_micro + k.units_micro < 0 THEN 'leaves less than no units' END AS what
    FROM usage_record k LEFT JOIN usage_record r ON r.call_id = k.corrects AND r.admitted_month = k.admitted_month
    WHERE k.corrects IS NOT NULL
) each_call WHERE what IS NOT NULL ORDER BY call_id LIMIT :limit;

-- name: marks_by_route
-- How sure the figures of complete calls are, for each route.
SELECT route, CAST(SUM(CASE WHEN source = 'measured' THEN 1 ELSE 0 END) AS BIGINT),
    CAST(SUM(CASE WHEN source = 'default' THEN 1 ELSE 0 END) AS BIGINT),
    CAST(SUM(CASE WHEN source = 'estimated' THEN 1 ELSE 0 END) AS BIGINT),
    CAST(SUM(CASE WHEN source IN ('none', 'error') THEN 1 ELSE 0 END) AS BIGINT)
FROM usage_record
WHERE started_ms >= :since_ms AND outcome = 'complete' AND corrects IS NULL
    AND (source <> 'none' OR note LIKE '%unmeasured%')
GROUP BY route ORDER BY route;

-- name: entries
-- One call as it was appended: its record, then its correction.
SELECT r.call_id, r.admitted_month, r.customer_id, r.key_id, r.user_id, r.agent_id, r.plan_id, r.route, r.upstream,
    r.model, r.method, r.path, r.status, r.outcome, r.streamed, r.started_ms, r.ended_ms, r.first_byte_ms,
    r.units_micro, r.source, r.note, r.charge_nano, r.cost_nano, r.usage, r.meters, r.evidence, r.meter_hash,
    r.request_bytes, r.response_bytes, r.response_id, r.overrun_micro, r.corrects, r.lines
FROM usage_record r WHERE r.call_id IN (:call_id, :call_id || '#correction') ORDER BY r.call_id;

-- name: holding
-- The hold of one call.
SELECT call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model, owner, state,
    started_ms, expires_ms, output_tokens, progress_units_micro, output_seen, lines
FROM hold WHERE call_id = :call_id;

-- name: plans_used
-- On which plans anything was used.
SELECT DISTINCT plan_id FROM usage_record WHERE started_ms >= :start_ms AND started_ms < :end_ms ORDER BY plan_id;

-- name: next_user
-- The next customer with records: one step on the index, however many records there are.
SELECT r.customer_id, COALESCE(c.anchor_ms, 0) FROM (
    SELECT customer_id FROM usage_record WHERE customer_id > :after ORDER BY customer_id LIMIT 1
) r LEFT JOIN customer c ON c.id = r.customer_id;

-- name: history
-- A page of a customer's records, oldest admission first.
SELECT call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model, method, path,
    status, outcome, streamed, started_ms, ended_ms, first_byte_ms, units_micro, source, note, charge_nano, cost_nano,
    usage, meters, evidence, meter_hash, request_bytes, response_bytes, response_id, overrun_micro, corrects, lines
FROM usage_record
WHERE customer_id = :customer_id AND started_ms >= :start_ms AND started_ms < :end_ms
    AND (started_ms > :after_ms OR (started_ms = :after_ms AND call_id > :after_id))
ORDER BY started_ms, call_id LIMIT :limit;
