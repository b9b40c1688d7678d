-- What of reports.sql must differ for Postgres.

-- name: spent
-- Sums of a period for each part of it: from days and hours that are summed up, and from the records of the rest.
SELECT part, CAST(SUM(requests) AS BIGINT), CAST(SUM(units_micro) AS BIGINT), CAST(SUM(charge_nano) AS BIGINT),
    CAST(SUM(cost_nano) AS BIGINT), CAST(SUM(unpriced) AS BIGINT), MAX(last_ms)
FROM (
    SELECT {by} AS part, requests, units_micro, charge_nano, cost_nano, unpriced, last_ms
    FROM (SELECT *, start_ms AS at_ms FROM usage_sum) s
    WHERE depth = :day_depth AND span = 'day'
        AND start_ms = ANY(ARRAY(
            SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text(CAST(:days AS JSONB))
        )) {of}
    UNION ALL
    SELECT {by} AS part, requests, units_micro, charge_nano, cost_nano, unpriced, last_ms
    FROM (SELECT *, start_ms AS at_ms FROM usage_sum) s
    WHERE depth = :hour_depth AND span = 'hour'
        AND start_ms = ANY(ARRAY(
            SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text(CAST(:hours AS JSONB))
        )) {of}
    UNION ALL
    SELECT {by} AS part, requests, units_micro, charge_nano, cost_nano, unpriced, last_ms
    FROM jsonb_array_elements(CAST(:spans AS JSONB)) w CROSS JOIN LATERAL (
        SELECT * FROM usage_counted WHERE at_ms >= CAST(w ->> 0 AS BIGINT) AND at_ms < CAST(w ->> 1 AS BIGINT)
    ) c WHERE 1 = 1 {of}
) pieces GROUP BY part {order} LIMIT :limit;

-- name: activity
-- The same with how calls ended, how they were read, and how long they took.
SELECT part, CAST(SUM(requests) AS BIGINT), CAST(SUM(units_micro) AS BIGINT), CAST(SUM(charge_nano) AS BIGINT),
    CAST(SUM(cost_nano) AS BIGINT), CAST(SUM(unpriced) AS BIGINT), MIN(first_ms), MAX(last_ms),
    CAST(SUM(measured) AS BIGINT), CAST(SUM(defaulted) AS BIGINT), CAST(SUM(estimated) AS BIGINT),
    CAST(SUM(unread) AS BIGINT), CAST(SUM(failed) AS BIGINT), CAST(SUM(refused) AS BIGINT),
    CAST(SUM(left_early) AS BIGINT), CAST(SUM(cut) AS BIGINT), CAST(SUM(answered) AS BIGINT),
    CAST(SUM(first_byte_ms) AS BIGINT), CAST(SUM(duration_ms) AS BIGINT)
FROM (
    SELECT {by} AS part, requests, units_micro, charge_nano, cost_nano, unpriced, first_ms, last_ms, measured, defaulted,
        estimated, unread, failed, refused, left_early, cut, answered, first_byte_ms, duration_ms
    FROM (SELECT *, start_ms AS at_ms FROM usage_sum) s
    WHERE depth = :day_depth AND span = 'day'
        AND start_ms = ANY(ARRAY(
            SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text(CAST(:days AS JSONB))
        )) {of}
    UNION ALL
    SELECT {by} AS part, requests, units_micro, charge_nano, cost_nano, unpriced, first_ms, last_ms, measured, defaulted,
        estimated, unread, failed, refused, left_early, cut, answered, first_byte_ms, duration_ms
    FROM (SELECT *, start_ms AS at_ms FROM usage_sum) s
    WHERE depth = :hour_depth AND span = 'hour'
        AND start_ms = ANY(ARRAY(
            SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text(CAST(:hours AS JSONB))
        )) {of}
    UNION ALL
    SELECT {by} AS part, requests, units_micro, charge_nano, cost_nano, unpriced, first_ms, last_ms, measured, defaulted,
        estimated, unread, failed, refused, left_early, cut, answered, first_byte_ms, duration_ms
    FROM jsonb_array_elements(CAST(:spans AS JSONB)) w CROSS JOIN LATERAL (
        SELECT * FROM usage_counted WHERE at_ms >= CAST(w ->> 0 AS BIGINT) AND at_ms < CAST(w ->> 1 AS BIGINT)
    ) c WHERE 1 = 1 {of}
) pieces GROUP BY part {order} LIMIT :limit;

-- name: paces
-- What each subject took since an instant, and before it; only those who took enough since. No piece lies on both sides.
SELECT part, CAST(SUM(CASE WHEN at_ms >= :recent_ms THEN amount ELSE 0 END) AS BIGINT),
    CAST(SUM(CASE WHEN at_ms < :recent_ms THEN amount ELSE 0 END) AS BIGINT), MIN(first_ms)
