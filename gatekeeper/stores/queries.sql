-- Every statement of the store, by name. `:name` is a parameter; Postgres sees `$n`. A list travels as one JSON text.
-- `{who}` makes four queries of one: NAME, NAME/customer, NAME/key and NAME/both, filtered so. `{of}`, `{by}`, `{per}` and
-- `{what}` make several too: for each scope, for each thing that sums are told apart by, for each span of time, for each
-- amount (see queries.py).
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

-- name: be_patient
-- A migration takes as long as it takes, and so does waiting for one.
SELECT 1;

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

-- name: customers_found
-- A page of the customers in whose words something stands, and who are on a plan.
SELECT id, name, plan_id, created_ms, anchor_ms, email, disabled_ms, stripe_customer_id
FROM customer WHERE id > :after AND (CAST(:plan_id AS TEXT) IS NULL OR plan_id = :plan_id)
    AND (CAST(:find AS TEXT) IS NULL OR LOWER(id) LIKE :find ESCAPE '!' OR LOWER(name) LIKE :find ESCAPE '!'
        OR LOWER(email) LIKE :find ESCAPE '!' OR LOWER(stripe_customer_id) LIKE :find ESCAPE '!')
ORDER BY id LIMIT :limit;

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

-- name: expire_key
-- Never lets a key live longer. A row back says that there is such a key, and that it is not revoked.
UPDATE api_key SET expires_ms = CASE WHEN expires_ms < :expires_ms THEN expires_ms ELSE :expires_ms END
WHERE id = :id AND revoked_ms IS NULL RETURNING id;

-- name: revoke_keys
-- A row back for each that was good until now.
UPDATE api_key SET revoked_ms = :now_ms WHERE customer_id = :customer_id AND revoked_ms IS NULL RETURNING id;

-- name: touch_key
-- Never moves the time of last use back.
UPDATE api_key SET last_used_ms = :used_ms WHERE id = :id AND (last_used_ms IS NULL OR last_used_ms < :used_ms);

-- name: lock_holds
-- The calls of a batch, locked.
SELECT h.call_id, h.admitted_month, h.customer_id, h.key_id, h.user_id, h.agent_id, h.plan_id, h.route, h.upstream,
    h.model, h.owner, h.state, h.started_ms, h.expires_ms, h.output_tokens, h.progress_units_micro, h.output_seen, h.lines
FROM hold h WHERE h.call_id IN (VALUES (:call_id));

-- name: lock_calls
-- The names of calls that have no hold to lock; in SQLite the open write transaction sees to that.
VALUES (:call_id);

-- name: held_calls
-- Which of those calls are held.
SELECT h.call_id FROM hold h WHERE h.call_id IN (VALUES (:call_id));

-- name: recorded_calls
-- Which of those calls are on record: they are over.
WITH w (call_id, admitted_month) AS (VALUES (:call_id, :admitted_month))
SELECT r.call_id FROM w CROSS JOIN usage_record r ON r.call_id = w.call_id AND r.admitted_month = w.admitted_month;

-- name: records_of
-- What those calls took.
WITH w (call_id, admitted_month) AS (VALUES (:call_id, :admitted_month))
SELECT r.call_id, r.admitted_month, r.customer_id, r.key_id, r.user_id, r.agent_id, r.plan_id, r.route, r.upstream,
    r.model, r.method, r.path, r.status, r.outcome, r.streamed, r.started_ms, r.ended_ms, r.first_byte_ms,
    r.units_micro, r.source, r.note, r.charge_nano, r.cost_nano, r.usage, r.meters, r.evidence, r.meter_hash,
    r.request_bytes, r.response_bytes, r.response_id, r.overrun_micro, r.model_requested, r.lines
FROM w CROSS JOIN usage_record r ON r.call_id = w.call_id AND r.admitted_month = w.admitted_month;

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
-- A new call. One that is held already breaks the primary key, one that is on record the CHECK of its state: the batch
-- fails, and each of its calls is tried again by itself, in doubt. Nothing is asked for all those that are new.
-- OR ROLLBACK: what breaks ends the whole transaction, so SQLite need not keep what a statement of many rows undoes.
INSERT OR ROLLBACK INTO hold (call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model,
    owner, state, started_ms, expires_ms, output_tokens, progress_units_micro, output_seen, lines)
WITH w (call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model, owner, state,
    started_ms, expires_ms, output_tokens, progress_units_micro, output_seen, lines) AS (
    VALUES (:call_id, :admitted_month, :customer_id, :key_id, :user_id, :agent_id, :plan_id, :route, :upstream,
        :model, :owner, :state, :started_ms, :expires_ms, :output_tokens, :progress_units_micro, :output_seen, :lines)
)
SELECT w.call_id, w.admitted_month, w.customer_id, w.key_id, w.user_id, w.agent_id, w.plan_id, w.route, w.upstream,
    w.model, w.owner, CASE WHEN EXISTS (
        SELECT 1 FROM usage_record r WHERE r.call_id = w.call_id AND r.admitted_month = w.admitted_month
    ) THEN 'over' ELSE w.state END, w.started_ms, w.expires_ms, w.output_tokens, w.progress_units_micro,
    w.output_seen, w.lines
FROM w;

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
-- Calls that nobody will settle any more, some at a time.
DELETE FROM hold WHERE call_id IN (
    SELECT call_id FROM hold WHERE state = 'recovered' AND expires_ms <= :before_ms ORDER BY expires_ms LIMIT :limit
) RETURNING call_id;

-- name: idle_buckets
-- Buckets that nobody has charged for long and that are empty since at any rate of a unit (a million) a period.
SELECT scope, subject, dimension, per_ms, spent, at_ms FROM bucket
WHERE at_ms < :before_ms AND spent / 1000000 < (:before_ms - at_ms) / per_ms LIMIT :limit;

-- name: forget_buckets
-- Those of them that are as they were found.
DELETE FROM bucket WHERE rowid IN (
    WITH w (scope, subject, dimension, per_ms, spent, at_ms) AS (
        VALUES (:scope, :subject, :dimension, :per_ms, :spent, :at_ms)
    )
    SELECT b.rowid FROM w CROSS JOIN bucket b ON b.scope = w.scope AND b.subject = w.subject
        AND b.dimension = w.dimension AND b.per_ms = w.per_ms WHERE b.spent = w.spent AND b.at_ms = w.at_ms
);

-- name: empty_counters
-- Counters of nothing, of windows that began long ago. One that never turns comes again with the next call.
SELECT scope, subject, dimension, span, start_ms, used, held FROM counter
WHERE used = 0 AND held = 0 AND start_ms < :before_ms AND span <> 'total' LIMIT :limit;

-- name: forget_counters
-- Those of them that still count nothing.
DELETE FROM counter WHERE rowid IN (
    WITH w (scope, subject, dimension, span, start_ms, used, held) AS (
        VALUES (:scope, :subject, :dimension, :span, :start_ms, :used, :held)
    )
    SELECT c.rowid FROM w CROSS JOIN counter c ON c.scope = w.scope AND c.subject = w.subject
        AND c.dimension = w.dimension AND c.span = w.span AND c.start_ms = w.start_ms
    WHERE c.used = w.used AND c.held = w.held
);

