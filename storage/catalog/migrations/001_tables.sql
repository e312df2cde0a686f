-- The first tables and views of the catalog.

CREATE TABLE catalog_commit (
    number BIGINT PRIMARY KEY, committed_at TIMESTAMP NOT NULL, process VARCHAR);
CREATE TABLE run (
    run_id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL, finished_at TIMESTAMP,
    config JSON, versions JSON, git_sha VARCHAR, who VARCHAR, host VARCHAR, "trigger" VARCHAR,
    note VARCHAR, pool_id VARCHAR, representation_id VARCHAR,
    model VARCHAR, model_sha256 VARCHAR, model_licence VARCHAR,
    sae VARCHAR, sae_sha256 VARCHAR, sae_licence VARCHAR,
    hookpoint VARCHAR, unit DOUBLE, seed BIGINT, is_demo BOOLEAN, counts JSON);
CREATE TABLE run_drop (
    run_id VARCHAR NOT NULL, stage VARCHAR NOT NULL, reason VARCHAR NOT NULL, n BIGINT NOT NULL);
CREATE TABLE run_source (
    run_id VARCHAR NOT NULL, source VARCHAR NOT NULL, n_pool BIGINT NOT NULL);
CREATE TABLE exemplar (
    run_id VARCHAR NOT NULL, exemplar_id VARCHAR NOT NULL, target VARCHAR NOT NULL,
    subtask VARCHAR, own_id VARCHAR, source VARCHAR, file VARCHAR, "row" BIGINT,
    messages JSON, text VARCHAR);
CREATE TABLE selection (
    selection_id VARCHAR PRIMARY KEY, run_id VARCHAR NOT NULL, name VARCHAR NOT NULL,
    target VARCHAR, method VARCHAR NOT NULL, "role" VARCHAR NOT NULL,
    exemplar_reduction VARCHAR, weights VARCHAR, budget JSON,
    n_eligible BIGINT NOT NULL, n_selected BIGINT NOT NULL,
    n_tokens BIGINT, unused_tokens BIGINT, cut_score DOUBLE, curve JSON, lengths JSON);
CREATE TABLE pick (
    selection_id VARCHAR NOT NULL, rank BIGINT NOT NULL, target VARCHAR,
    example_id VARCHAR NOT NULL, score DOUBLE, tokens BIGINT, text VARCHAR,
    PRIMARY KEY (selection_id, rank), UNIQUE (selection_id, example_id));
CREATE TABLE near_miss (
    selection_id VARCHAR NOT NULL, rank BIGINT NOT NULL, target VARCHAR,
    example_id VARCHAR NOT NULL, score DOUBLE, tokens BIGINT, text VARCHAR,
    PRIMARY KEY (selection_id, rank));
CREATE TABLE sample (example_id VARCHAR PRIMARY KEY, messages JSON NOT NULL, tools JSON);
CREATE TABLE occurrence (
    run_id VARCHAR NOT NULL, example_id VARCHAR NOT NULL, own_id VARCHAR, source VARCHAR NOT NULL,
    file VARCHAR NOT NULL, "row" BIGINT NOT NULL, licence VARCHAR, language VARCHAR,
    "group" VARCHAR, raw VARCHAR);
CREATE TABLE why (
    selection_id VARCHAR NOT NULL, example_id VARCHAR NOT NULL, exemplar_id VARCHAR NOT NULL,
    space VARCHAR, latent BIGINT NOT NULL, contribution BIGINT NOT NULL, numerator BIGINT,
    share DOUBLE);
CREATE TABLE latent_description (
    sae VARCHAR, latent BIGINT, description VARCHAR, PRIMARY KEY (sae, latent));
CREATE TABLE selection_drop (
    selection_id VARCHAR NOT NULL, stage VARCHAR NOT NULL, reason VARCHAR NOT NULL,
    n BIGINT NOT NULL, example_id VARCHAR);
CREATE TABLE artifact (
    run_id VARCHAR NOT NULL, step VARCHAR NOT NULL, artifact VARCHAR NOT NULL, sha256 VARCHAR,
    parent VARCHAR);
CREATE TABLE export (
    export_id VARCHAR PRIMARY KEY, selection_id VARCHAR NOT NULL, format VARCHAR NOT NULL,
    path VARCHAR NOT NULL, sha256 VARCHAR, "rows" BIGINT, created_at TIMESTAMP NOT NULL);
CREATE TABLE event (
    "at" TIMESTAMP NOT NULL, run_id VARCHAR, selection_id VARCHAR, action VARCHAR NOT NULL,
    detail JSON);

