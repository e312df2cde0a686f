-- Retrieval benchmarks: how well methods find what labels say belongs to a target task.

CREATE TABLE benchmark (
    benchmark_id VARCHAR PRIMARY KEY, created_at TIMESTAMP NOT NULL, seconds DOUBLE,
    pool VARCHAR NOT NULL, pool_sha256 VARCHAR NOT NULL, n_rows BIGINT NOT NULL,
    n_targets BIGINT NOT NULL, model VARCHAR, sae VARCHAR, methods JSON);
CREATE TABLE benchmark_result (
    benchmark_id VARCHAR NOT NULL, setting VARCHAR NOT NULL, method VARCHAR NOT NULL,
    variant VARCHAR NOT NULL, target VARCHAR NOT NULL, kind VARCHAR NOT NULL,
    is_chosen BOOLEAN NOT NULL, ndcg DOUBLE, r_precision DOUBLE,
    recall_1 DOUBLE, recall_5 DOUBLE, recall_10 DOUBLE, average_precision DOUBLE);
CREATE TABLE benchmark_mean (
    benchmark_id VARCHAR NOT NULL, setting VARCHAR NOT NULL, kind VARCHAR NOT NULL,
    method VARCHAR NOT NULL, variant VARCHAR, n_targets BIGINT NOT NULL,
    ndcg DOUBLE NOT NULL, lo DOUBLE NOT NULL, hi DOUBLE NOT NULL,
    behind_best DOUBLE, behind_lo DOUBLE, behind_hi DOUBLE, best_wins DOUBLE);

COMMENT ON TABLE benchmark IS 'One comparison of ranking methods on a labelled pool.';
COMMENT ON COLUMN benchmark.methods IS 'Method name -> everything that decides its scores.';
COMMENT ON TABLE benchmark_result IS 'Quality of one variant of a method for one target.';
COMMENT ON COLUMN benchmark_result.variant IS 'Reduction, block or seed; - where there is one.';
COMMENT ON COLUMN benchmark_result.is_chosen IS 'This variant stands for its method in the means.';
COMMENT ON TABLE benchmark_mean IS 'Mean nDCG over targets with its bootstrap interval.';
COMMENT ON COLUMN benchmark_mean.kind IS 'T1, T2 or all targets.';
COMMENT ON COLUMN benchmark_mean.behind_best IS 'Mean nDCG of best minus that of this method.';
COMMENT ON COLUMN benchmark_mean.behind_lo IS 'Its paired bootstrap interval over targets, 95 %.';
COMMENT ON COLUMN benchmark_mean.best_wins IS 'Share of targets where best is strictly ahead.';

CREATE VIEW v_benchmark AS
SELECT b.benchmark_id, b.created_at, b.pool, b.n_rows, b.model, m.setting, m.kind, m.method,
    m.variant, m.n_targets, m.ndcg, m.lo, m.hi, m.behind_best, m.behind_lo, m.behind_hi,
    m.best_wins
FROM benchmark_mean m JOIN benchmark b USING (benchmark_id);
COMMENT ON VIEW v_benchmark IS 'Benchmarks: mean nDCG by setting, kind of target and method.';

COMMENT ON COLUMN benchmark.benchmark_id IS 'The benchmark.';
COMMENT ON COLUMN benchmark.created_at IS 'When it ended, UTC.';
COMMENT ON COLUMN benchmark.seconds IS 'How long it took; cached results count nothing.';
COMMENT ON COLUMN benchmark.pool IS 'File of the labelled pool.';
COMMENT ON COLUMN benchmark.pool_sha256 IS 'SHA-256 of that file.';
COMMENT ON COLUMN benchmark.n_rows IS 'Rows that were ranked.';
COMMENT ON COLUMN benchmark.n_targets IS 'Target tasks.';
COMMENT ON COLUMN benchmark.model IS 'Model under test.';
COMMENT ON COLUMN benchmark.sae IS 'SAE under test.';
COMMENT ON COLUMN benchmark_result.benchmark_id IS 'The benchmark.';
COMMENT ON COLUMN benchmark_result.setting IS 'full or instance: with the instruction, or without.';
COMMENT ON COLUMN benchmark_result.method IS 'Name of the method.';
COMMENT ON COLUMN benchmark_result.target IS 'Target task.';
COMMENT ON COLUMN benchmark_result.kind IS 'T1: its task is in the pool; T2: its source is not.';
COMMENT ON COLUMN benchmark_result.ndcg IS 'nDCG at 1000, gain 2^relevance - 1.';
COMMENT ON COLUMN benchmark_result.r_precision IS 'Precision at R for the highest grade.';
COMMENT ON COLUMN benchmark_result.recall_1 IS 'Recall within the best 1 % of the ranking.';
COMMENT ON COLUMN benchmark_result.recall_5 IS 'Recall within the best 5 %.';
COMMENT ON COLUMN benchmark_result.recall_10 IS 'Recall within the best 10 %.';
COMMENT ON COLUMN benchmark_result.average_precision IS 'Average precision with graded relevance.';
COMMENT ON COLUMN benchmark_mean.benchmark_id IS 'The benchmark.';
COMMENT ON COLUMN benchmark_mean.setting IS 'full or instance.';
COMMENT ON COLUMN benchmark_mean.method IS 'Name of the method.';
COMMENT ON COLUMN benchmark_mean.variant IS 'The variant that stands for the method.';
COMMENT ON COLUMN benchmark_mean.n_targets IS 'Target tasks in the mean.';
COMMENT ON COLUMN benchmark_mean.ndcg IS 'Mean nDCG at 1000 over the targets.';
COMMENT ON COLUMN benchmark_mean.lo IS 'Lower end of its 95 % bootstrap interval.';
COMMENT ON COLUMN benchmark_mean.hi IS 'Upper end of its 95 % bootstrap interval.';
COMMENT ON COLUMN benchmark_mean.behind_hi IS 'Upper end of the paired interval.';
COMMENT ON COLUMN v_benchmark.benchmark_id IS 'The benchmark.';
COMMENT ON COLUMN v_benchmark.created_at IS 'When it ended, UTC.';
COMMENT ON COLUMN v_benchmark.pool IS 'File of the labelled pool.';
COMMENT ON COLUMN v_benchmark.n_rows IS 'Rows that were ranked.';
COMMENT ON COLUMN v_benchmark.model IS 'Model under test.';
COMMENT ON COLUMN v_benchmark.setting IS 'full or instance.';
COMMENT ON COLUMN v_benchmark.kind IS 'T1, T2 or all targets.';
COMMENT ON COLUMN v_benchmark.method IS 'Name of the method.';
COMMENT ON COLUMN v_benchmark.variant IS 'The variant that stands for the method.';
COMMENT ON COLUMN v_benchmark.n_targets IS 'Target tasks in the mean.';
COMMENT ON COLUMN v_benchmark.ndcg IS 'Mean nDCG at 1000 over the targets.';
COMMENT ON COLUMN v_benchmark.lo IS 'Lower end of its 95 % bootstrap interval.';
COMMENT ON COLUMN v_benchmark.hi IS 'Upper end of its 95 % bootstrap interval.';
COMMENT ON COLUMN v_benchmark.behind_best IS 'Mean nDCG of best minus that of this method.';
COMMENT ON COLUMN v_benchmark.behind_lo IS 'Lower end of its paired 95 % bootstrap interval.';
COMMENT ON COLUMN v_benchmark.behind_hi IS 'Upper end of it.';
COMMENT ON COLUMN v_benchmark.best_wins IS 'Share of targets where best is strictly ahead.';
