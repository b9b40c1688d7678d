-- Reports, and the sums that make them quick; see queries.sql for how statements are written. `{order}`: the dearest part
-- first, or the latest. `{via}`: SQLite's planner would read all of a day for the rows of one customer. days, hours and
-- spans are the pieces of a period (rules/rollups.py), each a JSON text.

-- name: spent
-- Sums of a period for each part of it: from days and hours that are summed up, and from the records of the rest.
SELECT part, CAST(SUM(requests) AS BIGINT), CAST(SUM(units_micro) AS BIGINT), CAST(SUM(charge_nano) AS BIGINT),
    CAST(SUM(cost_nano) AS BIGINT), CAST(SUM(unpriced) AS BIGINT), MAX(last_ms)
FROM (
    SELECT {by} AS part, requests, units_micro, charge_nano, cost_nano, unpriced, last_ms
    FROM (SELECT *, start_ms AS at_ms FROM usage_sum{via}) s
    WHERE depth = :day_depth AND span = 'day'
        AND start_ms IN (SELECT value FROM json_each(:days)) {of}
    UNION ALL
    SELECT {by} AS part, requests, units_micro, charge_nano, cost_nano, unpriced, last_ms
    FROM (SELECT *, start_ms AS at_ms FROM usage_sum{via}) s
    WHERE depth = :hour_depth AND span = 'hour'
        AND start_ms IN (SELECT value FROM json_each(:hours)) {of}
    UNION ALL
    SELECT {by} AS part, requests, units_micro, charge_nano, cost_nano, unpriced, last_ms
    FROM json_each(:spans) w CROSS JOIN usage_counted c
    WHERE at_ms >= json_extract(w.value, '$[0]') AND at_ms < json_extract(w.value, '$[1]') {of}
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
    FROM (SELECT *, start_ms AS at_ms FROM usage_sum{via}) s
    WHERE depth = :day_depth AND span = 'day'
        AND start_ms IN (SELECT value FROM json_each(:days)) {of}
    UNION ALL
    SELECT {by} AS part, requests, units_micro, charge_nano, cost_nano, unpriced, first_ms, last_ms, measured, defaulted,
        estimated, unread, failed, refused, left_early, cut, answered, first_byte_ms, duration_ms
    FROM (SELECT *, start_ms AS at_ms FROM usage_sum{via}) s
    WHERE depth = :hour_depth AND span = 'hour'
        AND start_ms IN (SELECT value FROM json_each(:hours)) {of}
    UNION ALL
    SELECT {by} AS part, requests, units_micro, charge_nano, cost_nano, unpriced, first_ms, last_ms, measured, defaulted,
        estimated, unread, failed, refused, left_early, cut, answered, first_byte_ms, duration_ms
    FROM json_each(:spans) w CROSS JOIN usage_counted c
    WHERE at_ms >= json_extract(w.value, '$[0]') AND at_ms < json_extract(w.value, '$[1]') {of}
) pieces GROUP BY part {order} LIMIT :limit;

-- name: paces
-- What each subject took since an instant, and before it; only those who took enough since. No piece lies on both sides.
SELECT part, CAST(SUM(CASE WHEN at_ms >= :recent_ms THEN amount ELSE 0 END) AS BIGINT),
    CAST(SUM(CASE WHEN at_ms < :recent_ms THEN amount ELSE 0 END) AS BIGINT), MIN(first_ms)
FROM (
    SELECT {by} AS part, at_ms, {what} AS amount, first_ms
    FROM (SELECT *, start_ms AS at_ms FROM usage_sum{via}) s
    WHERE depth = :day_depth AND span = 'day'
        AND start_ms IN (SELECT value FROM json_each(:days)) {of}
    UNION ALL
    SELECT {by} AS part, at_ms, {what} AS amount, first_ms
    FROM (SELECT *, start_ms AS at_ms FROM usage_sum{via}) s
    WHERE depth = :hour_depth AND span = 'hour'
        AND start_ms IN (SELECT value FROM json_each(:hours)) {of}
    UNION ALL
    SELECT {by} AS part, at_ms, {what} AS amount, first_ms
    FROM json_each(:spans) w CROSS JOIN usage_counted c
    WHERE at_ms >= json_extract(w.value, '$[0]') AND at_ms < json_extract(w.value, '$[1]') {of}
) pieces WHERE part IS NOT NULL
GROUP BY part HAVING SUM(CASE WHEN at_ms >= :recent_ms THEN amount ELSE 0 END) >= :least
ORDER BY 2 DESC, 1 LIMIT :limit;

