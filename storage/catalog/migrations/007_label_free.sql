-- The label-free check: where held-out exemplars stand, how far down a ranking is better than chance.
CREATE TABLE label_free_check (
    selection_id VARCHAR NOT NULL, target VARCHAR NOT NULL, method VARCHAR NOT NULL,
    n_exemplars BIGINT NOT NULL, n_folds BIGINT, n_rows BIGINT NOT NULL, n_ranked BIGINT NOT NULL,
    percentile DOUBLE, percentile_lo DOUBLE, percentile_hi DOUBLE,
    n_alike DOUBLE, n_alike_lo DOUBLE, n_alike_hi DOUBLE,
    effective DOUBLE, n_drawn BIGINT, n_looked BIGINT, informative_until BIGINT,
    n_picks BIGINT, n_beyond BIGINT,
    PRIMARY KEY (selection_id, target, method));
COMMENT ON TABLE label_free_check IS 'What held-out exemplars say of a selection, by target and method; needs no labels.';
COMMENT ON COLUMN label_free_check.selection_id IS 'The main selection.';
COMMENT ON COLUMN label_free_check.target IS 'Target task whose exemplars were held out.';
COMMENT ON COLUMN label_free_check.method IS 'What ranked: the selection''s own method, bm25 or random.';
COMMENT ON COLUMN label_free_check.n_exemplars IS 'Different exemplars.';
COMMENT ON COLUMN label_free_check.n_folds IS 'Parts they were held out in; null with a single exemplar, which cannot be.';
COMMENT ON COLUMN label_free_check.n_rows IS 'Samples that they were ranked among.';
COMMENT ON COLUMN label_free_check.n_ranked IS 'Samples in the ranking; n_rows is fewer where they were sampled.';
COMMENT ON COLUMN label_free_check.percentile IS 'Median over held-out exemplars: share of samples that score less, in %, ties half.';
COMMENT ON COLUMN label_free_check.percentile_lo IS 'Lower end of its 95 % bootstrap interval over exemplars.';
COMMENT ON COLUMN label_free_check.percentile_hi IS 'Upper end of it.';
COMMENT ON COLUMN label_free_check.n_alike IS 'About how many ranked samples are as close to the exemplars as these are to each other; errs upwards; null for random.';
COMMENT ON COLUMN label_free_check.n_alike_lo IS 'Lower end of its 95 % bootstrap interval.';
COMMENT ON COLUMN label_free_check.n_alike_hi IS 'Upper end of it.';
COMMENT ON COLUMN label_free_check.effective IS 'Unrelated samples that the exemplars are worth; null where no reach was measured.';
COMMENT ON COLUMN label_free_check.n_drawn IS 'Random samples that stood in for exemplars.';
COMMENT ON COLUMN label_free_check.n_looked IS 'Ranks that were held against random samples.';
COMMENT ON COLUMN label_free_check.informative_until IS 'Rank before which most samples are closer to the exemplars than to random samples; 0 if none.';
COMMENT ON COLUMN label_free_check.n_picks IS 'Picks of the selection for the target.';
COMMENT ON COLUMN label_free_check.n_beyond IS 'Of them, those that rank lower than informative_until by score.';

CREATE TABLE held_out (
    selection_id VARCHAR NOT NULL, target VARCHAR NOT NULL, method VARCHAR NOT NULL,
    exemplar_id VARCHAR NOT NULL, fold BIGINT, percentile DOUBLE, near_share DOUBLE,
    nearest_share DOUBLE, flag VARCHAR,
    PRIMARY KEY (selection_id, target, method, exemplar_id));
COMMENT ON TABLE held_out IS 'Each exemplar, held out and ranked among the pool by the others of its target.';
COMMENT ON COLUMN held_out.selection_id IS 'The main selection.';
COMMENT ON COLUMN held_out.target IS 'Target task of the exemplar.';
COMMENT ON COLUMN held_out.method IS 'What ranked.';
COMMENT ON COLUMN held_out.exemplar_id IS 'The exemplar.';
COMMENT ON COLUMN held_out.fold IS 'Part it was held out in; null with a single exemplar.';
COMMENT ON COLUMN held_out.percentile IS 'Share of samples that score less than it, in %, ties half.';
COMMENT ON COLUMN held_out.near_share IS 'Share of the looked-at picks closer to it than to 95 % of random samples; own method only.';
COMMENT ON COLUMN held_out.nearest_share IS 'Share of the looked-at picks whose nearest exemplar it is; own method only.';
COMMENT ON COLUMN held_out.flag IS 'apart, unmatched or dominates: worth a look; null for most.';

