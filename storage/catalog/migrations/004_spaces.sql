-- Explanations in several spaces: words and tokens are named by themselves.
ALTER TABLE why ADD COLUMN term VARCHAR;
COMMENT ON COLUMN why.term IS 'The word or token of a lexical space; null for latents of an SAE.';
COMMENT ON COLUMN why.space IS 'Space of the latent: a hookpoint, words or tokens; null for sums over several spaces.';
CREATE OR REPLACE VIEW v_why AS
SELECT w.selection_id, w.example_id, w.exemplar_id, w.space, w.latent,
    coalesce(w.term, d.description) AS description, w.contribution, w.share
FROM why w
JOIN selection s ON s.selection_id = w.selection_id
JOIN run r ON r.run_id = s.run_id
LEFT JOIN latent_description d ON d.sae = r.sae_sha256 AND d.latent = w.latent
    AND (w.space = r.hookpoint OR starts_with(w.space, r.hookpoint || '/'));
COMMENT ON VIEW v_why IS 'Which latents and words a pick shares with its exemplar, and how much each counts.';
COMMENT ON COLUMN v_why.selection_id IS 'The selection.';
COMMENT ON COLUMN v_why.example_id IS 'The pick or near miss.';
COMMENT ON COLUMN v_why.exemplar_id IS 'The exemplar.';
COMMENT ON COLUMN v_why.space IS 'Space of the latent.';
COMMENT ON COLUMN v_why.latent IS 'Number of the latent.';
COMMENT ON COLUMN v_why.description IS 'The word itself, or a hint at what a latent responds to.';
COMMENT ON COLUMN v_why.contribution IS 'The latent''s part of the numerator.';
COMMENT ON COLUMN v_why.share IS 'contribution / numerator.';