-- name: waits
-- How many calls waited how long for their first byte, the shortest first.
SELECT wait_ms, CAST(SUM(calls) AS BIGINT) FROM (
    SELECT wait_ms, calls FROM wait_sum WHERE span = 'day' AND start_ms IN (SELECT value FROM json_each(:days))
    UNION ALL
    SELECT wait_ms, calls FROM wait_sum WHERE span = 'hour' AND start_ms IN (SELECT value FROM json_each(:hours))
    UNION ALL
    SELECT wait_ms, 1 FROM json_each(:spans) w CROSS JOIN usage_counted c
    WHERE at_ms >= json_extract(w.value, '$[0]') AND at_ms < json_extract(w.value, '$[1]') AND answered = 1
) pieces GROUP BY wait_ms ORDER BY wait_ms;

-- name: records_floor
-- When the record began up to which one page looks; no row: it looks at all of them.
SELECT started_ms FROM usage_record
WHERE started_ms >= :start_ms AND started_ms < :end_ms {who} {only}
ORDER BY started_ms DESC LIMIT 1 OFFSET :skipped;

-- name: records_found
-- The latest records before one that pass a filter.
SELECT call_id, admitted_month, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model, method, path,
    status, outcome, streamed, started_ms, ended_ms, first_byte_ms, units_micro, source, note, charge_nano, cost_nano,
    usage, meters, evidence, meter_hash, request_bytes, response_bytes, response_id, overrun_micro, model_requested
FROM usage_record
WHERE started_ms >= :start_ms AND started_ms < :end_ms
    AND started_ms <= :before_ms AND (started_ms < :before_ms OR call_id < :before_id) {named} {who} {only}
    AND (CAST(:user_id AS TEXT) IS NULL OR user_id = :user_id) AND (CAST(:agent_id AS TEXT) IS NULL OR agent_id = :agent_id)
    AND (CAST(:plan_id AS TEXT) IS NULL OR plan_id = :plan_id) AND (CAST(:route AS TEXT) IS NULL OR route = :route)
    AND (CAST(:model AS TEXT) IS NULL OR model = :model) AND (CAST(:outcome AS TEXT) IS NULL OR outcome = :outcome)
    AND (CAST(:source AS TEXT) IS NULL OR source = :source)
    AND (CAST(:status AS BIGINT) IS NULL OR status = :status)
    AND (CAST(:status_class AS BIGINT) IS NULL OR status / 100 = :status_class)
    AND (CAST(:call_id AS TEXT) IS NULL OR replace(call_id, :call_id, '') <> call_id)
ORDER BY started_ms DESC, call_id DESC LIMIT :limit;

-- name: read_little
-- What is not summed up is little, and found by an index; SQLite has no other idea.
SELECT 1;

-- name: rolled_days
-- What is summed up of the days that touch a period.
SELECT day_ms, hours, fine, whole, version FROM usage_rolled WHERE day_ms > CAST(:start_ms AS BIGINT) - 86400000 AND day_ms < :end_ms
ORDER BY day_ms;

-- name: late_hours
-- The hours of a period whose sums are to be made again, the latest first.
SELECT DISTINCT hour_ms FROM late_record WHERE hour_ms > CAST(:start_ms AS BIGINT) - 3600000 AND hour_ms < :end_ms
ORDER BY hour_ms DESC LIMIT :limit;

-- name: late_of_hour
-- Which records made an hour late.
SELECT hour_ms, call_id FROM late_record WHERE hour_ms = :hour_ms ORDER BY call_id LIMIT :limit;

-- name: fence
-- Transactions that may still be under way, and those to come; SQLite has one writer.
SELECT 0, 0;

-- name: newest_before
-- When the last record before an instant began.
SELECT MAX(started_ms) FROM usage_record WHERE started_ms < :before_ms;

-- name: hour_sums
-- The sums of an hour, from its records.
WITH made AS (
    SELECT customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model,
        CAST(SUM(requests) AS BIGINT) AS requests, CAST(SUM(units_micro) AS BIGINT) AS units_micro,
        CAST(SUM(charge_nano) AS BIGINT) AS charge_nano, CAST(SUM(cost_nano) AS BIGINT) AS cost_nano,
        CAST(SUM(unpriced) AS BIGINT) AS unpriced, MIN(first_ms) AS first_ms, MAX(last_ms) AS last_ms,
        CAST(SUM(measured) AS BIGINT) AS measured, CAST(SUM(defaulted) AS BIGINT) AS defaulted,
        CAST(SUM(estimated) AS BIGINT) AS estimated, CAST(SUM(unread) AS BIGINT) AS unread,
        CAST(SUM(failed) AS BIGINT) AS failed, CAST(SUM(refused) AS BIGINT) AS refused,
        CAST(SUM(left_early) AS BIGINT) AS left_early, CAST(SUM(cut) AS BIGINT) AS cut,
        CAST(SUM(answered) AS BIGINT) AS answered, CAST(SUM(first_byte_ms) AS BIGINT) AS first_byte_ms,
        CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
    FROM usage_counted WHERE at_ms >= :start_ms AND at_ms < :end_ms
    GROUP BY customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model
)
SELECT 'each' AS depth, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model, requests, units_micro,
    charge_nano, cost_nano, unpriced, first_ms, last_ms, measured, defaulted, estimated, unread, failed, refused,
    left_early, cut, answered, first_byte_ms, duration_ms
