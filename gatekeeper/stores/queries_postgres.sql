-- The statements that must differ for Postgres, by the same names.

-- name: has_migrations
-- Whether the table of migrations is there.
SELECT COUNT(to_regclass('schema_migration'));

-- name: lock_migrations
-- Only one process may migrate; freed when its transaction ends. The number is ours for ever.
SELECT pg_advisory_xact_lock(7316202601);

-- name: lock_holds
-- The sort stands below the row locks, so the locks are taken in that order.
SELECT h.call_id, h.admitted_month, h.customer_id, h.key_id, h.user_id, h.agent_id, h.plan_id, h.route, h.upstream,
    h.model, h.owner, h.state, h.started_ms, h.expires_ms, h.output_tokens, h.progress_units_micro, h.output_seen
FROM hold h WHERE h.call_id IN (SELECT jsonb_array_elements_text(CAST(:call_ids AS JSONB)))
ORDER BY h.call_id FOR UPDATE OF h;

-- name: lines_of
-- What those calls hold.
SELECT l.call_id, l.line, l.limit_name, l.scope, l.subject, l.dimension, l.span, l.start_ms, l.per_ms, l.cap, l.mode,
    l.amount, l.actual
FROM hold_line l WHERE l.call_id IN (SELECT jsonb_array_elements_text(CAST(:call_ids AS JSONB)))
ORDER BY l.call_id, l.line;

-- name: records_of
-- Records by [month, call id].
SELECT r.call_id, r.admitted_month, r.customer_id, r.key_id, r.user_id, r.agent_id, r.plan_id, r.route, r.upstream,
    r.model, r.method, r.path, r.status, r.outcome, r.streamed, r.started_ms, r.ended_ms, r.first_byte_ms,
    r.units_micro, r.source, r.note, r.charge_nano, r.cost_nano, r.usage, r.meters, r.evidence, r.meter_hash,
    r.request_bytes, r.response_bytes, r.response_id, r.overrun_micro
FROM jsonb_array_elements(CAST(:calls AS JSONB)) w JOIN usage_record r
    ON r.admitted_month = w ->> 0 AND r.call_id = w ->> 1;

-- name: anchors_of
-- Where those customers' billing periods start.
SELECT c.id, c.anchor_ms FROM customer c
WHERE c.id IN (SELECT jsonb_array_elements_text(CAST(:customer_ids AS JSONB)));

-- name: lock_counters
-- The sort stands below the row locks, so the locks are taken in that order.
SELECT c.scope, c.subject, c.dimension, c.span, c.start_ms, c.used, c.held
FROM jsonb_array_elements(CAST(:keys AS JSONB)) w JOIN counter c
    ON c.scope = w ->> 0 AND c.subject = w ->> 1 AND c.dimension = w ->> 2 AND c.span = w ->> 3
    AND c.start_ms = CAST(w ->> 4 AS BIGINT)
ORDER BY c.scope, c.subject, c.dimension, c.span, c.start_ms FOR UPDATE OF c;

-- name: lock_buckets
-- The same, with the database's clock. Read before a lock is waited for it is too early, which drains too little.
SELECT b.scope, b.subject, b.dimension, b.per_ms, b.spent, b.at_ms,
    CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT)
FROM jsonb_array_elements(CAST(:keys AS JSONB)) w JOIN bucket b
    ON b.scope = w ->> 0 AND b.subject = w ->> 1 AND b.dimension = w ->> 2 AND b.per_ms = CAST(w ->> 3 AS BIGINT)
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
