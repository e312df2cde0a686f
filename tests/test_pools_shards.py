import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.core.sparse import from_lists, to_dense
from selection.records import SparseRows
from selection.representation.represent import UnitReport
from storage.pools.shards import open_shards, write_shard

M = 40
REPORT = UnitReport(3, 30, 9, 0, 1, 0, 2.5, 0.0, 0.25, "full")


def unit(n: int, seed: int) -> tuple[NDArray[np.uint8], SparseRows]:
    """Random keys and vectors, some of them empty."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 100, (n, M)) * (rng.random((n, M)) < 0.2)
    dense[::5] = 0
    keys = rng.integers(0, 256, (n, 16), dtype=np.uint8)
    return keys, from_lists([dict(enumerate(row)) for row in dense.tolist()], M)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


def test_vectors_come_back_by_their_keys_in_any_order(tmp_path: Path) -> None:
    units = {name: unit(n, seed) for seed, (name, n) in enumerate([("b", 30), ("a", 1), ("c", 50)])}
    for name, (keys, rows) in units.items():
        assert write_shard(tmp_path, name, keys, rows, REPORT)
    shards = open_shards(tmp_path)
    assert (len(shards), shards.n_vectors) == (3, 81)
    all_keys = np.concatenate([keys for keys, _ in units.values()])
    dense = np.concatenate([to_dense(rows) for _, rows in units.values()])
    wanted = np.random.default_rng(9).integers(0, 81, 200)
    assert np.array_equal(to_dense(shards.gather(all_keys[wanted])), dense[wanted])
    shard, row = shards.locate(all_keys)
    assert [shards.shards[s].folder.name for s in shard] == ["b"] * 30 + ["a"] + ["c"] * 50
    assert row.tolist() == [*range(30), 0, *range(50)]
    assert (shard.dtype, row.dtype) == (np.dtype(np.int32), np.dtype(np.int64))


def test_shards_are_iterated_by_name_and_stay_in_their_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        keys, rows = unit(10, ord(name))
        write_shard(tmp_path, name, keys, rows, REPORT)
    for name, shard in zip(("a", "b"), open_shards(tmp_path).shards, strict=True):
        keys, rows = shard.keys(), shard.rows()
        expected_keys, expected = unit(10, ord(name))
        assert np.array_equal(keys, expected_keys)
        assert np.array_equal(to_dense(rows), to_dense(expected))
        assert isinstance(rows.values, np.memmap)


def test_unknown_keys_are_missing(tmp_path: Path) -> None:
    keys, rows = unit(20, 0)
    write_shard(tmp_path, "a", keys, rows, REPORT)
    other, _ = unit(5, 1)
    near = keys[:1].copy()
    near[0, 15] ^= 1  # differs in the last byte only
    shards = open_shards(tmp_path)
    asked = np.concatenate([other, keys[3:4], near])
    assert shards.missing(asked).tolist() == [True] * 5 + [False, True]
    assert shards.locate(asked)[0].tolist() == [-1] * 5 + [0, -1]
    assert shards.locate(asked)[1].tolist() == [-1] * 5 + [3, -1]
    with pytest.raises(InputError, match="6 of 7 vectors are not there"):
        shards.gather(asked)


def test_a_key_in_two_shards_means_the_first_by_name(tmp_path: Path) -> None:
    keys, rows = unit(4, 0)
    _, others = unit(4, 1)
    write_shard(tmp_path, "b", keys, others, REPORT)
    write_shard(tmp_path, "a", keys, rows, REPORT)
    assert np.array_equal(to_dense(open_shards(tmp_path).gather(keys)), to_dense(rows))


def test_no_folder_means_no_vectors(tmp_path: Path) -> None:
    keys, _ = unit(3, 0)
    shards = open_shards(tmp_path / "none")
    assert shards.missing(keys).all()
    assert len(shards) == 0
    assert len(shards.gather(keys[:0])) == 0


def test_units_without_rows_or_values_are_kept(tmp_path: Path) -> None:
    keys = np.arange(32, dtype=np.uint8).reshape(2, 16)
    write_shard(tmp_path, "empty", keys[:0], from_lists([], M), REPORT)
    write_shard(tmp_path, "silent", keys, from_lists([{}, {}], M), REPORT)
    found = open_shards(tmp_path).gather(keys)
    assert (len(found), found.n_latents, len(found.values)) == (2, M, 0)


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    keys, rows = unit(30, 0)
    for name in ("one", "two"):
        write_shard(tmp_path / name / "same", "a", keys, rows, REPORT)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_the_first_manifest_counts(tmp_path: Path) -> None:
    keys, rows = unit(10, 0)
    assert write_shard(tmp_path, "a", keys, rows, REPORT)
    before = digests(tmp_path)
    _, others = unit(10, 1)
    assert not write_shard(tmp_path, "a", keys, others, REPORT)
    assert digests(tmp_path) == before


def test_half_written_folders_are_ignored_and_old_ones_removed(tmp_path: Path) -> None:
    keys, rows = unit(10, 0)
    write_shard(tmp_path, "a", keys, rows, REPORT)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "keys.npy").write_bytes(b"half")
    for name in (".tmp-1-0-c", ".tmp-1-1-d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    old = time.time() - 7200
    for path in (tmp_path / ".tmp-1-0-c" / "manifest.json", tmp_path / ".tmp-1-0-c"):
        os.utime(path, (old, old))
    assert len(open_shards(tmp_path)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".tmp-1-1-d", "a", "b"]
    assert write_shard(tmp_path, "b", keys, rows, REPORT)  # replaces the half-written folder
    assert len(open_shards(tmp_path)) == 2


@pytest.mark.parametrize("name", ["keys.npy", "indptr.npy", "latents.npy", "values.npy"])
def test_an_altered_file_is_named(tmp_path: Path, name: str) -> None:
    keys, rows = unit(10, 0)
    write_shard(tmp_path, "a", keys, rows, REPORT)
    open_shards(tmp_path).verify()
    file = tmp_path / "a" / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=name):
        open_shards(tmp_path).verify()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=name):
        [(shard.rows(), shard.keys()) for shard in open_shards(tmp_path).shards]


def test_foreign_manifests_are_refused(tmp_path: Path) -> None:
    keys, rows = unit(10, 0)
    write_shard(tmp_path, "a", keys, rows, REPORT)
    file = tmp_path / "a" / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(InputError, match=r"`format`: this shard was written by another version"):
        open_shards(tmp_path)
    file.write_text(json.dumps(manifest | {"n_rows": "ten"}))
    with pytest.raises(InputError, match="not what was written"):
        open_shards(tmp_path)
    file.write_text(json.dumps(manifest | {"n_latents": M + 1}))
    write_shard(tmp_path, "b", keys, rows, REPORT)
    with pytest.raises(InputError, match="different numbers of latents"):
        open_shards(tmp_path)


def test_reports_of_units_add_up(tmp_path: Path) -> None:
    keys, rows = unit(10, 0)
    reduced = UnitReport(3, 30, 9, 0, 1, 0, 2.5, 0.0, 0.25, "reduced")
    write_shard(tmp_path, "a", keys, rows, REPORT)
    write_shard(tmp_path, "b", keys, rows, reduced)
    totals = open_shards(tmp_path).totals()
    assert (totals["n_tokens"], totals["mass"], totals["n_reduced"]) == (60, 5.0, 1)


def test_keys_and_rows_must_agree(tmp_path: Path) -> None:
    keys, rows = unit(10, 0)
    with pytest.raises(ValueError, match=r"expected \(10, 16\)"):
        write_shard(tmp_path, "a", keys[:9], rows, REPORT)
    keys[7] = keys[2]
    with pytest.raises(ValueError, match="two rows of one shard"):
        write_shard(tmp_path, "a", keys, rows, REPORT)
    assert list(tmp_path.iterdir()) == []


KILLED_WRITER = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from selection.core.sparse import from_lists
from storage.pools.shards import open_shards, write_shard

class Report:
    def as_record(self):
        return {"plan": "full"}

def write(folder):
    for number in range(20):
        keys = np.random.default_rng(number).integers(0, 256, (400, 16), dtype=np.uint8)
        rows = from_lists([{i % 40: i % 97 + 1} for i in range(400)], 40)
        write_shard(folder, f"unit-{number:02}", keys, rows, Report())

whole, killed = Path(sys.argv[1]), Path(sys.argv[2])
started = time.perf_counter()
write(whole)
seconds = time.perf_counter() - started
for share in np.random.default_rng(0).uniform(0.01, 0.2, 10):
    child = os.fork()
    if child == 0:
        write(killed)
        os._exit(0)
    time.sleep(share * seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    shards = open_shards(killed)
    shards.verify()
    print(len(shards))
write(killed)
"""


def test_a_killed_writer_leaves_whole_shards_or_none(tmp_path: Path) -> None:
    # One process that forks before torch is there: starting ten of them would take long.
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            KILLED_WRITER,
            *(str(tmp_path / n / "r") for n in ("whole", "killed")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    n_complete = [int(line) for line in done.stdout.split()]
    assert len(n_complete) == 10
    assert n_complete == sorted(n_complete)
    expected = digests(tmp_path / "whole" / "r")
    assert len(expected) == 20 * 5
    left = digests(tmp_path / "killed" / "r")
    assert {name: d for name, d in left.items() if not name.startswith(".tmp-")} == expected
