-- Older events of a checkpoint: each is the position (8 bytes, big endian) and the id of the event there. After a loss of
-- events a subscriber steps back to the newest of them that the log still has. A step may be done again.
SET @add_ladder = IF(
    EXISTS (
        SELECT 1 FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name = 'checkpoints' AND column_name = 'ladder'
    ),
    'DO 0',
    'ALTER TABLE checkpoints ADD COLUMN ladder MEDIUMBLOB'
);
PREPARE add_ladder FROM @add_ladder;
EXECUTE add_ladder;
DEALLOCATE PREPARE add_ladder;
