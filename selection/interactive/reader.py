"""A language model with its SAE, ready to turn samples into vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from selection.activations.loading import find_device
from selection.activations.model import (
    ActivationModel,
    Packing,
    chosen_dtype,
    load_activation_model,
)
from selection.models.hookpoints import Hookpoint, parse_hookpoint
from selection.models.resolve import ResolvedModel, resolve_model
from selection.records import Rendered
from selection.rendering.renderer import Renderer, renderer_for
from selection.representation.aggregate import TokenAggregate
from selection.representation.heads import Head
from selection.representation.represent import (
    CALIBRATION_MAX_LENGTH,
    Calibration,
    calibrate_head,
    calibration_conversations,
    representation_id,
)
from selection.sae.coder import SparseCoder
from selection.sae.compatibility import check_fits, trained_at
from selection.sae.formats.load import load_sae, read_sae_info

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parents[2] / "flows" / "demo"
"""Package data: a small model, its SAE, a pool and exemplars."""


@dataclass(frozen=True)
class ReaderSettings:
    """How a model reads samples; names and defaults are those of the config.

    max_length:       tokens of a sample, template included.
    counted:          which content tokens enter the vector: all, response, prompt,
                      all_and_template, every_token.
    truncation:       what is cut from a longer sample: end, start, keep_response.
    token_aggregate:  token latents to one vector: mean, sum, max.
    keep_top:         largest latents kept per sample; None keeps all.
    max_norm_ratio:   tokens whose activation norm is this many times the median are left out.
    drop_ever_present: latents on in more than this share of the calibration texts are left out.
    tokens_per_batch, unit_examples: how the forward passes are cut; last bits depend on it.
    checks:           folder that keeps how a model is to be run, which is found by comparing it
                      with the plain one; None compares anew in every session.
    """

    template: str = "auto"
    counted: str = "all"
    max_length: int = 2048
    truncation: str = "end"
    token_aggregate: TokenAggregate = "mean"
    keep_top: int | None = None
    max_norm_ratio: float | None = 10.0
    drop_ever_present: float | None = None
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    tokens_per_batch: int | None = None
    unit_examples: int = 2048
    packing: Packing = "auto"
    share_prefixes: bool = True
    checks: str | Path | None = None


@dataclass(frozen=True, eq=False)
class Reader:
    """A model and its SAE at one hookpoint; weights are loaded when first needed.

    Made by `selection.api.load_model`.
    """

    model: ResolvedModel
    hookpoint: Hookpoint
    coder: SparseCoder
    renderer: Renderer
    settings: ReaderSettings = field(default_factory=ReaderSettings)

    def __repr__(self) -> str:
        """The model (of a folder, its last part), where it is read, and the size of its SAE."""
        name = self.model.name
        return (
            f"Reader({Path(name).name if Path(name).is_absolute() else name!r} at {self.hookpoint},"
            f" {self.coder.info.num_latents:,} latents)"
        )

    @cached_property
    def activations(self) -> ActivationModel:
        """The model cut off above the hookpoint, with its weights."""
        options = self.settings
        with TemporaryDirectory() as temp:
            return load_activation_model(
                self.model,
                [self.hookpoint],
                device=options.device,
                dtype=options.dtype,
                threads=options.threads,
                packing=options.packing,
                share_prefixes=options.share_prefixes,
                checks=Path(options.checks or temp),
            )

    @cached_property
    def calibration(self) -> Calibration:
        """The fixed-point unit, measured on the packaged texts."""
        options = self.settings
        renderer = _renderer(self.model, options, CALIBRATION_MAX_LENGTH)
        samples = renderer.render_batch(calibration_conversations())
        return calibrate_head(
            samples,
            self.activations,
            Head(self.hookpoint, self.coder, options.token_aggregate),
            tokens_per_batch=options.tokens_per_batch,
            max_norm_ratio=options.max_norm_ratio,
            ever_present_share=options.drop_ever_present,
        )

    @cached_property
    def head(self) -> Head:
        """How activations become vectors."""
        options, known = self.settings, self.calibration
        ratio = options.max_norm_ratio
        return Head(
            self.hookpoint,
            self.coder.to(self.activations.device),
            options.token_aggregate,
            known.unit,
            options.keep_top,
            None if ratio is None else ratio * known.median_norm,
            np.array(known.ever_present, np.int32),
        )

    @cached_property
    def representation_id(self) -> str:
        """16 hex digits that name everything that decides a vector besides the tokens."""
        options = self.settings
        return representation_id(
            model_sha256=self.model.weights_sha256,
            hookpoint=str(self.hookpoint),
            sae_id=self.coder.info.sae_id,
            token_aggregate=options.token_aggregate,
            keep_top=options.keep_top,
            unit=self.head.unit,
            dtype=chosen_dtype(find_device(options.device), options.dtype),
            limits={
                "largest_norm": self.head.max_norm,
                "excluded": list(self.calibration.ever_present),
            },
        )

    def render(self, conversations: Sequence[tuple[Any, Any]]) -> list[Rendered]:
        """Messages and tools as the tokens that the model reads."""
        return self.renderer.render_batch(conversations)


ModelName = str | Mapping[str, Any]
"""Folder or hub name; or that as `name`, with further arguments of `resolve_model`."""


def open_model(name: ModelName, max_length: int) -> tuple[ResolvedModel, Renderer]:
    """A model's files and sizes, and its tokenizer and template; no weights are loaded."""
    model = _resolved(name)
    return model, _renderer(model, ReaderSettings(), max_length)


def open_reader(
    name: ModelName, sae: str, hookpoint: str | None, settings: ReaderSettings, trust_model: bool
) -> Reader:
    """A model folder or hub name with an SAE of a known format. Raises InputError."""
    model = _resolved(name)
    path = str(DEMO_FOLDER / "sae") if sae == DEMO else sae
    info = read_sae_info(path, local=[DEMO_FOLDER / "sae"], model=model)
    point = parse_hookpoint(hookpoint, model.n_layers) if hookpoint else trained_at(info)
    check_fits(info, model, point, [], field="sae", trust_model=trust_model)
    renderer = _renderer(model, settings, settings.max_length)
    return Reader(model, point, load_sae(path), renderer, settings)


def _resolved(name: ModelName) -> ResolvedModel:
    options = {"name": name} if isinstance(name, str) else dict(name)
    given = options.pop("name", DEMO)
    return resolve_model(str(DEMO_FOLDER / "model") if given == DEMO else given, **options)


def _renderer(model: ResolvedModel, settings: ReaderSettings, max_length: int) -> Renderer:
    return renderer_for(
        model,
        max_length=max_length,
        template=settings.template,
        counted=settings.counted,
        truncation=settings.truncation,
    )
