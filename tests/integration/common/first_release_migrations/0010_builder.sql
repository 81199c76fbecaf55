-- Tables of the builder, which alone writes them.

CREATE TABLE builds (
    build_id           text PRIMARY KEY,
    endpoint_id        text NOT NULL,
    served_entity_id   text NOT NULL,
    model_name         text NOT NULL,
    model_version      text NOT NULL,
    -- May hold secrets: emptied when the build ends.
    environment_vars   jsonb NOT NULL DEFAULT '{}',
    -- W3C trace context of the order, so that the build is part of the trace that asked for it.
    trace_context      jsonb NOT NULL DEFAULT '{}',
    state              text NOT NULL DEFAULT 'QUEUED'
        CHECK (state IN ('QUEUED', 'BUILDING', 'SUCCEEDED', 'FAILED')),
    step               text NOT NULL DEFAULT '',
    reason             text NOT NULL DEFAULT '',
    code               text NOT NULL DEFAULT '',
    artifacts          jsonb,
    environment_cached boolean,
    seconds            double precision,
    -- How often a builder started it and did not give it back.
    attempts           integer NOT NULL DEFAULT 0,
    -- Which builder works on it, and until when it is believed to be alive without a sign of life.
    lock_token         text,
    lock_expires_at    timestamptz,
    queued_at          timestamptz NOT NULL DEFAULT now(),
    started_at         timestamptz,
    finished_at        timestamptz,
    CHECK ((state = 'BUILDING') = (lock_token IS NOT NULL)),
    CHECK ((state = 'BUILDING') = (lock_expires_at IS NOT NULL)),
    CHECK ((state = 'SUCCEEDED') = (artifacts IS NOT NULL)),
    CHECK ((state = 'FAILED') = (code <> ''))
);
CREATE INDEX builds_claimable ON builds (queued_at) WHERE state IN ('QUEUED', 'BUILDING');

-- What was answered and acted on stays: no late builder and no repeated message changes a finished build.
CREATE FUNCTION builds_keep_result() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'build % has ended as % and cannot change', OLD.build_id, OLD.state;
END
$$;
CREATE TRIGGER builds_keep_result BEFORE UPDATE ON builds
    FOR EACH ROW WHEN (OLD.state IN ('SUCCEEDED', 'FAILED'))
    EXECUTE FUNCTION builds_keep_result();

-- The log of a build, in pieces, oldest first. A gap in the line numbers is where a long log was cut.
CREATE TABLE build_log_chunks (
    build_id   text NOT NULL REFERENCES builds (build_id) ON DELETE CASCADE,
    first_line bigint NOT NULL,
    lines      integer NOT NULL CHECK (lines > 0),
    text       text NOT NULL,
    PRIMARY KEY (build_id, first_line)
);
