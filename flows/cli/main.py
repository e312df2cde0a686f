"""The command `saelect`. Each command imports what it needs, so that light ones start at once."""

import atexit
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from selection.core.errors import InputError
from selection.core.redaction import without_secrets

app = typer.Typer(
    name="saelect",
    help="Pick the few percent of an instruction pool that make a model better at a target task."
    "\n\nStart with `saelect demo`, then `saelect init --pool P --exemplars E`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", envvar="SAELECT_WORKSPACE", help="Folder that keeps everything."
    ),
]
DEFAULT_WORKSPACE = Path("workspace")
SelectionArgument = Annotated[
    str, typer.Argument(help="Name, id, prefix of an id, or `latest`.", metavar="SELECTION")
]


def main() -> None:
    """Run the command line; a user's mistake becomes a sentence and exit code 2."""
    status = {"code": 1}
    # Registered before anything else, so it runs after every other exit handler. Prefect leaves
    # daemon threads behind, and with those alive DuckDB's bindings print lists of "leaks" at exit.
    atexit.register(_leave, status)
    try:
        status["code"] = _run()
    except SystemExit as stop:
        status["code"] = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    raise SystemExit(status["code"])


def _run() -> int:
    try:
        app(standalone_mode=True)
    except InputError as error:
        sys.stderr.write(f"saelect: {without_secrets(str(error))}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\nsaelect: stopped; the same command resumes where it was.\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _leave(status: dict[str, int]) -> None:
    """End the process at once if Prefect was used; otherwise let Python end it."""
    if "prefect" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status["code"])


