-- Tables of the controller, which alone writes them.

CREATE TABLE endpoints (
    id                  text PRIMARY KEY,
    workspace_id        text NOT NULL,
    name                text NOT NULL,
    creator             text NOT NULL,
    description         text NOT NULL DEFAULT '',
    tags                jsonb NOT NULL DEFAULT '[]',
    route_optimized     boolean NOT NULL DEFAULT false,
    timeout_seconds     double precision NOT NULL DEFAULT 60,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    -- Bumped by every change a person makes; observed_generation follows once a reconcile step has looked at it.
    generation          bigint NOT NULL DEFAULT 1,
    observed_generation bigint NOT NULL DEFAULT 0,
    -- Deletion was answered 200: the name is free, resources are still being freed.
    deleted_at          timestamptz,
    -- When the reconciler should look next, and who is looking now.
    due_at              timestamptz NOT NULL DEFAULT now(),
    lock_token          text,
    lock_expires_at     timestamptz
);
CREATE UNIQUE INDEX endpoints_live_name ON endpoints (workspace_id, name) WHERE deleted_at IS NULL;
CREATE INDEX endpoints_due ON endpoints (due_at);

CREATE TABLE endpoint_configs (
    endpoint_id text NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    version     integer NOT NULL,
    phase       text NOT NULL CHECK (phase IN ('PENDING', 'ACTIVE', 'FAILED', 'CANCELED', 'RETIRED')),
    routes      jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint_id, version)
);
-- There is never a moment with two configs that get traffic, nor two that want to.
CREATE UNIQUE INDEX endpoint_configs_one_active ON endpoint_configs (endpoint_id) WHERE phase = 'ACTIVE';
CREATE UNIQUE INDEX endpoint_configs_one_pending ON endpoint_configs (endpoint_id) WHERE phase = 'PENDING';

CREATE TABLE served_entities (
    id                 text PRIMARY KEY,
    endpoint_id        text NOT NULL,
    config_version     integer NOT NULL,
    position           integer NOT NULL,
    name               text NOT NULL,
    spec               jsonb NOT NULL,
    min_replicas       integer NOT NULL,
    max_replicas       integer NOT NULL,
    desired_replicas   integer NOT NULL CHECK (desired_replicas >= 0),
    build_id           text NOT NULL UNIQUE,
    build_requested_at timestamptz NOT NULL DEFAULT now(),
    artifacts          jsonb,
    phase              text NOT NULL
        CHECK (phase IN ('BUILDING', 'STARTING', 'READY', 'RECOVERING', 'FAILED', 'ABORTED')),
    message            text NOT NULL DEFAULT '',
    creator            text NOT NULL,
    created_at         timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (endpoint_id, config_version)
        REFERENCES endpoint_configs (endpoint_id, version) ON DELETE CASCADE,
    UNIQUE (endpoint_id, config_version, name)
);

CREATE TABLE replicas (
    id               text PRIMARY KEY,
    served_entity_id text NOT NULL REFERENCES served_entities (id) ON DELETE CASCADE,
    -- Where it belongs (one life of one worker), decided once: a replica that must run elsewhere is another
    -- row with another id, so that no id ever answers twice.
    node             text,
    stopping         boolean NOT NULL DEFAULT false,
    created_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX replicas_of_entity ON replicas (served_entity_id);
