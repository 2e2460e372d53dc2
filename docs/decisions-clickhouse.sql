-- Decisions of BLISS (docs/decisions.md), inserted as JSONEachRow. Members that are not columns are left out with
-- input_format_skip_unknown_fields, which is the default of recent versions.
-- A table of before, without age_seconds: ALTER TABLE bliss_decisions MODIFY COLUMN explanation to what stands here, or make another.
CREATE TABLE IF NOT EXISTS bliss_decisions
(
    time DateTime64(3, 'UTC'),
    request_id Nullable(String),
    ip IPv6,
    method LowCardinality(String),
    host LowCardinality(Nullable(String)),
    path String,
    user_agent Nullable(String),
    status UInt16,
    route LowCardinality(String),
    action LowCardinality(String),
    rule LowCardinality(Nullable(String)),
    simulated Tuple(rule Nullable(String), action Nullable(String)),
    score Nullable(UInt8),
    unscored LowCardinality(Nullable(String)),
    model LowCardinality(Nullable(String)),
    model_version LowCardinality(Nullable(String)),
    explanation Tuple(
        score Nullable(UInt8),
        expected_score Nullable(UInt8),
        features_generation Nullable(UInt64),
        models_generation Nullable(UInt64),
        dimensions Array(Tuple(name String, status String, age_seconds Nullable(UInt32))),
        inputs Array(Tuple(name String, value String, points Float64, typical Nullable(Float32)))
    ),
    not_explained Nullable(String)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (action, time)
TTL toDateTime(time) + INTERVAL 90 DAY;

-- Who was blocked in the last hour, by which rule, and by what the scores came:
--
--     SELECT rule, explanation.inputs[1].name AS strongest, count(), uniq(ip)
--     FROM bliss_decisions WHERE action = 'block' AND time > now() - INTERVAL 1 HOUR
--     GROUP BY rule, strongest ORDER BY count() DESC;
