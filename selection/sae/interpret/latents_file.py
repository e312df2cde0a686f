"""Descriptions of an SAE's latents beside its weights: `latents.parquet`.

A row a latent that was seen to fire; the file's metadata names the SAE by its hash, so that a file
left over from other weights is never shown. Descriptions are hints. What others wrote about the
latents is kept in a file of its own, `explanations.parquet`, so that either can be made again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selection.core.errors import InputError
from selection.core.json_text import parsed
from selection.sae.interpret.explanations import Explanations

FILE = "latents.parquet"
_KEY = b"saelect"

SCHEMA = pa.schema(
    [
        ("latent", pa.int32()),
        ("description", pa.string()),  # one line, for people
        ("density", pa.float32()),  # share of counted tokens on which it is active
        ("max_act", pa.float32()),
        (
            "tokens",  # by sum of activation; share of that sum, lift over the token's base rate
            pa.list_(
                pa.struct([("token", pa.string()), ("share", pa.float32()), ("lift", pa.float32())])
            ),
        ),
        (
            "examples",  # strongest samples: text before, the token itself, text after
            pa.list_(
                pa.struct(
                    [
                        ("example", pa.string()),
                        ("before", pa.string()),
                        ("token", pa.string()),
                        ("after", pa.string()),
                        ("act", pa.float32()),
                    ]
                )
            ),
        ),
        # Null where they were not made: tokens by logit lens, most promoted and most suppressed
        # first, and how far few of them stand out (excess kurtosis).
        ("promotes", pa.list_(pa.string())),
        ("suppresses", pa.list_(pa.string())),
        ("kurtosis", pa.float32()),
        (
            "facets",  # label of a column that it prefers: share of its samples, lift over all
            pa.list_(
                pa.struct(
                    [
                        ("column", pa.string()),
                        ("label", pa.string()),
                        ("share", pa.float32()),
                        ("lift", pa.float32()),
                    ]
                )
            ),
        ),
        # Of SAEs of attention heads: those that drive it most, and the bias, as shares of the sum
        # of its pre-activations where it is active.
        (
            "heads",
            pa.list_(pa.struct([("head", pa.int32()), ("share", pa.float32())])),
        ),
        ("bias_share", pa.float32()),
    ]
)


def write_latents(
    file: Path, rows: Sequence[Mapping[str, object]], about: Mapping[str, object]
) -> None:
    """Write rows of SCHEMA.

    about: at least `sae_sha256`; the rest says on what text the rows rest.
    """
    metadata = {_KEY: json.dumps(dict(about), sort_keys=True).encode()}
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA).replace_schema_metadata(metadata)
    pq.write_table(table, file, compression="zstd", compression_level=19)


def read_about(file: Path) -> dict[str, object]:
    """What `write_latents` was given about the rows. Raises InputError for a damaged file."""
    with _damage_explained(file):
        metadata = pq.read_schema(file).metadata or {}
        about: dict[str, object] = parsed(metadata.get(_KEY, b"{}"))
    return about


@contextmanager
def _damage_explained(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"the descriptions are not readable ({str(error).strip().splitlines()[0]})",
            file=file,
            remedy="It was changed or damaged. Remove it, and make it again with"
            " `saelect describe`.",
        ) from None


def read_descriptions(folder: Path, sae_sha256: str | None) -> dict[int, str]:
    """Description by latent of a folder's SAE; empty where no file was made for these weights."""
    file = folder / FILE
    if not file.is_file() or read_about(file).get("sae_sha256") != sae_sha256:
        return {}
    with _damage_explained(file):
        table = pq.read_table(file, columns=["latent", "description"])
    return dict(zip(table["latent"].to_pylist(), table["description"].to_pylist(), strict=True))


EXPLANATION_SCHEMA = pa.schema(
    [
        ("sae", pa.string()),  # SHA-256 of the SAE
        ("latent", pa.int64()),
        ("source", pa.string()),  # delphi or neuronpedia
        ("text", pa.string()),
        ("explainer", pa.string()),  # the model that wrote it, where named
        ("scorer", pa.string()),
        ("score", pa.float64()),
        ("description", pa.string()),  # all of it in one line, for people
    ]
)


def add_explanations(old: Path, new: Path, read: Explanations, sae_sha256: str) -> None:
    """Write what is in a file, if it is there, with the explanations of one source replaced."""
    rows = [
        {**asdict(each), "sae": sae_sha256, "latent": latent, "source": read.source}
        | {"description": each.words(read.source)}
        for latent, each in sorted(read.of_latent.items())
    ]
    table = pa.Table.from_pylist(rows, schema=EXPLANATION_SCHEMA)
    if old.is_file():
        with _damage_explained(old):
            kept = pq.read_table(old, schema=EXPLANATION_SCHEMA)
        table = pa.concat_tables([kept.filter(pc.field("source") != read.source), table])
    pq.write_table(table.sort_by([("latent", "ascending"), ("source", "ascending")]), new)


def explanation_words(file: Path) -> dict[int, list[str]]:
    """Explanations by latent, in words; empty where nothing was imported."""
    words: dict[int, list[str]] = {}
    if file.is_file():
        with _damage_explained(file):
            table = pq.read_table(file, columns=["latent", "description"])
        for latent, text in zip(*table.to_pydict().values(), strict=True):
            words.setdefault(latent, []).append(text)
    return words
