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
    workspace_id text NOT NULL,
    scope        text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('user', 'group', 'service_principal')),
    -- A user's name, a group's name or a service principal's application id.
    principal    text NOT NULL,
    permission   text NOT NULL CHECK (permission IN ('READ', 'WRITE', 'MANAGE')),
    PRIMARY KEY (workspace_id, scope, kind, principal),
    FOREIGN KEY (workspace_id, scope) REFERENCES secret_scopes (workspace_id, name) ON DELETE CASCADE
);
COMMENT ON TABLE secret_acls IS 'written by the controller';

-- A grant is its principal's: it takes the principal's new name with it, and ends with the principal, so that
-- whoever gets the name next does not get the secrets too.
CREATE FUNCTION secret_acls_follow() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    old_kind text := coalesce(to_jsonb(OLD) ->> 'kind', 'group');
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM secret_acls
        WHERE (workspace_id, kind, principal) = (OLD.workspace_id, old_kind, OLD.name);
    ELSE
        UPDATE secret_acls SET principal = NEW.name
        WHERE (workspace_id, kind, principal) = (OLD.workspace_id, old_kind, OLD.name);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER secret_acls_follow AFTER DELETE OR UPDATE OF name ON principals
    FOR EACH ROW EXECUTE FUNCTION secret_acls_follow();
CREATE TRIGGER secret_acls_follow AFTER DELETE OR UPDATE OF name ON groups
    FOR EACH ROW EXECUTE FUNCTION secret_acls_follow();
