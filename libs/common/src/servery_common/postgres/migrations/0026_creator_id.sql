-- Whom a served entity's model acts as. A name is not enough: whoever is made again under it would inherit what the
-- model may do. No foreign key: an id is never given twice, so that of a deleted principal leads to nobody.
-- Null: made before there were principals; the administrator of the settings takes over their own at the start.
ALTER TABLE served_entities ADD COLUMN creator_id text;
UPDATE served_entities s SET creator_id = p.id
FROM endpoints e, principals p
WHERE e.id = s.endpoint_id AND p.workspace_id = e.workspace_id AND lower(p.name) = lower(s.creator);
