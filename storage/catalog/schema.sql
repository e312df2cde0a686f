-- Tables and views of the catalog. The line above a table or view, and the end of the line of a
-- column, become comments in the database; docs/reference/catalog.md is made from them.

-- The chain of commits: each row covers all rows that its commit wrote, and the row before it.
CREATE TABLE catalog_commit (
    number BIGINT PRIMARY KEY,  -- 1, 2, 3, ...
    committed_at TIMESTAMP NOT NULL,  -- When (UTC).
    process VARCHAR,  -- PID and host of the writer.
    content JSON NOT NULL,  -- {"schema": SHA-256, "tables": {table: [new rows, SHA-256]}}.
    previous VARCHAR NOT NULL,  -- sha256 of the commit before; empty for the first.
    sha256 VARCHAR NOT NULL  -- SHA-256 of number|committed_at|process|content|previous.
);

-- Rows whose text was removed: the hash that the removed values had.
CREATE TABLE redaction (
    table_name VARCHAR NOT NULL,  -- Table of the row.
    row_number BIGINT NOT NULL,  -- Its position in the table (rowid).
    sha256 VARCHAR NOT NULL  -- SHA-256 of the JSON array of its text columns as they were.
);

-- Files that the catalog vouches for; the newest row of a path counts.
CREATE TABLE recorded_file (
    path VARCHAR NOT NULL,  -- Relative to the workspace, or absolute outside of it.
    kind VARCHAR NOT NULL,  -- export, report, bundle, unit, pool, rendering or shards.
    sha256 VARCHAR,  -- Of its bytes; null once saelect itself removed it.
    recorded_at TIMESTAMP NOT NULL  -- When (UTC).
);

-- One execution of the main job: resolved config, versions, hashes.
CREATE TABLE run (
    run_id VARCHAR PRIMARY KEY,  -- Hash of config and start.
    name VARCHAR NOT NULL,  -- Unique name of the run.
    created_at TIMESTAMP NOT NULL,  -- When it started (UTC).
    finished_at TIMESTAMP,  -- When its rows were ready (UTC).
    config JSON,  -- The resolved config, defaults filled in.
    versions JSON,  -- Versions of Python and packages.
    git_sha VARCHAR,  -- Commit of the checkout, where it ran from one; -dirty: with changes.
    who VARCHAR,  -- Account that started it.
    host VARCHAR,  -- Machine it ran on.
    "trigger" VARCHAR,  -- cli, ui, api or schedule.
    flow_run_id VARCHAR,  -- Id of the Prefect flow run; null without one.
    note VARCHAR,  -- As given in the config.
    pool_id VARCHAR,  -- Hash of the pool's files and settings.
    representation_id VARCHAR,  -- Names the folder of its vectors.
    model VARCHAR,  -- Model that represented the samples.
    model_sha256 VARCHAR,  -- Hash of its weights.
    model_licence VARCHAR,  -- Licence of the model, where its card names one.
    sae VARCHAR,  -- Sparse autoencoder.
    sae_sha256 VARCHAR,  -- Hash of its weights.
    sae_licence VARCHAR,  -- Licence of the SAE, where known.
    hookpoint VARCHAR,  -- Where in the model activations were read.
    unit DOUBLE,  -- Activation that one step of a stored value stands for.
    seed BIGINT,  -- Seed of the random control.
    is_demo BOOLEAN,  -- The demonstration model represented the samples.
    counts JSON,  -- Rows, examples, tokens, truncation: what the run went through.
    data_licences JSON  -- Ranked examples by licence; "" where the data names none.
);

-- What left before ranking: of a reason up to 1,000 rows one by one, all others as a count.
CREATE TABLE run_drop (
    run_id VARCHAR NOT NULL,  -- The run.
    stage VARCHAR NOT NULL,  -- Where they left: read, filter, ...
    reason VARCHAR NOT NULL,  -- One of a closed set, see docs/reference/failures.md.
    n BIGINT NOT NULL,  -- Rows (stage read) or examples.
    file VARCHAR,  -- File of the row; of several examples, of the first.
    "row" BIGINT,  -- Its 1-based line or row number.
    detail VARCHAR  -- What is wrong with it.
);

-- Eligible examples of the pool by source (first occurrence).
CREATE TABLE run_source (
    run_id VARCHAR NOT NULL,  -- The run.
    source VARCHAR NOT NULL,  -- Source of the first occurrence.
    n_pool BIGINT NOT NULL  -- Ranked examples of the source.
);

-- What a run spent its time on, up to its commit.
CREATE TABLE run_stage (
    run_id VARCHAR NOT NULL,  -- The run.
    number BIGINT NOT NULL,  -- Order, from 1.
    stage VARCHAR NOT NULL,  -- Name of the stage.
    detail VARCHAR,  -- What came out, in words.
    seconds DOUBLE NOT NULL  -- How long it took.
);

-- Hashes of what a run read and made; parent is an artifact.
CREATE TABLE artifact (
    run_id VARCHAR NOT NULL,  -- The run that read or made it.
    step VARCHAR NOT NULL,  -- read, prepare, exemplars, represent, rank or select.
    artifact VARCHAR NOT NULL,  -- Its name: file, folder, model, SAE, exemplar's vector, selection.
    sha256 VARCHAR,  -- Hash of its content, where it has one; of a vector: its key in shards/.
    parent VARCHAR  -- The artifact it was made from.
);

