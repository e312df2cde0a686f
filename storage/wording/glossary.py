"""The words of the reports, each in a sentence or two; pages link them to these."""

# One entry a line or two: spread out it would fill two screens.
TERMS = {
    "budget": ("budget", "How much to select: a number of samples, a share of the eligible ones, or"
        " tokens of the training. The selection is the beginning of the ranking that fits."),
    "candidate": ("candidate", "A sample of the pool while it is ranked."),
    "check": ("label-free check", "A measurement that needs no labels: some exemplars are held out,"
        " and one looks how far up the ranking by the others puts them, beside a random order."),
    "contribution": ("contribution", "What one latent gives to a similarity: the smaller of the two"
        " weighted values. The contributions of a pair add up to the numerator of its score."),
    "control": ("control", "A second selection of the same size by another method, such as random"
        " or BM25, to compare with; it is never meant for training."),
    "cut": ("cut", "Where the budget ends the ranking. What follows directly is a near miss."),
    "drop": ("drop", "A row or sample that left, with a reason from a closed list. Drops, picks and"
        " what ranks below the cut add up to the pool."),
    "eligible": ("eligible", "Readable, passing the filter, and not refused by a rule: ranked."),
    "exemplar": ("exemplar", "A known example of the target task. Exemplars are all that the"
        " method knows of what is wanted."),
    "exemplar_reduction": ("exemplar reduction", "How similarities with several exemplars become"
        " one score: their mean, the largest, or the similarity with their average."),
    "fvu": ("FVU", "Share of the variance of activations that the SAE does not reconstruct; 0 is"
        " perfect."),
    "hookpoint": ("hookpoint", "Where in the model activations are read, e.g. resid@14: what block"
        " 14, counted from 0, hands on."),
    "idf": ("idf", "A weight that makes latents count less that fire in much of the pool: the"
        " logarithm of the pool's size over the number of samples in which the latent fires."),
    "jaccard": ("generalized Jaccard similarity", "Sum of the smaller over sum of the larger of two"
        " samples' values, latent by latent. 1: the same latents, equally strong; 0: none shared."),
    "latent": ("latent", "One unit of the SAE. Active on few tokens, often on tokens that have"
        " something in common. Its description is made from such tokens: a hint, not a proof."),
    "lineage": ("lineage", "The chain of hashes from the pool's files to the picks and the training"
        " files; `saelect verify` hashes everything again."),
    "mark": ("marked tokens", "Tokens on which latents fire that explain a pick. The darker, the"
        " more of the similarity with the exemplar goes through the token."),
    "near_miss": ("near miss", "A sample that ranks right behind the last pick."),
    "pick": ("pick", "A sample that was chosen."),
    "pool": ("pool", "All samples that could be chosen from. Equal samples count once."),
    "rank": ("rank", "Place in the order of choice; rank 1 is best."),
    "rank_correlation": ("rank correlation", "Spearman's: 1 if two selections put the samples that"
        " both hold in the same order, 0 if the orders have nothing to do with each other, -1 if"
        " one is the other reversed."),
    "representation": ("representation", "One vector per sample: its latents over all its counted"
        " tokens."),
    "run": ("run", "One execution of saelect with its config; it may make several selections."),
    "sae": ("SAE", "Sparse autoencoder: rewrites what a model computes for a token as few active"
        " latents out of thousands."),
    "score": ("score", "Similarity with exemplars; higher is better. Scores of different methods"
        " or models cannot be compared."),
    "selection": ("selection", "What was chosen under a budget for one target task or several."),
    "target": ("target task", "What the model that will be trained should do well."),
    "token_aggregate": ("token aggregate", "How the latents of a sample's tokens become one vector:"
        " mean, sum or maximum."),
    "weights": ("weights", "What a latent counts in the similarity: all the same (none),"
        " its rarity in the pool (idf), or how much more of the target's exemplars have it than of"
        " the pool (target_unique)."),
}  # fmt: skip
"""Id -> (term, what it means), in alphabetical order of the ids."""