-- name: renew_hold
-- A sign of life: neither expiry nor progress goes back.
UPDATE hold SET expires_ms = CASE WHEN expires_ms < :expires_ms THEN :expires_ms ELSE expires_ms END,
    progress_units_micro = CASE WHEN progress_units_micro < :units_micro THEN :units_micro
        ELSE progress_units_micro END,
    output_seen = CASE WHEN output_seen < :output_seen THEN :output_seen ELSE output_seen END
WHERE call_id = :call_id AND state = 'open';

-- name: expired_holds
-- Calls whose owner gave no sign of life in time, the oldest first, after one of them.
SELECT call_id, expires_ms FROM hold
WHERE state = 'open' AND expires_ms <= :now_ms AND (expires_ms, call_id) > (:after_ms, :after)
ORDER BY expires_ms, call_id LIMIT :limit;

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
INSERT OR ROLLBACK INTO usage_record (call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream,
    model, method, path, status, outcome, streamed, started_ms, ended_ms, first_byte_ms, units_micro, source, note,
    charge_nano, cost_nano, usage, meters, evidence, meter_hash, request_bytes, response_bytes, response_id,
    overrun_micro, model_requested, day, corrects, lines)
VALUES (:call_id, :admitted_month, :customer_id, :key_id, :user_id, :agent_id, :plan_id, :route, :upstream,
    :model, :method, :path, :status, :outcome, :streamed, :started_ms, :ended_ms, :first_byte_ms, :units_micro,
    :source, :note, :charge_nano, :cost_nano, :usage, :meters, :evidence, :meter_hash, :request_bytes,
    :response_bytes, :response_id, :overrun_micro, :model_requested, :day, :corrects, :lines);

-- name: add_owed
-- What the biller is to be told of one call.
INSERT OR ROLLBACK INTO owed (call_id, customer_id, plan_id, period_start_ms, period_end_ms, started_ms, settled_ms, units_micro, charge_nano)
VALUES (:call_id, :customer_id, :plan_id, :period_start_ms, :period_end_ms, :started_ms, :settled_ms, :units_micro,
    :charge_nano);

-- name: claim_response
-- Who pays for a response: whoever was first. Each row comes back with the call that does.
INSERT INTO billed_response (customer_id, upstream, response_id, call_id, started_ms)
VALUES (:customer_id, :upstream, :response_id, :call_id, :started_ms)
ON CONFLICT (customer_id, upstream, response_id) DO UPDATE SET call_id = billed_response.call_id
RETURNING customer_id, upstream, response_id, call_id;

-- name: response_payers
-- The calls that pay for these responses, where anyone does.
WITH w (customer_id, upstream, response_id) AS (VALUES (:customer_id, :upstream, :response_id))
SELECT b.customer_id, b.upstream, b.response_id, b.call_id
FROM w CROSS JOIN billed_response b ON b.customer_id = w.customer_id AND b.upstream = w.upstream
    AND b.response_id = w.response_id;

-- name: unclaim_response
-- A call that could not be settled pays for nothing.
DELETE FROM billed_response
WHERE (customer_id, upstream, response_id) IN (VALUES (:customer_id, :upstream, :response_id));

-- name: make_month
-- Nothing: SQLite keeps all months in one table.
SELECT CASE WHEN :month IS NULL THEN 1 ELSE 0 END;

-- name: forget_responses
-- Responses that nobody can fetch any more, some at a time.
DELETE FROM billed_response WHERE (customer_id, upstream, response_id) IN (
    SELECT customer_id, upstream, response_id FROM billed_response WHERE started_ms < :before_ms
    ORDER BY started_ms, customer_id, upstream, response_id LIMIT :limit
) RETURNING call_id;

-- name: forget_attempts
-- Tries of calls that nobody asks for any more, some at a time.
DELETE FROM attempt WHERE (call_id, number) IN (
    SELECT call_id, number FROM attempt WHERE started_ms < :before_ms ORDER BY started_ms LIMIT :limit
) RETURNING call_id;

-- name: add_event
-- What happened, once.
INSERT INTO event (id, kind, customer_id, created_ms, content)
VALUES (:id, :kind, :customer_id, :created_ms, :content) ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: unfanned
-- Whether events wait to be handed out.
SELECT 1 FROM event WHERE fanned_ms IS NULL LIMIT 1;

-- name: due_delivery
-- Whether anything is due for a target.
SELECT 1 FROM delivery WHERE state = 'waiting' AND target = :target AND next_ms <= :now_ms LIMIT 1;

-- name: unfanned_events
-- The oldest events that wait to be handed out.
SELECT id, kind, customer_id, created_ms, content FROM event WHERE fanned_ms IS NULL ORDER BY created_ms, id LIMIT :limit;

-- name: add_delivery
-- An event for a target.
INSERT INTO delivery (event_id, target, state, next_ms) VALUES (:event_id, :target, :state, :next_ms)
ON CONFLICT (event_id, target) DO NOTHING;

-- name: fan_event
-- It was handed out.
UPDATE event SET fanned_ms = :fanned_ms WHERE id = :id AND fanned_ms IS NULL;

-- name: claim_deliveries
-- What is due for a target is leased: it is due again only when the lease is over.
UPDATE delivery SET next_ms = :lease_ms, attempts = attempts + 1, error = NULL
WHERE state = 'waiting' AND target = :target AND next_ms <= :now_ms AND event_id IN (
    SELECT event_id FROM delivery WHERE state = 'waiting' AND target = :target AND next_ms <= :now_ms
    ORDER BY next_ms, event_id LIMIT :limit
) RETURNING event_id, attempts;

-- name: events_of
-- Those events.
SELECT id, kind, customer_id, created_ms, content FROM event WHERE id IN (VALUES (:id));

-- name: delivered
-- A target has it, whoever holds the lease by now.
UPDATE delivery SET state = 'sent', sent_ms = :now_ms, next_ms = :now_ms, error = NULL
WHERE event_id = :event_id AND target = :target AND state <> 'sent';

-- name: undelivered
-- The attempt of whoever still holds the lease failed.
UPDATE delivery SET state = :state, next_ms = :next_ms, error = :error
WHERE event_id = :event_id AND target = :target AND state = 'waiting' AND attempts = :attempts;

-- name: abandon_deliveries
-- Deliveries that were due long ago and that nobody took: their target is gone.
UPDATE delivery SET state = 'dead', next_ms = :now_ms, error = :error
WHERE state = 'waiting' AND next_ms <= :before_ms AND (event_id, target) IN (
    SELECT event_id, target FROM delivery WHERE state = 'waiting' AND next_ms <= :before_ms
    ORDER BY next_ms, event_id LIMIT :limit
) RETURNING event_id;

-- name: forget_deliveries
-- Deliveries that ended long ago.
DELETE FROM delivery WHERE (event_id, target) IN (
    SELECT event_id, target FROM delivery WHERE state <> 'waiting' AND state = :state AND next_ms <= :before_ms
    ORDER BY next_ms LIMIT :limit
) RETURNING event_id;