-- The known examples of the target tasks that a run was given.
CREATE TABLE exemplar (
    run_id VARCHAR NOT NULL,  -- The run that was given it.
    exemplar_id VARCHAR NOT NULL,  -- Hash of its content, made like an example id.
    target VARCHAR NOT NULL,  -- The target task it stands for.
    subtask VARCHAR,  -- Part of the target task, where the file names one.
    own_id VARCHAR,  -- Id of its own in the file.
    source VARCHAR,  -- Where it says it is from.
    file VARCHAR,  -- File it was read from.
    "row" BIGINT,  -- 1-based line or row number in the file.
    messages JSON,  -- The conversation as JSON; [] if forgotten.
    text VARCHAR,  -- The conversation as plain text.
    tools JSON  -- Tools as canonical JSON, if any.
);

-- What the exemplars of a target task activate more than the pool does.
CREATE TABLE target_latent (
    run_id VARCHAR NOT NULL,  -- The run.
    target VARCHAR NOT NULL,  -- The target task.
    position BIGINT NOT NULL,  -- Order: share x (1 - pool_share), largest first.
    space VARCHAR NOT NULL,  -- Space of the latent.
    latent BIGINT NOT NULL,  -- Number of the latent.
    term VARCHAR,  -- The word or token of a lexical space; null for latents of an SAE.
    share DOUBLE NOT NULL,  -- Share of an exemplar's weighted L1 norm, mean over exemplars.
    n_exemplars BIGINT NOT NULL,  -- Exemplars in which it is active.
    pool_share DOUBLE  -- Share of the pool's examples in which it is active.
);

-- Examples of a pool that hold an evaluation item, or resemble one.
CREATE TABLE contamination (
    run_id VARCHAR NOT NULL,  -- The run.
    example_id VARCHAR NOT NULL,  -- The example of the pool.
    file VARCHAR,  -- Evaluation file, or the target task of the exemplar.
    item VARCHAR,  -- The item: its own id, or its example id.
    matched BIGINT,  -- Word n-grams of the item that the example holds.
    counted BIGINT,  -- Word n-grams of the item.
    similarity DOUBLE,  -- Generalized Jaccard, where similarity alone flagged it.
    dropped BOOLEAN NOT NULL  -- Dropped before ranking; otherwise only flagged.
);

-- What was chosen under a budget, and controls chosen beside it.
CREATE TABLE selection (
    selection_id VARCHAR PRIMARY KEY,  -- Id of the run and a number.
    run_id VARCHAR NOT NULL,  -- The run that chose it.
    name VARCHAR NOT NULL,  -- Name of the run, with target and method if there are several.
    target VARCHAR,  -- Target task, or joint.
    method VARCHAR NOT NULL,  -- jaccard, random, bm25, ...
    "role" VARCHAR NOT NULL,  -- main or control.
    exemplar_reduction VARCHAR,  -- How scores against the exemplars became one.
    weights VARCHAR,  -- none or idf, ...
    budget JSON,  -- What was asked for.
    n_eligible BIGINT NOT NULL,  -- Unique examples that passed reading and where.
    n_selected BIGINT NOT NULL,  -- Picks.
    n_replay BIGINT,  -- Picks of them that were drawn as replay, whatever they score.
    n_tokens BIGINT,  -- Tokens of all picks as the budget counts them.
    unused_tokens BIGINT,  -- Tokens of the budget that no further example fits.
    cut_score DOUBLE,  -- Lowest score of a pick, replay left out; higher is better.
    curve JSON,  -- {"ranks": [..], "scores": [..]}: the ranking, thinned.
    lengths JSON  -- {"edges", "pool", "selected"}: histograms of tokens.
);

-- Chosen examples; rank 1 is best.
CREATE TABLE pick (
    selection_id VARCHAR NOT NULL,  -- The selection it belongs to.
    rank BIGINT NOT NULL,  -- 1 is best.
    target VARCHAR,  -- Target task that brought it in.
    example_id VARCHAR NOT NULL,  -- Hash of the content.
    score DOUBLE,  -- Higher is better; its meaning by method: v_selection.score_meaning.
    tokens BIGINT,  -- Tokens of the example as the budget counts them.
    text VARCHAR,  -- The example as plain text, for reading.
    score_rank BIGINT,  -- Rank by score alone, before quotas, duplicates and diversity.
    reason VARCHAR,  -- What brought it in: score, included, floor, diversity or replay.
    detail VARCHAR,  -- More of the reason, e.g. the floor that it fills.
    budget DOUBLE,  -- Smallest budget of a sweep that holds it, in its unit; null without a sweep.
    PRIMARY KEY (selection_id, rank),
    UNIQUE (selection_id, example_id)
);

-- The examples that follow the last pick of the ranking.
CREATE TABLE near_miss (
    selection_id VARCHAR NOT NULL,  -- The selection it just missed.
    rank BIGINT NOT NULL,  -- Rank in the whole ranking, after the last pick.
    target VARCHAR,  -- Target task that brought it in.
    example_id VARCHAR NOT NULL,  -- Hash of the content.
    score DOUBLE,  -- Higher is better; its meaning by method: v_selection.score_meaning.
    tokens BIGINT,  -- Tokens as the budget counts them.
    text VARCHAR,  -- The example as plain text; null if forgotten.
    score_rank BIGINT,  -- Rank by score alone.
    PRIMARY KEY (selection_id, rank)
);

