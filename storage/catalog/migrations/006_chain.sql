-- The hash chain covers every column of a decision and every row that belongs to it.
-- What older versions chained keeps its own definition (v_content_1) and stays verifiable.
ALTER TABLE decision ADD COLUMN version BIGINT;
COMMENT ON COLUMN decision.version IS 'Which definition content_sha256 follows: null for v_content_1, 2 for v_content. Part of sha256.';
COMMENT ON COLUMN decision.sha256 IS 'SHA-256 of number|at|kind|subject|content_sha256|previous, and |version where there is one.';

ALTER TABLE exemplar ADD COLUMN tools JSON;
COMMENT ON COLUMN exemplar.tools IS 'Tools as canonical JSON, if any.';

DROP VIEW v_altered;
DROP VIEW v_content;

CREATE VIEW v_content_1 AS
WITH old AS (SELECT kind, subject FROM decision WHERE version IS NULL),
picked AS (
    SELECT selection_id, sha256(string_agg(concat_ws('|', rank, example_id, target, score, tokens),
        chr(10) ORDER BY rank)) AS sha
    FROM pick WHERE selection_id IN (SELECT subject FROM old) GROUP BY selection_id),
missed AS (
    SELECT selection_id, sha256(string_agg(concat_ws('|', rank, example_id, target, score, tokens),
        chr(10) ORDER BY rank)) AS sha
    FROM near_miss WHERE selection_id IN (SELECT subject FROM old) GROUP BY selection_id),
explained AS (
    SELECT selection_id, sum(md5_number_lower(concat_ws('|', example_id, exemplar_id, space, latent,
        contribution, numerator))::HUGEINT) AS total
    FROM why WHERE selection_id IN (SELECT subject FROM old) GROUP BY selection_id)
SELECT 'run' AS kind, run_id AS subject, sha256(concat_ws('|', run_id, name, created_at, config,
    versions, git_sha, who, host, "trigger", note, pool_id, representation_id, model, model_sha256,
    model_licence, sae, sae_sha256, sae_licence, data_licences, hookpoint, unit, seed, counts)) AS content_sha256
FROM run WHERE run_id IN (SELECT subject FROM old)
UNION ALL
SELECT 'selection', s.selection_id, sha256(concat_ws('|', s.selection_id, run_id, name, target,
    method, "role", exemplar_reduction, weights, budget, n_eligible, n_selected, n_tokens,
    unused_tokens, cut_score, p.sha, coalesce(m.sha, ''), coalesce(e.total, 0)))
FROM selection s LEFT JOIN picked p ON p.selection_id = s.selection_id
LEFT JOIN missed m ON m.selection_id = s.selection_id
LEFT JOIN explained e ON e.selection_id = s.selection_id
WHERE s.selection_id IN (SELECT subject FROM old)
UNION ALL
SELECT 'export', export_id, sha256(concat_ws('|', export_id, selection_id, format, path, sha256,
    "rows", created_at)) FROM export WHERE export_id IN (SELECT subject FROM old)
UNION ALL
SELECT DISTINCT 'event', sha, sha FROM (
    SELECT sha256(concat_ws('|', "at", run_id, selection_id, action, detail)) AS sha FROM event)
WHERE sha IN (SELECT subject FROM old)
UNION ALL
SELECT 'forgotten', example_id, sha256(concat_ws('|', example_id, "at", who, reason))
FROM forgotten WHERE example_id IN (SELECT subject FROM old);
COMMENT ON VIEW v_content_1 IS 'SHA-256 of decisions that versions before decision.version chained, by their definition.';
COMMENT ON COLUMN v_content_1.kind IS 'run, selection, export, event or forgotten.';
COMMENT ON COLUMN v_content_1.subject IS 'Id.';
COMMENT ON COLUMN v_content_1.content_sha256 IS 'Hash of what was covered then; newer columns are not.';

CREATE VIEW v_content AS
WITH dropped AS (
    SELECT run_id, sha256(string_agg(r, chr(10) ORDER BY r)) AS sha FROM (
        SELECT run_id, json_array(stage, reason, n)::VARCHAR AS r FROM run_drop) GROUP BY run_id),
sources AS (
    SELECT run_id, sha256(string_agg(r, chr(10) ORDER BY r)) AS sha FROM (
        SELECT run_id, json_array(source, n_pool)::VARCHAR AS r FROM run_source) GROUP BY run_id),
exemplars AS (
    SELECT run_id, sha256(string_agg(r, chr(10) ORDER BY r)) AS sha FROM (
        SELECT run_id, json_array(exemplar_id, target, subtask, own_id, source, file, "row")::VARCHAR AS r
        FROM exemplar) GROUP BY run_id),
places AS (
    SELECT run_id, sum(md5_number_lower(json_array(example_id, own_id, source, file, "row", licence,
        language, "group")::VARCHAR)::HUGEINT)::VARCHAR AS total
    FROM occurrence GROUP BY run_id),
artifacts AS (
    SELECT run_id, sha256(string_agg(r, chr(10) ORDER BY r)) AS sha FROM (
        SELECT run_id, json_array(step, artifact, sha256, parent)::VARCHAR AS r FROM artifact)
    GROUP BY run_id),
held AS (
    SELECT run_id, sum(md5_number_lower(json_array(example_id, file, item, matched, counted,
        similarity, dropped)::VARCHAR)::HUGEINT)::VARCHAR AS total
    FROM contamination GROUP BY run_id),
picked AS (
    SELECT selection_id, sum(md5_number_lower(json_array(rank, target, example_id, score, tokens,
        score_rank, reason, detail)::VARCHAR)::HUGEINT)::VARCHAR AS total
    FROM pick GROUP BY selection_id),
