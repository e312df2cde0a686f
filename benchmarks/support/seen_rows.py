"""Ids of the rows that the packaged model may have seen, for `bench finetune --exclude`.

python -m benchmarks.support.seen_rows POOL > seen.txt
"""

import sys
from pathlib import Path

from benchmarks.demo.corpus import read_corpus


def seen_ids(pool: Path) -> list[str]:
    """Of training and validation, in ascending order."""
    corpus = read_corpus(pool)
    return sorted(row.row_id for row in [*corpus.train, *corpus.validation])


if __name__ == "__main__":
    print("\n".join(seen_ids(Path(sys.argv[1]))))