FROM made
UNION ALL
SELECT 'all' AS depth, CAST(NULL AS TEXT) AS customer_id, CAST(NULL AS TEXT) AS key_id, CAST(NULL AS TEXT) AS user_id,
    CAST(NULL AS TEXT) AS agent_id, plan_id, route, upstream, model, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(units_micro) AS BIGINT) AS units_micro, CAST(SUM(charge_nano) AS BIGINT) AS charge_nano,
    CAST(SUM(cost_nano) AS BIGINT) AS cost_nano, CAST(SUM(unpriced) AS BIGINT) AS unpriced, MIN(first_ms) AS first_ms,
    MAX(last_ms) AS last_ms, CAST(SUM(measured) AS BIGINT) AS measured, CAST(SUM(defaulted) AS BIGINT) AS defaulted,
    CAST(SUM(estimated) AS BIGINT) AS estimated, CAST(SUM(unread) AS BIGINT) AS unread,
    CAST(SUM(failed) AS BIGINT) AS failed, CAST(SUM(refused) AS BIGINT) AS refused,
    CAST(SUM(left_early) AS BIGINT) AS left_early, CAST(SUM(cut) AS BIGINT) AS cut,
    CAST(SUM(answered) AS BIGINT) AS answered, CAST(SUM(first_byte_ms) AS BIGINT) AS first_byte_ms,
    CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
FROM made
GROUP BY plan_id, route, upstream, model
UNION ALL
SELECT 'customer' AS depth, customer_id, CAST(NULL AS TEXT) AS key_id, CAST(NULL AS TEXT) AS user_id,
    CAST(NULL AS TEXT) AS agent_id, CAST(NULL AS TEXT) AS plan_id, CAST(NULL AS TEXT) AS route,
    CAST(NULL AS TEXT) AS upstream, CAST(NULL AS TEXT) AS model, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(units_micro) AS BIGINT) AS units_micro, CAST(SUM(charge_nano) AS BIGINT) AS charge_nano,
    CAST(SUM(cost_nano) AS BIGINT) AS cost_nano, CAST(SUM(unpriced) AS BIGINT) AS unpriced, MIN(first_ms) AS first_ms,
    MAX(last_ms) AS last_ms, CAST(SUM(measured) AS BIGINT) AS measured, CAST(SUM(defaulted) AS BIGINT) AS defaulted,
    CAST(SUM(estimated) AS BIGINT) AS estimated, CAST(SUM(unread) AS BIGINT) AS unread,
    CAST(SUM(failed) AS BIGINT) AS failed, CAST(SUM(refused) AS BIGINT) AS refused,
    CAST(SUM(left_early) AS BIGINT) AS left_early, CAST(SUM(cut) AS BIGINT) AS cut,
    CAST(SUM(answered) AS BIGINT) AS answered, CAST(SUM(first_byte_ms) AS BIGINT) AS first_byte_ms,
    CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
FROM made
GROUP BY customer_id;

-- name: day_sums
-- The sums of a day, from those of its hours. Calls without a user (or agent) are one row, whoever's they are.
SELECT 'each' AS depth, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model,
    CAST(SUM(requests) AS BIGINT) AS requests, CAST(SUM(units_micro) AS BIGINT) AS units_micro,
    CAST(SUM(charge_nano) AS BIGINT) AS charge_nano, CAST(SUM(cost_nano) AS BIGINT) AS cost_nano,
    CAST(SUM(unpriced) AS BIGINT) AS unpriced, MIN(first_ms) AS first_ms, MAX(last_ms) AS last_ms,
    CAST(SUM(measured) AS BIGINT) AS measured, CAST(SUM(defaulted) AS BIGINT) AS defaulted,
    CAST(SUM(estimated) AS BIGINT) AS estimated, CAST(SUM(unread) AS BIGINT) AS unread,
    CAST(SUM(failed) AS BIGINT) AS failed, CAST(SUM(refused) AS BIGINT) AS refused,
    CAST(SUM(left_early) AS BIGINT) AS left_early, CAST(SUM(cut) AS BIGINT) AS cut,
    CAST(SUM(answered) AS BIGINT) AS answered, CAST(SUM(first_byte_ms) AS BIGINT) AS first_byte_ms,
    CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
