"""Why rows and samples were dropped, and why samples were picked, in words for people."""

DROPPED = {
    "broken_row": "could not be read",
    "not_recognized": "matched none of the known shapes",
    "unknown_role": "had a turn with an unknown role",
    "not_text": "had something else where text belongs",
    "missing_value": "had a missing value as prompt or answer",
    "in_conversation": "were turns of a conversation that another row holds",
    "rejected_answer": "had an answer that is marked as a bad one",
    "no_text": "had no text",
    "no_response": "had no response to train on",
    "image_or_audio": "had images or audio",
    "where": "did not pass the filter",
    "no_counted_tokens": "had no content tokens, for instance no response",
    "response_truncated": "lost the whole response to truncation",
    "empty_vector": "activated no latent",
    "is_exemplar": "equalled an exemplar",
    "excluded": "stood on the list of examples to exclude",
    "too_short": "had fewer tokens than the minimum",
    "too_long": "had more tokens than the maximum",
    "contaminated": "held an evaluation item or an exemplar",
    "below_min_score": "scored lower than the minimum score",
    "not_retrieved": "were not retrieved by the approximate search",
    "near_duplicate": "were near-duplicates of a better one that was kept",
    "quota": "met a full quota, or made room for a floor",
    "diversity": "were too similar to what was chosen before",
}
"""By `selection.records.DropReason`, what follows a number: "231 did not pass the filter"."""

PICKED = {
    "score": "for its score",
    "included": "because it is on the list of examples to include",
    "floor": "to fill a floor",
    "diversity": "for diversity; its score alone would not do",
    "replay": "as replay: drawn at random, whatever it scores",
}
"""Why a sample was picked, by `pick.reason`."""


def dropped_words(reason: str) -> str:
    """What follows a number of dropped samples; a reason of later versions as it is."""
    return DROPPED.get(reason, reason.replace("_", " "))
