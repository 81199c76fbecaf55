-- Secrets. The controller alone writes these tables.

CREATE TABLE secret_scopes (
    workspace_id text NOT NULL,
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
    workspace_id text NOT NULL,
    scope        text NOT NULL,
    -- A user's name, a group's name or a service principal's application id, as the API gives it.
    principal    text NOT NULL,
    permission   text NOT NULL CHECK (permission IN ('READ', 'WRITE', 'MANAGE')),
    PRIMARY KEY (workspace_id, scope, principal),
    FOREIGN KEY (workspace_id, scope) REFERENCES secret_scopes (workspace_id, name) ON DELETE CASCADE
);
COMMENT ON TABLE secret_acls IS 'written by the controller';