FROM (
    SELECT {by} AS part, at_ms, {what} AS amount, first_ms
    FROM (SELECT *, start_ms AS at_ms FROM usage_sum) s
    WHERE depth = :day_depth AND span = 'day'
        AND start_ms = ANY(ARRAY(
            SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text(CAST(:days AS JSONB))
        )) {of}
    UNION ALL
    SELECT {by} AS part, at_ms, {what} AS amount, first_ms
    FROM (SELECT *, start_ms AS at_ms FROM usage_sum) s
    WHERE depth = :hour_depth AND span = 'hour'
        AND start_ms = ANY(ARRAY(
            SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text(CAST(:hours AS JSONB))
        )) {of}
    UNION ALL
    SELECT {by} AS part, at_ms, {what} AS amount, first_ms
    FROM jsonb_array_elements(CAST(:spans AS JSONB)) w CROSS JOIN LATERAL (
        SELECT * FROM usage_counted WHERE at_ms >= CAST(w ->> 0 AS BIGINT) AND at_ms < CAST(w ->> 1 AS BIGINT)
    ) c WHERE 1 = 1 {of}
) pieces WHERE part IS NOT NULL
GROUP BY part HAVING SUM(CASE WHEN at_ms >= :recent_ms THEN amount ELSE 0 END) >= :least
ORDER BY 2 DESC, 1 LIMIT :limit;

-- name: waits
-- How many calls waited how long for their first byte, the shortest first.
SELECT wait_ms, CAST(SUM(calls) AS BIGINT) FROM (
    SELECT wait_ms, calls FROM wait_sum WHERE span = 'day'
        AND start_ms = ANY(ARRAY(SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text(CAST(:days AS JSONB))))
    UNION ALL
    SELECT wait_ms, calls FROM wait_sum WHERE span = 'hour'
        AND start_ms = ANY(ARRAY(SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text(CAST(:hours AS JSONB))))
    UNION ALL
    SELECT wait_ms, 1 FROM jsonb_array_elements(CAST(:spans AS JSONB)) w CROSS JOIN LATERAL (
        SELECT * FROM usage_counted WHERE at_ms >= CAST(w ->> 0 AS BIGINT) AND at_ms < CAST(w ->> 1 AS BIGINT)
    ) c WHERE answered = 1
) pieces GROUP BY wait_ms ORDER BY wait_ms;

-- name: add_sum
-- Sums of an hour or day.
INSERT INTO usage_sum (depth, span, start_ms, part, customer_id, key_id, user_id, agent_id, plan_id, route, upstream,
    model, requests, units_micro, charge_nano, cost_nano, unpriced, first_ms, last_ms, measured, defaulted, estimated, unread, failed,
    refused, left_early, cut, answered, first_byte_ms, duration_ms)
SELECT * FROM unnest(
    CAST(:depth AS TEXT[]), CAST(:span AS TEXT[]), CAST(:start_ms AS BIGINT[]), CAST(:part AS BIGINT[]),
    CAST(:customer_id AS TEXT[]), CAST(:key_id AS TEXT[]), CAST(:user_id AS TEXT[]), CAST(:agent_id AS TEXT[]),
    CAST(:plan_id AS TEXT[]), CAST(:route AS TEXT[]), CAST(:upstream AS TEXT[]), CAST(:model AS TEXT[]),
    CAST(:requests AS BIGINT[]), CAST(:units_micro AS BIGINT[]), CAST(:charge_nano AS BIGINT[]),
    CAST(:cost_nano AS BIGINT[]), CAST(:unpriced AS BIGINT[]), CAST(:first_ms AS BIGINT[]),
    CAST(:last_ms AS BIGINT[]), CAST(:measured AS BIGINT[]), CAST(:defaulted AS BIGINT[]),
    CAST(:estimated AS BIGINT[]), CAST(:unread AS BIGINT[]), CAST(:failed AS BIGINT[]), CAST(:refused AS BIGINT[]),
    CAST(:left_early AS BIGINT[]), CAST(:cut AS BIGINT[]), CAST(:answered AS BIGINT[]),
    CAST(:first_byte_ms AS BIGINT[]), CAST(:duration_ms AS BIGINT[])
);

-- name: add_wait
-- Waits of an hour or day.
INSERT INTO wait_sum (span, start_ms, wait_ms, calls)
SELECT * FROM unnest(
    CAST(:span AS TEXT[]), CAST(:start_ms AS BIGINT[]), CAST(:wait_ms AS BIGINT[]), CAST(:calls AS BIGINT[])
);

-- name: add_late
-- The sums of its hour may be made already.
INSERT INTO late_record (hour_ms, call_id)
SELECT * FROM unnest(
    CAST(:hour_ms AS BIGINT[]), CAST(:call_id AS TEXT[])
) ON CONFLICT DO NOTHING;

-- name: drop_late
-- What these records added is in the sums now.
DELETE FROM late_record l USING unnest(CAST(:hour_ms AS BIGINT[]), CAST(:call_id AS TEXT[])) w (hour_ms, call_id)
WHERE l.hour_ms = w.hour_ms AND l.call_id = w.call_id;

-- name: fence
-- The oldest transaction that may still be under way, and the next one to come.
SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT),
    CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS TEXT) AS BIGINT);

-- name: read_little
-- What is not summed up is little, and found by an index: the planner cannot know, and would read all records, the more so with
-- a plan for any parameters. Compiling such a statement takes longer than running it.
SELECT set_config('enable_seqscan', 'off', TRUE), set_config('jit', 'off', TRUE),
    set_config('plan_cache_mode', 'force_custom_plan', TRUE);
