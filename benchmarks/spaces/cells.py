"""The cells of the grid: one factor at a time around joined spaces with idf and mean."""

from dataclasses import dataclass

from selection.reductions import ExemplarReduction
from selection.weights import Weighting


@dataclass(frozen=True)
class Cell:
    """One way to rank. spaces: (name, weight of the space) pairs."""

    name: str
    spaces: tuple[tuple[str, int], ...]
    reduction: ExemplarReduction = "mean"
    weights: Weighting = "idf"
    normalize: bool = True
    square_root: tuple[str, ...] = ()
    smoothing: int = 1
    max_df: float | None = None
    best: int = 3
    n_clusters: int = 4


def _joined(
    a: int, b: int, sae: str = "mean", lexical: str = "words"
) -> tuple[tuple[str, int], ...]:
    return ((sae, a), (lexical, b))


ONE, TWO = (("mean", 1),), _joined(1, 1)
ROOT = ("mean", "max", "words", "tokens")

CELLS = (
    Cell("paper", ONE, "prototype", "none", normalize=False),
    Cell("mean idf", ONE, normalize=False),
    Cell("mean idf l1", ONE),
    Cell("mean idf sqrt l1", ONE, square_root=ROOT),
    Cell("max idf", (("max", 1),), normalize=False),
    Cell("max idf sqrt l1", (("max", 1),), square_root=ROOT),
    Cell("words idf l1", (("words", 1),)),
    Cell("words idf sqrt l1", (("words", 1),), square_root=ROOT),
    Cell("tokens idf sqrt l1", (("tokens", 1),), square_root=ROOT),
    Cell("joined 1:1", TWO),
    Cell("joined 1:1 sqrt", TWO, square_root=ROOT),
    Cell("joined 1:2 sqrt", _joined(1, 2), square_root=ROOT),
    Cell("joined 2:1 sqrt", _joined(2, 1), square_root=ROOT),
    Cell("joined 1:1 sqrt prototype", TWO, "prototype", square_root=ROOT),
    Cell("joined 1:1 sqrt max", TWO, "max", square_root=ROOT),
    Cell("joined 1:1 sqrt best_mean", TWO, "best_mean", square_root=ROOT),
    Cell("joined 1:1 sqrt clusters", TWO, "clusters", square_root=ROOT, n_clusters=3),
    Cell("joined 1:1 sqrt round_robin", TWO, "round_robin", square_root=ROOT),
    Cell("joined 1:1 sqrt contrast", TWO, weights="contrast", square_root=ROOT),
    Cell("joined 1:1 sqrt idf*contrast", TWO, weights="idf*contrast", square_root=ROOT),
    Cell("1:1 sqrt idf*contrast prototype", TWO, "prototype", "idf*contrast", square_root=ROOT),
    Cell("joined 1:1 sqrt none", TWO, weights="none", square_root=ROOT),
    Cell("joined 1:1 sqrt df<.5", TWO, square_root=ROOT, max_df=0.5),
    Cell("joined max 1:1 sqrt", _joined(1, 1, "max"), square_root=ROOT),
    Cell("joined tokens 1:1 sqrt", _joined(1, 1, lexical="tokens"), square_root=ROOT),
    Cell("joined mean+max+words sqrt", (("mean", 1), ("max", 1), ("words", 2)), square_root=ROOT),
)  # fmt: skip