FROM usage_sum WHERE span = 'hour' AND start_ms >= :start_ms AND start_ms < :end_ms AND depth = 'each'
GROUP BY customer_id, key_id, user_id, agent_id, plan_id, route, upstream, model
UNION ALL
SELECT 'sold' AS depth, customer_id, CAST(NULL AS TEXT) AS key_id, CAST(NULL AS TEXT) AS user_id,
    CAST(NULL AS TEXT) AS agent_id, plan_id, route, upstream, model, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(units_micro) AS BIGINT) AS units_micro, CAST(SUM(charge_nano) AS BIGINT) AS charge_nano,
    CAST(SUM(cost_nano) AS BIGINT) AS cost_nano, CAST(SUM(unpriced) AS BIGINT) AS unpriced, MIN(first_ms) AS first_ms,
    MAX(last_ms) AS last_ms, CAST(SUM(measured) AS BIGINT) AS measured, CAST(SUM(defaulted) AS BIGINT) AS defaulted,
    CAST(SUM(estimated) AS BIGINT) AS estimated, CAST(SUM(unread) AS BIGINT) AS unread,
    CAST(SUM(failed) AS BIGINT) AS failed, CAST(SUM(refused) AS BIGINT) AS refused,
    CAST(SUM(left_early) AS BIGINT) AS left_early, CAST(SUM(cut) AS BIGINT) AS cut,
    CAST(SUM(answered) AS BIGINT) AS answered, CAST(SUM(first_byte_ms) AS BIGINT) AS first_byte_ms,
    CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
FROM usage_sum WHERE span = 'hour' AND start_ms >= :start_ms AND start_ms < :end_ms AND depth = 'each'
GROUP BY customer_id, plan_id, route, upstream, model
UNION ALL
SELECT 'all' AS depth, CAST(NULL AS TEXT) AS customer_id, CAST(NULL AS TEXT) AS key_id, CAST(NULL AS TEXT) AS user_id,
    CAST(NULL AS TEXT) AS agent_id, plan_id, route, upstream, model, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(units_micro) AS BIGINT) AS units_micro, CAST(SUM(charge_nano) AS BIGINT) AS charge_nano,
    CAST(SUM(cost_nano) AS BIGINT) AS cost_nano, CAST(SUM(unpriced) AS BIGINT) AS unpriced, MIN(first_ms) AS first_ms,
    MAX(last_ms) AS last_ms, CAST(SUM(measured) AS BIGINT) AS measured, CAST(SUM(defaulted) AS BIGINT) AS defaulted,
    CAST(SUM(estimated) AS BIGINT) AS estimated, CAST(SUM(unread) AS BIGINT) AS unread,
    CAST(SUM(failed) AS BIGINT) AS failed, CAST(SUM(refused) AS BIGINT) AS refused,
    CAST(SUM(left_early) AS BIGINT) AS left_early, CAST(SUM(cut) AS BIGINT) AS cut,
    CAST(SUM(answered) AS BIGINT) AS answered, CAST(SUM(first_byte_ms) AS BIGINT) AS first_byte_ms,
    CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
FROM usage_sum WHERE span = 'hour' AND start_ms >= :start_ms AND start_ms < :end_ms AND depth = 'all'
GROUP BY plan_id, route, upstream, model
UNION ALL
SELECT 'customer' AS depth, customer_id, CAST(NULL AS TEXT) AS key_id, CAST(NULL AS TEXT) AS user_id,
    CAST(NULL AS TEXT) AS agent_id, CAST(NULL AS TEXT) AS plan_id, CAST(NULL AS TEXT) AS route,
    CAST(NULL AS TEXT) AS upstream, CAST(NULL AS TEXT) AS model, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(units_micro) AS BIGINT) AS units_micro, CAST(SUM(charge_nano) AS BIGINT) AS charge_nano,
    CAST(SUM(cost_nano) AS BIGINT) AS cost_nano, CAST(SUM(unpriced) AS BIGINT) AS unpriced, MIN(first_ms) AS first_ms,
    MAX(last_ms) AS last_ms, CAST(SUM(measured) AS BIGINT) AS measured, CAST(SUM(defaulted) AS BIGINT) AS defaulted,
    CAST(SUM(estimated) AS BIGINT) AS estimated, CAST(SUM(unread) AS BIGINT) AS unread,
    CAST(SUM(failed) AS BIGINT) AS failed, CAST(SUM(refused) AS BIGINT) AS refused,
    CAST(SUM(left_early) AS BIGINT) AS left_early, CAST(SUM(cut) AS BIGINT) AS cut,
    CAST(SUM(answered) AS BIGINT) AS answered, CAST(SUM(first_byte_ms) AS BIGINT) AS first_byte_ms,
    CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
