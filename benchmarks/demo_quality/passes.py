"""A pass of a model over a labelled pool: units of rows, one file each, resumable at any moment.

The rows of the sub-pool come first, in order of the file, then all others; a unit never holds both,
so that the sub-pool's vectors are some of the pool's files and not a second pass.
"""

import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from benchmarks.demo_quality.labels import BenchPool
from benchmarks.demo_quality.reading import BlockReader, calibrated_units
from selection.hub import TOKENIZER_FILES
from selection.ids import content_id
from selection.labelled import Setting, Target
from selection.models import Hookpoint, ResolvedModel, resolve_model
from selection.sae.fit import check_fits
from selection.sae.formats import SparseCoder
from storage.files import read_json, temp_path, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PassSettings:
    """What decides a pass besides model and pool.

    dtype:            of the weights while they run, "float32" or "bfloat16".
    max_tokens:       where a chat is cut, BOS included.
    tokens_per_batch: padded tokens of a batch.
    unit_rows:        most rows of a unit.
    """

    dtype: str = "bfloat16"
    max_tokens: int = 256
    tokens_per_batch: int = 8192
    unit_rows: int = 2000


@dataclass(frozen=True, slots=True)
class Pass:
    """The files of a pass.

    folder:  where they are.
    units:   rows of each unit (positions in the pool), those of the sub-pool first.
    n_small: how many units are the sub-pool.
    n_blocks, block: of the model, and the hookpoint's.
    """

    folder: Path
    units: tuple[NDArray[np.int64], ...]
    n_small: int
    n_blocks: int
    block: int

    def file(self, unit: int) -> Path:
        """The file of a unit."""
        return self.folder / f"unit-{unit:05d}.npz"

    @property
    def exemplars(self) -> Path:
        """The file of all targets' exemplars, one after the other."""
        return self.folder / "exemplars.npz"

    def parts(self, small: bool) -> list[tuple[NDArray[np.int64], Path]]:
        """(rows, file) of every unit, or of the sub-pool's units."""
        chosen = self.units[: self.n_small] if small else self.units
        return [(rows, self.file(number)) for number, rows in enumerate(chosen)]


def work_units(
    in_subpool: NDArray[np.bool_], unit_rows: int
) -> tuple[list[NDArray[np.int64]], int]:
    """Units of a pool, and how many of the first ones are its sub-pool."""
    found = [
        [rows[i : i + unit_rows] for i in range(0, len(rows), unit_rows)]
        for rows in (np.flatnonzero(in_subpool), np.flatnonzero(~in_subpool))
    ]
    return found[0] + found[1], len(found[0])


def run_pass(
    pool: BenchPool,
    targets: Sequence[Target],
    setting: Setting,
    resolved: ResolvedModel,
    block: int,
    coder: SparseCoder | None,
    settings: PassSettings,
    state: Path,
    *,
    small: bool,
) -> Pass:
    """Read what is not there yet: all units, or those of the sub-pool. Returns the files."""
    key = {
        "pool": pool.pool_id,
        "exemplars": content_id([target.exemplars for target in targets]),
        "setting": setting,
        "model": resolved.weights_sha256,
        "block": block,
        "sae": None if coder is None else coder.info.sae_id,
        **asdict(settings),
    }
    units, n_small = work_units(pool.in_subpool, settings.unit_rows)
    folder = state / f"pass-{content_id(key)}"
    found = Pass(folder, tuple(units), n_small, resolved.n_layers, block)
    waiting = [n for n in range(n_small if small else len(units)) if not found.file(n).exists()]
    if not waiting and found.exemplars.exists():
        return found
    write_json(folder / "pass.json", key)
    reader = BlockReader(
        resolved,
        block,
        coder,
        _units(resolved, block, coder, settings, folder / "units.json"),
        dtype=settings.dtype,
        max_tokens=min(settings.max_tokens, resolved.max_positions or settings.max_tokens),
        tokens_per_batch=settings.tokens_per_batch,
    )
    if not found.exemplars.exists():
        turns = [pair for target in targets for pair in target.turns(setting)]
        reader.read(turns).save(found.exemplars)
    started = time.monotonic()
    for done, number in enumerate(waiting, 1):
        reader.read(pool.labelled.turns_at(units[number], setting)).save(found.file(number))
        minutes = (time.monotonic() - started) / 60
        log.info(
            "%s, %s: unit %d of %d, %.1f minutes, %.1f to go",
            Path(resolved.name).name,
            setting,
            number + 1,
            len(units),
            minutes,
            minutes / done * (len(waiting) - done),
        )
    return found


def _units(
    resolved: ResolvedModel,
    block: int,
    coder: SparseCoder | None,
    settings: PassSettings,
    file: Path,
) -> dict[str, float]:
    """Fixed-point units by aggregate, calibrated once; none without an SAE."""
    if coder is None:
        return {}
    check_fits(coder.info, resolved, Hookpoint("resid", block))
    if not file.exists():
        found = calibrated_units(
            resolved,
            block,
            coder,
            dtype=settings.dtype,
            tokens_per_batch=settings.tokens_per_batch,
        )
        write_json(file, found)
    return {how: float(str(unit)) for how, unit in read_json(file).items()}


def random_model(resolved: ResolvedModel, seed: int, state: Path) -> ResolvedModel:
    """The same architecture and tokenizer with seeded random weights, kept in the state folder."""
    folder = state / f"random-{content_id([resolved.weights_sha256, seed])}"
    if not folder.exists():
        config = AutoConfig.from_pretrained(resolved.path, local_files_only=True)
        torch.manual_seed(seed)
        disable_progress_bar()
        temp = temp_path(folder)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(temp)
        for name in (*TOKENIZER_FILES, "chat_template.jinja"):
            for source in resolved.path.glob(name):
                if not (temp / source.name).exists():
                    shutil.copyfile(source, temp / source.name)
        os.replace(temp, folder)
    return resolve_model(folder)