CREATE VIEW v_check AS
SELECT c.selection_id, s.name AS selection, c.target, c.method, c.method = s.method AS is_own,
    c.n_exemplars, c.n_rows, c.n_ranked, c.percentile, c.percentile_lo, c.percentile_hi, c.n_alike,
    c.n_alike_lo, c.n_alike_hi, c.informative_until, c.n_looked, c.n_picks, c.n_beyond
FROM label_free_check c JOIN selection s USING (selection_id);
COMMENT ON VIEW v_check IS 'The label-free check by selection, target and method.';
COMMENT ON COLUMN v_check.selection_id IS 'The selection.';
COMMENT ON COLUMN v_check.selection IS 'Its name.';
COMMENT ON COLUMN v_check.target IS 'Target task.';
COMMENT ON COLUMN v_check.method IS 'What ranked.';
COMMENT ON COLUMN v_check.is_own IS 'Whether it is the selection''s own method; the others are for comparison.';
COMMENT ON COLUMN v_check.n_exemplars IS 'Different exemplars.';
COMMENT ON COLUMN v_check.n_rows IS 'Samples that they were ranked among.';
COMMENT ON COLUMN v_check.n_ranked IS 'Samples in the ranking.';
COMMENT ON COLUMN v_check.percentile IS 'Median over held-out exemplars of the share of samples that score less, in %; 50 is chance.';
COMMENT ON COLUMN v_check.percentile_lo IS 'Lower end of its 95 % bootstrap interval.';
COMMENT ON COLUMN v_check.percentile_hi IS 'Upper end of it.';
COMMENT ON COLUMN v_check.n_alike IS 'About how many samples are as close to the exemplars as these are to each other.';
COMMENT ON COLUMN v_check.n_alike_lo IS 'Lower end of its 95 % bootstrap interval.';
COMMENT ON COLUMN v_check.n_alike_hi IS 'Upper end of it.';
COMMENT ON COLUMN v_check.informative_until IS 'Rank before which most samples are closer to the exemplars than to random samples.';
COMMENT ON COLUMN v_check.n_looked IS 'Ranks that were looked at.';
COMMENT ON COLUMN v_check.n_picks IS 'Picks for the target.';
COMMENT ON COLUMN v_check.n_beyond IS 'Of them, those behind informative_until.';

-- A selection's hash covers its check; without one it is what 006_chain says, so VERSION stays.
ALTER VIEW v_content RENAME TO v_content_unchecked;
COMMENT ON VIEW v_content_unchecked IS 'SHA-256 of decisions without the label-free check of selections; v_content adds it.';
CREATE VIEW v_content AS
WITH checked AS (
    SELECT selection_id, sum(md5_number_lower(line)::HUGEINT)::VARCHAR AS total FROM (
        SELECT selection_id, json_array('check', target, method, n_exemplars, n_folds, n_rows,
            n_ranked, percentile, percentile_lo, percentile_hi, n_alike, n_alike_lo, n_alike_hi,
            effective, n_drawn, n_looked, informative_until, n_picks, n_beyond)::VARCHAR AS line
        FROM label_free_check
        UNION ALL
        SELECT selection_id, json_array('held out', target, method, exemplar_id, fold, percentile,
            near_share, nearest_share, flag)::VARCHAR FROM held_out)
    GROUP BY selection_id)
SELECT c.kind, c.subject, CASE WHEN k.total IS NULL THEN c.content_sha256
    ELSE sha256(c.content_sha256 || '|' || k.total) END AS content_sha256
FROM v_content_unchecked c
LEFT JOIN checked k ON c.kind = 'selection' AND k.selection_id = c.subject;
COMMENT ON VIEW v_content IS 'SHA-256 of every decision as the tables hold it now, with all rows that belong to it; sample text is not part of it.';
COMMENT ON COLUMN v_content.kind IS 'run, selection, export, event or forgotten.';
COMMENT ON COLUMN v_content.subject IS 'Id; for an event its content_sha256.';
COMMENT ON COLUMN v_content.content_sha256 IS 'Hash of its columns and of the rows that belong to it in any order: to a run its drops, sources, exemplars, occurrences, artifacts and contamination; to a selection its picks, near misses, drops, explanations and label-free check.';