-- Full content of picked and nearly picked examples, once each.
CREATE TABLE sample (
    example_id VARCHAR PRIMARY KEY,  -- Hash of messages and tools.
    messages JSON NOT NULL,  -- The conversation as canonical JSON; [] if forgotten.
    tools JSON  -- Tools as canonical JSON, if any.
);

-- Every row of the pool that holds a pick or near miss; all are in `pools/` of the workspace.
CREATE TABLE occurrence (
    run_id VARCHAR NOT NULL,  -- The run that read the row.
    example_id VARCHAR NOT NULL,  -- Hash of the content; rows of one content share it.
    own_id VARCHAR,  -- The data's own id.
    source VARCHAR NOT NULL,  -- Mapped column, else the name of the pool.
    file VARCHAR NOT NULL,  -- File as it was named in the config.
    "row" BIGINT NOT NULL,  -- 1-based line or row number in the file.
    licence VARCHAR,  -- The data's own licence, where a column is mapped.
    language VARCHAR,  -- Likewise.
    "group" VARCHAR,  -- Likewise.
    raw VARCHAR  -- The original row as JSON, unchanged.
);

-- Examples that left after ranking, one by one where known.
CREATE TABLE selection_drop (
    selection_id VARCHAR NOT NULL,  -- The selection.
    stage VARCHAR NOT NULL,  -- Where it left.
    reason VARCHAR NOT NULL,  -- Why.
    n BIGINT NOT NULL,  -- Examples.
    example_id VARCHAR,  -- The example, where known.
    score_rank BIGINT,  -- Rank by score alone of the example.
    detail VARCHAR,  -- More of the reason, e.g. the cap or the similarity.
    other_id VARCHAR  -- The better example that it nearly repeats.
);

-- Latents that a pick or near miss shares with its nearest exemplars.
CREATE TABLE explanation (
    selection_id VARCHAR NOT NULL,  -- The selection.
    example_id VARCHAR NOT NULL,  -- The pick or near miss.
    exemplar_id VARCHAR NOT NULL,  -- The exemplar it is compared with.
    space VARCHAR,  -- Hookpoint, words or tokens; null for sums over several.
    latent BIGINT NOT NULL,  -- Number in its space; -1: all not listed, -2: generic ones, summed.
    contribution BIGINT NOT NULL,  -- The latent's part of the numerator of the similarity.
    numerator BIGINT,  -- Sum of the pair's contributions.
    share DOUBLE,  -- contribution / numerator.
    exemplar_rank BIGINT,  -- 1 for the nearest exemplar, 2 for the next.
    position BIGINT,  -- Order for reading: most unlike the pool first, sums last.
    pool_share DOUBLE,  -- Share of the pool's examples in which it is active; null for sums.
    term VARCHAR  -- The word or token of a lexical space; null for latents of an SAE.
);

-- Nearest exemplars of a pick or near miss, and what each gave to its score.
CREATE TABLE explanation_exemplar (
    selection_id VARCHAR NOT NULL,  -- The selection.
    example_id VARCHAR NOT NULL,  -- The pick or near miss.
    exemplar_rank BIGINT NOT NULL,  -- 1 for the nearest exemplar; the rest comes last.
    exemplar_id VARCHAR,  -- The exemplar; null for the rest together.
    n BIGINT NOT NULL,  -- Exemplars in this row: 1, or how many the rest is.
    similarity DOUBLE,  -- numerator / denominator, the generalized Jaccard of the pair.
    numerator BIGINT,  -- Sum of weighted minima; contributions in `explanation` add up to it.
    denominator BIGINT,  -- Sum of weighted maxima.
    part BIGINT,  -- Reduction mean: similarity / 2^-40; sum(part) / sum(n) is the score.
    PRIMARY KEY (selection_id, example_id, exemplar_rank)
);

-- Tokens of picks on which the latents of their explanation are active; holds no text.
CREATE TABLE token_activations (
    selection_id VARCHAR NOT NULL,  -- The selection.
    example_id VARCHAR NOT NULL,  -- The pick or near miss.
    space VARCHAR NOT NULL,  -- Space of the latent.
    latent BIGINT NOT NULL,  -- Number of the latent, as in `explanation`.
    turn BIGINT,  -- Number of the message, from 0; null once the text was forgotten.
    first_char BIGINT,  -- First character of the token in the turn's text.
    end_char BIGINT,  -- Character behind the token.
    activation DOUBLE  -- Of the latent on this token.
);

-- What latents seem to respond to; hints made from examples, not proofs.
CREATE TABLE latent_description (
    sae VARCHAR NOT NULL,  -- run.sae_sha256 of the SAE that has the latent.
    latent BIGINT NOT NULL,  -- Number of the latent in its SAE.
    description VARCHAR,  -- A few words or examples.
    PRIMARY KEY (sae, latent)
);

