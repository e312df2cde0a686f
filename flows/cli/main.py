"""The command `saelect`. Each command imports what it needs, so that light ones start at once."""

import atexit
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import audit
from flows.cli.options import (
    DEFAULT_WORKSPACE,
    ConfigArgument,
    ExampleArgument,
    SetOption,
    WorkspaceOption,
    parse_overrides,
)
from flows.cli.reading import catalog, exports
from flows.cli.reading.report import report
from flows.orchestration.signals import EX_TEMPFAIL, Terminated, ending_on_sigterm
from selection.core.errors import InputError
from selection.core.printable import printable
from selection.core.redaction import without_secrets

app = typer.Typer(
    name="saelect",
    help="Pick the few percent of an instruction pool that make a model better at a target task."
    "\n\nStart with `saelect demo`, then `saelect init --pool P --exemplars E`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; a user's mistake becomes a sentence and exit code 2."""
    status = {"code": 1}
    # Registered before anything else, so it runs after every other exit handler. Prefect leaves
    # daemon threads behind, and with those alive DuckDB's bindings print lists of "leaks" at exit.
    atexit.register(_hard_exit, status)
    try:
        status["code"] = _run()
    except SystemExit as stop:
        status["code"] = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    raise SystemExit(status["code"])


def _run() -> int:
    try:
        with ending_on_sigterm():
            app(standalone_mode=True)
    except Terminated:
        sys.stderr.write("\nsaelect: ended by SIGTERM; the same command resumes where it was.\n")
        return EX_TEMPFAIL
    except InputError as error:
        sys.stderr.write(f"saelect: {printable(without_secrets(str(error)))}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\nsaelect: stopped; the same command resumes where it was.\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _hard_exit(status: dict[str, int]) -> None:
    """End the process at once if Prefect or DuckDB was used, whose threads may still run."""
    if "prefect" in sys.modules or "duckdb" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status["code"])


@app.command()
def demo(
    target: Annotated[
        str | None, typer.Option(help="One target task, such as sql; all six without it.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Run the main job on the packaged model and pool, offline, in about a minute."""
    from flows.cli.run import run_demo

    run_demo(workspace, target)


@app.command()
def init(
    pool: Annotated[str, typer.Option(help="File, folder, glob or Hugging Face dataset.")],
    exemplars: Annotated[str, typer.Option(help="Examples of the target task, or a targets file.")],
    out: Annotated[Path, typer.Option(help="Where the config is written.")] = Path("select.yaml"),
    model: Annotated[str, typer.Option(help="Model to represent with, or `demo`.")] = "demo",
    sae: Annotated[str, typer.Option(help="SAE checkpoint, or `demo`.")] = "demo",
    force: Annotated[bool, typer.Option(help="Replace an existing config.")] = False,
) -> None:
    """Inspect pool and exemplars, and write a short commented config for them."""
    from flows.cli.init import init_config

    init_config(pool, exemplars, out, model=model, sae=sae, force=force)


@app.command()
def run(
    config: ConfigArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    sets: SetOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Estimate rows, tokens, disk and time without selecting."),
    ] = False,
) -> None:
    """Select: read, represent, rank, cut, record, export and report."""
    from flows.cli.run import run_config

    run_config(config, workspace, overrides=parse_overrides(sets), dry_run=dry_run)


@app.command()
def reproduce(
    run: Annotated[str, typer.Argument(help="Name or id of a run or selection, or `latest`.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="Compute vectors again and measure the agreement."),
    ] = False,
) -> None:
    """Repeat a recorded run from its recorded vectors, and compare bit by bit.

    Exit code 0: every decision and explanation is the same. 1: one differs. 2: it cannot be
    repeated, because pool, vectors, exemplars, model or SAE are missing or altered. With
    --from-scratch, agreement is reported and the code is 0.
    """
    from flows.cli.audit import reproduce_run

    reproduce_run(run, workspace, scratch=from_scratch)


@app.command()
def embed(
    config: ConfigArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    workers: Annotated[
        int | None, typer.Option(help="Processes on this host; default: compute.workers.", min=1)
    ] = None,
    sets: SetOption = None,
) -> None:
    """Compute the vectors that a config needs; may run on several hosts at once."""
    from flows.cli.run import run_embed

    run_embed(config, workspace, workers, parse_overrides(sets))


@app.command()
def neighbors(
    example: ExampleArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    n: Annotated[int, typer.Option("-n", help="How many.", min=1)] = 10,
    run_name: Annotated[str, typer.Option("--run", help="Run that names pool and model.")] = (
        "latest"
    ),
) -> None:
    """The nearest samples of the pool to a sample, by exact generalized Jaccard."""
    from flows.cli.reading.neighbors import print_neighbors

    print_neighbors(workspace, example, n, run_name)


@app.command()
def config(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
    preset: Annotated[str, typer.Option(help="Print a preset.")] = "",
) -> None:
    """List all config keys."""
    from flows.cli.init import print_config

    print_config(schema=schema, preset=preset)


@app.command(name="train-sae")
def train_sae(
    config: ConfigArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    sets: SetOption = None,
) -> None:
    """Train the config's SAE (`sae: {train: ...}`) on its pool; resumes from its checkpoint."""
    from flows.cli.saes import train_from_config

    train_from_config(config, workspace, parse_overrides(sets))


@app.command()
def describe(
    config: ConfigArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    samples: Annotated[int, typer.Option(help="Samples of the pool to read.", min=1)] = 2000,
    latent: Annotated[
        list[int] | None,
        typer.Option(
            "--latent", help="Latents to show (default: those most specific to a source)."
        ),
    ] = None,
    delphi: Annotated[
        Path | None,
        typer.Option(help="New folder for a cache of activations that EleutherAI's delphi reads."),
    ] = None,
    delphi_window: Annotated[
        int | None,
        typer.Option(help="Tokens per example in that cache (default: 32).", min=1, max=8192),
    ] = None,
    imported: Annotated[
        Path | None,
        typer.Option(
            "--import",
            help="Instead: explanations by others, a folder of delphi or an export of Neuronpedia.",
        ),
    ] = None,
    quality: Annotated[
        bool,
        typer.Option("--quality", help="Instead: how much of each target the latents carry."),
    ] = False,
) -> None:
    """Describe an SAE's latents without a language model: tokens, examples, lens, facets."""
    from flows.cli import saes

    others = {"--delphi": delphi, "--delphi-window": delphi_window, "--latent": latent}
    if imported is not None:
        saes.import_from_config(config, workspace, imported, {**others, "--quality": quality})
        return
    if quality:
        saes.refuse_beside("--quality", others)
        saes.measure_from_config(config, workspace)
        return
    saes.describe_from_config(config, workspace, samples, latent or [], delphi, delphi_window)


@app.command()
def models(
    model: Annotated[str | None, typer.Argument(help="Show only this model.")] = None,
    gpu: Annotated[float | None, typer.Option(help="Show only what fits in this many GB.")] = None,
    loaders: Annotated[bool, typer.Option("--loaders", help="List the SAE formats.")] = False,
    sae: Annotated[str, typer.Option(help="Show the conventions of this SAE.")] = "",
) -> None:
    """List models and SAEs that go together, and what they need."""
    from flows.cli.reading.models import print_card, print_loaders, print_models

    if sae:
        print_card(sae)
    elif loaders:
        print_loaders()
    else:
        print_models(model, gpu)


@app.command()
def serve(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    port: Annotated[int, typer.Option(help="Port of the pages.", min=1, max=65535)] = 4200,
    host: Annotated[
        str, typer.Option(help="Address to listen on; all but loopback need a password.")
    ] = "127.0.0.1",
    password: Annotated[
        str | None,
        typer.Option(
            envvar="SAELECT_PASSWORD",
            help="The user is `saelect`. Prefer the variable: other users can read arguments.",
        ),
    ] = None,
    runs: Annotated[int, typer.Option(help="Runs at the same time.", min=1)] = 2,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder that forms may name files of, beside this one and the workspace"
            " (repeatable)."
        ),
    ] = None,
) -> None:
    """Start Prefect's server and pages, a worker and the deployments; Ctrl-C stops all of it."""
    from flows.cli.serve import serve as start
    from flows.server.settings import ServerSettings
    from storage.files.workspace import open_workspace

    start(ServerSettings(open_workspace(workspace), host, port, password or None, runs, data or []))


bench_app = typer.Typer(help="Measure how well selection works.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")


@bench_app.command("retrieval")
def bench_retrieval(
    context: typer.Context,
    pool: Annotated[str, typer.Option(help="Labelled pool, one Parquet file.")],
    targets: Annotated[str, typer.Option(help="Target tasks with labels and exemplars.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    subpool: Annotated[str | None, typer.Option(help="File of ids: only these rows.")] = None,
    setting: Annotated[str, typer.Option(help="full, instance or both.")] = "both",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names, name:variant or YAML files, by comma (default: all but less, loss_drop)."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Model under test.")] = "demo",
    sae: Annotated[str, typer.Option(help="SAE under test.")] = "demo",
    hookpoint: Annotated[str, typer.Option(help="Default: where the SAE was trained.")] = "",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "auto",
    encoder: Annotated[str | None, typer.Option(help="Folder of a sentence encoder.")] = None,
    scores: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE with columns id, score and maybe target.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: one JSON object.")] = False,
) -> None:
    """Compare ranking methods on a labelled pool: nDCG, recall and more, with intervals."""
    from flows.benchmark.run import request_of
    from flows.cli.bench import bench_retrieval_command

    bench_retrieval_command(request_of(**_request(context)), workspace, as_json_line=as_json)


@bench_app.command("finetune")
def bench_finetune(
    context: typer.Context,
    pool: Annotated[str | None, typer.Option(help="Labelled pool, one Parquet file.")] = None,
    targets_file: Annotated[
        str | None, typer.Option(help="Target tasks with labels and exemplars.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    arms: Annotated[
        str | None,
        typer.Option(help="zero, random, length_matched, oracle, methods, selection:NAME."),
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="Their names, by comma (default: all with enough rows).")
    ] = None,
    budget_tokens: Annotated[
        str | None, typer.Option(help="Tokens to train on, by comma (default: 4000,12000).")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="How many: of drawn rows and of the order (default: 2).")
    ] = None,
    trainee: Annotated[str, typer.Option(help="Causal model: a folder, or `demo`.")] = "demo",
    tune: Annotated[str, typer.Option(help="full, last:N (blocks) or lora:RANK.")] = "full",
    learning_rate: Annotated[float | None, typer.Option(help="Highest (default: 3e-4).")] = None,
    hours: Annotated[float | None, typer.Option(help="Begin no run after so many hours.")] = None,
    exclude: Annotated[
        str | None, typer.Option(help="File of ids: rows that the trainee has seen.")
    ] = None,
    subpool: Annotated[str | None, typer.Option(help="File of ids: only these rows.")] = None,
    setting: Annotated[str, typer.Option(help="full or instance.")] = "full",
    held_out: Annotated[
        int | None, typer.Option(help="Rows that measure each target (default: 100).")
    ] = None,
    scores: Annotated[
        list[str] | None, typer.Option(help="ARM=FILE with columns id, score and maybe target.")
    ] = None,
    model: Annotated[str, typer.Option(help="Model that methods read.")] = "demo",
    sae: Annotated[str, typer.Option(help="SAE that `best` and `paper` read.")] = "demo",
    quick: Annotated[
        bool, typer.Option("--quick", help="Two targets of the packaged pool, a small budget.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: one JSON object.")] = False,
) -> None:
    """Train a model on what each method picks; say with intervals which made it better."""
    from flows.cli.bench import bench_finetune_command

    bench_finetune_command(_request(context), workspace, quick=quick, as_json_line=as_json)


def _request(context: typer.Context) -> dict[str, object]:
    """The options of a benchmark by the names that its request has; those not given left out."""
    own = ("workspace", "quick", "as_json")
    given = {n: v for n, v in context.params.items() if n not in own and v is not None}
    return given | {"scores": parse_overrides(given.get("scores"))}


for _command in (
    catalog.ls,
    catalog.show,
    catalog.why,
    catalog.diff,
    catalog.where_used,
    catalog.sql,
    exports.export,
    exports.push,
    report,
    catalog.outcome,
    audit.verify,
    audit.forget,
    audit.bundle,
):
    app.command()(_command)

if __name__ == "__main__":
    main()
