"""Scores of the controls that a selection is compared with: chance, equal tokens, words."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from selection.evaluation.bm25 import bm25_of_targets
from selection.picking.controls import random_scores, seed_of

Control = Literal["random", "length_matched", "bm25"]


def control_scores(
    control: str,
    exemplar_texts: Mapping[str, Sequence[str]],
    example_ids: NDArray[np.bytes_],
    texts: Iterable[str],
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Target -> (n,) scores of all examples; higher is better.

    exemplar_texts: target -> texts of its exemplars. texts: of the n examples; read for "bm25".
    """
    if control not in get_args(Control):
        raise ValueError(f"a control is one of {get_args(Control)}, not {control!r}")
    if control == "bm25":
        return bm25_of_targets(texts, exemplar_texts)
    ids = example_ids.astype(str).tolist()
    # An example drawn for its number of tokens is not the random control's: another seed.
    purpose = [] if control == "random" else [control]
    return {name: random_scores(ids, seed_of(seed, name, *purpose)) for name in exemplar_texts}
