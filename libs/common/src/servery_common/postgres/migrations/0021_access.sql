-- Who may call: workspaces, principals, groups and credentials. The controller alone writes these tables.

-- One sequence for principals and groups: a member of a group is named by its number alone.
CREATE SEQUENCE directory_numbers AS bigint START 1000001;

CREATE TABLE workspaces (
    -- Numeric, because clients parse it (X-Databricks-Org-Id).
    id         text PRIMARY KEY CHECK (id ~ '^[0-9]{1,18}$'),
    name       text NOT NULL UNIQUE,
    -- Empty: not said, served everywhere.
    region     text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE principals (
    id           text PRIMARY KEY,
    number       bigint NOT NULL UNIQUE DEFAULT nextval('directory_numbers'),
    workspace_id text NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    kind         text NOT NULL CHECK (kind IN ('user', 'service_principal')),
    -- A user name, or the application id of a service principal.
    name         text NOT NULL,
    display_name text NOT NULL DEFAULT '',
    active       boolean NOT NULL DEFAULT true,
    -- May manage the installation's workspaces.
    operator     boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now()
);
-- Names that differ only in case would be confused by people, and SCIM compares them so.
CREATE UNIQUE INDEX principals_name ON principals (workspace_id, lower(name));
-- A client asks for an OAuth access token by its application id alone, without naming a workspace.
CREATE UNIQUE INDEX principals_application_id ON principals (lower(name)) WHERE kind = 'service_principal';

CREATE TABLE groups (
    number       bigint PRIMARY KEY DEFAULT nextval('directory_numbers'),
    workspace_id text NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    name         text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX groups_name ON groups (workspace_id, lower(name));

CREATE TABLE memberships (
    group_number     bigint NOT NULL REFERENCES groups (number) ON DELETE CASCADE,
    principal_number bigint REFERENCES principals (number) ON DELETE CASCADE,
    subgroup_number  bigint REFERENCES groups (number) ON DELETE CASCADE,
    CHECK (num_nonnulls(principal_number, subgroup_number) = 1),
    UNIQUE (group_number, principal_number),
    UNIQUE (group_number, subgroup_number)
);
CREATE INDEX memberships_of_principal ON memberships (principal_number);
CREATE INDEX memberships_of_subgroup ON memberships (subgroup_number);

CREATE TABLE access_tokens (
    id            text PRIMARY KEY,
    -- Of the token; the token itself is nowhere.
    sha256        text NOT NULL UNIQUE,
    principal_id  text NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    -- Who made it: an administrator may make one for a service principal.
    created_by_id text NOT NULL,
    comment       text NOT NULL DEFAULT '',
    -- Made anew from the settings at each start; nobody lists or revokes it.
    bootstrap     boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz
);
CREATE INDEX access_tokens_of_principal ON access_tokens (principal_id);

-- What service principals prove themselves with when they ask for an OAuth access token.
CREATE TABLE oauth_secrets (
    id           text PRIMARY KEY,
    sha256       text NOT NULL,
    principal_id text NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL
);
CREATE INDEX oauth_secrets_of_principal ON oauth_secrets (principal_id);

-- The installation's own keys for JWTs.
CREATE TABLE signing_keys (
    id                 text PRIMARY KEY,
    public_key         text NOT NULL,
    -- Encrypted with SERVERY_ENCRYPTION_KEY.
    sealed_private_key bytea NOT NULL,
    created_at         timestamptz NOT NULL DEFAULT now()
);
