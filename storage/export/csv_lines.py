"""CSV that any reader splits into the same rows."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence


def csv_lines(rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Each row as one record of RFC 4180 that ends with a line feed.

    A text with a carriage return is quoted too: Python's writer quotes what its own end of a line
    holds, and readers split at either.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    for row in rows:
        writer.writerow(row)
        yield buffer.getvalue().removesuffix("\r\n") + "\n"
        buffer.seek(0)
        buffer.truncate()
