-- Who may do what with an endpoint. The controller alone writes this table.
-- Administrators of a workspace may manage all of its endpoints and need no row.

CREATE TABLE endpoint_grants (
    endpoint_id text NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    kind        text NOT NULL CHECK (kind IN ('user', 'group', 'service_principal')),
    -- A user name, a group's name or an application id, in the endpoint's workspace.
    name        text NOT NULL,
    level       text NOT NULL CHECK (level IN ('CAN_VIEW', 'CAN_QUERY', 'CAN_MANAGE')),
    PRIMARY KEY (endpoint_id, kind, name)
);

-- Whoever created an endpoint manages it, also one from before there were grants.
INSERT INTO endpoint_grants (endpoint_id, kind, name, level)
SELECT id, 'user', creator, 'CAN_MANAGE' FROM endpoints;