missed AS (
    SELECT selection_id, sum(md5_number_lower(json_array(rank, target, example_id, score, tokens,
        score_rank)::VARCHAR)::HUGEINT)::VARCHAR AS total
    FROM near_miss GROUP BY selection_id),
refused AS (
    SELECT selection_id, sum(md5_number_lower(json_array(stage, reason, n, example_id, score_rank,
        detail, other_id)::VARCHAR)::HUGEINT)::VARCHAR AS total
    FROM selection_drop GROUP BY selection_id),
explained AS (
    SELECT selection_id, sum(md5_number_lower(json_array(example_id, exemplar_id, space, latent,
        contribution, numerator, share, nearness, place, pool_share, term)::VARCHAR)::HUGEINT)::VARCHAR AS total
    FROM why GROUP BY selection_id),
compared AS (
    SELECT selection_id, sum(md5_number_lower(json_array(example_id, nearness, exemplar_id, n,
        similarity, numerator, denominator, part)::VARCHAR)::HUGEINT)::VARCHAR AS total
    FROM why_exemplar GROUP BY selection_id)
SELECT 'run' AS kind, u.run_id AS subject, sha256(json_array(u.run_id, name, created_at, finished_at,
    config::VARCHAR, versions::VARCHAR, git_sha, who, host, "trigger", note, pool_id,
    representation_id, model, model_sha256, model_licence, sae, sae_sha256, sae_licence,
    data_licences::VARCHAR, hookpoint, unit, seed, is_demo, counts::VARCHAR, d.sha, s.sha, e.sha,
    p.total, a.sha, h.total)::VARCHAR) AS content_sha256
FROM run u LEFT JOIN dropped d ON d.run_id = u.run_id LEFT JOIN sources s ON s.run_id = u.run_id
LEFT JOIN exemplars e ON e.run_id = u.run_id LEFT JOIN places p ON p.run_id = u.run_id
LEFT JOIN artifacts a ON a.run_id = u.run_id LEFT JOIN held h ON h.run_id = u.run_id
UNION ALL
SELECT 'selection', s.selection_id, sha256(json_array(s.selection_id, run_id, name, target, method,
    "role", exemplar_reduction, weights, budget::VARCHAR, n_eligible, n_selected, n_tokens,
    unused_tokens, cut_score, curve::VARCHAR, lengths::VARCHAR, p.total, m.total, r.total, e.total,
    c.total)::VARCHAR)
FROM selection s LEFT JOIN picked p ON p.selection_id = s.selection_id
LEFT JOIN missed m ON m.selection_id = s.selection_id
LEFT JOIN refused r ON r.selection_id = s.selection_id
LEFT JOIN explained e ON e.selection_id = s.selection_id
LEFT JOIN compared c ON c.selection_id = s.selection_id
UNION ALL
SELECT 'export', export_id, sha256(json_array(export_id, selection_id, format, path, sha256, "rows",
    created_at)::VARCHAR) FROM export
UNION ALL
SELECT DISTINCT 'event', sha, sha FROM (
    SELECT sha256(json_array("at", run_id, selection_id, action, detail::VARCHAR)::VARCHAR) AS sha,
        sha256(concat_ws('|', "at", run_id, selection_id, action, detail)) AS old_sha FROM event)
WHERE old_sha NOT IN (SELECT subject FROM decision WHERE version IS NULL AND kind = 'event')
UNION ALL
SELECT 'forgotten', example_id, sha256(json_array(example_id, "at", who, reason, n_exports)::VARCHAR)
FROM forgotten;
COMMENT ON VIEW v_content IS 'SHA-256 of every decision as the tables hold it now, with all rows that belong to it; sample text is not part of it.';
COMMENT ON COLUMN v_content.kind IS 'run, selection, export, event or forgotten.';
COMMENT ON COLUMN v_content.subject IS 'Id; for an event its content_sha256.';
COMMENT ON COLUMN v_content.content_sha256 IS 'Hash of its columns and of the rows that belong to it in any order: to a run its drops, sources, exemplars, occurrences, artifacts and contamination; to a selection its picks, near misses, drops and explanations.';

CREATE VIEW v_altered AS
WITH linked AS (
    SELECT *, lag(sha256, 1, '') OVER (ORDER BY number) AS expected_previous,
        lag(number, 1, 0) OVER (ORDER BY number) + 1 AS expected_number FROM decision),
content AS (
    SELECT kind, subject, content_sha256, 2 AS version FROM v_content
    UNION ALL SELECT kind, subject, content_sha256, 1 FROM v_content_1),
compared AS (
    SELECT d.*, c.content_sha256 AS found FROM linked d LEFT JOIN content c
    ON c.kind = d.kind AND c.subject = d.subject AND c.version = coalesce(d.version, 1))
SELECT number, kind, subject, CASE
    WHEN found IS NULL THEN 'deleted'
    WHEN found <> content_sha256 THEN 'changed'
    ELSE 'the chain is broken here' END AS problem
FROM compared
WHERE found IS DISTINCT FROM content_sha256 OR previous <> expected_previous
    OR number <> expected_number
    OR sha256 <> sha256(concat_ws('|', number, "at", kind, subject, content_sha256, previous, version))
UNION ALL
SELECT NULL, kind, subject, 'never decided' FROM v_content
ANTI JOIN decision USING (kind, subject);
COMMENT ON VIEW v_altered IS 'What does not agree with the hash chain; empty where nothing was changed by hand.';
COMMENT ON COLUMN v_altered.number IS 'Number of the decision.';
COMMENT ON COLUMN v_altered.kind IS 'Kind of the decision.';
COMMENT ON COLUMN v_altered.subject IS 'Id.';
COMMENT ON COLUMN v_altered.problem IS 'What is wrong.';
