"""`saelect config`: what a config may say."""

import json
import sys
from importlib.resources import files

from flows.config.file import PRESETS
from flows.config.jobs import SelectConfig
from flows.config.keys import config_keys
from selection.errors import InputError


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
        text = (files("flows") / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
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
