"""Rendering: the model's tokenizer and template turn examples into tokens, kept per pool.

No weights are loaded here; a wrong model, hookpoint or SAE is refused early.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pyarrow as pa

from flows.config.base import DEMO
from flows.config.jobs import VectorJob
from flows.orchestration.progress import stage
from flows.stages.prepare.inputs import packaged
from selection.core.errors import InputError
from selection.core.hashing import file_sha256
from selection.data.samples import conversations_of
from selection.models.hookpoints import Hookpoint, parse_hookpoint
from selection.models.resolve import ResolvedModel, resolve_model
from selection.records import Rendered
from selection.rendering.renderer import Renderer, renderer_for
from selection.sae.compatibility import check_fits, no_hookpoint, trained_at
from selection.sae.formats.find import list_local_saes
from selection.sae.formats.load import read_sae_info
from storage.files.atomic import is_complete
from storage.files.leases import run_once
from storage.files.workspace import Workspace
from storage.pools.pool import PreparedPool
from storage.pools.renderings import RenderedPool, open_rendering, rows_done, write_rendering


@dataclass(frozen=True)
class ModelInput:
    """What is known of a model without its weights: files, hookpoint, how text becomes tokens."""

    model: ResolvedModel
    hookpoint: Hookpoint
    renderer: Renderer


def open_model_input(
    config: VectorJob, hash_file: Callable[[Path], str] = file_sha256
) -> ModelInput:
    """Resolve the model and its hookpoint and load the tokenizer; no weights are loaded.

    hash_file: SHA-256 of a weight file.
    """
    options = config.model
    name = packaged(f"{DEMO}:model") if options.name == DEMO else options.name
    model = resolve_model(
        name,
        options.revision,
        options.trust_remote_code,
        hash_file,
        options.adapter,
        options.gguf_file,
    )
    renderer = renderer_of(config, model, config.rendering.max_length)
    return ModelInput(model, own_hookpoint(config, model), renderer)


def own_hookpoint(config: VectorJob, model: ResolvedModel) -> Hookpoint:
    """The config's hookpoint; where it names none, the one that its SAE was trained on."""
    if config.model.hookpoint:
        return parse_hookpoint(config.model.hookpoint, model.n_layers)
    sae = None if config.sae.train else sae_path(config)
    return _hookpoint_of(sae, model, trust_model=config.sae.trust_model)


def renderer_of(config: VectorJob, model: ResolvedModel, max_length: int) -> Renderer:
    """The tokenizer and template with the config's rules, cut at `max_length` tokens."""
    options = config.rendering
    return renderer_for(
        model,
        max_length=max_length,
        template=options.template,
        counted=options.counted,
        truncation=options.truncation,
    )


def sae_path(config: VectorJob) -> str:
    """Where the config's SAE is; the packaged one for `demo`."""
    path = config.sae.path or ""
    return str(DEMO_SAES) if path == DEMO else path


_SPACE = "representation.spaces[]."  # section of a config with further SAEs

DEMO_SAES = Path(str(files("flows") / "demo" / "sae"))
"""Folder of the packaged SAE, which lies in a folder named after its hookpoint."""


def _hookpoint_of(
    sae: str | None,
    model: ResolvedModel,
    section: str = "",
    own: str = "model.",
    trust_model: bool = False,
) -> Hookpoint:
    """Where an existing SAE was trained. Raises InputError where it does not fit the model.

    section, own: where in the config the SAE and its hookpoint are named.
    """
    if sae is None:
        raise no_hookpoint(f"{own}hookpoint")
    info = read_sae_info(sae, local=[DEMO_SAES], model=model)
    known = list_local_saes([DEMO_SAES])
    check_fits(info, model, None, known, field=f"{section}sae", trust_model=trust_model)
    return trained_at(info, f"{own}hookpoint")


def hookpoints_of(config: VectorJob, model_input: ModelInput) -> list[Hookpoint]:
    """Everywhere the run reads the model: its own hookpoint and those of other SAEs it joins.

    Shallow ones first. Raises InputError for an SAE that does not say where it was trained or
    that was trained on another model.
    """
    hookpoints, trust = {model_input.hookpoint}, config.sae.trust_model
    for space in config.representation.spaces:
        if space.sae is not None and space.hookpoint:
            hookpoints.add(parse_hookpoint(space.hookpoint, model_input.model.n_layers))
        elif space.sae is not None:
            hookpoints.add(_hookpoint_of(space.sae, model_input.model, _SPACE, _SPACE, trust))
    return sorted(hookpoints, key=lambda hookpoint: (hookpoint.block, hookpoint.site))


def rendering_folder(workspace: Workspace, pool_id: str, renderer: Renderer) -> Path:
    """Where the tokens of a pool are kept."""
    return workspace.pools / pool_id / "renderings" / renderer.rendering_id


def render(workspace: Workspace, pool: PreparedPool, model_input: ModelInput) -> RenderedPool:
    """Tokens of every example of the pool, kept in the workspace; reused where complete."""
    folder = rendering_folder(workspace, pool.pool_id, model_input.renderer)
    with stage("render", pool.n_examples, "examples") as handle:

        def batches() -> Iterator[list[Rendered]]:
            first = rows_done(folder)
            handle.advance(first)
            for batch in pool.iter_examples(first):
                yield render_rows(model_input.renderer, batch)
                handle.advance(batch.num_rows)

        run_once(
            workspace.leases,
            f"render-{pool.pool_id[:12]}-{folder.name[:12]}",
            lambda: is_complete(folder),
            lambda: write_rendering(folder, batches(), model_input.renderer.settings),
        )
        rendered = open_rendering(folder)
        totals = rendered.totals
        handle.detail = (
            f"{totals['n_tokens']:,} tokens, {totals['n_counted']:,} counted, "
            f"{totals['n_truncated']:,} examples truncated at"
            f" {model_input.renderer.settings['max_length']:,}{_fallbacks(model_input.renderer)}"
        )
    _refuse_uncounted(rendered, int(model_input.renderer.settings["max_length"]))
    return rendered


def _refuse_uncounted(rendered: RenderedPool, max_length: int) -> None:
    """Raise InputError where no token of the whole pool counts, so that nothing has a vector."""
    if rendered.n_usable or not len(rendered):
        return
    n_lost = rendered.totals["n_response_lost"]
    cut = f", and {n_lost:,} responses lie behind the cut" if n_lost else ""
    raise InputError(
        f"no token of the pool's {len(rendered):,} examples counts{cut}",
        field="rendering.max_length" if n_lost else "rendering.counted",
        value=max_length if n_lost else None,
        remedy="Raise it, or set `truncation: keep_response`." if n_lost else "Set `counted: all`.",
    )


def _fallbacks(renderer: Renderer) -> str:
    """How many samples the chat template refused; they were rendered another way."""
    words = {"simplified": "simplified for the template", "plain": "without the template"}
    return "".join(
        f", {renderer.counts[kind]:,} {text}"
        for kind, text in words.items()
        if renderer.counts[kind]
    )


def render_rows(renderer: Renderer, rows: pa.RecordBatch | pa.Table) -> list[Rendered]:
    """Render rows that hold `messages` and `tools` as JSON."""
    return renderer.render_batch(conversations_of(rows))
