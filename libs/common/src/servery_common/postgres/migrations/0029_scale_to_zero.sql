-- A served entity at zero, and one that goes on with the replicas of the entity before it.
ALTER TABLE served_entities DROP CONSTRAINT served_entities_phase_check;
ALTER TABLE served_entities ADD CONSTRAINT served_entities_phase_check
    CHECK (phase IN ('BUILDING', 'STARTING', 'READY', 'IDLE', 'RECOVERING', 'FAILED', 'ABORTED'));
ALTER TABLE served_entities ADD COLUMN adopts text;
-- Both were made by the same build.
ALTER TABLE served_entities DROP CONSTRAINT served_entities_build_id_key;
CREATE INDEX served_entities_build ON served_entities (build_id);
