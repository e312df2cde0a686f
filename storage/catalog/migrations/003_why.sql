-- Explanations beside several exemplars, and what each exemplar gave to a score.
ALTER TABLE why ADD COLUMN nearness BIGINT;
ALTER TABLE why ADD COLUMN place BIGINT;
ALTER TABLE why ADD COLUMN pool_share DOUBLE;
COMMENT ON TABLE why IS 'Shared latents of a pick or near miss and its nearest exemplars; latent -1 is the rest, -2 the generic ones, each together.';
COMMENT ON COLUMN why.nearness IS '1 for the nearest exemplar, 2 for the next; null in runs of older versions, which kept one.';
COMMENT ON COLUMN why.place IS 'Order for reading: what sets the sample apart from the pool first, sums last.';
COMMENT ON COLUMN why.pool_share IS 'Share of the pool''s examples in which the latent fires; null for sums.';

CREATE TABLE why_exemplar (
    selection_id VARCHAR NOT NULL, example_id VARCHAR NOT NULL, nearness BIGINT NOT NULL,
    exemplar_id VARCHAR, n BIGINT NOT NULL, similarity DOUBLE, numerator BIGINT,
    denominator BIGINT, part BIGINT,
    PRIMARY KEY (selection_id, example_id, nearness));
COMMENT ON TABLE why_exemplar IS 'The nearest exemplars of a pick or near miss, the rest together, and what each gave to the score.';
COMMENT ON COLUMN why_exemplar.selection_id IS 'The selection.';
COMMENT ON COLUMN why_exemplar.example_id IS 'The pick or near miss.';
COMMENT ON COLUMN why_exemplar.nearness IS '1 for the nearest exemplar; the rest comes last.';
COMMENT ON COLUMN why_exemplar.exemplar_id IS 'The exemplar; null for the rest together.';
COMMENT ON COLUMN why_exemplar.n IS 'Exemplars in this row: 1, or how many the rest is.';
COMMENT ON COLUMN why_exemplar.similarity IS 'numerator / denominator, the generalized Jaccard of the pair.';
COMMENT ON COLUMN why_exemplar.numerator IS 'Sum of weighted minima; the contributions in `why` add up to it.';
COMMENT ON COLUMN why_exemplar.denominator IS 'Sum of weighted maxima.';
COMMENT ON COLUMN why_exemplar.part IS 'Reduction mean: similarity in units of 2^-40; sum(part) / (sum(n) * 2^40) is the score.';
