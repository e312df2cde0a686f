"""What a retrieval benchmark is asked to compare."""

from typing import Literal

from pydantic import Field

from flows.config.strict import DEMO, Strict


class BenchRequest(Strict):
    """What a retrieval benchmark compares."""

    pool: str = Field(description="Labelled Parquet pool.")
    targets: str = Field(description="Targets file, one JSON object a line.")
    subpool: str | None = Field(None, description="File of ids: only these rows of the pool.")
    setting: Literal["full", "instance", "both"] = Field(
        "both", description="The whole example, its bare question, or both."
    )
    methods: tuple[str, ...] = Field(
        (), description="Names, name:variant, YAML files of configs; empty: all known ones."
    )
    model: str = Field(DEMO, description="Model that every method reads.")
    sae: str = Field(DEMO, min_length=1, description="SAE that `best` and `paper` read.")
    hookpoint: str = Field("", description="Where the model is read; empty: where the SAE was.")
    encoder: str | None = Field(None, description="Folder of a sentence encoder to report.")
    scores: dict[str, str] = Field(
        default_factory=dict, description="Name -> file with columns id, score, maybe target."
    )