FROM usage_sum WHERE span = 'hour' AND start_ms >= :start_ms AND start_ms < :end_ms AND depth = 'customer'
GROUP BY customer_id
UNION ALL
SELECT 'key' AS depth, CAST(NULL AS TEXT) AS customer_id, key_id, CAST(NULL AS TEXT) AS user_id,
    CAST(NULL AS TEXT) AS agent_id, CAST(NULL AS TEXT) AS plan_id, CAST(NULL AS TEXT) AS route,
    CAST(NULL AS TEXT) AS upstream, CAST(NULL AS TEXT) AS model, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(units_micro) AS BIGINT) AS units_micro, CAST(SUM(charge_nano) AS BIGINT) AS charge_nano,
    CAST(SUM(cost_nano) AS BIGINT) AS cost_nano, CAST(SUM(unpriced) AS BIGINT) AS unpriced, MIN(first_ms) AS first_ms,
    MAX(last_ms) AS last_ms, CAST(SUM(measured) AS BIGINT) AS measured, CAST(SUM(defaulted) AS BIGINT) AS defaulted,
    CAST(SUM(estimated) AS BIGINT) AS estimated, CAST(SUM(unread) AS BIGINT) AS unread,
    CAST(SUM(failed) AS BIGINT) AS failed, CAST(SUM(refused) AS BIGINT) AS refused,
    CAST(SUM(left_early) AS BIGINT) AS left_early, CAST(SUM(cut) AS BIGINT) AS cut,
    CAST(SUM(answered) AS BIGINT) AS answered, CAST(SUM(first_byte_ms) AS BIGINT) AS first_byte_ms,
    CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
FROM usage_sum WHERE span = 'hour' AND start_ms >= :start_ms AND start_ms < :end_ms AND depth = 'each'
GROUP BY key_id
UNION ALL
SELECT 'user' AS depth, customer_id, CAST(NULL AS TEXT) AS key_id, user_id, CAST(NULL AS TEXT) AS agent_id,
    CAST(NULL AS TEXT) AS plan_id, CAST(NULL AS TEXT) AS route, CAST(NULL AS TEXT) AS upstream,
    CAST(NULL AS TEXT) AS model, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(units_micro) AS BIGINT) AS units_micro, CAST(SUM(charge_nano) AS BIGINT) AS charge_nano,
    CAST(SUM(cost_nano) AS BIGINT) AS cost_nano, CAST(SUM(unpriced) AS BIGINT) AS unpriced, MIN(first_ms) AS first_ms,
    MAX(last_ms) AS last_ms, CAST(SUM(measured) AS BIGINT) AS measured, CAST(SUM(defaulted) AS BIGINT) AS defaulted,
    CAST(SUM(estimated) AS BIGINT) AS estimated, CAST(SUM(unread) AS BIGINT) AS unread,
    CAST(SUM(failed) AS BIGINT) AS failed, CAST(SUM(refused) AS BIGINT) AS refused,
    CAST(SUM(left_early) AS BIGINT) AS left_early, CAST(SUM(cut) AS BIGINT) AS cut,
    CAST(SUM(answered) AS BIGINT) AS answered, CAST(SUM(first_byte_ms) AS BIGINT) AS first_byte_ms,
    CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
FROM usage_sum WHERE span = 'hour' AND start_ms >= :start_ms AND start_ms < :end_ms AND depth = 'each'
    AND user_id IS NOT NULL
