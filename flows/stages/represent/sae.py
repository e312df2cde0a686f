"""The SAE of a run: the given one, or one that is trained and then frozen."""

from pathlib import Path

from flows.config.jobs import VectorJob
from flows.orchestration.progress import stage
from flows.stages.prepare.render import ModelInput, sae_path
from flows.stages.represent.calibration import calibration_samples, measure_sae
from flows.stages.represent.devices import claim_device
from flows.stages.session import Session
from selection.activations.model import load_activation_model
from selection.core.hashing import content_id
from selection.models.hookpoints import canonical
from selection.sae.formats.find import family_of
from selection.sae.formats.save import save_trained
from selection.sae.training.batches import train_on_samples
from selection.sae.training.settings import TrainSettings
from selection.sae.training.train import steps_done
from selection.sae.vocabulary import write_vocabulary
from storage.files.leases import run_once


def trained_folder(
    settings: TrainSettings, config: VectorJob, home: Path, model_input: ModelInput
) -> Path:
    """Where the SAE of these settings lives; its name does not depend on the pool."""
    identity = {
        "train": settings.identity(),
        "model": model_input.model.weights_sha256,
        "hookpoint": str(model_input.hookpoint),
        "counted": config.rendering.counted,
        "template": config.rendering.template,
        "dtype": config.model.dtype,
    }
    return home / content_id(identity) / hookpoint_name(model_input)


def existing_sae(session: Session) -> str | None:
    """Path of the config's SAE; None for one that is still to be trained."""
    config = session.config
    if config.sae.train is None:
        return sae_path(config)
    folder = trained_folder(config.sae.train, config, session.workspace.saes, session.model_input)
    return None if family_of(folder) is None else str(folder)


def ensure_sae(session: Session, pool_id: str) -> str:
    """Path of the SAE that the config names or asks to train; none is trained twice."""
    config, workspace, settings = session.config, session.workspace, session.config.sae.train
    if settings is None:
        return session.given_sae.path
    folder = trained_folder(settings, config, workspace.saes, session.model_input)
    if family_of(folder) is None:
        claim_device(config.model.device)
    run_once(
        workspace.leases,
        f"sae-{folder.parent.name[:24]}",
        lambda: family_of(folder) is not None,
        lambda: _train(settings, folder, session, pool_id),
    )
    return str(folder)


def _train(settings: TrainSettings, folder: Path, session: Session, pool_id: str) -> None:
    config, model_input = session.config, session.model_input
    if settings.architecture == "vocabulary":
        with stage("vocabulary") as handle:
            write_vocabulary(
                model_input.model, model_input.hookpoint, settings.k, folder, model_input.renderer
            )
            handle.detail = f"the model's tokens by logit lens at {model_input.hookpoint}"
        return
    # Packed and shared as the device's default says: how a pool is cut must not change an SAE.
    model = load_activation_model(
        model_input.model,
        model_input.hookpoint,
        device=config.model.device,
        dtype=config.model.dtype,
        threads=config.compute.threads,
        checks=session.workspace.model_checks,
    )
    checkpoint, rendered = folder.parent / "training.pt", session.rendered(pool_id)
    with stage("train sae", settings.n_steps, "steps") as handle:
        handle.advance(steps_done(checkpoint))
        coder, report = train_on_samples(
            model, rendered.samples, rendered.n_counted(), settings, checkpoint, handle.advance
        )
        handle.detail = f"FVU {report.fvu:.3f}, L0 {report.l0:.1f}, dead {report.dead_share:.1%}"
    resolved = model_input.model
    coder = coder.trained_on(resolved.name, resolved.weights_sha256, hookpoint_name(model_input))
    samples = calibration_samples(config, resolved)
    quality = measure_sae(
        coder, model, samples, config.compute.tokens_per_batch, model_input.hookpoint
    )
    save_trained(coder, folder, {"training": report.as_record(), "quality": quality.as_record()})
    checkpoint.unlink(missing_ok=True)  # three times the weights, and of no use any more


def hookpoint_name(model_input: ModelInput) -> str:
    """As the SAE records it: "layers.4" for the residual stream, "mlp@4" for others."""
    return canonical(str(model_input.hookpoint)) or str(model_input.hookpoint)
