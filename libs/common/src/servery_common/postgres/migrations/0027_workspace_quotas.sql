-- How many scoring requests a second a workspace may send. Null: as many as every workspace may (the default).
ALTER TABLE workspaces ADD COLUMN quota_qps integer CHECK (quota_qps >= 1);