GROUP BY customer_id, user_id
UNION ALL
SELECT 'user' AS depth, CAST(NULL AS TEXT) AS customer_id, CAST(NULL AS TEXT) AS key_id, CAST(NULL AS TEXT) AS user_id,
    CAST(NULL AS TEXT) AS agent_id, CAST(NULL AS TEXT) AS plan_id, CAST(NULL AS TEXT) AS route,
    CAST(NULL AS TEXT) AS upstream, CAST(NULL AS TEXT) AS model, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(units_micro) AS BIGINT) AS units_micro, CAST(SUM(charge_nano) AS BIGINT) AS charge_nano,
    CAST(SUM(cost_nano) AS BIGINT) AS cost_nano, CAST(SUM(unpriced) AS BIGINT) AS unpriced, MIN(first_ms) AS first_ms,
    MAX(last_ms) AS last_ms, CAST(SUM(measured) AS BIGINT) AS measured, CAST(SUM(defaulted) AS BIGINT) AS defaulted,
    CAST(SUM(estimated) AS BIGINT) AS estimated, CAST(SUM(unread) AS BIGINT) AS unread,
    CAST(SUM(failed) AS BIGINT) AS failed, CAST(SUM(refused) AS BIGINT) AS refused,
    CAST(SUM(left_early) AS BIGINT) AS left_early, CAST(SUM(cut) AS BIGINT) AS cut,
    CAST(SUM(answered) AS BIGINT) AS answered, CAST(SUM(first_byte_ms) AS BIGINT) AS first_byte_ms,
    CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
FROM usage_sum WHERE span = 'hour' AND start_ms >= :start_ms AND start_ms < :end_ms AND depth = 'each'
    AND user_id IS NULL
HAVING COUNT(*) > 0
UNION ALL
SELECT 'agent' AS depth, customer_id, CAST(NULL AS TEXT) AS key_id, CAST(NULL AS TEXT) AS user_id, agent_id,
    CAST(NULL AS TEXT) AS plan_id, CAST(NULL AS TEXT) AS route, CAST(NULL AS TEXT) AS upstream,
    CAST(NULL AS TEXT) AS model, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(units_micro) AS BIGINT) AS units_micro, CAST(SUM(charge_nano) AS BIGINT) AS charge_nano,
    CAST(SUM(cost_nano) AS BIGINT) AS cost_nano, CAST(SUM(unpriced) AS BIGINT) AS unpriced, MIN(first_ms) AS first_ms,
    MAX(last_ms) AS last_ms, CAST(SUM(measured) AS BIGINT) AS measured, CAST(SUM(defaulted) AS BIGINT) AS defaulted,
    CAST(SUM(estimated) AS BIGINT) AS estimated, CAST(SUM(unread) AS BIGINT) AS unread,
    CAST(SUM(failed) AS BIGINT) AS failed, CAST(SUM(refused) AS BIGINT) AS refused,
    CAST(SUM(left_early) AS BIGINT) AS left_early, CAST(SUM(cut) AS BIGINT) AS cut,
    CAST(SUM(answered) AS BIGINT) AS answered, CAST(SUM(first_byte_ms) AS BIGINT) AS first_byte_ms,
    CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
FROM usage_sum WHERE span = 'hour' AND start_ms >= :start_ms AND start_ms < :end_ms AND depth = 'each'
    AND agent_id IS NOT NULL
GROUP BY customer_id, agent_id
UNION ALL
SELECT 'agent' AS depth, CAST(NULL AS TEXT) AS customer_id, CAST(NULL AS TEXT) AS key_id, CAST(NULL AS TEXT) AS user_id,
    CAST(NULL AS TEXT) AS agent_id, CAST(NULL AS TEXT) AS plan_id, CAST(NULL AS TEXT) AS route,
    CAST(NULL AS TEXT) AS upstream, CAST(NULL AS TEXT) AS model, CAST(SUM(requests) AS BIGINT) AS requests,
    CAST(SUM(units_micro) AS BIGINT) AS units_micro, CAST(SUM(charge_nano) AS BIGINT) AS charge_nano,
    CAST(SUM(cost_nano) AS BIGINT) AS cost_nano, CAST(SUM(unpriced) AS BIGINT) AS unpriced, MIN(first_ms) AS first_ms,
    MAX(last_ms) AS last_ms, CAST(SUM(measured) AS BIGINT) AS measured, CAST(SUM(defaulted) AS BIGINT) AS defaulted,
    CAST(SUM(estimated) AS BIGINT) AS estimated, CAST(SUM(unread) AS BIGINT) AS unread,
    CAST(SUM(failed) AS BIGINT) AS failed, CAST(SUM(refused) AS BIGINT) AS refused,
    CAST(SUM(left_early) AS BIGINT) AS left_early, CAST(SUM(cut) AS BIGINT) AS cut,
    CAST(SUM(answered) AS BIGINT) AS answered, CAST(SUM(first_byte_ms) AS BIGINT) AS first_byte_ms,
    CAST(SUM(duration_ms) AS BIGINT) AS duration_ms
FROM usage_sum WHERE span = 'hour' AND start_ms >= :start_ms AND start_ms < :end_ms AND depth = 'each'
    AND agent_id IS NULL
HAVING COUNT(*) > 0;

