-- Who may do what with an endpoint. The controller alone writes this table.
-- Administrators of a workspace may manage all of its endpoints and need no row.

CREATE TABLE endpoint_grants (
    endpoint_id      text NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    -- Referred to by number, so that a renamed group keeps its grants and a deleted one leaves none to a successor.
    principal_number bigint REFERENCES principals (number) ON DELETE CASCADE,
    group_number     bigint REFERENCES groups (number) ON DELETE CASCADE,
    level            text NOT NULL CHECK (level IN ('CAN_VIEW', 'CAN_QUERY', 'CAN_MANAGE')),
    CHECK (num_nonnulls(principal_number, group_number) = 1),
    UNIQUE (endpoint_id, principal_number),
    UNIQUE (endpoint_id, group_number)
);
CREATE INDEX endpoint_grants_of_principal ON endpoint_grants (principal_number);
CREATE INDEX endpoint_grants_of_group ON endpoint_grants (group_number);
