-- Which tokens of a pick made the latents fire that explain it.
CREATE TABLE token_activations (
    selection_id VARCHAR NOT NULL, example_id VARCHAR NOT NULL, space VARCHAR NOT NULL,
    latent BIGINT NOT NULL, turn BIGINT, first_char BIGINT, end_char BIGINT, strength DOUBLE);
COMMENT ON TABLE token_activations IS 'Tokens of the first picks and near misses on which latents of their explanation are active, the strongest of each; holds no text.';
COMMENT ON COLUMN token_activations.selection_id IS 'The selection.';
COMMENT ON COLUMN token_activations.example_id IS 'The pick or near miss.';
COMMENT ON COLUMN token_activations.space IS 'Space of the latent.';
COMMENT ON COLUMN token_activations.latent IS 'Number of the latent, as in `why`.';
COMMENT ON COLUMN token_activations.turn IS 'Number of the message, from 0; null once the text was forgotten.';
COMMENT ON COLUMN token_activations.first_char IS 'First character of the token in the turn: its reasoning, text and tool calls, joined by newlines.';
COMMENT ON COLUMN token_activations.end_char IS 'Character behind the token.';
COMMENT ON COLUMN token_activations.strength IS 'Activation of the latent on this token; over all tokens it has the mean, sum or maximum that the vector holds.';

CREATE VIEW v_token_activations AS
SELECT f.selection_id, coalesce(p.rank, m.rank) AS rank, f.example_id, f.space, f.latent,
    d.description, f.turn, f.first_char, f.end_char, f.strength,
    CASE WHEN json_type(x.messages, '$[' || f.turn || '].content') = 'VARCHAR'
            AND NOT json_exists(x.messages, '$[' || f.turn || '].reasoning_content')
        THEN substr(x.messages ->> ('$[' || f.turn || '].content'), f.first_char + 1,
            f.end_char - f.first_char) END AS token
FROM token_activations f
JOIN selection s ON s.selection_id = f.selection_id
JOIN run r ON r.run_id = s.run_id
LEFT JOIN pick p ON p.selection_id = f.selection_id AND p.example_id = f.example_id
LEFT JOIN near_miss m ON m.selection_id = f.selection_id AND m.example_id = f.example_id
LEFT JOIN sample x ON x.example_id = f.example_id
LEFT JOIN latent_description d ON d.sae = r.sae_sha256 AND d.latent = f.latent
    AND (f.space = r.hookpoint OR starts_with(f.space, r.hookpoint || '/'));
COMMENT ON VIEW v_token_activations IS 'The tokens with activations, with the text of each where a turn is plain text.';
COMMENT ON COLUMN v_token_activations.selection_id IS 'The selection.';
COMMENT ON COLUMN v_token_activations.rank IS 'Rank of the pick or near miss.';
COMMENT ON COLUMN v_token_activations.example_id IS 'The pick or near miss.';
COMMENT ON COLUMN v_token_activations.space IS 'Space of the latent.';
COMMENT ON COLUMN v_token_activations.latent IS 'Number of the latent.';
COMMENT ON COLUMN v_token_activations.description IS 'A hint at what the latent responds to.';
COMMENT ON COLUMN v_token_activations.turn IS 'Number of the message, from 0.';
COMMENT ON COLUMN v_token_activations.first_char IS 'First character of the token in the turn.';
COMMENT ON COLUMN v_token_activations.end_char IS 'Character behind the token.';
COMMENT ON COLUMN v_token_activations.strength IS 'Activation of the latent on this token.';
COMMENT ON COLUMN v_token_activations.token IS 'The token as text; null where the turn has reasoning or tool calls, or was forgotten.';

-- What the target tasks are made of, and what the run cost.
CREATE TABLE target_latent (
    run_id VARCHAR NOT NULL, target VARCHAR NOT NULL, place BIGINT NOT NULL, space VARCHAR NOT NULL,
    latent BIGINT NOT NULL, term VARCHAR, share DOUBLE NOT NULL, n_exemplars BIGINT NOT NULL,
    pool_share DOUBLE);
COMMENT ON TABLE target_latent IS 'The latents and words that the exemplars of a target task are made of, beyond what the pool is made of.';
COMMENT ON COLUMN target_latent.run_id IS 'The run.';
COMMENT ON COLUMN target_latent.target IS 'The target task.';
COMMENT ON COLUMN target_latent.place IS 'Order: share x (1 - pool_share), largest first.';
COMMENT ON COLUMN target_latent.space IS 'Space of the latent.';
COMMENT ON COLUMN target_latent.latent IS 'Number of the latent.';
COMMENT ON COLUMN target_latent.term IS 'The word or token of a lexical space; null for latents of an SAE.';
COMMENT ON COLUMN target_latent.share IS 'Mean share of an exemplar''s weighted length, over the exemplars.';
COMMENT ON COLUMN target_latent.n_exemplars IS 'Exemplars in which it fires.';
COMMENT ON COLUMN target_latent.pool_share IS 'Share of the pool''s examples in which it fires.';

CREATE TABLE run_stage (
    run_id VARCHAR NOT NULL, number BIGINT NOT NULL, stage VARCHAR NOT NULL, detail VARCHAR,
    seconds DOUBLE NOT NULL);
COMMENT ON TABLE run_stage IS 'What a run spent its time on, up to its commit.';
COMMENT ON COLUMN run_stage.run_id IS 'The run.';
COMMENT ON COLUMN run_stage.number IS 'Order, from 1.';
COMMENT ON COLUMN run_stage.stage IS 'Name of the stage.';
COMMENT ON COLUMN run_stage.detail IS 'What came out, in words.';
COMMENT ON COLUMN run_stage.seconds IS 'How long it took.';