-- name: hour_waits
-- How long the calls of an hour waited for their first byte, from its records.
SELECT wait_ms, COUNT(*) FROM usage_counted WHERE at_ms >= :start_ms AND at_ms < :end_ms AND answered = 1 GROUP BY wait_ms;

-- name: day_waits
-- How long the calls of a day waited for their first byte, from its hours.
SELECT wait_ms, CAST(SUM(calls) AS BIGINT) FROM wait_sum
WHERE span = 'hour' AND start_ms >= :start_ms AND start_ms < :end_ms GROUP BY wait_ms;

-- name: day_counted
-- The records of each hour of a day, to compare.
SELECT at_ms / 3600000 * 3600000, CAST(SUM(requests) AS BIGINT), CAST(SUM(units_micro) AS BIGINT),
    CAST(SUM(charge_nano) AS BIGINT), CAST(SUM(cost_nano) AS BIGINT), MAX(last_ms)
FROM (SELECT at_ms, requests, units_micro, charge_nano, cost_nano, last_ms FROM usage_counted) c
WHERE at_ms >= :start_ms AND at_ms < :end_ms GROUP BY 1;

-- name: day_summed
-- The sums of each hour of a day, to compare.
SELECT start_ms, CAST(SUM(requests) AS BIGINT), CAST(SUM(units_micro) AS BIGINT), CAST(SUM(charge_nano) AS BIGINT),
    CAST(SUM(cost_nano) AS BIGINT), MAX(last_ms)
FROM usage_sum WHERE depth = 'customer' AND span = 'hour' AND start_ms >= :start_ms AND start_ms < :end_ms GROUP BY 1;

-- name: begin_roll
-- A row back says that nobody has changed the sums of that day since they were read, and nobody else will.
INSERT INTO usage_rolled (day_ms, hours, fine, whole, version) VALUES (:day_ms, 0, 0, 0, 1)
ON CONFLICT (day_ms) DO UPDATE SET hours = usage_rolled.hours & :kept, fine = usage_rolled.fine & :kept, whole = 0,
    version = usage_rolled.version + 1
WHERE usage_rolled.version = :version RETURNING version;

-- name: go_on_rolling
-- A row back says the same, some rows later.
UPDATE usage_rolled SET version = version + 1 WHERE day_ms = :day_ms AND version = :version RETURNING version;

-- name: end_roll
-- From now on reports read the sums.
UPDATE usage_rolled SET hours = hours | :made, fine = fine | :made, whole = :whole, version = version + 1
WHERE day_ms = :day_ms AND version = :version RETURNING version;

-- name: confirm_day
-- Its hours are their records. A row back says that they are still those that were compared, and that the day was made of them.
UPDATE usage_rolled SET whole = 2, version = version + 1
WHERE day_ms = :day_ms AND version = :version AND whole = 1 RETURNING version;

-- name: begin_trim
-- A row back says that the day is whole, so that nobody needs its hours in full.
UPDATE usage_rolled SET fine = fine & :kept, version = version + 1
WHERE day_ms = :day_ms AND version = :version AND whole > 0 RETURNING version;

-- name: trim_hour
-- The day tells the same apart in fewer rows.
DELETE FROM usage_sum WHERE depth = 'each' AND span = 'hour' AND start_ms = :start_ms;

-- name: drop_sums
-- The sums of an hour or day that are made again.
DELETE FROM usage_sum WHERE depth IN ('each', 'sold', 'customer', 'key', 'user', 'agent', 'all') AND span = :span
    AND start_ms = :start_ms;

-- name: drop_waits
-- The same of the waits.
DELETE FROM wait_sum WHERE span = :span AND start_ms = :start_ms;

-- name: add_sum
-- Sums of an hour or day.
INSERT INTO usage_sum (depth, span, start_ms, part, customer_id, key_id, user_id, agent_id, plan_id, route, upstream,
    model, requests, units_micro, charge_nano, cost_nano, unpriced, first_ms, last_ms, measured, defaulted, estimated, unread, failed,
    refused, left_early, cut, answered, first_byte_ms, duration_ms)
VALUES (:depth, :span, :start_ms, :part, :customer_id, :key_id, :user_id, :agent_id, :plan_id, :route, :upstream, :model,
    :requests, :units_micro, :charge_nano, :cost_nano, :unpriced, :first_ms, :last_ms, :measured, :defaulted,
    :estimated, :unread, :failed, :refused, :left_early, :cut, :answered, :first_byte_ms, :duration_ms);

-- name: add_wait
-- Waits of an hour or day.
INSERT INTO wait_sum (span, start_ms, wait_ms, calls)
VALUES (:span, :start_ms, :wait_ms, :calls);

