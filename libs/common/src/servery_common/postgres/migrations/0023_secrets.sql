-- Secrets. The controller alone writes these tables.

CREATE TABLE secret_scopes (
    workspace_id text NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    name         text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, name)
);
COMMENT ON TABLE secret_scopes IS 'written by the controller';

CREATE TABLE secrets (
    workspace_id text NOT NULL,
    scope        text NOT NULL,
    key          text NOT NULL,
    -- AES-256-GCM under the installation's key, bound to workspace, scope and key: no value lies readable here.
    sealed       bytea NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, scope, key),
    FOREIGN KEY (workspace_id, scope) REFERENCES secret_scopes (workspace_id, name) ON DELETE CASCADE
);
COMMENT ON TABLE secrets IS 'written by the controller';

CREATE TABLE secret_acls (
    workspace_id     text NOT NULL,
    scope            text NOT NULL,
    -- By number: a grant follows its principal's or group's new name, and is not left to whoever gets the name next.
    principal_number bigint REFERENCES principals (number) ON DELETE CASCADE,
    group_number     bigint REFERENCES groups (number) ON DELETE CASCADE,
    permission       text NOT NULL CHECK (permission IN ('READ', 'WRITE', 'MANAGE')),
    CHECK (num_nonnulls(principal_number, group_number) = 1),
    UNIQUE (workspace_id, scope, principal_number),
    UNIQUE (workspace_id, scope, group_number),
    FOREIGN KEY (workspace_id, scope) REFERENCES secret_scopes (workspace_id, name) ON DELETE CASCADE
);
CREATE INDEX secret_acls_of_principal ON secret_acls (principal_number);
CREATE INDEX secret_acls_of_group ON secret_acls (group_number);
COMMENT ON TABLE secret_acls IS 'written by the controller';
