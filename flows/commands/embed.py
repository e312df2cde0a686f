"""`saelect embed`: the vectors of a config's pool, by one process or many, on one host or many."""

import json
from collections.abc import Mapping
from pathlib import Path

from flows.commands.terminal import say
from flows.config.file import load_config
from flows.progress import for_terminal, listening
from flows.resuming import RESUME_ME, Terminated, ending_on_sigterm
from storage.workspace import open_workspace


def run_embed(
    config_name: str, workspace: Path, workers: int | None, overrides: Mapping[str, object]
) -> int:
    """Prepare, tokenize and embed; returns the exit code. No Prefect, no selection.

    Hosts that start together wait for the first one to prepare, then share the units.
    """
    from flows.stages.inputs import prepare
    from flows.stages.reading import open_reader, render
    from flows.stages.sae import ensure_sae
    from flows.stages.workers import embed_by_workers

    chosen = {} if workers is None else {"compute.workers": str(workers)}
    config, place = load_config(config_name, {**overrides, **chosen}), open_workspace(workspace)
    try:
        with ending_on_sigterm(), listening(for_terminal()):
            pool, reader = prepare(config, place), open_reader(config)
            sae = str(ensure_sae(config, place, reader, render(place, pool, reader)))
            representer, counts = embed_by_workers(config, place, pool.pool_id, sae)
    except Terminated:
        say(f"Stopped; finished units are kept. The same command goes on (exit code {RESUME_ME}).")
        return RESUME_ME
    say(json.dumps({"representation": representer.representation_id, **counts}))
    return 0