-- name: add_late
-- The sums of its hour may be made already.
INSERT INTO late_record (hour_ms, call_id)
VALUES (:hour_ms, :call_id) ON CONFLICT DO NOTHING;

-- name: drop_late
-- What these records added is in the sums now.
DELETE FROM late_record WHERE (hour_ms, call_id) IN (VALUES (:hour_ms, :call_id));

-- name: strange_sums
-- The doctor's question: hours and days that are summed up, that nothing doubts, and that are not their records, asked of the
-- records themselves. Months that were taken away whole are only known by their sums.
WITH there AS (
    SELECT MIN(started_ms) AS first_ms FROM usage_record
), judged (span, start_ms) AS (
    SELECT 'hour', d.day_ms + n.number * 3600000 FROM usage_rolled d CROSS JOIN (
        SELECT 0 AS number UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5
        UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9 UNION ALL SELECT 10 UNION ALL SELECT 11
        UNION ALL SELECT 12 UNION ALL SELECT 13 UNION ALL SELECT 14 UNION ALL SELECT 15 UNION ALL SELECT 16
        UNION ALL SELECT 17 UNION ALL SELECT 18 UNION ALL SELECT 19 UNION ALL SELECT 20 UNION ALL SELECT 21
        UNION ALL SELECT 22 UNION ALL SELECT 23
    ) n WHERE (d.hours >> n.number) & 1 = 1
        AND NOT EXISTS (SELECT 1 FROM late_record l WHERE l.hour_ms = d.day_ms + n.number * 3600000)
    UNION ALL
    SELECT 'day', d.day_ms FROM usage_rolled d WHERE d.whole > 0 AND NOT EXISTS (
        SELECT 1 FROM late_record l WHERE l.hour_ms >= d.day_ms AND l.hour_ms < d.day_ms + 86400000)
), counted AS (
    SELECT started_ms - started_ms % 3600000 AS start_ms, COUNT(*) - COUNT(corrects) AS requests,
        SUM(units_micro) AS units, SUM(charge_nano) AS charge, SUM(cost_nano) AS cost
    FROM usage_record GROUP BY 1
), figures (span, start_ms, depth, requests, units, charge, cost) AS (
    SELECT span, start_ms, depth, SUM(requests), SUM(units_micro), SUM(charge_nano), SUM(cost_nano)
    FROM usage_sum GROUP BY 1, 2, 3
), expected (span, start_ms, requests, units, charge, cost) AS (
    SELECT 'hour', start_ms, requests, units, charge, COALESCE(cost, 0) FROM counted
    UNION ALL
    SELECT 'day', start_ms - start_ms % 86400000, SUM(requests), SUM(units), SUM(charge), COALESCE(SUM(cost), 0)
    FROM counted GROUP BY 2
), depths (span, depth) AS (
    SELECT 'hour', 'all' UNION ALL SELECT 'hour', 'customer' UNION ALL SELECT 'day', 'all' UNION ALL SELECT 'day', 'customer'
    UNION ALL SELECT 'day', 'key' UNION ALL SELECT 'day', 'user' UNION ALL SELECT 'day', 'agent' UNION ALL SELECT 'day', 'sold'
    UNION ALL SELECT 'day', 'each'
)
SELECT j.span || ' from ' || CAST(j.start_ms AS TEXT), CAST(COALESCE(f.requests, 0) AS TEXT) || ' requests by ' || d.depth
    || ', the records say ' || CAST(COALESCE(e.requests, 0) AS TEXT), COUNT(*) OVER ()
FROM judged j JOIN depths d ON d.span = j.span CROSS JOIN there t
LEFT JOIN expected e ON e.span = j.span AND e.start_ms = j.start_ms
LEFT JOIN figures f ON f.span = j.span AND f.start_ms = j.start_ms AND f.depth = d.depth
WHERE j.start_ms >= t.first_ms - t.first_ms % 86400000 AND (COALESCE(f.requests, 0) <> COALESCE(e.requests, 0)
    OR COALESCE(f.units, 0) <> COALESCE(e.units, 0) OR COALESCE(f.charge, 0) <> COALESCE(e.charge, 0)
    OR COALESCE(f.cost, 0) <> COALESCE(e.cost, 0))
ORDER BY j.span, j.start_ms, d.depth LIMIT :limit;

-- name: summed_up
-- How many hours and days are summed up.
SELECT CAST(COALESCE(SUM(CASE WHEN whole > 0 THEN 1 ELSE 0 END), 0) AS BIGINT), COUNT(*) FROM usage_rolled;