-- How a selection ranks held-out exemplars, by target and method; needs no labels.
CREATE TABLE held_out_check (
    selection_id VARCHAR NOT NULL,  -- The main selection.
    target VARCHAR NOT NULL,  -- Target task whose exemplars were held out.
    method VARCHAR NOT NULL,  -- What ranked: the selection's own method, bm25 or random.
    n_exemplars BIGINT NOT NULL,  -- Different exemplars.
    n_folds BIGINT,  -- Parts they were held out in; null with a single exemplar, which cannot be.
    n_rows BIGINT NOT NULL,  -- Samples that they were ranked among.
    n_ranked BIGINT NOT NULL,  -- Samples in the ranking; n_rows is fewer where they were sampled.
    percentile DOUBLE,  -- Share of samples that score less, in %, median over exemplars.
    percentile_lo DOUBLE,  -- Lower end of its 95 % interval; null with fewer than 6 exemplars.
    percentile_hi DOUBLE,  -- Upper end of it.
    p_random DOUBLE,  -- Chance that random samples in the exemplars' place rank as high.
    n_close DOUBLE,  -- Ranked samples as close to the exemplars as these are to each other.
    n_close_lo DOUBLE,  -- Lower end of its 95 % interval; null with fewer than 5 exemplars.
    n_close_hi DOUBLE,  -- Upper end of it.
    effective DOUBLE,  -- Number of unrelated exemplars that would say as much.
    n_random BIGINT,  -- Random samples that the picks were compared with.
    n_examined BIGINT,  -- Ranks that were compared with random samples.
    depth BIGINT,  -- Rank down to which the ranking is better than random; 0 if nowhere.
    depth_lo BIGINT,  -- Lower end of its 80 % interval; null with fewer than 5 exemplars.
    depth_hi BIGINT,  -- Upper end of it.
    n_picks BIGINT,  -- Picks of the selection for the target.
    n_beyond BIGINT,  -- Of them, those that rank below the depth by score.
    PRIMARY KEY (selection_id, target, method)
);

-- Each exemplar, held out and ranked among the pool by the others of its target.
CREATE TABLE held_out_exemplar (
    selection_id VARCHAR NOT NULL,  -- The main selection.
    target VARCHAR NOT NULL,  -- Target task of the exemplar.
    method VARCHAR NOT NULL,  -- What ranked.
    exemplar_id VARCHAR NOT NULL,  -- The exemplar.
    fold BIGINT,  -- Part it was held out in; null with a single exemplar.
    percentile DOUBLE,  -- Share of samples that score less than it, in %, ties half.
    near_share DOUBLE,  -- Share of picks closer to it than 95 % of random samples are.
    nearest_share DOUBLE,  -- Share of picks whose nearest exemplar it is.
    flag VARCHAR,  -- apart, unmatched or dominates: read it again; null for most.
    PRIMARY KEY (selection_id, target, method, exemplar_id)
);

-- Training files that were written from a selection.
CREATE TABLE export (
    export_id VARCHAR PRIMARY KEY,  -- Hash of the row and its time.
    selection_id VARCHAR NOT NULL,  -- The selection that was written.
    format VARCHAR NOT NULL,  -- messages, original, ids, hf, llama_factory or axolotl.
    path VARCHAR NOT NULL,  -- Relative to the workspace, absolute outside of it, or an address.
    sha256 VARCHAR,  -- Hash of the file, or of the hashes of a folder.
    "rows" BIGINT,  -- Rows in the file, where it has rows.
    layout JSON,  -- Columns and order of its rows; null for the default.
    created_at TIMESTAMP NOT NULL  -- When (UTC).
);

-- What training on a selection gave, as its user measured it.
CREATE TABLE outcome (
    selection_id VARCHAR NOT NULL,  -- The selection that was trained on.
    metric VARCHAR NOT NULL,  -- What was measured.
    "value" DOUBLE NOT NULL,  -- The figure.
    trainee VARCHAR,  -- The model that was trained.
    recorded_at TIMESTAMP NOT NULL  -- When it was recorded (UTC).
);

-- Runs of benchmarks by fine-tuning: one model, trained on the rows of one arm.
CREATE TABLE finetune (
    benchmark_id VARCHAR NOT NULL,  -- The benchmark.
    created_at TIMESTAMP NOT NULL,  -- When it began (UTC).
    pool VARCHAR,  -- File of the labelled pool.
    trainee VARCHAR NOT NULL,  -- The model that was trained.
    tune VARCHAR NOT NULL,  -- What of it: full, last:N or lora:RANK.
    setting VARCHAR NOT NULL,  -- full or instance.
    target VARCHAR NOT NULL,  -- Target task that was measured.
    kind VARCHAR,  -- Kind of target, T1 or T2 first.
    is_seen BOOLEAN,  -- Whether the trainee had seen other rows of the task before.
    arm VARCHAR NOT NULL,  -- What chose the rows; zero is the untrained model.
    budget BIGINT NOT NULL,  -- Tokens that were trained on.
    seed BIGINT NOT NULL,  -- Seed of drawn rows and of the order.
    n_rows BIGINT,  -- Rows that were trained on, the last one in part.
    response_tokens BIGINT,  -- Tokens of their responses.
    bits_per_byte DOUBLE,  -- Of held-out responses; compares within one target only.
    gain DOUBLE,  -- Share of the untrained model's bits that training saved.
    exact DOUBLE,  -- Share of held-out responses that greedy decoding writes; null for long ones.
    label_accuracy DOUBLE,  -- Share whose own label is likeliest; null where labels are many.
    general_bits_per_byte DOUBLE,  -- Of a fixed mix of other tasks.
    seconds DOUBLE,  -- Of training and measuring.
    PRIMARY KEY (benchmark_id, target, arm, budget, seed)
);

