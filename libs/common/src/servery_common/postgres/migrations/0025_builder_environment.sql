-- Builders ask the controller for a model's environment variables, so that secrets lie in no table. The column
-- stays, with its default, for builders of the release before; the next release drops it.
-- Of builds that ended it is empty already.
UPDATE builds SET environment_vars = '{}' WHERE state IN ('QUEUED', 'BUILDING') AND environment_vars <> '{}';
COMMENT ON COLUMN builds.environment_vars IS 'Not used any more.';