@app.command()
def demo(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Run the main job on the packaged model and pool, offline, in a minute or two."""
    from flows.cli.run import run_config

    run_config("demo", workspace, overrides={}, dry_run=False)


@app.command()
def init(
    pool: Annotated[str, typer.Option(help="File, folder, glob or Hugging Face dataset.")],
    exemplars: Annotated[str, typer.Option(help="Examples of the target task, or a targets file.")],
    out: Annotated[Path, typer.Option(help="Where the config is written.")] = Path("select.yaml"),
    model: Annotated[str, typer.Option(help="Model to represent with, or `demo`.")] = "demo",
    sae: Annotated[str, typer.Option(help="SAE checkpoint, or `demo`.")] = "demo",
    force: Annotated[bool, typer.Option(help="Replace an existing config.")] = False,
) -> None:
    """Look at pool and exemplars, and write a short commented config for them."""
    from flows.cli.init import init_config

    init_config(pool, exemplars, out, model=model, sae=sae, force=force)


@app.command()
def run(
    config: Annotated[str, typer.Argument(help="Config file, or a preset by name: `demo`.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="Override a key: --set budget.examples=500"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say rows, tokens, disk and time; select nothing.")
    ] = False,
) -> None:
    """Select: read, represent, rank, cut, record, export and report."""
    from flows.cli.run import run_config

    run_config(config, workspace, overrides=_overrides(sets or []), dry_run=dry_run)


def _overrides(sets: list[str]) -> dict[str, str]:
    """`key=value` strings as a mapping; a budget in one unit replaces the config's."""
    overrides = {}
    for item in sets:
        key, found, value = item.partition("=")
        if not found or not key:
            raise InputError(
                "not of the form key=value",
                field="--set",
                value=item,
                remedy="For example: --set budget.examples=500",
            )
        overrides[key] = value
    return overrides


@app.command()
def reproduce(
    run: Annotated[str, typer.Argument(help="Name or id of a run or selection, or `latest`.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="Compute vectors again and say how far they agree."),
    ] = False,
) -> None:
    """Decide a recorded run again from its recorded vectors, and compare bit by bit.

    Ends with code 0 where every decision and explanation is the same, 1 where one differs, and 2
    where it cannot be told: pool, vectors, exemplars, model or SAE are gone or altered. With
    --from-scratch, agreement is reported and the code is 0.
    """
    from flows.cli.audit import reproduce_run

    reproduce_run(run, workspace, scratch=from_scratch)


@app.command()
def embed(
    config: Annotated[str, typer.Argument(help="Config file, or a preset by name: `demo`.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    workers: Annotated[
        int | None, typer.Option(help="Processes on this host; default: compute.workers.", min=1)
    ] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", "-s", help="Override a key.")] = None,
) -> None:
    """Compute the vectors of a config's pool only; may run on several hosts at once."""
    from flows.cli.run import run_embed

    raise typer.Exit(run_embed(config, workspace, workers, _overrides(sets or [])))


@app.command()
def neighbors(
    example: Annotated[str, typer.Argument(help="Example id (or a prefix), or the data's own id.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    n: Annotated[int, typer.Option("-n", help="How many.", min=1)] = 10,
    run_name: Annotated[str, typer.Option("--run", help="Whose pool and model.")] = "latest",
) -> None:
    """The pool's nearest samples to one of them, by exact generalized Jaccard."""
    from flows.cli.neighbors import print_neighbors

    print_neighbors(workspace, example, n, run_name)


@app.command()
def config(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
    preset: Annotated[str, typer.Option(help="Print a preset.")] = "",
) -> None:
    """What a config may say."""
    from flows.cli.init import print_config

    print_config(schema=schema, preset=preset)


@app.command(name="train-sae")
def train_sae(
    config: Annotated[str, typer.Argument(help="Config file with `sae: {train: ...}`.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    sets: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Override: --set sae.train.k=64")
    ] = None,
) -> None:
    """Train the config's SAE on its pool; a stopped training goes on where it was."""
    from flows.cli.saes import train_from_config

    train_from_config(config, workspace, _overrides(sets or []))


@app.command()
def describe(
    config: Annotated[str, typer.Argument(help="Config file whose SAE is described on its pool.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    samples: Annotated[int, typer.Option(help="Samples of the pool to read.", min=1)] = 2000,
    latent: Annotated[
        list[int] | None, typer.Option("--latent", help="Show these; else the most leaning ones.")
    ] = None,
    delphi: Annotated[
        Path | None,
        typer.Option(help="New folder for what they did, as EleutherAI's delphi reads it."),
    ] = None,
    delphi_window: Annotated[
        int | None,
        typer.Option(help="Tokens of an example there; default: 32, as delphi's.", min=1, max=8192),
    ] = None,
) -> None:
    """Describe an SAE's latents without a language model: tokens, examples, lens, facets."""
    from flows.cli.saes import describe_from_config

    describe_from_config(config, workspace, samples, latent or [], delphi, delphi_window)


@app.command()
def models(
    model: Annotated[str | None, typer.Argument(help="Show only this one.")] = None,
    gpu: Annotated[float | None, typer.Option(help="Show only what fits so many GB.")] = None,
    loaders: Annotated[bool, typer.Option("--loaders", help="Formats that are read.")] = False,
    sae: Annotated[str, typer.Option(help="Show the conventions of this SAE.")] = "",
) -> None:
    """Which models and SAEs go together, and what they need."""
    from flows.cli.models import print_card, print_loaders, print_models

    if sae:
        print_card(sae)
    elif loaders:
        print_loaders()
    else:
        print_models(model, gpu)


@app.command()
def serve(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    port: Annotated[int, typer.Option(help="Port of the page.", min=1, max=65535)] = 4200,
    host: Annotated[
        str, typer.Option(help="Address to bind; anything but loopback needs a password.")
    ] = "127.0.0.1",
    password: Annotated[
        str | None,
        typer.Option(
            envvar="SAELECT_PASSWORD",
            help="User is `saelect`. Better given as SAELECT_PASSWORD: others can read arguments.",
        ),
    ] = None,
    runs: Annotated[int, typer.Option(help="Runs at the same time.", min=1)] = 2,
) -> None:
    """Server, pages, worker and deployments in one command; Ctrl-C stops all of it."""
    from flows.cli.serve import serve as start

    start(workspace, host=host, port=port, password=password, runs_at_once=runs)


bench_app = typer.Typer(help="Measure how well selection works.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")


@bench_app.command("retrieval")
def bench_retrieval(
    pool: Annotated[str, typer.Option(help="Labelled pool, one Parquet file.")],
    targets: Annotated[str, typer.Option(help="Target tasks with labels and exemplars.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    subpool: Annotated[str | None, typer.Option(help="File of ids: only these rows.")] = None,
    setting: Annotated[str, typer.Option(help="full, instance or both.")] = "both",
    methods: Annotated[
        str, typer.Option(help="Names, name:variant or YAML files, by comma; default: all.")
    ] = "",
    model: Annotated[str, typer.Option(help="Model under test.")] = "demo",
    sae: Annotated[str, typer.Option(help="SAE under test.")] = "demo",
    hookpoint: Annotated[str, typer.Option(help="Default: where the SAE was trained.")] = "",
    encoder: Annotated[str | None, typer.Option(help="Folder of a sentence encoder.")] = None,
    scores: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE with columns id, score, maybe target.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: one JSON object.")] = False,
) -> None:
    """Compare ranking methods on a pool with labels: nDCG, recall and more, with intervals."""
    from flows.benchmark.run import request_of
    from flows.cli.bench import bench_retrieval_command

    request = request_of(
        pool=pool,
        targets=targets,
        subpool=subpool,
        setting=setting,
        methods=tuple(name.strip() for name in methods.split(",") if name.strip()),
        model=model,
        sae=sae,
        hookpoint=hookpoint,
        encoder=encoder,
        scores=_overrides(scores or []),
    )
    bench_retrieval_command(request, workspace, as_json_line=as_json)


def _add_light_commands() -> None:
    """Commands that read the published snapshot only; they import neither torch nor prefect."""
    from flows.cli import audit
    from flows.cli import look as cli_read

    for command in (
        cli_read.ls,
        cli_read.show,
        cli_read.why,
        cli_read.diff,
        cli_read.where_used,
        cli_read.sql,
        cli_read.export,
        cli_read.report,
        audit.verify,
        audit.forget,
        audit.bundle,
    ):
        app.command()(command)


_add_light_commands()

if __name__ == "__main__":
    main()
