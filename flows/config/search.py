"""Sketches of vectors and their FAISS index: what finds neighbors without comparing everything."""

from typing import Literal

from pydantic import Field

from flows.config.strict import Strict


class FaissConfig(Strict):
    """How vectors are sketched, indexed and looked up. Whatever is found is then compared exactly.

    What the sketches miss stays missed; the share is measured and kept with the index and the run.
    """

    n_dims: int = Field(256, ge=8, le=4096, description="Numbers of a sketch.")
    seed: int = Field(0, ge=0, description="Of the sketches, and of the cells of large indexes.")
    flat_up_to: int = Field(
        1_000_000,
        ge=0,
        description="Up to so many vectors every sketch is compared; beyond, the nearest cells'.",
    )
    n_lists: int | None = Field(
        None, ge=1, description="Cells of a large index; default: 4 times the root of its vectors."
    )
    n_probes: int = Field(64, ge=1, description="Cells looked into, of a large index.")
    candidates_per_neighbor: int = Field(
        20, ge=1, description="Found by sketch for every neighbor that is asked for."
    )
    recall_queries: int = Field(
        32, ge=1, description="Vectors whose neighbors are also looked up exactly, for the recall."
    )
    gpu: Literal["auto", "off"] = Field(
        "auto", description="auto: a GPU makes the cells where FAISS sees one."
    )

    def lists_for(self, n_vectors: int) -> int:
        """Cells of an index of so many vectors; 0 where every sketch is compared."""
        if n_vectors <= self.flat_up_to:
            return 0
        return min(n_vectors, self.n_lists or int(4 * n_vectors**0.5))

    def identity(self) -> dict[str, object]:
        """What decides the index and what is found with it."""
        return self.model_dump(exclude={"recall_queries", "gpu"})
