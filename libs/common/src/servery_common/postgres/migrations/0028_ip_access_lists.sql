-- From where a workspace may be reached. Written by the controller. The lists count only while the workspace uses them.
ALTER TABLE workspaces ADD COLUMN ip_access_enabled boolean NOT NULL DEFAULT false;

CREATE TABLE ip_access_lists (
    id           text PRIMARY KEY,
    workspace_id text NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    label        text NOT NULL,
    list_type    text NOT NULL CHECK (list_type IN ('ALLOW', 'BLOCK')),
    -- Addresses and CIDR ranges as they were given.
    addresses    text[] NOT NULL CHECK (cardinality(addresses) > 0),
    enabled      boolean NOT NULL DEFAULT true,
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- Numbers of principals, who may be gone by now.
    created_by   bigint,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    updated_by   bigint
);
CREATE INDEX ip_access_lists_of_workspace ON ip_access_lists (workspace_id);