-- name: forget_events
-- Events that were handed out long ago and are on their way to nobody. Those whose id must not come again stay longer.
DELETE FROM event WHERE id IN (
    SELECT e.id FROM event e
    WHERE e.fanned_ms IS NOT NULL AND e.fanned_ms <= :before_ms
        AND (e.kind <> :lasting_kind OR e.fanned_ms <= :lasting_before_ms)
        AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.event_id = e.id)
    ORDER BY e.fanned_ms LIMIT :limit
) RETURNING id;

-- name: abandon_events
-- Events that nobody has handed out for long: there is nobody any more who asked for them.
DELETE FROM event WHERE id IN (
    SELECT id FROM event WHERE fanned_ms IS NULL AND created_ms <= :before_ms ORDER BY created_ms, id LIMIT :limit
) RETURNING id;

-- name: deliveries
-- How deliveries stand, the latest event first; an empty text filters nothing.
SELECT e.id, e.kind, e.customer_id, e.created_ms, e.content, d.target, d.state, d.attempts, d.next_ms, d.sent_ms, d.error
FROM delivery d JOIN event e ON e.id = d.event_id
WHERE (CAST(:event_id AS TEXT) = '' OR d.event_id = :event_id) AND (CAST(:state AS TEXT) = '' OR d.state = :state)
    AND (CAST(:target AS TEXT) = '' OR d.target = :target) AND e.created_ms <= :before_ms
    AND (e.created_ms < :before_ms OR e.id < :before_id OR (e.id = :before_id AND d.target > :after_target))
ORDER BY e.created_ms DESC, e.id DESC, d.target LIMIT :limit;

-- name: retry_deliveries
-- What was given up begins anew; of one event also what waits after a failure, but not what is being sent.
UPDATE delivery SET state = 'waiting', attempts = 0, next_ms = :now_ms, error = NULL
WHERE (CAST(:event_id AS TEXT) = '' OR event_id = :event_id) AND (CAST(:target AS TEXT) = '' OR target = :target)
    AND (state = 'dead' OR (CAST(:event_id AS TEXT) <> '' AND state = 'waiting' AND error IS NOT NULL))
RETURNING event_id;

-- name: add_attempt
-- A try that did not serve its call.
INSERT INTO attempt (call_id, number, upstream, model, started_ms, ended_ms, status, fault)
VALUES (:call_id, :number, :upstream, :model, :started_ms, :ended_ms, :status, :fault)
ON CONFLICT (call_id, number) DO NOTHING;

-- name: attempts
-- The tries that did not serve a call, in order.
SELECT number, upstream, model, started_ms, ended_ms, status, fault FROM attempt WHERE call_id = :call_id
ORDER BY number;

-- name: record
-- One call: its record, and its correction where there is one.
SELECT r.call_id, r.admitted_month, r.customer_id, r.key_id, r.user_id, r.agent_id, r.plan_id, r.route, r.upstream,
    r.model, r.method, r.path, r.status, r.outcome, r.streamed, r.started_ms, r.ended_ms, r.first_byte_ms,
    r.units_micro, r.source, r.note, r.charge_nano, r.cost_nano, r.usage, r.meters, r.evidence, r.meter_hash,
    r.request_bytes, r.response_bytes, r.response_id, r.overrun_micro, r.model_requested
FROM usage_record r WHERE r.call_id IN (:call_id, :call_id || '#correction') ORDER BY r.call_id;

-- name: records
-- The latest records before an instant.
SELECT call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model, method, path,
    status, outcome, streamed, started_ms, ended_ms, first_byte_ms, units_micro, source, note, charge_nano, cost_nano,
    usage, meters, evidence, meter_hash, request_bytes, response_bytes, response_id, overrun_micro, model_requested
FROM usage_record WHERE started_ms < :before_ms {who} ORDER BY started_ms DESC, call_id DESC LIMIT :limit;

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
-- The doctor's question: records that took something else of a counter of units than they say. A correction may take
-- from one model what it gives to another.
SELECT r.call_id, json_extract(l.value, '$[6]'), r.units_micro FROM usage_record r CROSS JOIN json_each(r.lines) l
WHERE json_extract(l.value, '$[2]') = 'units' AND json_extract(l.value, '$[6]') <> r.units_micro
    AND (r.corrects IS NULL OR json_extract(l.value, '$[0]') NOT LIKE '%model')
ORDER BY r.call_id;

-- name: unlike_counters
-- The same by another way: counters of units against the units of the records that stand on them, each record once,
-- whatever its lines say that it took; but what a correction takes from one model or gives to another only they say.
SELECT scope, subject, dimension, span, start_ms, CAST(SUM(used) AS BIGINT), CAST(SUM(units) AS BIGINT),
    COUNT(*) OVER ()
