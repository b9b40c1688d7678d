-- Records are kept month by month, each month of admission in a partition of its own: the month that is written stays
-- small, and an old one can be detached whole. What no partition takes stands in usage_record_other, so that no settle
-- ever fails because a month was not made in time.

DROP VIEW api_key_usage;
ALTER TABLE usage_record RENAME TO usage_record_before;
CREATE TABLE usage_record (LIKE usage_record_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
PARTITION BY LIST (admitted_month);
CREATE TABLE usage_record_other PARTITION OF usage_record DEFAULT;

-- Makes the partition of a month (YYYY-MM) where there is none, and moves what stands in usage_record_other into it;
-- 1 when it did. It gives up after a second when somebody reads all records meanwhile.
CREATE FUNCTION make_usage_month(month TEXT) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    part TEXT := 'usage_record_' || replace(month, '-', '_');
BEGIN
    IF month !~ '^[0-9]{4}-[0-9]{2}$' OR to_regclass(part) IS NOT NULL THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock(7316202602);
    IF to_regclass(part) IS NOT NULL THEN
        RETURN 0;
    END IF;
    PERFORM set_config('lock_timeout', '1s', TRUE);
    LOCK TABLE usage_record_other IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE %I (LIKE usage_record INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part);
    EXECUTE format(
        'WITH moved AS (DELETE FROM usage_record_other WHERE admitted_month = %L RETURNING *) '
        'INSERT INTO %I SELECT * FROM moved', month, part
    );
    EXECUTE format('ALTER TABLE usage_record ATTACH PARTITION %I FOR VALUES IN (%L)', part, month);
    RETURN 1;
END $$;

SELECT make_usage_month(admitted_month) FROM (SELECT DISTINCT admitted_month FROM usage_record_before) m;
INSERT INTO usage_record SELECT * FROM usage_record_before;

-- Now that the rows are there: the indexes that there were, built once for each month.
DO $$
DECLARE
    definition TEXT;
    definitions TEXT[] := ARRAY(
        SELECT replace(pg_get_indexdef(indexrelid), '.usage_record_before ', '.usage_record ')
        FROM pg_index WHERE indrelid = 'usage_record_before'::regclass AND NOT indisprimary
    );
BEGIN
    DROP TABLE usage_record_before;
    ALTER TABLE usage_record ADD PRIMARY KEY (call_id, admitted_month);
    FOREACH definition IN ARRAY definitions LOOP
        EXECUTE definition;
    END LOOP;
END $$;

CREATE VIEW api_key_usage AS
SELECT key_id AS api_key_id,
    day AS date,
    CAST(SUM(units_micro) AS BIGINT) / 1000000 AS tokens,
    COUNT(*) - COUNT(corrects) AS requests
FROM usage_record
WHERE key_id IS NOT NULL
GROUP BY key_id, day;