-- What happened later: exports, reports, notes.
CREATE TABLE event (
    "at" TIMESTAMP NOT NULL,  -- Write event.at or "at": a bare at is reserved in DuckDB.
    run_id VARCHAR,  -- The run it is about, if one.
    selection_id VARCHAR,  -- The selection it is about, if one.
    action VARCHAR NOT NULL,  -- selected, exported, push_began, pushed, push_failed, reported, bundled or forgot.
    detail JSON  -- What else is known, as JSON.
);

-- Examples whose text and vectors were removed from the workspace.
CREATE TABLE forgotten (
    example_id VARCHAR PRIMARY KEY,  -- Hash of the removed content.
    "at" TIMESTAMP NOT NULL,  -- When (UTC).
    who VARCHAR,  -- Account that asked for it.
    reason VARCHAR,  -- As given with --reason.
    n_exports BIGINT NOT NULL  -- Exported files that held it; the event `forgot` names them.
);

-- One comparison of ranking methods on a labelled pool.
CREATE TABLE benchmark (
    benchmark_id VARCHAR PRIMARY KEY,  -- The benchmark.
    created_at TIMESTAMP NOT NULL,  -- When it ended, UTC.
    seconds DOUBLE,  -- How long it took; cached results count nothing.
    pool VARCHAR NOT NULL,  -- File of the labelled pool.
    pool_sha256 VARCHAR NOT NULL,  -- SHA-256 of that file.
    n_rows BIGINT NOT NULL,  -- Rows that were ranked.
    n_targets BIGINT NOT NULL,  -- Target tasks.
    model VARCHAR,  -- Model under test.
    sae VARCHAR,  -- SAE under test.
    methods JSON  -- Method name -> everything that decides its scores.
);

-- Quality of one variant of a method for one target.
CREATE TABLE benchmark_result (
    benchmark_id VARCHAR NOT NULL,  -- The benchmark.
    setting VARCHAR NOT NULL,  -- full or instance: with the instruction, or without.
    method VARCHAR NOT NULL,  -- Name of the method.
    variant VARCHAR NOT NULL,  -- Reduction, block or seed; - where there is one.
    target VARCHAR NOT NULL,  -- Target task.
    kind VARCHAR NOT NULL,  -- T1: its task is in the pool; T2: its source is not.
    is_chosen BOOLEAN NOT NULL,  -- This variant stands for its method in the means.
    ndcg DOUBLE,  -- nDCG at 1000, gain 2^relevance - 1.
    r_precision DOUBLE,  -- Precision at R for the highest grade.
    recall_1 DOUBLE,  -- Recall within the best 1 % of the ranking.
    recall_5 DOUBLE,  -- Recall within the best 5 %.
    recall_10 DOUBLE,  -- Recall within the best 10 %.
    average_precision DOUBLE  -- Average precision with graded relevance.
);

-- Mean nDCG over targets with its bootstrap interval.
CREATE TABLE benchmark_mean (
    benchmark_id VARCHAR NOT NULL,  -- The benchmark.
    setting VARCHAR NOT NULL,  -- full or instance.
    kind VARCHAR NOT NULL,  -- T1, T2 or all targets.
    method VARCHAR NOT NULL,  -- Name of the method.
    variant VARCHAR,  -- The variant that stands for the method.
    n_targets BIGINT NOT NULL,  -- Target tasks in the mean.
    ndcg DOUBLE NOT NULL,  -- Mean nDCG at 1000 over the targets.
    lo DOUBLE NOT NULL,  -- Lower end of its 95 % bootstrap interval.
    hi DOUBLE NOT NULL,  -- Upper end of its 95 % bootstrap interval.
    behind_best DOUBLE,  -- Mean nDCG of best minus that of this method.
    behind_lo DOUBLE,  -- Its paired bootstrap interval over targets, 95 %.
    behind_hi DOUBLE,  -- Upper end of the paired interval.
    best_wins DOUBLE  -- Share of targets where best is strictly ahead.
);

-- The first place (file, row) that each example of a run came from.
CREATE VIEW v_first_occurrence AS
SELECT
    run_id,  -- The run.
    example_id,  -- Hash of the content.
    own_id,  -- The data's own id.
    source,  -- Source of the row.
    file,  -- File of the row.
    "row",  -- Line or row number.
    licence,  -- Licence of the row.
    language,  -- Language of the row.
    "group",  -- Group of the row.
    raw  -- The original row.
FROM occurrence
QUALIFY row_number() OVER (PARTITION BY run_id, example_id ORDER BY file, "row", source) = 1;

-- One row per pick, with the first place it came from.
CREATE VIEW v_selection AS
SELECT
    s.selection_id,  -- Id.
    s.name AS selection,  -- Name.
    coalesce(p.target, s.target) AS target,  -- Target task.
    p.rank,  -- 1 is best.
    p.example_id,  -- Hash of the content.
    o.own_id,  -- The data's own id (first occurrence).
    o.source,  -- Source (first occurrence).
    o.file,  -- File (first occurrence).
    o."row",  -- Line or row number.
    o.licence,  -- Licence (first occurrence).
    a.licences,  -- Licences of all rows that hold the example, in order; '' where none is named.
    p.score,  -- Higher is better; see score_meaning.
    CASE s.method WHEN 'jaccard' THEN 'generalized Jaccard similarity with the exemplars, 0 to 1'
        WHEN 'bm25' THEN 'BM25 of the exemplars as queries, from 0, without a unit'
        WHEN 'random' THEN 'order of a seeded draw, no similarity'
        WHEN 'length_matched' THEN 'order of a seeded draw of equal lengths, no similarity'
        ELSE s.method END AS score_meaning,  -- What the score is, by method.
    p.tokens,  -- Tokens as the budget counts them.
    p.text,  -- Plain text; null if forgotten.
    p.reason,  -- What brought it in: score, included, floor, diversity or replay.
    p.budget  -- Smallest budget of a sweep that holds it; null without a sweep.
