-- What is kept of an endpoint beside its configs. Written by the controller alone.

ALTER TABLE endpoints
    ADD COLUMN rate_limits          jsonb NOT NULL DEFAULT '[]',
    -- {"on_update_success": [addresses], "on_update_failure": [addresses]}
    ADD COLUMN email_notifications  jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN budget_policy_id     text,
    ADD COLUMN creator_kind         text NOT NULL DEFAULT 'user'
        CHECK (creator_kind IN ('user', 'service_principal')),
    ADD COLUMN creator_display_name text NOT NULL DEFAULT '';

-- A person stopped the endpoint: its config waits to be started again.
ALTER TABLE endpoint_configs DROP CONSTRAINT endpoint_configs_phase_check;
ALTER TABLE endpoint_configs ADD CONSTRAINT endpoint_configs_phase_check
    CHECK (phase IN ('PENDING', 'ACTIVE', 'STOPPED', 'FAILED', 'CANCELED', 'RETIRED'));
-- Of what serves and what was stopped there is at most one together: a stopped endpoint serves nothing.
DROP INDEX endpoint_configs_one_active;
CREATE UNIQUE INDEX endpoint_configs_one_current ON endpoint_configs (endpoint_id)
    WHERE phase IN ('ACTIVE', 'STOPPED');

CREATE TABLE endpoint_events (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id         text NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    event_type          text NOT NULL,
    status              text NOT NULL,
    message             text NOT NULL,
    config_version      integer,
    served_entity_name  text,
    happened_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX endpoint_events_of_endpoint ON endpoint_events (endpoint_id, id);
COMMENT ON TABLE endpoint_events IS
    'What happened to an endpoint, for people; only the newest are kept. Written by the controller.';

CREATE TABLE notifications (
    id              text NOT NULL,
    sink            text NOT NULL CHECK (sink IN ('email', 'webhook')),
    notice          jsonb NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    -- Which controller is sending it, and until when it is believed to be alive without a sign of life.
    lock_token      text,
    lock_expires_at timestamptz,
    last_error      text,
    -- Sent in vain for a day: kept for people to see why.
    given_up_at     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, sink)
);
CREATE INDEX notifications_due ON notifications (next_attempt_at) WHERE given_up_at IS NULL;
COMMENT ON TABLE notifications IS
    'News for people that were not delivered yet, one row per sink. Written by the controller.';