COMMENT ON TABLE run IS 'One execution of the main job: resolved config, versions, hashes.';
COMMENT ON COLUMN run.counts IS 'Rows, examples, tokens, truncation: what the run went through.';
COMMENT ON COLUMN run.unit IS 'Activation that one step of a stored value stands for.';
COMMENT ON COLUMN run.is_demo IS 'The demonstration model represented the samples.';
COMMENT ON TABLE run_drop IS 'Rows and examples that left before ranking, counted by reason.';
COMMENT ON TABLE run_source IS 'Eligible examples of the pool by source (first occurrence).';
COMMENT ON TABLE exemplar IS 'The known examples of the target tasks that a run was given.';
COMMENT ON TABLE selection IS 'What was chosen under a budget, and controls chosen beside it.';
COMMENT ON COLUMN selection."role" IS 'main, or control (random, bm25, ...).';
COMMENT ON COLUMN selection.cut_score IS 'Score of the last chosen example; higher is better.';
COMMENT ON COLUMN selection.curve IS '{"ranks": [..], "scores": [..]}: the ranking, thinned.';
COMMENT ON COLUMN selection.lengths IS '{"edges", "pool", "selected"}: histograms of tokens.';
COMMENT ON COLUMN selection.unused_tokens IS 'Tokens of the budget that no further example fits.';
COMMENT ON TABLE pick IS 'Chosen examples; rank 1 is best.';
COMMENT ON COLUMN pick.tokens IS 'Tokens of the example as the budget counts them.';
COMMENT ON COLUMN pick.text IS 'The example as plain text, for reading.';
COMMENT ON TABLE near_miss IS 'The examples that follow the last pick of the ranking.';
COMMENT ON TABLE sample IS 'Full content of picked and nearly picked examples, once each.';
COMMENT ON TABLE occurrence IS 'Every row of the pool that holds an example and passes `where`.';
COMMENT ON COLUMN occurrence."row" IS '1-based line or row number in the file.';
COMMENT ON COLUMN occurrence.raw IS 'The original row as JSON, unchanged.';
COMMENT ON TABLE why IS 'Shared latents of a pick and an exemplar; latent -1 is the rest.';
COMMENT ON COLUMN why.contribution IS 'The latent''s part of the numerator of the similarity.';
COMMENT ON COLUMN why.share IS 'contribution / numerator.';
COMMENT ON COLUMN latent_description.sae IS 'run.sae_sha256 of the SAE that has the latent.';
COMMENT ON TABLE selection_drop IS 'Examples that left after ranking, one by one where known.';
COMMENT ON TABLE artifact IS 'Hashes of what a run read and made; parent is an artifact.';
COMMENT ON TABLE export IS 'Training files that were written from a selection.';
COMMENT ON COLUMN event."at" IS 'Write event.at or "at": a bare at is reserved in DuckDB.';
COMMENT ON TABLE event IS 'What happened later: exports, reports, notes.';

CREATE VIEW v_first_occurrence AS
SELECT * FROM occurrence
QUALIFY row_number() OVER (PARTITION BY run_id, example_id ORDER BY file, "row", source) = 1;

CREATE VIEW v_selection AS
SELECT s.selection_id, s.name AS selection, coalesce(p.target, s.target) AS target, p.rank,
    p.example_id, o.own_id, o.source, o.file, o."row", o.licence, p.score, p.tokens, p.text
FROM pick p
JOIN selection s ON s.selection_id = p.selection_id
LEFT JOIN v_first_occurrence o ON o.run_id = s.run_id AND o.example_id = p.example_id;

CREATE VIEW v_why AS
SELECT w.selection_id, w.example_id, w.exemplar_id, w.space, w.latent, d.description,
    w.contribution, w.share
FROM why w
JOIN selection s ON s.selection_id = w.selection_id
JOIN run r ON r.run_id = s.run_id
LEFT JOIN latent_description d ON d.sae = r.sae_sha256 AND d.latent = w.latent;

CREATE VIEW v_source_mix AS
WITH pool AS (
    SELECT s.selection_id, r.source, r.n_pool FROM selection s JOIN run_source r USING (run_id)),
chosen AS (
    SELECT selection_id, source, count(*) AS n_selected FROM v_selection GROUP BY ALL),
mix AS (
    SELECT selection_id, source, coalesce(n_pool, 0) AS n_pool,
        coalesce(n_selected, 0) AS n_selected
    FROM pool FULL JOIN chosen USING (selection_id, source))
SELECT *, n_pool / nullif(sum(n_pool) OVER per_selection, 0) AS share_pool,
    n_selected / nullif(sum(n_selected) OVER per_selection, 0) AS share_selected
FROM mix WINDOW per_selection AS (PARTITION BY selection_id);

CREATE VIEW v_drops AS
SELECT s.selection_id, d.stage, d.reason, d.n, NULL::VARCHAR AS example_id
FROM selection s JOIN run_drop d USING (run_id)
UNION ALL
SELECT selection_id, stage, reason, n, example_id FROM selection_drop;

CREATE VIEW v_lineage AS
SELECT s.selection_id, a.step, a.artifact, a.sha256, a.parent
FROM selection s JOIN artifact a USING (run_id)
WHERE (a.step <> 'select' OR a.artifact = s.selection_id)
    AND (a.step <> 'exemplars' OR s.target = 'joint' OR a.artifact = 'target ' || s.target)
UNION ALL
SELECT selection_id, 'export', path, sha256, selection_id FROM export;

COMMENT ON VIEW v_selection IS 'One row per pick, with the first place it came from.';
COMMENT ON VIEW v_why IS 'Which latents a pick shares with its exemplar, and how much each counts.';
COMMENT ON VIEW v_source_mix IS 'Sources before and after: the pool beside the selection.';
COMMENT ON VIEW v_drops IS 'Everything that was refused, with its reason.';
COMMENT ON VIEW v_lineage IS 'Hashes from the pool to the exported files.';
