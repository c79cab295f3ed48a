-- One dialect for SQLite and PostgreSQL: times are BIGINT microseconds since
-- 1970, because SQLite has no type for them that keeps its promise.

-- +goose Up
CREATE TABLE identity (
    one  BIGINT PRIMARY KEY CHECK (one = 1),
    name TEXT   NOT NULL
);

-- Part A: up to where each source has settled.
CREATE TABLE cursors (
    name    TEXT   PRIMARY KEY,
    after   TEXT   NOT NULL,
    settled BIGINT NOT NULL
);

-- Part B: its memory of what it has published, so as not to do it again.
CREATE TABLE outcomes (
    post           TEXT   NOT NULL,
    platform       TEXT   NOT NULL,
    format         TEXT   NOT NULL,
    key            TEXT   NOT NULL,
    outcome        TEXT   NOT NULL,
    at_micros      BIGINT NOT NULL,
    latency_micros BIGINT NOT NULL,
    attempts       BIGINT NOT NULL,
    remote_id      TEXT   NOT NULL,
    error          TEXT   NOT NULL,
    PRIMARY KEY (post, platform)
);

-- Part C: the report.
CREATE TABLE publications (
    post           TEXT   NOT NULL,
    platform       TEXT   NOT NULL,
    format         TEXT   NOT NULL,
    key            TEXT   NOT NULL,
    outcome        TEXT   NOT NULL,
    at_micros      BIGINT NOT NULL,
    latency_micros BIGINT NOT NULL,
    attempts       BIGINT NOT NULL,
    remote_id      TEXT   NOT NULL,
    error          TEXT   NOT NULL,
    PRIMARY KEY (post, platform)
);

-- +goose Down
DROP TABLE publications;
DROP TABLE outcomes;
DROP TABLE cursors;
DROP TABLE identity;
