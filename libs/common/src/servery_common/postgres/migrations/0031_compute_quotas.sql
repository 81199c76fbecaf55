-- How many slots the replicas of a workspace may have. Null: as many as every workspace may (the installation's setting).
ALTER TABLE workspaces ADD COLUMN quota_compute_slots integer CHECK (quota_compute_slots >= 0);
