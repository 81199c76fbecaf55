-- A served entity at zero, and one that goes on with the replicas of the entity before it.
ALTER TABLE served_entities DROP CONSTRAINT served_entities_phase_check;
ALTER TABLE served_entities ADD CONSTRAINT served_entities_phase_check
    CHECK (phase IN ('BUILDING', 'STARTING', 'READY', 'IDLE', 'RECOVERING', 'FAILED', 'ABORTED'));
ALTER TABLE served_entities ADD COLUMN adopts text;
-- Both were made by the same build.
ALTER TABLE served_entities DROP CONSTRAINT served_entities_build_id_key;
CREATE INDEX served_entities_build ON served_entities (build_id);

-- A config that gets its traffic in steps: {"index": which step, "began_at": since when}.
ALTER TABLE endpoint_configs ADD COLUMN rollout jsonb;
ALTER TABLE endpoint_configs DROP CONSTRAINT endpoint_configs_phase_check;
ALTER TABLE endpoint_configs ADD CONSTRAINT endpoint_configs_phase_check
    CHECK (phase IN ('PENDING', 'ROLLING', 'ACTIVE', 'STOPPED', 'FAILED', 'CANCELED', 'RETIRED'));
DROP INDEX endpoint_configs_one_pending;
CREATE UNIQUE INDEX endpoint_configs_one_pending ON endpoint_configs (endpoint_id)
    WHERE phase IN ('PENDING', 'ROLLING');