FROM (
    SELECT scope, subject, dimension, span, start_ms, used, 0 AS units FROM counter WHERE dimension = 'units'
    UNION ALL
    SELECT scope, subject, dimension, span, start_ms, 0, units_micro FROM (
        SELECT DISTINCT r.call_id, CASE WHEN r.corrects IS NOT NULL AND json_extract(l.value, '$[0]') LIKE '%model'
                THEN json_extract(l.value, '$[6]') ELSE r.units_micro END AS units_micro,
            json_extract(l.value, '$[0]') AS scope, json_extract(l.value, '$[1]') AS subject,
            json_extract(l.value, '$[2]') AS dimension, json_extract(l.value, '$[3]') AS span,
            json_extract(l.value, '$[4]') AS start_ms
        FROM usage_record r CROSS JOIN json_each(r.lines) l
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
            CASE WHEN r.corrects IS NULL OR json_extract(l.value, '$[0]') NOT LIKE '%model' THEN r.model
                WHEN json_extract(l.value, '$[0]') = 'model' THEN json_extract(l.value, '$[1]')
                ELSE substr(json_extract(l.value, '$[1]'), instr(json_extract(l.value, '$[1]'), ',') + 1) END AS model,
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
    r.request_bytes, r.response_bytes, r.response_id, r.overrun_micro, r.model_requested, r.corrects, r.lines
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
    usage, meters, evidence, meter_hash, request_bytes, response_bytes, response_id, overrun_micro, model_requested, corrects, lines
FROM usage_record
WHERE customer_id = :customer_id AND started_ms >= :start_ms AND started_ms < :end_ms
    AND (started_ms > :after_ms OR (started_ms = :after_ms AND call_id > :after_id))
ORDER BY started_ms, call_id LIMIT :limit;

-- name: latest
-- A page of all records, latest admission first: what comes before a place.
SELECT call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model, method, path,
    status, outcome, streamed, started_ms, ended_ms, first_byte_ms, units_micro, source, note, charge_nano, cost_nano,
    usage, meters, evidence, meter_hash, request_bytes, response_bytes, response_id, overrun_micro, model_requested, corrects, lines
FROM usage_record
WHERE started_ms <= :before_ms AND (started_ms < :before_ms OR call_id < :before_id)
ORDER BY started_ms DESC, call_id DESC LIMIT :limit;

-- name: limit_revision
-- How often overlays and resets were changed; no row: never.
SELECT number FROM limit_revision WHERE id = 1;

-- name: bump_limits
-- Another change; it also locks out every other one until it is committed.
INSERT INTO limit_revision (id, number) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET number = limit_revision.number + 1;

-- name: overlays
-- All limits as operators set them.
SELECT id, family, name, scope, subject, dimension, span, cap, mode, zone, created_ms, updated_ms, version, release
FROM limit_overlay ORDER BY id;

-- name: resets
-- The last reset of each count that may still run.
SELECT scope, subject, dimension, span, MAX(reset_ms) FROM limit_reset
WHERE reset_ms >= :since_ms OR span = 'total' GROUP BY scope, subject, dimension, span;

-- name: add_overlay
-- A row back says that nobody has set a limit there.
INSERT INTO limit_overlay (id, family, name, scope, subject, dimension, span, cap, mode, zone, created_ms, updated_ms,
    version, release)
VALUES (:id, :family, :name, :scope, :subject, :dimension, :span, :cap, :mode, :zone, :created_ms, :updated_ms,
    :version, :release)
ON CONFLICT DO NOTHING RETURNING id;

-- name: change_overlay
-- A row back says that it was still as it was read.
UPDATE limit_overlay SET name = :name, cap = :cap, mode = :mode, zone = :zone, release = :release, updated_ms = :updated_ms,
    version = version + 1
WHERE id = :id AND created_ms = :created_ms AND version = :version RETURNING version;

-- name: drop_overlay
-- A row back says that it was still as it was read.
DELETE FROM limit_overlay WHERE id = :id AND created_ms = :created_ms AND version = :version RETURNING id;

-- name: add_reset
-- From an instant on a limit counts anew; twice in one millisecond is once.
INSERT INTO limit_reset (scope, subject, dimension, span, reset_ms, reason)
VALUES (:scope, :subject, :dimension, :span, :reset_ms, :reason) ON CONFLICT DO NOTHING;

-- name: top_counters
-- Who used most since an instant: of each subject the counter that began last.
SELECT c.scope, c.subject, c.dimension, c.span, c.start_ms, c.used, c.held FROM counter c
WHERE c.scope = :scope AND c.dimension = :dimension AND c.span = :span AND c.start_ms >= :start_ms
    AND c.start_ms <= :now_ms AND NOT EXISTS (
        SELECT 1 FROM counter d WHERE d.scope = c.scope AND d.subject = c.subject AND d.dimension = c.dimension
            AND d.span = c.span AND d.start_ms > c.start_ms AND d.start_ms <= :now_ms)
ORDER BY c.used DESC, c.subject LIMIT :limit;

-- name: owing_customers
-- A page of customers with usage that is in no batch yet; all, or those that the biller knows.
SELECT DISTINCT o.customer_id FROM owed o WHERE o.batch_id IS NULL AND o.customer_id > :after
    AND (CAST(:known AS TEXT) = '' OR EXISTS (
        SELECT 1 FROM customer c WHERE c.id = o.customer_id AND c.stripe_customer_id IS NOT NULL
    ))
ORDER BY o.customer_id LIMIT :limit;

-- name: billed_customer
-- Where a customer's billing periods start, the id at the biller, and since when his subscription has its prices.
SELECT c.anchor_ms, c.stripe_customer_id, COALESCE(s.items_ms, 0)
FROM customer c LEFT JOIN subscription s ON s.customer_id = c.id WHERE c.id = :customer_id;

-- name: owing
-- What a customer owes and no batch has, told apart by what decides where it goes. Periods of before their end was noted
-- have 31 days.
SELECT plan_id, period_start_ms, COALESCE(period_end_ms, period_start_ms + 2678400000) AS end_ms,
    CASE WHEN settled_ms > COALESCE(period_end_ms, period_start_ms + 2678400000) + :grace_ms THEN 1 ELSE 0 END AS late,
    CASE WHEN started_ms < :old_ms THEN 1 ELSE 0 END AS old
FROM owed WHERE batch_id IS NULL AND customer_id = :customer_id
GROUP BY 1, 2, 3, 4, 5 ORDER BY 2, 3, 1, 4, 5;

-- name: take_owed
-- These rows go into that batch, unless they are in one.
UPDATE owed SET batch_id = :batch_id
WHERE batch_id IS NULL AND customer_id = :customer_id AND plan_id = :plan_id AND period_start_ms = :period_start_ms
    AND COALESCE(period_end_ms, period_start_ms + 2678400000) = :period_end_ms
    AND settled_ms > :settled_after_ms AND settled_ms <= :settled_until_ms
    AND started_ms >= :started_from_ms AND started_ms < :started_before_ms;

-- name: batch_sums
-- The rows of a batch. Whole units and the rest apart: figures near the bound of 64 bits add up to more than fits.
SELECT COUNT(*), CAST(COALESCE(SUM(units_micro / 1000000), 0) AS BIGINT),
    CAST(COALESCE(SUM(units_micro % 1000000), 0) AS BIGINT), MAX(started_ms)
FROM owed WHERE batch_id = :batch_id;

-- name: ensure_account
-- A row to lock, where there is none.
INSERT INTO meter_account (customer_id, meter) VALUES (:customer_id, :meter) ON CONFLICT DO NOTHING;

-- name: lock_account
-- What the next batch has to carry; SQLite has one writer.
SELECT residue_micro FROM meter_account WHERE customer_id = :customer_id AND meter = :meter;

-- name: set_residue
-- What the batch after this one has to carry.
UPDATE meter_account SET residue_micro = :residue_micro WHERE customer_id = :customer_id AND meter = :meter;

-- name: add_batch
-- Frozen.
INSERT INTO meter_batch (id, customer_id, meter, period_start_ms, period_end_ms, value, ts_ms, identifier, state, late,
    carried_micro, left_micro, created_ms, next_ms, error)
VALUES (:id, :customer_id, :meter, :period_start_ms, :period_end_ms, :value, :ts_ms, :identifier, :state, :late,
    :carried_micro, :left_micro, :created_ms, :next_ms, :error);

-- name: due_batch
-- Whether anything is due.
SELECT 1 FROM meter_batch WHERE state = 'waiting' AND next_ms <= :now_ms LIMIT 1;

-- name: claim_accounts
-- Customers on meters for which a batch is due and none is being sent are leased.
UPDATE meter_account SET lease_ms = :lease_ms
WHERE lease_ms <= :now_ms AND (customer_id, meter) IN (
    SELECT a.customer_id, a.meter FROM meter_account a WHERE a.lease_ms <= :now_ms AND EXISTS (
        SELECT 1 FROM meter_batch b WHERE b.state = 'waiting' AND b.next_ms <= :now_ms
            AND b.customer_id = a.customer_id AND b.meter = a.meter
    ) AND (CAST(:customer_id AS TEXT) = '' OR a.customer_id = :customer_id)
    ORDER BY a.customer_id, a.meter LIMIT :limit
) RETURNING customer_id, meter;

-- name: due_of_account
-- The batch of an account that has been due longest, with the customer's id at the biller.
SELECT b.id, b.customer_id, b.meter, b.period_start_ms, b.period_end_ms, b.value, b.ts_ms, b.identifier, b.state, b.late,
    b.carried_micro, b.left_micro, b.created_ms, b.next_ms, b.attempts, b.reopened, b.first_sent_ms, b.sent_ms, b.error,
    c.stripe_customer_id
FROM meter_batch b LEFT JOIN customer c ON c.id = b.customer_id
WHERE b.state = 'waiting' AND b.next_ms <= :now_ms AND b.customer_id = :customer_id AND b.meter = :meter
ORDER BY b.next_ms, b.ts_ms, b.id LIMIT 1;

-- name: begin_batch
-- An attempt begins: from now on its outcome may be unknown.
UPDATE meter_batch SET attempts = attempts + 1, first_sent_ms = COALESCE(first_sent_ms, :now_ms)
WHERE id = :id AND state = 'waiting';

-- name: lease_account
-- The batch and attempt for which an account is leased.
UPDATE meter_account SET leased_for = :proof WHERE customer_id = :customer_id AND meter = :meter;

-- name: free_account
-- Its attempt is over; whoever has leased it since keeps it.
UPDATE meter_account SET lease_ms = 0, leased_for = NULL
WHERE customer_id = :customer_id AND meter = :meter AND leased_for = :proof;

-- name: sent_batch
-- The biller has it, whoever holds the lease by now.
UPDATE meter_batch SET state = 'sent', sent_ms = :now_ms, error = NULL
WHERE id = :id AND identifier = :identifier AND state <> 'sent' RETURNING id;

-- name: unsent_batch
-- The attempt of whoever still holds the lease failed.
UPDATE meter_batch SET state = :state, next_ms = :next_ms, error = :error,
    first_sent_ms = CASE WHEN CAST(:clear AS BIGINT) = 1 THEN CAST(:first_sent_ms AS BIGINT) ELSE first_sent_ms END
WHERE id = :id AND state = 'waiting' AND attempts = :attempts RETURNING id;

-- name: resend_batch
-- The biller does not have it: its day begins anew.
UPDATE meter_batch SET first_sent_ms = :now_ms WHERE id = :id AND state = 'waiting' AND attempts = :attempts RETURNING id;

-- name: redate_batch
-- Surely counted nowhere, and its own invoice is closed: it goes to the present period, under its identifier.
UPDATE meter_batch SET period_start_ms = :start_ms, period_end_ms = :end_ms, ts_ms = :ts_ms, late = 1
WHERE id = :id AND state = 'waiting' AND attempts = :attempts RETURNING id;

-- name: reopen_batch
-- Accepted, and later found not to count: sent again under another identifier, as the old one is used up.
UPDATE meter_batch SET state = :state, identifier = :identifier, reopened = reopened + 1, next_ms = :now_ms,
    first_sent_ms = NULL, sent_ms = NULL, error = :error
WHERE id = :id AND state = 'sent' AND reopened = :reopened RETURNING id;

-- name: hurry_batches
-- What waits of a customer is due now.
UPDATE meter_batch SET next_ms = :now_ms WHERE state = 'waiting' AND next_ms > :now_ms AND customer_id = :customer_id;

-- name: retry_batches
-- What was given up begins anew; of one batch also what waits after a failure.
UPDATE meter_batch SET state = 'waiting', next_ms = :now_ms
WHERE (CAST(:id AS TEXT) = '' OR id = :id) AND (state = 'dead' OR (CAST(:id AS TEXT) <> '' AND state = 'waiting'))
RETURNING id;

-- name: unsend_batch
-- A person says that the biller does not have it: it is sent without asking.
UPDATE meter_batch SET state = 'waiting', next_ms = :now_ms, first_sent_ms = NULL
WHERE id = :id AND state IN ('dead', 'waiting') RETURNING id;

-- name: tell_batch
-- A person says that the biller has it, or that it was charged by hand.
UPDATE meter_batch SET state = 'sent', sent_ms = :now_ms, error = 'settled by hand'
WHERE id = :id AND state IN ('dead', 'waiting') RETURNING id;

-- name: batches_beside
-- The batches of a customer and meter between two instants.
SELECT b.id, b.customer_id, b.meter, b.period_start_ms, b.period_end_ms, b.value, b.ts_ms, b.identifier, b.state, b.late,
    b.carried_micro, b.left_micro, b.created_ms, b.next_ms, b.attempts, b.reopened, b.first_sent_ms, b.sent_ms, b.error, NULL
FROM meter_batch b
WHERE b.customer_id = :customer_id AND b.meter = :meter AND b.ts_ms >= :start_ms AND b.ts_ms < :end_ms AND b.value > 0
ORDER BY b.ts_ms, b.id;

-- name: in_flight
-- Holds with their output tokens, and deliveries that wait or were given up: each by an index.
SELECT (SELECT COUNT(*) FROM hold WHERE state = 'open'),
    (SELECT COALESCE(CAST(SUM(output_tokens) AS BIGINT), 0) FROM hold WHERE state = 'open'),
    (SELECT COUNT(*) FROM delivery WHERE state = 'waiting'), (SELECT COUNT(*) FROM delivery WHERE state = 'dead');

-- name: batches
-- How batches stand, the latest first; an empty text filters nothing.
SELECT b.id, b.customer_id, b.meter, b.period_start_ms, b.period_end_ms, b.value, b.ts_ms, b.identifier, b.state, b.late,
    b.carried_micro, b.left_micro, b.created_ms, b.next_ms, b.attempts, b.reopened, b.first_sent_ms, b.sent_ms, b.error, NULL
FROM meter_batch b
WHERE (CAST(:state AS TEXT) = '' OR b.state = :state) AND (CAST(:customer_id AS TEXT) = '' OR b.customer_id = :customer_id)
    AND b.created_ms <= :before_ms AND (b.created_ms < :before_ms OR b.id < :before_id)
ORDER BY b.created_ms DESC, b.id DESC LIMIT :limit;

-- name: batch
-- One batch, by its id or its identifier.
SELECT b.id, b.customer_id, b.meter, b.period_start_ms, b.period_end_ms, b.value, b.ts_ms, b.identifier, b.state, b.late,
    b.carried_micro, b.left_micro, b.created_ms, b.next_ms, b.attempts, b.reopened, b.first_sent_ms, b.sent_ms, b.error, NULL
FROM meter_batch b WHERE b.id = :id OR b.identifier = :id;

-- name: backlog
-- What is still to be told, and since when; of all customers, or of those that the biller knows.
SELECT (SELECT COUNT(*) FROM meter_batch WHERE state = 'waiting'),
    (SELECT COUNT(*) FROM meter_batch WHERE state = 'dead'),
    (SELECT MIN(created_ms) FROM meter_batch WHERE state = 'waiting'),
    COUNT(*), MIN(o.settled_ms)
FROM owed o WHERE o.batch_id IS NULL AND (CAST(:known AS TEXT) = '' OR EXISTS (
    SELECT 1 FROM customer c WHERE c.id = o.customer_id AND c.stripe_customer_id IS NOT NULL
));

-- name: elect
-- A row back says that this process does what only one does.
INSERT INTO elected (name, owner, lease_ms) VALUES (:name, :owner, :lease_ms)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, lease_ms = excluded.lease_ms
WHERE elected.owner = excluded.owner OR elected.lease_ms <= :now_ms RETURNING owner;

-- name: resign
-- Somebody else may do it at once.
DELETE FROM elected WHERE name = :name AND owner = :owner;

-- name: statement_lines
-- What a customer used between two instants, for each plan, route and model. A correction is no request.
SELECT plan_id, route, model, COUNT(*) - COUNT(corrects), CAST(SUM(units_micro) AS BIGINT),
    CAST(SUM(charge_nano) AS BIGINT)
FROM usage_record WHERE customer_id = :customer_id AND started_ms >= :start_ms AND started_ms < :end_ms
GROUP BY plan_id, route, model ORDER BY 6 DESC, 5 DESC, 1, 2, 3;

-- name: statement_batches
-- How far a customer's usage of a period has been told.
SELECT state, CAST(SUM(value) AS BIGINT) FROM meter_batch
WHERE customer_id = :customer_id AND period_start_ms = :start_ms GROUP BY state ORDER BY state;

-- name: allowance_batches
-- What was told, and waits, of one subscription item in one period.
SELECT state, CAST(SUM(value) AS BIGINT) FROM meter_batch
WHERE customer_id = :customer_id AND period_start_ms = :start_ms AND ts_ms >= :since_ms AND state IN ('waiting', 'sent')
GROUP BY state;

-- name: allowance_owed
-- What a customer owes and no batch has, as "owing", with how much it is.
SELECT plan_id, period_start_ms, COALESCE(period_end_ms, period_start_ms + 2678400000) AS end_ms,
    CASE WHEN settled_ms > COALESCE(period_end_ms, period_start_ms + 2678400000) + :grace_ms THEN 1 ELSE 0 END AS late,
    CASE WHEN started_ms < :old_ms THEN 1 ELSE 0 END AS old, CAST(SUM(units_micro) AS BIGINT)
FROM owed WHERE batch_id IS NULL AND customer_id = :customer_id
GROUP BY 1, 2, 3, 4, 5 ORDER BY 2, 3, 1, 4, 5;

-- name: residues
-- What the next batches of a customer have to carry.
SELECT meter, residue_micro FROM meter_account WHERE customer_id = :customer_id;

-- name: batch_charge
-- What the calls of a batch were charged above what their plan includes.
SELECT COUNT(*), CAST(COALESCE(SUM(charge_nano), 0) AS BIGINT) FROM owed WHERE batch_id = :batch_id;

-- name: customers_by_plan
-- How many customers each plan has, without those that are disabled.
SELECT plan_id, COUNT(*) FROM customer WHERE disabled_ms IS NULL GROUP BY plan_id ORDER BY plan_id;

-- name: unbilled
-- The doctor's question: customers whose usage has been waiting for a batch for too long.
SELECT customer_id, MIN(settled_ms), COUNT(*) OVER () FROM owed WHERE batch_id IS NULL AND settled_ms < :unbilled_ms
GROUP BY customer_id ORDER BY customer_id LIMIT :limit;

-- name: strange_batches
-- The doctor's question: batches that are not what was carried into them and their rows, less what they carry on; rows in
-- a batch that there is not, of somebody else, or in one of another customer; accounts that carry something else than
-- their batches left.
SELECT place, what, COUNT(*) OVER () FROM (
    SELECT 'batch ' || b.id AS place, 'is not the sum of its rows' AS what
    FROM meter_batch b LEFT JOIN (
        SELECT batch_id, SUM(units_micro / 1000000) AS units, SUM(units_micro % 1000000) AS rest
        FROM owed WHERE batch_id IS NOT NULL AND batch_id <> '-' GROUP BY batch_id
    ) o ON o.batch_id = b.id
    WHERE (COALESCE(o.units, 0) - b.value) * 1000000 + COALESCE(o.rest, 0) + b.carried_micro - b.left_micro <> 0
    UNION ALL
    SELECT 'owed ' || o.call_id, CASE WHEN b.id IS NULL THEN 'is in a batch that there is not'
        ELSE 'is in the batch of another customer' END
    FROM owed o LEFT JOIN meter_batch b ON b.id = o.batch_id
    WHERE o.batch_id IS NOT NULL AND o.batch_id <> '-' AND (b.id IS NULL OR b.customer_id <> o.customer_id)
    UNION ALL
    SELECT 'account ' || customer_id || ' on ' || meter, 'carries something else than its batches left'
    FROM (
        SELECT customer_id, meter, residue_micro AS carries, 0 AS left_over FROM meter_account
        UNION ALL SELECT customer_id, meter, 0, left_micro - carried_micro FROM meter_batch
    ) each_account GROUP BY customer_id, meter HAVING SUM(carries) <> SUM(left_over)
) each_place ORDER BY place LIMIT :limit;

-- name: batch_counts
-- How many batches there are, and the units in them.
SELECT COUNT(*), CAST(COALESCE(SUM(value), 0) AS BIGINT), COUNT(CASE WHEN state = 'dead' THEN 1 END) FROM meter_batch;

-- name: customer_of_account
-- Whose account at the biller it is.
SELECT id, name, plan_id, created_ms, anchor_ms, email, disabled_ms, stripe_customer_id
FROM customer WHERE stripe_customer_id = :account ORDER BY id LIMIT 1;

-- name: link_account
-- For a customer who has none, of an account that is nobody's.
UPDATE customer SET stripe_customer_id = :account WHERE id = :customer_id AND stripe_customer_id IS NULL
    AND NOT EXISTS (SELECT 1 FROM customer c WHERE c.stripe_customer_id = :account);

-- name: account_of
-- The account of a customer.
SELECT stripe_customer_id FROM customer WHERE id = :customer_id;

-- name: standing
-- What was decided of a customer's subscription.
SELECT customer_id, subscription_id, status, plan_id, prices, period_start_ms, period_end_ms, anchor_ms, items_ms,
    trial_end_ms, cancel_ms, grace_ms, blocked_ms, version FROM subscription WHERE customer_id = :customer_id;

-- name: set_standing
-- A row back says that nobody else has decided since :version was read.
INSERT INTO subscription (customer_id, subscription_id, status, plan_id, prices, period_start_ms, period_end_ms,
    anchor_ms, items_ms, trial_end_ms, cancel_ms, grace_ms, blocked_ms, version)
VALUES (:customer_id, :subscription_id, :status, :plan_id, :prices, :period_start_ms, :period_end_ms, :anchor_ms,
    :items_ms, :trial_end_ms, :cancel_ms, :grace_ms, :blocked_ms, CAST(:version AS BIGINT) + 1)
ON CONFLICT (customer_id) DO UPDATE SET subscription_id = excluded.subscription_id, status = excluded.status,
    plan_id = excluded.plan_id, prices = excluded.prices, period_start_ms = excluded.period_start_ms,
    period_end_ms = excluded.period_end_ms, anchor_ms = excluded.anchor_ms, items_ms = excluded.items_ms,
    trial_end_ms = excluded.trial_end_ms, cancel_ms = excluded.cancel_ms, grace_ms = excluded.grace_ms,
    blocked_ms = excluded.blocked_ms, version = excluded.version
WHERE subscription.version = excluded.version - 1 RETURNING version;

-- name: move_customer
-- To another plan; only from one plan where that is named.
UPDATE customer SET plan_id = :plan_id
WHERE id = :customer_id AND (CAST(:from_plan_id AS TEXT) = '' OR plan_id = :from_plan_id);

-- name: anchor_customer
-- Where the billing periods are counted from.
UPDATE customer SET anchor_ms = :anchor_ms WHERE id = :customer_id;

-- name: block_customer
-- Whoever is not disabled already.
UPDATE customer SET disabled_ms = :now_ms WHERE id = :customer_id AND disabled_ms IS NULL;

-- name: unblock_customer
-- Only whoever was disabled by us, then.
UPDATE customer SET disabled_ms = NULL WHERE id = :customer_id AND disabled_ms = :blocked_ms;

-- name: out_of_grace
-- Whose grace is over.
SELECT customer_id FROM subscription WHERE grace_ms IS NOT NULL AND blocked_ms IS NULL AND grace_ms <= :now_ms
ORDER BY grace_ms, customer_id LIMIT :limit;

-- name: keep_event
-- What the biller sent, once.
INSERT INTO biller_event (id, kind, body, state, received_ms, next_ms)
VALUES (:id, :kind, :body, 'waiting', :now_ms, :next_ms) ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: claim_events
-- What is due is leased: it is due again only when the lease is over.
UPDATE biller_event SET next_ms = :lease_ms, attempts = attempts + 1
WHERE state = 'waiting' AND next_ms <= :now_ms AND id IN (
    SELECT id FROM biller_event WHERE state = 'waiting' AND next_ms <= :now_ms ORDER BY next_ms, id LIMIT :limit
) RETURNING id, kind, body, attempts;

-- name: end_event
-- How it went, for whoever still holds the lease.
UPDATE biller_event SET state = :state, next_ms = :next_ms, error = :error
WHERE id = :id AND state = 'waiting' AND attempts = :attempts RETURNING id;

-- name: letters
-- What the biller has sent, the latest first.
SELECT id, kind, body, state, received_ms, next_ms, attempts, error FROM biller_event
WHERE CAST(:state AS TEXT) = '' OR state = :state ORDER BY received_ms DESC, id DESC LIMIT :limit;

-- name: letter
-- One of them.
SELECT id, kind, body, state, received_ms, next_ms, attempts, error FROM biller_event WHERE id = :id;

-- name: retry_events
-- Anew: all that was given up, or one that is not done. Whoever works on it now has lost it.
UPDATE biller_event SET state = 'waiting', next_ms = :now_ms, attempts = 0
WHERE (CAST(:id AS TEXT) = '' AND state = 'dead') OR (id = :id AND state <> 'done') RETURNING id;

-- name: forget_biller_events
-- What ended long ago.
DELETE FROM biller_event WHERE state <> 'waiting' AND id IN (
    SELECT id FROM biller_event WHERE state <> 'waiting' AND next_ms < :before_ms ORDER BY next_ms, id LIMIT :limit
) RETURNING id;

-- name: keep_invoice
-- As it is now. What was paid stays paid, whoever has read it before that.
INSERT INTO invoice (id, customer_id, account, number, status, reason, currency, total_cents, due_cents, paid_cents,
    attempts, created_ms, period_start_ms, period_end_ms, subscription_id, page, pdf, seen_ms)
VALUES (:id, :customer_id, :account, :number, :status, :reason, :currency, :total_cents, :due_cents, :paid_cents,
    :attempts, :created_ms, :period_start_ms, :period_end_ms, :subscription_id, :page, :pdf, :seen_ms)
ON CONFLICT (id) DO UPDATE SET number = excluded.number, status = excluded.status, total_cents = excluded.total_cents,
    due_cents = excluded.due_cents, paid_cents = excluded.paid_cents, attempts = excluded.attempts,
    period_start_ms = excluded.period_start_ms, period_end_ms = excluded.period_end_ms, page = excluded.page,
    pdf = excluded.pdf, seen_ms = excluded.seen_ms
WHERE invoice.status <> 'paid';

-- name: kept_invoices
-- Of a customer, the latest first.
SELECT id, account, number, status, reason, currency, total_cents, due_cents, paid_cents, attempts, created_ms,
    period_start_ms, period_end_ms, subscription_id, page, pdf
FROM invoice WHERE customer_id = :customer_id ORDER BY created_ms DESC, id DESC LIMIT :limit;

-- name: create_login
-- A row back says that id and email are new.
INSERT INTO login (id, email, created_ms, role, customer_id, password, disabled_ms, last_ms)
VALUES (:id, :email, :created_ms, :role, :customer_id, :password, :disabled_ms, :last_ms)
ON CONFLICT DO NOTHING RETURNING id;

-- name: login
-- Whoever has this id.
SELECT id, email, created_ms, role, customer_id, password, disabled_ms, last_ms FROM login WHERE id = :id;

-- name: login_of
-- Whoever has this address.
SELECT id, email, created_ms, role, customer_id, password, disabled_ms, last_ms FROM login WHERE email = :email;

-- name: operators
-- A page of those who have a role.
SELECT id, email, created_ms, role, customer_id, password, disabled_ms, last_ms
FROM login WHERE role IS NOT NULL AND id > :after ORDER BY id LIMIT :limit;

-- name: logins_of_customer
-- A page of a customer's people.
SELECT id, email, created_ms, role, customer_id, password, disabled_ms, last_ms
FROM login WHERE customer_id = :customer_id AND id > :after ORDER BY id LIMIT :limit;

-- name: lock_logins
-- Nobody else changes who may sign in meanwhile; in SQLite the open write transaction sees to that.
SELECT 1;

-- name: other_owners
-- Whether somebody else is an owner who can sign in.
SELECT COUNT(*) FROM login
WHERE role = 'owner' AND disabled_ms IS NULL AND password IS NOT NULL AND id <> :id;

-- name: email_taken
-- Whether somebody else has the address.
SELECT COUNT(*) FROM login WHERE email = :email AND id <> :id;

-- name: update_login
-- A row back says that there was one.
UPDATE login SET email = :email, role = :role, customer_id = :customer_id, password = :password,
    disabled_ms = :disabled_ms, last_ms = :last_ms
WHERE id = :id RETURNING id;

-- name: touch_login
-- When somebody signed in last; never moves a time back.
UPDATE login SET last_ms = :now_ms WHERE id = :id AND (last_ms IS NULL OR last_ms < :now_ms);

-- name: add_session
-- Signed in.
INSERT INTO session (digest, login_id, created_ms, expires_ms) VALUES (:digest, :login_id, :created_ms, :expires_ms);

-- name: session
-- A session with its login, where both hold.
SELECT s.digest, s.login_id, s.created_ms, s.expires_ms,
    l.id, l.email, l.created_ms, l.role, l.customer_id, l.password, l.disabled_ms, l.last_ms
FROM session s JOIN login l ON l.id = s.login_id
WHERE s.digest = :digest AND s.expires_ms > :now_ms AND l.disabled_ms IS NULL;

-- name: extend_session
-- Used: it ends later.
UPDATE session SET expires_ms = :expires_ms WHERE digest = :digest AND expires_ms < :expires_ms;

-- name: end_session
-- Signed out.
DELETE FROM session WHERE digest = :digest RETURNING digest;

-- name: end_sessions
-- Signed out everywhere.
DELETE FROM session WHERE login_id = :login_id RETURNING digest;

-- name: forget_sessions
-- What ended by itself, some at a time.
DELETE FROM session WHERE digest IN (
    SELECT digest FROM session WHERE expires_ms <= :now_ms ORDER BY expires_ms LIMIT :limit
) RETURNING digest;

-- name: add_link
-- A link that signs in, once.
INSERT INTO link (digest, login_id, expires_ms) VALUES (:digest, :login_id, :expires_ms);

-- name: link_login
-- Whose link it is, without using it.
SELECT l.id, l.email, l.created_ms, l.role, l.customer_id, l.password, l.disabled_ms, l.last_ms
FROM link k JOIN login l ON l.id = k.login_id
WHERE k.digest = :digest AND k.expires_ms > :now_ms AND l.disabled_ms IS NULL;

-- name: use_link
-- A row back says that it was there, in time.
DELETE FROM link WHERE digest = :digest AND expires_ms > :now_ms RETURNING login_id;

-- name: end_links
-- No link of this login signs in any more.
DELETE FROM link WHERE login_id = :login_id RETURNING digest;

-- name: forget_links
-- What nobody used in time, some at a time.
DELETE FROM link WHERE digest IN (
    SELECT digest FROM link WHERE expires_ms <= :now_ms ORDER BY expires_ms LIMIT :limit
) RETURNING digest;

-- name: end_token
-- Signed out before it expires; or, by one digest for all of a login, those that expire before.
INSERT INTO ended_token (digest, expires_ms) VALUES (:digest, :expires_ms)
ON CONFLICT (digest) DO UPDATE SET expires_ms = excluded.expires_ms WHERE ended_token.expires_ms < excluded.expires_ms;

-- name: token_login
-- Whose token it is, where it was not signed out.
SELECT l.id, l.email, l.created_ms, l.role, l.customer_id, l.password, l.disabled_ms, l.last_ms
FROM login l WHERE l.id = :id AND l.disabled_ms IS NULL
    AND NOT EXISTS (SELECT 1 FROM ended_token e WHERE e.digest = :digest)
    AND NOT EXISTS (SELECT 1 FROM ended_token e WHERE e.digest = :whole AND e.expires_ms > :expires_ms);

-- name: forget_tokens
-- What has expired since, some at a time.
DELETE FROM ended_token WHERE digest IN (
    SELECT digest FROM ended_token WHERE expires_ms <= :now_ms ORDER BY expires_ms LIMIT :limit
) RETURNING digest;

-- name: open_failure
-- A row for whoever has none, so that it can be locked.
INSERT INTO failure (name, count, since_ms, closed_ms) VALUES (:name, 0, :now_ms, 0) ON CONFLICT DO NOTHING;

-- name: failure
-- How somebody stands, locked until the end of the transaction.
SELECT count, since_ms, closed_ms FROM failure WHERE name = :name;

-- name: failure_seen
-- How somebody stands, without a lock.
SELECT count, since_ms, closed_ms FROM failure WHERE name = :name;

-- name: set_failure
-- How somebody stands now.
UPDATE failure SET count = :count, since_ms = :since_ms, closed_ms = :closed_ms WHERE name = :name;

-- name: forget_failure
-- It went well.
DELETE FROM failure WHERE name = :name RETURNING name;

-- name: pardon_failure
-- That try was none in vain.
UPDATE failure SET count = count - 1 WHERE name = :name AND count > 0;

-- name: forget_failures
-- What is long ago, some at a time.
DELETE FROM failure WHERE name IN (
    SELECT name FROM failure WHERE since_ms < :before_ms AND closed_ms < :now_ms ORDER BY since_ms LIMIT :limit
) RETURNING name;

-- name: begin_deed
-- Before the change.
INSERT INTO deed (id, at_ms, actor, action, subject, state, detail)
VALUES (:id, :at_ms, :actor, :action, :subject, :state, :detail);

-- name: end_deed
-- After it, once.
UPDATE deed SET state = :state, detail = :detail, subject = CASE WHEN CAST(:subject AS TEXT) = '' THEN subject ELSE :subject END
WHERE id = :id AND state = 'begun';

-- name: deeds
-- The latest first; an empty filter is none.
SELECT id, at_ms, actor, action, subject, state, detail FROM deed
WHERE id < :before ORDER BY id DESC LIMIT :limit;

-- name: deeds_of_actor
-- What one has done, the latest first.
SELECT id, at_ms, actor, action, subject, state, detail FROM deed
WHERE actor = :actor AND id < :before ORDER BY id DESC LIMIT :limit;

-- name: deeds_on_subject
-- What was done to one thing, the latest first.
SELECT id, at_ms, actor, action, subject, state, detail FROM deed
WHERE subject = :subject AND id < :before ORDER BY id DESC LIMIT :limit;

-- name: deeds_of_actor_on_subject
-- What one has done to one thing, the latest first.
SELECT id, at_ms, actor, action, subject, state, detail FROM deed
WHERE subject = :subject AND actor = :actor AND id < :before ORDER BY id DESC LIMIT :limit;

-- name: forget_repeats
-- What is older than a day, some at a time.
DELETE FROM repeat WHERE key IN (
    SELECT key FROM repeat WHERE at_ms < :before_ms ORDER BY at_ms LIMIT :limit
) RETURNING key;

-- name: claim_repeat
-- A row back says that it is the first within a day.
INSERT INTO repeat (key, fingerprint, status, answer, at_ms) VALUES (:key, :fingerprint, 0, '', :now_ms)
ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, status = 0, answer = '', at_ms = excluded.at_ms
WHERE repeat.at_ms < :before_ms RETURNING key;

-- name: repeat
-- What the first was answered.
SELECT fingerprint, status, answer FROM repeat WHERE key = :key;

-- name: answer_repeat
-- The first was answered.
UPDATE repeat SET status = :status, answer = :answer WHERE key = :key AND status = 0;

-- name: drop_repeat
-- The first changed nothing.
DELETE FROM repeat WHERE key = :key RETURNING key;

-- name: customer_locked
-- One customer, locked until the end of the transaction.
SELECT id, name, plan_id, created_ms, anchor_ms, email, disabled_ms, stripe_customer_id FROM customer WHERE id = :id;

-- name: add_alert
-- A row back says that it is new, and not one too many.
INSERT INTO alert (id, customer_id, measure, span, threshold, created_ms)
SELECT :id, :customer_id, :measure, :span, CAST(:threshold AS BIGINT), CAST(:created_ms AS BIGINT)
WHERE (SELECT COUNT(*) FROM alert WHERE customer_id = :customer_id) < :most
ON CONFLICT DO NOTHING RETURNING id;

-- name: alerts
-- One customer's.
SELECT id, customer_id, measure, span, threshold, created_ms, told_ms FROM alert WHERE customer_id = :customer_id
ORDER BY created_ms, id;

-- name: drop_alert
-- A row back says that it was his.
DELETE FROM alert WHERE customer_id = :customer_id AND id = :id RETURNING id;

-- name: alerts_in_use
-- Of customers who called of late: nobody else's figures have changed.
SELECT a.id, a.customer_id, a.measure, a.span, a.threshold, a.created_ms, a.told_ms, c.anchor_ms
FROM alert a JOIN customer c ON c.id = a.customer_id
WHERE a.id > :after AND EXISTS (
    SELECT 1 FROM usage_record r WHERE r.customer_id = a.customer_id AND r.started_ms >= :since_ms
)
ORDER BY a.id LIMIT :limit;

-- name: alert_told
-- In the window that began then it was told.
UPDATE alert SET told_ms = :told_ms WHERE id = :id RETURNING id;
