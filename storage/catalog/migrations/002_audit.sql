-- Decisions in a hash chain, tombstones, licences of the data, overlaps; a comment on every column.
ALTER TABLE run ADD COLUMN data_licences JSON;
COMMENT ON COLUMN run.data_licences IS 'Ranked examples of the pool by licence; "" where the data names none.';

CREATE TABLE decision (
    number BIGINT PRIMARY KEY, "at" TIMESTAMP NOT NULL, kind VARCHAR NOT NULL,
    subject VARCHAR NOT NULL, content_sha256 VARCHAR NOT NULL, previous VARCHAR NOT NULL,
    sha256 VARCHAR NOT NULL, UNIQUE (kind, subject));
COMMENT ON TABLE decision IS 'Hash chain over runs, selections, exports and events, in order; holds no text of any sample.';
COMMENT ON COLUMN decision.number IS '1, 2, 3, ... in the order of commits.';
COMMENT ON COLUMN decision."at" IS 'When it was committed (UTC).';
COMMENT ON COLUMN decision.kind IS 'run, selection, export, event or forgotten.';
COMMENT ON COLUMN decision.subject IS 'Id of the run, selection or export; for an event its content_sha256; for forgotten the example id.';
COMMENT ON COLUMN decision.content_sha256 IS 'What v_content gave when it was committed.';
COMMENT ON COLUMN decision.previous IS 'sha256 of the decision before; empty for the first.';
COMMENT ON COLUMN decision.sha256 IS 'SHA-256 of number|at|kind|subject|content_sha256|previous.';

CREATE TABLE forgotten (
    example_id VARCHAR PRIMARY KEY, "at" TIMESTAMP NOT NULL, who VARCHAR, reason VARCHAR,
    n_exports BIGINT NOT NULL);
COMMENT ON TABLE forgotten IS 'Tombstones: examples whose text and vectors were removed from the workspace.';
COMMENT ON COLUMN forgotten.example_id IS 'Hash of the content that is gone.';
COMMENT ON COLUMN forgotten."at" IS 'When (UTC).';
COMMENT ON COLUMN forgotten.who IS 'Account that asked for it.';
COMMENT ON COLUMN forgotten.reason IS 'As given with --reason.';
COMMENT ON COLUMN forgotten.n_exports IS 'Exported files that held it before; the event of action `forgot` names them.';

CREATE VIEW v_content AS
WITH picked AS (
    SELECT selection_id, sha256(string_agg(concat_ws('|', rank, example_id, target, score, tokens),
        chr(10) ORDER BY rank)) AS sha
    FROM pick GROUP BY selection_id),
missed AS (
    SELECT selection_id, sha256(string_agg(concat_ws('|', rank, example_id, target, score, tokens),
        chr(10) ORDER BY rank)) AS sha
    FROM near_miss GROUP BY selection_id),
explained AS (
    SELECT selection_id, sum(md5_number_lower(concat_ws('|', example_id, exemplar_id, space, latent,
        contribution, numerator))::HUGEINT) AS total
    FROM why GROUP BY selection_id)
SELECT 'run' AS kind, run_id AS subject, sha256(concat_ws('|', run_id, name, created_at, config,
    versions, git_sha, who, host, "trigger", note, pool_id, representation_id, model, model_sha256,
    model_licence, sae, sae_sha256, sae_licence, data_licences, hookpoint, unit, seed, counts)) AS content_sha256
FROM run
UNION ALL
SELECT 'selection', s.selection_id, sha256(concat_ws('|', s.selection_id, run_id, name, target,
    method, "role", exemplar_reduction, weights, budget, n_eligible, n_selected, n_tokens,
    unused_tokens, cut_score, p.sha, coalesce(m.sha, ''), coalesce(e.total, 0)))
FROM selection s LEFT JOIN picked p ON p.selection_id = s.selection_id
LEFT JOIN missed m ON m.selection_id = s.selection_id
LEFT JOIN explained e ON e.selection_id = s.selection_id
UNION ALL
SELECT 'export', export_id, sha256(concat_ws('|', export_id, selection_id, format, path, sha256,
    "rows", created_at)) FROM export
UNION ALL
SELECT DISTINCT 'event', sha, sha FROM (
    SELECT sha256(concat_ws('|', "at", run_id, selection_id, action, detail)) AS sha FROM event)
