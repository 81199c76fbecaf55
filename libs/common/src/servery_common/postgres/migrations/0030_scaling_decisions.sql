-- Why a served entity has as many replicas as it has. The controller alone writes this table.

CREATE TABLE scaling_decisions (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id      text NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    served_entity_id text NOT NULL REFERENCES served_entities (id) ON DELETE CASCADE,
    before_replicas  integer NOT NULL,
    after_replicas   integer NOT NULL,
    reason           text NOT NULL,
    decided_by       text NOT NULL CHECK (decided_by IN ('scaler', 'wake', 'capacity')),
    -- What the decision was made of: {name: number}
    seen             jsonb NOT NULL DEFAULT '{}',
    decided_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX scaling_decisions_of_endpoint ON scaling_decisions (endpoint_id, id);
CREATE INDEX scaling_decisions_of_entity ON scaling_decisions (served_entity_id);
COMMENT ON TABLE scaling_decisions IS 'Only the newest of each endpoint are kept. Written by the controller.';