FROM pick p
JOIN selection s ON s.selection_id = p.selection_id
LEFT JOIN v_first_occurrence o ON o.run_id = s.run_id AND o.example_id = p.example_id
LEFT JOIN (
    SELECT run_id, example_id, list_sort(list(DISTINCT coalesce(licence, ''))) AS licences
    FROM occurrence GROUP BY ALL) a ON a.run_id = s.run_id AND a.example_id = p.example_id;

-- The budgets of a sweep beside each other: each holds the first picks of the larger.
CREATE VIEW v_budgets AS
WITH given AS (
    SELECT selection_id, unnest(list_append(from_json(budget->'sweep', '["DOUBLE"]'),
        coalesce(budget->>'examples', budget->>'fraction', budget->>'tokens')::DOUBLE)) AS budget
    FROM selection WHERE json_exists(budget, '$.sweep')),
held AS (
    SELECT g.selection_id, g.budget, count(*) AS n_selected,
        count(*) FILTER (p.reason = 'replay') AS n_replay, sum(p.tokens)::BIGINT AS n_tokens,
        min(p.score) FILTER (p.reason <> 'replay') AS cut_score,
        max(p.score_rank) FILTER (p.reason <> 'replay') AS last_rank,
        count(*) FILTER (p.reason <> 'replay' AND p.score_rank > c.depth) AS n_beyond,
        any_value(c.depth) AS depth
    FROM given g
    JOIN selection s USING (selection_id)
    JOIN pick p ON p.selection_id = g.selection_id AND p.budget <= g.budget
    LEFT JOIN held_out_check c ON c.selection_id = g.selection_id AND c.target = s.target
        AND c.method = s.method
    GROUP BY ALL)
SELECT
    h.selection_id,  -- The selection, made for the largest budget.
    s.name AS selection,  -- Its name.
    h.budget,  -- In the unit of selection.budget.
    h.n_selected,  -- Picks.
    h.n_replay,  -- Picks of them that were drawn as replay.
    h.n_tokens,  -- Tokens of all picks as the budget counts them.
    h.cut_score,  -- Lowest score of a pick, replay left out.
    CASE WHEN h.depth IS NOT NULL THEN h.n_beyond END AS n_beyond,  -- Picks past the check's depth.
    (SELECT count(*) FROM selection_drop d WHERE d.selection_id = h.selection_id
        AND d.reason = 'near_duplicate' AND d.score_rank < h.last_rank)
        AS n_near_duplicates  -- Candidates before the last pick that repeat a better one.
FROM held h JOIN selection s USING (selection_id);

-- Which latents and words a pick shares with its exemplars, and how much each counts.
CREATE VIEW v_why AS
SELECT
    w.selection_id,  -- The selection.
    w.example_id,  -- The pick or near miss.
    w.exemplar_id,  -- The exemplar.
    w.exemplar_rank,  -- 1 for the nearest exemplar: shares add up to 1 for each exemplar alone.
    n.similarity,  -- Of the pair.
    w.space,  -- Space of the latent.
    w.latent,  -- Number of the latent.
    coalesce(w.term, d.description) AS description,  -- The word itself, or a hint at the latent.
    w.contribution,  -- The latent's part of the numerator.
    w.share  -- contribution / numerator of this exemplar.
FROM explanation w
JOIN selection s ON s.selection_id = w.selection_id
JOIN run r ON r.run_id = s.run_id
LEFT JOIN explanation_exemplar n ON n.selection_id = w.selection_id
    AND n.example_id = w.example_id AND n.exemplar_id = w.exemplar_id
LEFT JOIN latent_description d ON d.sae = r.sae_sha256 AND d.latent = w.latent
    AND (w.space = r.hookpoint OR starts_with(w.space, r.hookpoint || '/'));

-- Sources of the eligible pool beside those of the selection.
CREATE VIEW v_source_mix AS
WITH pool AS (
    SELECT s.selection_id, r.source, r.n_pool FROM selection s JOIN run_source r USING (run_id)),
chosen AS (
    SELECT selection_id, source, count(*) AS n_selected FROM v_selection GROUP BY ALL),
mix AS (
    SELECT selection_id, source, coalesce(n_pool, 0) AS n_pool,
        coalesce(n_selected, 0) AS n_selected
    FROM pool FULL JOIN chosen USING (selection_id, source))
SELECT
    selection_id,  -- The selection.
    source,  -- Source.
    n_pool,  -- Ranked examples of the source.
    n_selected,  -- Picks of the source.
    n_pool / nullif(sum(n_pool) OVER whole, 0) AS share_pool,  -- Share of the pool.
    n_selected / nullif(sum(n_selected) OVER whole, 0) AS share_selected  -- Share of the picks.