UNION ALL
SELECT 'forgotten', example_id, sha256(concat_ws('|', example_id, "at", who, reason)) FROM forgotten;
COMMENT ON VIEW v_content IS 'SHA-256 of every decision as the tables hold it now; sample text is not part of it.';

CREATE VIEW v_altered AS
WITH linked AS (
    SELECT *, lag(sha256, 1, '') OVER (ORDER BY number) AS expected_previous,
        lag(number, 1, 0) OVER (ORDER BY number) + 1 AS expected_number FROM decision)
SELECT number, kind, subject, CASE
    WHEN c.content_sha256 IS NULL THEN 'deleted'
    WHEN c.content_sha256 <> d.content_sha256 THEN 'changed'
    ELSE 'the chain is broken here' END AS problem
FROM linked d LEFT JOIN v_content c USING (kind, subject)
WHERE c.content_sha256 IS DISTINCT FROM d.content_sha256 OR d.previous <> d.expected_previous
    OR number <> expected_number
    OR sha256 <> sha256(concat_ws('|', number, "at", kind, subject, d.content_sha256, previous))
UNION ALL
SELECT NULL, kind, subject, 'never decided' FROM v_content ANTI JOIN decision USING (kind, subject);
COMMENT ON VIEW v_altered IS 'What does not agree with the hash chain; empty where nothing was changed by hand.';

CREATE VIEW v_overlap AS
WITH both_of AS (
    SELECT a.selection_id AS first_id, b.selection_id AS second_id, count(*) AS n_both
    FROM pick a JOIN pick b ON a.example_id = b.example_id AND a.selection_id <> b.selection_id
    GROUP BY ALL)
SELECT a.selection_id, a.name AS selection, b.selection_id AS other_id, b.name AS other,
    a.n_selected AS n, b.n_selected AS n_other, coalesce(n_both, 0) AS n_both,
    coalesce(n_both, 0) / nullif(a.n_selected, 0) AS share_of_selection,
    coalesce(n_both, 0) / nullif(a.n_selected + b.n_selected - coalesce(n_both, 0), 0) AS overlap
FROM selection a JOIN selection b ON a.selection_id <> b.selection_id
LEFT JOIN both_of ON first_id = a.selection_id AND second_id = b.selection_id;
COMMENT ON VIEW v_overlap IS 'Every two selections: how many examples both hold.';

