-- Why each pick was taken and each better candidate was not, and what holds an evaluation item.

ALTER TABLE pick ADD COLUMN score_rank BIGINT;
ALTER TABLE pick ADD COLUMN reason VARCHAR;
ALTER TABLE pick ADD COLUMN detail VARCHAR;
ALTER TABLE near_miss ADD COLUMN score_rank BIGINT;
ALTER TABLE selection_drop ADD COLUMN score_rank BIGINT;
ALTER TABLE selection_drop ADD COLUMN detail VARCHAR;
ALTER TABLE selection_drop ADD COLUMN other_id VARCHAR;
CREATE TABLE contamination (
    run_id VARCHAR NOT NULL, example_id VARCHAR NOT NULL, file VARCHAR, item VARCHAR,
    matched BIGINT, counted BIGINT, similarity DOUBLE, dropped BOOLEAN NOT NULL);

COMMENT ON COLUMN pick.score_rank IS 'Rank by score alone, before quotas, duplicates and diversity.';
COMMENT ON COLUMN pick.reason IS 'What brought it in: score, included, floor or diversity.';
COMMENT ON COLUMN pick.detail IS 'More of the reason, e.g. the floor that it fills.';
COMMENT ON COLUMN near_miss.score_rank IS 'Rank by score alone.';
COMMENT ON COLUMN selection_drop.score_rank IS 'Rank by score alone of the example.';
COMMENT ON COLUMN selection_drop.detail IS 'More of the reason, e.g. the cap or the similarity.';
COMMENT ON COLUMN selection_drop.other_id IS 'The better example that a near-duplicate repeats.';
COMMENT ON TABLE contamination IS 'Examples of a pool that hold an evaluation item, or resemble one.';
COMMENT ON COLUMN contamination.run_id IS 'The run.';
COMMENT ON COLUMN contamination.example_id IS 'The example of the pool.';
COMMENT ON COLUMN contamination.file IS 'Evaluation file, or the target task of the exemplar.';
COMMENT ON COLUMN contamination.item IS 'The item: its own id, or its example id.';
COMMENT ON COLUMN contamination.matched IS 'Runs of words of the item that the example holds.';
COMMENT ON COLUMN contamination.counted IS 'Runs of words of the item that count.';
COMMENT ON COLUMN contamination.similarity IS 'Generalized Jaccard, where similarity alone flagged it.';
COMMENT ON COLUMN contamination.dropped IS 'Dropped before ranking; otherwise only flagged.';