FROM mix WINDOW whole AS (PARTITION BY selection_id);

-- Everything that was dropped, with its reason.
CREATE VIEW v_drops AS
SELECT
    s.selection_id,  -- The selection.
    d.stage,  -- Where it left.
    d.reason,  -- Why.
    d.n,  -- How many.
    NULL::VARCHAR AS example_id,  -- The example, where known.
    d.file,  -- File of the row, where known; of several examples, of the first.
    d."row",  -- Its 1-based line or row number.
    d.detail,  -- More of the reason.
    NULL::VARCHAR AS other_id  -- The better example that it nearly repeats.
FROM selection s JOIN run_drop d USING (run_id)
UNION ALL
SELECT selection_id, stage, reason, n, example_id, NULL, NULL, detail, other_id
FROM selection_drop;

-- Hashes from the pool to the exported files.
CREATE VIEW v_lineage AS
SELECT
    s.selection_id,  -- The selection.
    a.step,  -- Step of the way.
    a.artifact,  -- What was read or made.
    a.sha256,  -- Hash of its content.
    a.parent  -- What it was made from.
FROM selection s JOIN artifact a USING (run_id)
WHERE (a.step <> 'select' OR a.artifact = s.selection_id)
    AND (a.step <> 'exemplars' OR s.target = 'joint' OR a.artifact = 'target ' || s.target)
UNION ALL
SELECT selection_id, 'export', path, sha256, selection_id FROM export;

-- Every two selections: how many examples both hold.
CREATE VIEW v_overlap AS
WITH both_of AS (
    SELECT a.selection_id AS first_id, b.selection_id AS second_id, count(*) AS n_both
    FROM pick a JOIN pick b ON a.example_id = b.example_id AND a.selection_id <> b.selection_id
    GROUP BY ALL),
pairs AS (
    SELECT a.selection_id, a.name AS selection, b.selection_id AS other_id, b.name AS other,
        a.n_selected AS n, b.n_selected AS n_other, coalesce(n_both, 0) AS n_both
    FROM selection a JOIN selection b ON a.selection_id <> b.selection_id
    LEFT JOIN both_of ON first_id = a.selection_id AND second_id = b.selection_id)
SELECT
    selection_id,  -- One selection.
    selection,  -- Its name.
    other_id,  -- The other one.
    other,  -- Its name.
    n,  -- Picks of the one.
    n_other,  -- Picks of the other.
    n_both,  -- Examples both hold.
    n_both / nullif(n, 0) AS share_of_selection,  -- n_both / n.
    n_both / nullif(n + n_other - n_both, 0) AS overlap  -- The Jaccard index of both.
FROM pairs;

-- The check with held-out exemplars by selection, target and method.
CREATE VIEW v_held_out_check AS
SELECT
    c.selection_id,  -- The selection.
    s.name AS selection,  -- Its name.
    c.target,  -- Target task.
    c.method,  -- What ranked.
    c.method = s.method AS is_own,  -- The selection's own method; others are for comparison.
    c.n_exemplars,  -- Different exemplars.
    c.n_rows,  -- Samples that they were ranked among.
    c.n_ranked,  -- Samples in the ranking.
    c.percentile,  -- Share of samples that score less, in %, median over exemplars; 50: chance.
    c.percentile_lo,  -- Lower end of its 95 % interval; null with fewer than 6 exemplars.
    c.percentile_hi,  -- Upper end of it.
    c.p_random,  -- Chance that random samples in the exemplars' place rank as high.
    c.n_close,  -- Samples as close to the exemplars as these are to each other, about.
    c.n_close_lo,  -- Lower end of its 95 % interval; null with fewer than 5 exemplars.
    c.n_close_hi,  -- Upper end of it.
    c.depth,  -- Rank down to which the ranking is better than random.
    c.depth_lo,  -- Lower end of its 80 % interval; null with fewer than 5 exemplars.
    c.depth_hi,  -- Upper end of it.
    c.n_examined,  -- Ranks that were examined.
    c.n_picks,  -- Picks for the target.
    c.n_beyond  -- Of them, those below the depth.
FROM held_out_check c JOIN selection s USING (selection_id);

-- Tokens on which explaining latents are active, with their text where a turn is plain text.
CREATE VIEW v_token_activations AS
SELECT
    f.selection_id,  -- The selection.
    coalesce(p.rank, m.rank) AS rank,  -- Rank of the pick or near miss.
    f.example_id,  -- The pick or near miss.
    f.space,  -- Space of the latent.
    f.latent,  -- Number of the latent.
    d.description,  -- A hint at what the latent responds to.
    f.turn,  -- Number of the message, from 0.
    f.first_char,  -- First character of the token in the turn.
    f.end_char,  -- Character behind the token.
    f.activation,  -- Activation of the latent on this token.
    CASE WHEN json_type(x.messages, '$[' || f.turn || '].content') = 'VARCHAR'
            AND NOT json_exists(x.messages, '$[' || f.turn || '].reasoning_content')
        THEN substr(x.messages ->> ('$[' || f.turn || '].content'), f.first_char + 1,
            f.end_char - f.first_char) END AS token  -- The token as text; null with tool calls.