-- Comments that were missing.
COMMENT ON COLUMN artifact.run_id IS 'The run that read or made it.';
COMMENT ON COLUMN artifact.step IS 'read, prepare, exemplars, represent, rank or select.';
COMMENT ON COLUMN artifact.artifact IS 'Its name: a file, a folder of the workspace, a model, an SAE, a selection id.';
COMMENT ON COLUMN artifact.sha256 IS 'Hash of its content, where it has one.';
COMMENT ON COLUMN artifact.parent IS 'The artifact it was made from.';
COMMENT ON TABLE catalog_commit IS 'One row per commit, for the publishing of snapshots.';
COMMENT ON COLUMN catalog_commit.number IS '1, 2, 3, ...';
COMMENT ON COLUMN catalog_commit.committed_at IS 'When (UTC).';
COMMENT ON COLUMN catalog_commit.process IS 'PID and host of the writer.';
COMMENT ON COLUMN event.run_id IS 'The run it is about, if one.';
COMMENT ON COLUMN event.selection_id IS 'The selection it is about, if one.';
COMMENT ON COLUMN event.action IS 'selected, exported, forgot, ...';
COMMENT ON COLUMN event.detail IS 'What else is known, as JSON.';
COMMENT ON COLUMN exemplar.run_id IS 'The run that was given it.';
COMMENT ON COLUMN exemplar.exemplar_id IS 'Hash of its content, made like an example id.';
COMMENT ON COLUMN exemplar.target IS 'The target task it stands for.';
COMMENT ON COLUMN exemplar.subtask IS 'Part of the target task, where the file names one.';
COMMENT ON COLUMN exemplar.own_id IS 'Id of its own in the file.';
COMMENT ON COLUMN exemplar.source IS 'Where it says it is from.';
COMMENT ON COLUMN exemplar.file IS 'File it was read from.';
COMMENT ON COLUMN exemplar."row" IS '1-based line or row number in the file.';
COMMENT ON COLUMN exemplar.messages IS 'The conversation as JSON; [] when forgotten.';
COMMENT ON COLUMN exemplar.text IS 'The conversation as plain text.';
COMMENT ON COLUMN export.export_id IS 'Hash of the row and its time.';
COMMENT ON COLUMN export.selection_id IS 'The selection that was written.';
COMMENT ON COLUMN export.format IS 'messages, original, ids, hf, llama_factory or axolotl.';
COMMENT ON COLUMN export.path IS 'Relative to the workspace, or absolute outside of it.';
COMMENT ON COLUMN export.sha256 IS 'Hash of the file, or of the hashes of a folder.';
COMMENT ON COLUMN export."rows" IS 'Rows in the file, where it has rows.';
COMMENT ON COLUMN export.created_at IS 'When (UTC).';
COMMENT ON TABLE latent_description IS 'What latents seem to respond to; hints made from examples, not proofs.';
COMMENT ON COLUMN latent_description.latent IS 'Number of the latent in its SAE.';
COMMENT ON COLUMN latent_description.description IS 'A few words or examples.';
COMMENT ON COLUMN near_miss.selection_id IS 'The selection it just missed.';
COMMENT ON COLUMN near_miss.rank IS 'Rank in the whole ranking, after the last pick.';
COMMENT ON COLUMN near_miss.target IS 'Target task that brought it in.';
COMMENT ON COLUMN near_miss.example_id IS 'Hash of the content.';
COMMENT ON COLUMN near_miss.score IS 'Similarity to the target task; higher is better.';
COMMENT ON COLUMN near_miss.tokens IS 'Tokens as the budget counts them.';
COMMENT ON COLUMN near_miss.text IS 'The example as plain text; null when forgotten.';
COMMENT ON COLUMN occurrence.run_id IS 'The run that read the row.';
COMMENT ON COLUMN occurrence.example_id IS 'Hash of the content; rows of one content share it.';
COMMENT ON COLUMN occurrence.own_id IS 'The data''s own id.';
COMMENT ON COLUMN occurrence.source IS 'Mapped column, else the name of the pool.';
COMMENT ON COLUMN occurrence.file IS 'File as it was named in the config.';
COMMENT ON COLUMN occurrence.licence IS 'The data''s own licence, where a column is mapped.';
COMMENT ON COLUMN occurrence.language IS 'Likewise.';
COMMENT ON COLUMN occurrence."group" IS 'Likewise.';
COMMENT ON COLUMN pick.selection_id IS 'The selection it belongs to.';
COMMENT ON COLUMN pick.rank IS '1 is best.';
COMMENT ON COLUMN pick.target IS 'Target task that brought it in.';
COMMENT ON COLUMN pick.example_id IS 'Hash of the content.';
COMMENT ON COLUMN pick.score IS 'Similarity to the target task; higher is better.';
COMMENT ON COLUMN run.run_id IS 'Hash of config and start.';
COMMENT ON COLUMN run.name IS 'Unique name of the run.';
COMMENT ON COLUMN run.created_at IS 'When it started (UTC).';
COMMENT ON COLUMN run.finished_at IS 'When its rows were ready (UTC).';
COMMENT ON COLUMN run.config IS 'The resolved config, defaults filled in.';
COMMENT ON COLUMN run.versions IS 'Versions of Python and packages.';
COMMENT ON COLUMN run.git_sha IS 'Commit of the checkout, where it ran from one.';
COMMENT ON COLUMN run.who IS 'Account that started it.';
COMMENT ON COLUMN run.host IS 'Machine it ran on.';
COMMENT ON COLUMN run."trigger" IS 'cli, ui, schedule, deployment, ...';
COMMENT ON COLUMN run.note IS 'As given in the config.';
COMMENT ON COLUMN run.pool_id IS 'Hash of the pool''s files and settings.';
COMMENT ON COLUMN run.representation_id IS 'Names the folder of its vectors.';
COMMENT ON COLUMN run.model IS 'Model that represented the samples.';
COMMENT ON COLUMN run.model_sha256 IS 'Hash of its weights.';
COMMENT ON COLUMN run.model_licence IS 'Licence of the model, where its card names one.';
COMMENT ON COLUMN run.sae IS 'Sparse autoencoder.';
COMMENT ON COLUMN run.sae_sha256 IS 'Hash of its weights.';
COMMENT ON COLUMN run.sae_licence IS 'Licence of the SAE, where known.';
COMMENT ON COLUMN run.hookpoint IS 'Where in the model activations were read.';
COMMENT ON COLUMN run.seed IS 'Seed of the random control.';
COMMENT ON COLUMN run_drop.run_id IS 'The run.';
COMMENT ON COLUMN run_drop.stage IS 'Where they left: read, filter, ...';
COMMENT ON COLUMN run_drop.reason IS 'One of a closed set, see docs/failures.md.';
COMMENT ON COLUMN run_drop.n IS 'Rows (stage read) or examples.';
COMMENT ON COLUMN run_source.run_id IS 'The run.';
COMMENT ON COLUMN run_source.source IS 'Source of the first occurrence.';
COMMENT ON COLUMN run_source.n_pool IS 'Ranked examples of the source.';
COMMENT ON COLUMN sample.example_id IS 'Hash of messages and tools.';
COMMENT ON COLUMN sample.messages IS 'The conversation as canonical JSON; [] when forgotten.';
COMMENT ON COLUMN sample.tools IS 'Tools as canonical JSON, if any.';
COMMENT ON COLUMN selection.selection_id IS 'Id of the run and a number.';
COMMENT ON COLUMN selection.run_id IS 'The run that chose it.';
COMMENT ON COLUMN selection.name IS 'Name of the run, with target and method where there are several.';
COMMENT ON COLUMN selection.target IS 'Target task, or joint.';
COMMENT ON COLUMN selection.method IS 'jaccard, random, bm25, ...';
COMMENT ON COLUMN selection.exemplar_reduction IS 'How scores against the exemplars became one.';
COMMENT ON COLUMN selection.weights IS 'none or idf, ...';
COMMENT ON COLUMN selection.budget IS 'What was asked for.';
COMMENT ON COLUMN selection.n_eligible IS 'Unique examples that passed reading and where.';
COMMENT ON COLUMN selection.n_selected IS 'Picks.';
COMMENT ON COLUMN selection.n_tokens IS 'Tokens of all picks as the budget counts them.';
COMMENT ON COLUMN selection_drop.selection_id IS 'The selection.';
COMMENT ON COLUMN selection_drop.stage IS 'Where it left.';
COMMENT ON COLUMN selection_drop.reason IS 'Why.';
COMMENT ON COLUMN selection_drop.n IS 'Examples.';
COMMENT ON COLUMN selection_drop.example_id IS 'The example, where known.';
COMMENT ON COLUMN why.selection_id IS 'The selection.';
COMMENT ON COLUMN why.example_id IS 'The pick or near miss.';
COMMENT ON COLUMN why.exemplar_id IS 'The exemplar it is compared with.';
COMMENT ON COLUMN why.space IS 'Hookpoint, or lexical space, that the latent belongs to.';
COMMENT ON COLUMN why.latent IS 'Number of the latent in its space; negative numbers are sums over several.';
COMMENT ON COLUMN why.numerator IS 'Sum of the pair''s contributions.';
COMMENT ON VIEW v_first_occurrence IS 'The first place (file, row) that each example of a run came from.';
COMMENT ON COLUMN v_first_occurrence.run_id IS 'The run.';
COMMENT ON COLUMN v_first_occurrence.example_id IS 'Hash of the content.';
COMMENT ON COLUMN v_first_occurrence.own_id IS 'The data''s own id.';
COMMENT ON COLUMN v_first_occurrence.source IS 'Source of the row.';
COMMENT ON COLUMN v_first_occurrence.file IS 'File of the row.';
COMMENT ON COLUMN v_first_occurrence."row" IS 'Line or row number.';
COMMENT ON COLUMN v_first_occurrence.licence IS 'Licence of the row.';
COMMENT ON COLUMN v_first_occurrence.language IS 'Language of the row.';
COMMENT ON COLUMN v_first_occurrence."group" IS 'Group of the row.';
COMMENT ON COLUMN v_first_occurrence.raw IS 'The original row.';
COMMENT ON COLUMN v_selection.selection_id IS 'Id.';
COMMENT ON COLUMN v_selection.selection IS 'Name.';
COMMENT ON COLUMN v_selection.target IS 'Target task.';
COMMENT ON COLUMN v_selection.rank IS '1 is best.';
COMMENT ON COLUMN v_selection.example_id IS 'Hash of the content.';
COMMENT ON COLUMN v_selection.own_id IS 'The data''s own id (first occurrence).';
COMMENT ON COLUMN v_selection.source IS 'Source (first occurrence).';
COMMENT ON COLUMN v_selection.file IS 'File (first occurrence).';
COMMENT ON COLUMN v_selection."row" IS 'Line or row number.';
COMMENT ON COLUMN v_selection.licence IS 'Licence (first occurrence).';
COMMENT ON COLUMN v_selection.score IS 'Similarity; higher is better.';
COMMENT ON COLUMN v_selection.tokens IS 'Tokens as the budget counts them.';
COMMENT ON COLUMN v_selection.text IS 'Plain text; null when forgotten.';
COMMENT ON COLUMN v_why.selection_id IS 'The selection.';
COMMENT ON COLUMN v_why.example_id IS 'The pick or near miss.';
COMMENT ON COLUMN v_why.exemplar_id IS 'The exemplar.';
COMMENT ON COLUMN v_why.space IS 'Space of the latent.';
COMMENT ON COLUMN v_why.latent IS 'Number of the latent.';
COMMENT ON COLUMN v_why.description IS 'A hint, not a proof.';
COMMENT ON COLUMN v_why.contribution IS 'The latent''s part of the numerator.';
COMMENT ON COLUMN v_why.share IS 'contribution / numerator.';
COMMENT ON COLUMN v_source_mix.selection_id IS 'The selection.';
COMMENT ON COLUMN v_source_mix.source IS 'Source.';
COMMENT ON COLUMN v_source_mix.n_pool IS 'Ranked examples of the source.';
COMMENT ON COLUMN v_source_mix.n_selected IS 'Picks of the source.';
COMMENT ON COLUMN v_source_mix.share_pool IS 'Share of the pool.';
COMMENT ON COLUMN v_source_mix.share_selected IS 'Share of the picks.';
COMMENT ON COLUMN v_drops.selection_id IS 'The selection.';
COMMENT ON COLUMN v_drops.stage IS 'Where it left.';
COMMENT ON COLUMN v_drops.reason IS 'Why.';
COMMENT ON COLUMN v_drops.n IS 'How many.';
COMMENT ON COLUMN v_drops.example_id IS 'The example, where known.';
COMMENT ON COLUMN v_lineage.selection_id IS 'The selection.';
COMMENT ON COLUMN v_lineage.step IS 'Step of the way.';
COMMENT ON COLUMN v_lineage.artifact IS 'What was read or made.';
COMMENT ON COLUMN v_lineage.sha256 IS 'Hash of its content.';
COMMENT ON COLUMN v_lineage.parent IS 'What it was made from.';
COMMENT ON COLUMN v_content.kind IS 'run, selection, export, event or forgotten.';
COMMENT ON COLUMN v_content.subject IS 'Id.';
COMMENT ON COLUMN v_content.content_sha256 IS 'Hash of its columns and, for a selection, its picks, near misses and explanations.';
COMMENT ON COLUMN v_altered.number IS 'Number of the decision.';
COMMENT ON COLUMN v_altered.kind IS 'Kind of the decision.';
COMMENT ON COLUMN v_altered.subject IS 'Id.';
COMMENT ON COLUMN v_altered.problem IS 'What is wrong.';
COMMENT ON COLUMN v_overlap.selection_id IS 'One selection.';
COMMENT ON COLUMN v_overlap.selection IS 'Its name.';
COMMENT ON COLUMN v_overlap.other_id IS 'The other one.';
COMMENT ON COLUMN v_overlap.other IS 'Its name.';
COMMENT ON COLUMN v_overlap.n IS 'Picks of the one.';
COMMENT ON COLUMN v_overlap.n_other IS 'Picks of the other.';
COMMENT ON COLUMN v_overlap.n_both IS 'Examples both hold.';
COMMENT ON COLUMN v_overlap.share_of_selection IS 'n_both / n.';
COMMENT ON COLUMN v_overlap.overlap IS 'n_both / (n + n_other - n_both), the Jaccard index.';
