"""Texts of the model card; every figure is filled in by `card`."""

INTRO = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [demo, sparse-autoencoder, data-selection]
---

# The demo model of saelect

A small Llama ({parameters:.1f} M parameters, {n_layers} blocks x {d_model}, {vocab_size:,}
tokens, context {context}), trained from scratch for saelect so that its demonstration runs
offline on a CPU. It is there to be read, not to answer: nothing it writes is to be relied on.

Hookpoint: `resid@{block}`, the output of block {block} counted from 0 (`layers.{block}`).

## Data

Rows of a pool of {n_pool:,} public instruction samples were used if (1) their licence is MIT,
Apache-2.0, CC BY 4.0 (MBPP by Google Research) or ODC-By data with Apache-2.0 code, (2) they
carry no benchmark canary, and (3) the SHA-256 of the lower-cased, whitespace-collapsed question
(the input, or the instruction where it is empty) starts with an even byte. (1) and (2) leave
{n_permissive:,} rows; (3) leaves {n_used:,}, of which {n_validation:,} (one question in
{modulus}) were held out. The other half of the permissive rows was never seen in training.

| licence | rows used |
|---|---|
{licenses}

Each row is a chat of a user and an assistant turn. The user turn is instruction and input for
half of the rows and the bare question for the others; the halves change places every epoch.

## Recipe

Byte-level BPE of the same rows, digits as single tokens. Whole chats, cut at {context} tokens,
in batches of similar length, padded on the right: no sample sees another one. Every token is
predicted, user turns too. Muon (lr {muon_lr}, weight decay {weight_decay}) for the matrices of
the blocks, AdamW (lr {adamw_lr}) for embeddings and gains; {warmup_steps} warm-up steps,
constant, from {decay_from:.0%} of the budget linear to 0; gradient norm clipped at 1; bf16
autocast, {step_tokens:,} padded tokens a step. {used_tokens:,} tokens in {steps:,} steps (ended
in epoch {epoch}), {used_minutes:.0f} minutes on a two-core machine shared with other work. The
budget was {budget}.

| step | tokens | minutes | held-out loss (nats a token) |
|---|---|---|---|
{curve}

The held-out rows are {held_out_tokens:,} predicted tokens, {bytes_per_token:.2f} bytes each:
the final loss is {bits_per_byte:.3f} bits a byte.
"""

EVALUATION = """
## Evaluation

Mean nDCG@1000 (gain 2^relevance - 1, unjudged rows removed, ties by id) of labelled rows ranked for
{n_t1} target tasks of kind T1 (whose task is in the pool) and {n_t2} of kind T2 (whose source is
not). The exemplars are not in the pool. Setting "full": the user turn holds the instruction;
"instance": the bare question. Dense: cosine of the mean hidden state of the content tokens to the
exemplars' mean; SAE: generalized Jaccard of aggregated latents. Chats are cut at {max_tokens}
tokens ({dtype} weights), words are counted in the uncut texts. "unseen" leaves the rows that the
training rule takes out of the ranking and of the ideal ranking. Differences are means over targets
with paired 95 % bootstrap intervals; the best SAE combination was picked on these targets.
TF-IDF (plain counts) and BM25 kept stop words here: weaker than those of
`docs/benchmarks/retrieval.md`, which leave them out, so leads over them say less.
A benchmark of commit 39ee8e3 (`benchmarks/demo_model.py`) measured it; the hookpoint is bold.
{tables}
{n_t2} T2 targets are few: small differences there mean nothing.
"""

EVALUATION_TABLE = """
### {setting} setting, {where} ({n_rows:,} rows)

The cutoff takes in {cutoff_share:.0%} of the rows: the larger that share, the higher even a poor
ranking scores, so compare rows of this table only.

| representation | T1 | T2 | all | T1 unseen | T2 unseen |
|---|---|---|---|---|---|
{lines}

{gaps}
"""

NOT_EVALUATED = """
## Evaluation

Not measured yet: nothing here says that block {block} separates kinds of task better than words or
other blocks do. A benchmark of commit 39ee8e3 (`benchmarks/demo_model.py`) measured it, per block,
beside words and random weights. The hookpoint was fixed beforehand.
"""

SAE = """
## Sparse autoencoder

`sae/layers.{block}`: TopK, {latents:,} latents, k = {k}, trained on {tokens:,} content-token
activations of the training rows by saelect's own trainer, stored in fp16. On
{held_out_tokens:,} content tokens of the held-out rows: FVU {fvu:.3f}, {l0:.1f} active latents
a token, {dead:.1%} of the latents never fire there.{recovered}
"""

LOSS_RECOVERED = """ With the reconstructions in place of that block's
output, the next-token loss is {ce_sae:.3f} nats beside {ce_original:.3f} of the model itself and
{ce_ablated:.3f} with zeros there: {ce_loss_score:.1%} of the loss is recovered. `latents.parquet`
beside the weights describes what each latent fires on; its descriptions are hints."""

LIMITS = """
## Limits

- Trained on little text, nearly all of it English or code. Other languages are read as bytes.
- Many training rows come from training splits of benchmarks (grade-school math, MBPP, commonsense
  and natural-instruction tasks): never use it to measure those benchmarks.
- Some sources hold offensive text on purpose (toxicity tasks); nothing was filtered.
- Special tokens inside a user's text, such as `<|end|>`, are read as special tokens.
- Results on it say how saelect works, not how well a real model would select.

## Files

`{weights}` has the SHA-256 `{sha256}`. The scripts are in `benchmarks/demo/` of the
repository.
"""
