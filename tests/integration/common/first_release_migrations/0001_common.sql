-- Tables of the shared library.

-- Written by the controller and the builder, each its own rows (owner).
CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner      text NOT NULL,
    event_id   text NOT NULL,
    type       text NOT NULL,
    subject    text NOT NULL,
    body       bytea NOT NULL,
    trace      jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    -- The same event appended twice is one event, as long as the first waits to be sent.
    UNIQUE (owner, event_id)
);
CREATE INDEX outbox_order ON outbox (owner, id);
COMMENT ON TABLE outbox IS
    'Messages of committed transactions that were not published yet. Written by each owner for itself.';

-- Written by the processes that want to lead.
CREATE TABLE leases (
    name       text PRIMARY KEY,
    holder     text NOT NULL,
    epoch      bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE leases IS
    'Who leads. The epoch grows by one per takeover; what a leader writes is checked against it.';