FROM token_activations f
JOIN selection s ON s.selection_id = f.selection_id
JOIN run r ON r.run_id = s.run_id
LEFT JOIN pick p ON p.selection_id = f.selection_id AND p.example_id = f.example_id
LEFT JOIN near_miss m ON m.selection_id = f.selection_id AND m.example_id = f.example_id
LEFT JOIN sample x ON x.example_id = f.example_id
LEFT JOIN latent_description d ON d.sae = r.sae_sha256 AND d.latent = f.latent
    AND (f.space = r.hookpoint OR starts_with(f.space, r.hookpoint || '/'));

-- Benchmarks: mean nDCG by setting, kind of target and method.
CREATE VIEW v_benchmark AS
SELECT
    b.benchmark_id,  -- The benchmark.
    b.created_at,  -- When it ended (UTC).
    b.pool,  -- File of the labelled pool.
    b.n_rows,  -- Rows that were ranked.
    b.model,  -- Model under test.
    m.setting,  -- full or instance.
    m.kind,  -- T1, T2 or all targets.
    m.method,  -- Name of the method.
    m.variant,  -- The variant that stands for the method.
    m.n_targets,  -- Target tasks in the mean.
    m.ndcg,  -- Mean nDCG at 1000 over the targets.
    m.lo,  -- Lower end of its 95 % bootstrap interval.
    m.hi,  -- Upper end of it.
    m.behind_best,  -- Mean nDCG of best minus that of this method.
    m.behind_lo,  -- Lower end of its paired 95 % bootstrap interval.
    m.behind_hi,  -- Upper end of it.
    m.best_wins  -- Share of targets where best is strictly ahead.
FROM benchmark_mean m JOIN benchmark b USING (benchmark_id);

-- Benchmarks by fine-tuning: means over seeds, with the share of the way from random to oracle.
CREATE VIEW v_finetune AS
WITH mean AS (
    SELECT benchmark_id, created_at, trainee, tune, setting, target, kind, is_seen, arm, budget,
        count(*) AS n_seeds, avg(response_tokens) AS response_tokens,
        avg(bits_per_byte) AS bits_per_byte, avg(gain) AS gain, avg(exact) AS exact,
        avg(label_accuracy) AS label_accuracy,
        avg(general_bits_per_byte) AS general_bits_per_byte, sum(seconds) AS seconds
    FROM finetune GROUP BY ALL
)
SELECT
    m.benchmark_id,  -- The benchmark.
    m.created_at,  -- When it began (UTC).
    m.trainee,  -- The model that was trained.
    m.tune,  -- What of it.
    m.setting,  -- full or instance.
    m.target,  -- Target task.
    m.kind,  -- Kind of target.
    m.is_seen,  -- Whether the trainee had seen other rows of the task.
    m.budget,  -- Tokens that were trained on.
    m.arm,  -- What chose the rows.
    m.n_seeds,  -- Runs in the means.
    m.response_tokens,  -- Response tokens that were trained on.
    m.bits_per_byte,  -- Of held-out responses.
    m.gain,  -- Share of the untrained model's bits that training saved.
    CASE WHEN o.gain > r.gain THEN (m.gain - r.gain) / (o.gain - r.gain) END
        AS gap_closed,  -- From random 0 to oracle 1; null where oracle is not ahead of random.
    m.exact,  -- Share of held-out responses that greedy decoding writes.
    m.label_accuracy,  -- Share whose own label is likeliest.
    m.general_bits_per_byte,  -- Of a fixed mix of other tasks.
    m.seconds  -- Of all runs in the means.
FROM mean m
LEFT JOIN mean r ON r.benchmark_id = m.benchmark_id AND r.target = m.target
    AND r.budget = m.budget AND r.arm = 'random'
LEFT JOIN mean o ON o.benchmark_id = m.benchmark_id AND o.target = m.target
    AND o.budget = m.budget AND o.arm = 'oracle';

-- Which selections helped, by how much, with what: beside the random control of the same run.
CREATE VIEW v_outcome AS
WITH measured AS (
    SELECT
        o.selection_id, o.metric, o.trainee, count(*) AS times, avg(o.value) AS mean,
        min(o.value) AS least, max(o.value) AS most
    FROM outcome o GROUP BY ALL
)
SELECT
    s.selection_id,  -- The selection.
    s.name,  -- Its name.
    s.run_id,  -- Its run.
    s.target,  -- Target task, or joint.
    s.method,  -- What ranked.
    s.role,  -- main or control.
    s.n_selected,  -- Picks.
    s.n_tokens,  -- Tokens of all picks as the budget counts them.
    m.metric,  -- What was measured.
    m.trainee,  -- The model that was trained.
    m.times,  -- How often it was recorded: seeds, for instance.
    m.mean,  -- Mean of what was recorded.
    m.least,  -- Least of it.
    m.most,  -- Most of it.
    r.mean AS random_mean,  -- Mean for the random control of the same run and target.
    m.mean - r.mean AS gain  -- Mean less that of the random control.
FROM measured m JOIN selection s ON s.selection_id = m.selection_id
LEFT JOIN (
    SELECT c.run_id, c.target, x.metric, x.trainee, x.mean
    FROM measured x JOIN selection c ON c.selection_id = x.selection_id
    WHERE c.role = 'control' AND c.method = 'random'
) r ON r.run_id = s.run_id AND r.target IS NOT DISTINCT FROM s.target
    AND r.metric = m.metric AND r.trainee IS NOT DISTINCT FROM m.trainee;
