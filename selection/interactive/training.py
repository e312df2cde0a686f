"""An SAE trained on a model's activations over samples in memory."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm.auto import tqdm

from selection.activations.model import load_activation_model
from selection.data.samples import Samples
from selection.interactive.reader import ModelName, open_model
from selection.models.hookpoints import canonical, parse_hookpoint
from selection.sae.formats.save import save_trained
from selection.sae.training.batches import train_on_samples
from selection.sae.training.settings import TrainSettings
from selection.sae.training.train import steps_done
from selection.sae.vocabulary import write_vocabulary


def train_in_memory(
    samples: Samples,
    name: ModelName,
    folder: Path,
    hookpoint: str,
    max_length: int,
    settings: TrainSettings,
    progress: bool,
) -> Path:
    """The folder of the finished SAE, named after its hookpoint. See `selection.api.train_sae`."""
    resolved, renderer = open_model(name, max_length)
    parsed = parse_hookpoint(hookpoint, resolved.n_layers)
    spelled = canonical(str(parsed)) or str(parsed)
    if settings.architecture == "vocabulary":
        write_vocabulary(resolved, parsed, settings.k, folder / spelled, renderer)
        return folder / spelled
    rendered = renderer.render_batch(list(samples.conversations()))
    n_content = np.array([int(each.content_mask.sum()) for each in rendered], np.int64)
    with TemporaryDirectory() as checks:
        model = load_activation_model(resolved, parsed, checks=Path(checks))
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "training.pt"
    done = steps_done(checkpoint)
    with tqdm(total=settings.n_steps, initial=done, desc="train SAE", disable=not progress) as bar:
        coder, report = train_on_samples(
            model,
            lambda rows: [rendered[row] for row in rows],
            n_content,
            settings,
            checkpoint,
            bar.update,
        )
    coder = coder.trained_on(resolved.name, resolved.weights_sha256, spelled)
    save_trained(coder, folder / spelled, {"training": report.as_record()})
    checkpoint.unlink(missing_ok=True)
    return folder / spelled
