"""Where explaining latents fired in samples, kept so that the same question needs no model again.

One file per question, `token_activations/<representation_id>/<id>.parquet`. All of it can be
computed again, so a file that does not read is as good as none.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.files.atomic import write_bytes

SCHEMA = pa.schema(
    [
        ("sample", pa.int64()),
        ("latent", pa.int64()),
        ("turn", pa.int64()),
        ("first_char", pa.int64()),
        ("end_char", pa.int64()),
        ("strength", pa.float64()),
    ]
)
"""sample: its number in the question; first_char, end_char: characters of the turn's text."""


def read_token_activations(file: Path) -> pa.Table | None:
    """What was kept there; None where nothing was, or where it is damaged."""
    try:
        table = pq.read_table(file, page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return None
    return table if table.schema.equals(SCHEMA) else None


def save_token_activations(file: Path, table: pa.Table) -> None:
    """Write a table of SCHEMA, whole or not at all. Raises InputError when the disk is full."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.cast(SCHEMA), sink, write_page_checksum=True)
    write_bytes(file, sink.getvalue().to_pybytes())
