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
