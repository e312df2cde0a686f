"""What a run opens of its config, once per process: model files, tokenizer, SAEs and exemplars.

The tasks of a run share the session that `open_session` keeps open around them; its key is the
config and the workspace. A task in another process opens one of its own. Model weights and SAE
weights are read when something is computed that no file holds, and not before.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from flows.config.jobs import SelectConfig, VectorJob
from flows.stages.prepare.inputs import eligible_examples, read_targets
from flows.stages.prepare.render import (
    DEMO_SAES,
    ModelInput,
    open_model_input,
    render_rows,
    rendering_folder,
    sae_path,
)
from selection.data.coverage import ReadReport
from selection.picking.eligibility import Eligibility
from selection.records import Rendered
from selection.sae.coder import SparseCoder, scaled_by_decoder_norm
from selection.sae.compatibility import check_fits
from selection.sae.formats.find import hashed_files, list_local_saes
from selection.sae.formats.load import load_sae, read_sae_info
from selection.sae.metadata import SaeInfo
from storage.files.hashes import FileHashes
from storage.files.in_use import in_use
from storage.files.workspace import Workspace
from storage.pools.pool import PreparedPool, open_pool
from storage.pools.renderings import RenderedPool, open_rendering

T = TypeVar("T")


@dataclass(eq=False)
class OpenedSae:
    """An SAE of a run; its weights are read at first use.

    path:  as given, a folder, file or hub name. scale: `sae.scale` of the config.
    local: folders whose SAEs are listed where this one is missing.
    """

    path: str
    scale: str
    hashes: FileHashes
    local: tuple[Path, ...] = ()

    @cached_property
    def info(self) -> SaeInfo:
        """Its description with the content hash, for which weights are read once in a workspace."""
        described = read_sae_info(self.path, local=self.local)
        kind, files = f"sae {self.scale}", hashed_files(Path(described.path))
        sha256 = self.hashes.remember(kind, files, lambda: str(self.coder.info.sha256))
        return replace(described, sha256=sha256)

    @cached_property
    def coder(self) -> SparseCoder:
        """The SAE with its weights, on the CPU."""
        coder = load_sae(self.path, local=self.local)
        return scaled_by_decoder_norm(coder) if self.scale == "decoder_norm" else coder


@dataclass(eq=False)
class Session:
    """Everything that a run opens once.

    hashes:  of weights and pool files, as they are remembered.
    exemplars: target -> table, instead of those in the config's file.
    """

    config: VectorJob
    workspace: Workspace
    hashes: FileHashes
    exemplars: Mapping[str, pa.Table] | None = None
    _kept: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned when this key was asked for first."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept

    @cached_property
    def model_input(self) -> ModelInput:
        """The model's files, hookpoint and tokenizer."""
        return open_model_input(self.config, self.hashes.sha256)

    @cached_property
    def targets(self) -> Mapping[str, pa.Table]:
        """Target -> its exemplars; none for a job without exemplars."""
        config = self.config
        if self.exemplars is not None:
            return self.exemplars
        if not isinstance(config, SelectConfig):
            return {}
        return read_targets(config.exemplars, self.exemplar_report)

    @cached_property
    def exemplar_report(self) -> ReadReport:
        """What was read of the exemplars' file and what was not, once `targets` were read."""
        return ReadReport()

    @cached_property
    def given_sae(self) -> OpenedSae:
        """The config's existing SAE. Raises InputError where it is missing or of another model."""
        folders, model_input = (self.workspace.saes, DEMO_SAES), self.model_input
        sae = self.sae(sae_path(self.config), folders)
        hookpoint = self.config.model.hookpoint or ""
        known = list_local_saes(folders)
        check_fits(
            sae.info,
            model_input.model,
            model_input.hookpoint,
            known,
            written=hookpoint,
            trust_model=self.config.sae.trust_model,
        )
        return sae

    def sae(self, path: str, local: tuple[Path, ...] = ()) -> OpenedSae:
        """An SAE of the run, given or trained, under the config's scale."""
        scale = self.config.sae.scale
        return self.once(("sae", path), lambda: OpenedSae(path, scale, self.hashes, local))

    def samples(self, table: pa.Table) -> list[Rendered]:
        """Exemplars of one target as the model reads them, rendered once per table."""
        renderer = self.model_input.renderer  # the table is kept too, so that its id stays its own
        key = ("samples", id(table))
        return self.once(key, lambda: (table, render_rows(renderer, table)))[1]

    def rendered(self, pool_id: str) -> RenderedPool:
        """The tokens of a pool that was rendered before."""
        folder = rendering_folder(self.workspace, pool_id, self.model_input.renderer)
        return self.once(("rendered", pool_id), lambda: open_rendering(folder))

    def pool(self, pool_id: str) -> PreparedPool:
        """A pool that was prepared before."""
        return open_pool(self.workspace.pools / pool_id)

    def eligibility(self, pool_id: str) -> Eligibility:
        """Examples of the pool that may be ranked. Raises InputError where too few are left."""
        config, pool = self.config, self.pool(pool_id)
        assert isinstance(config, SelectConfig)
        return self.once(
            ("eligible", pool_id), lambda: eligible_examples(config, pool, self.targets)
        )


_open: dict[tuple[str, Path], Session] = {}


@contextmanager
def open_session(config: VectorJob, workspace: Workspace) -> Iterator[Session]:
    """Keep a session open, which `session_of` returns for equal configs within the block."""
    key = _key(config, workspace)
    if key in _open:
        yield _open[key]
        return
    if workspace.forget_journal.exists():
        from storage.audit.forget import finish

        finish(workspace)
    with in_use(workspace):
        _open[key] = _new(config, workspace)
        try:
            yield _open[key]
        finally:
            _open.pop(key, None)


def session_of(config: VectorJob, workspace: Workspace) -> Session:
    """The open session of this config and workspace, else a new one."""
    return _open.get(_key(config, workspace)) or _new(config, workspace)


def _new(config: VectorJob, workspace: Workspace) -> Session:
    return Session(config, workspace, FileHashes(workspace.file_hashes))


def _key(config: VectorJob, workspace: Workspace) -> tuple[str, Path]:
    return config.model_dump_json(), workspace.root.resolve()
