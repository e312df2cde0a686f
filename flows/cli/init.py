"""`saelect init`: look at pool and exemplars, write a short commented config, say what is next."""

import json
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from flows.config.base import DEMO
from flows.config.data import ExemplarsConfig, PoolConfig
from flows.config.jobs import SelectConfig
from flows.config.load import PRESETS
from flows.config.reference import config_keys
from flows.orchestration.terminal import say
from flows.stages.prepare.inputs import read_targets, source_of
from flows.stages.prepare.render import open_model_input
from selection.core.errors import InputError
from selection.core.printable import printable
from selection.data.coverage import ReadReport
from selection.data.look import Look, look_at
from selection.data.remedies import drop_lines
from storage.files.atomic import write_bytes

LOOKED_ROWS = 20_000  # of each file: all of a pool that is small
SHOWN_ROWS = 3
SHOWN_CHARACTERS = 700
ROLES = ("id", "licence", "language", "source", "group")


def init_config(pool: str, exemplars: str, out: Path, *, model: str, sae: str, force: bool) -> None:
    """Write `out`; print what was found, three rendered rows and the next command."""
    if out.exists() and not force:
        raise InputError(
            "exists already", file=out, remedy="Name another file with --out, or add --force."
        )
    look = look_at(source_of(PoolConfig(path=pool)), LOOKED_ROWS)
    _say_pool(pool, look)
    report = ReadReport()
    targets = read_targets(ExemplarsConfig(path=exemplars), report)
    for line in report.lines():
        say(f"exemplars  {line}")
    for name, table in targets.items():
        say(f"exemplars  {exemplars}: target `{name}`, {len(table)} exemplars")
    text = config_text(pool, look, exemplars, list(targets), model, sae)
    _show_rendered(look, pool, exemplars, model, sae)
    write_bytes(out, text.encode())
    say(f"\nWrote {out}. Next:\n  saelect run {out} --dry-run\n  saelect run {out}")
    if model == DEMO:
        say("It names the small demonstration model: set `model` and `sae` before training on it.")


def _say_pool(pool: str, look: Look) -> None:
    """What was read of the pool's files and what not; refuse one of which nothing is left."""
    if not look.n_examples:
        raise InputError(
            f"every row that was looked at is dropped ({'; '.join(_drops(look))})",
            file=pool,
            remedy="Check the shape and the columns that hold the text.",
        )
    if not look.n_responses:
        raise InputError(
            "no row that was looked at has a response",
            file=pool,
            remedy="Say which column holds it, e.g. `columns: {prompt: question, response: answer}`"
            " in a config of your own, or set `rendering: {counted: prompt}` there.",
        )
    say(f"pool       {pool}: shape {look.shape}, columns {', '.join(look.columns) or 'none'}")
    for line in look.report.lines():
        say(f"           {line}")
    for line in _drops(look):
        say(f"           dropped {line}")


def _drops(look: Look) -> list[str]:
    return drop_lines(look.drops, look.first_drops)


def config_text(
    pool: str, look: Look, exemplars: str, targets: Sequence[str], model: str, sae: str
) -> str:
    """The config as commented YAML."""
    roles = {role: column for role, column in look.roles.items() if role in ROLES}
    columns = ", ".join(f"{role}: {json.dumps(column)}" for role, column in roles.items())
    n_examples = suggested_budget(look)
    named = f"  targets: {json.dumps(list(targets))}\n" if len(targets) > 1 else ""
    return f"""\
# Written by `saelect init`; `saelect config` lists every key. Paths start where you run saelect.
pool:
  - path: {json.dumps(pool)}
    shape: {look.shape}
    columns: {{{columns}}}  # role: column; roles are id, licence, language, source, group
exemplars:
  path: {json.dumps(exemplars)}
{named}budget: {{examples: {n_examples}}}  # or {{fraction: 0.05}}, or {{tokens: 1000000}}
# where: "licence = 'MIT' AND n_chars < 8000"  # drop what does not pass
controls: [random]             # a random selection of equal size, to compare training with
model: {{name: {json.dumps(model)}}}  # hookpoint: where its SAE was trained, unless you name one
sae: {json.dumps(sae)}
preset: best
"""


def suggested_budget(look: Look) -> int:
    """A twentieth of the pool, at most 500: a start to be changed, never a default of a run."""
    if look.n_rows is None:
        return 500
    n_responses = look.n_rows * look.n_responses // max(1, look.n_looked)
    return max(1, min(500, n_responses // 20))


def _show_rendered(look: Look, pool: str, exemplars: str, model: str, sae: str) -> None:
    """Three rows as the model reads them; what counts is marked."""
    from rich.console import Console
    from rich.text import Text

    config = SelectConfig.model_validate(
        {
            "pool": pool,
            "exemplars": exemplars,
            "budget": {"examples": 1},
            "model": model,
            "sae": sae,
        }
    )
    renderer = open_model_input(config).renderer
    console = Console(highlight=False)
    # Where reverse video is lost, as in a pipe, brackets mark what counts.
    left, right = ("", "") if console.is_terminal else ("⟦", "⟧")
    console.print("\nThree rows as the model reads them; tokens that count are marked:")
    for messages, tools in look.examples[:SHOWN_ROWS]:
        rendered = renderer.render(messages, tools)  # type: ignore[arg-type]
        text, room = Text(), SHOWN_CHARACTERS
        for raw, counted in renderer.marked_text(rendered):
            piece = printable(raw)
            shown = f"{left}{piece[:room]}{right}" if counted else piece[:room]
            text.append(shown, style="reverse" if counted else "dim")
            room -= len(piece)
            if room <= 0:
                text.append(" …", style="dim")
                break
        n_counted = int(rendered.content_mask.sum())
        console.print(f"[bold]{len(rendered.tokens)} tokens, {n_counted} counted[/]")
        console.print(text)


def print_config(*, schema: bool, preset: str) -> None:
    """Print the JSON schema, a preset, or a table of all keys with their defaults."""
    if preset:
        if preset not in PRESETS:
            raise InputError(
                "no such preset",
                field="--preset",
                value=preset,
                remedy=f"Known presets: {', '.join(PRESETS)}.",
            )
        text = (files("flows.config") / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
        sys.stdout.write(text)
    elif schema:
        sys.stdout.write(json.dumps(SelectConfig.model_json_schema(), indent=2) + "\n")
    else:
        _print_keys()


def _print_keys() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("key", "default", "what"):
        table.add_column(column, no_wrap=column == "key")
    for key in sorted(config_keys()):
        table.add_row(key.name, key.default, key.what)
    Console().print(table)
