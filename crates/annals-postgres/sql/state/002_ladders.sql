-- Older events of a checkpoint: each is the position (8 bytes, big endian) and the id of the event there. After a loss of
-- events a subscriber steps back to the newest of them that the log still has.
ALTER TABLE checkpoints ADD COLUMN ladder bytea;
