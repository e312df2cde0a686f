"""The plan of a run as lines: the dry run of the command line, for whoever reads it elsewhere."""

from flows.commands import dry_run, terminal
from flows.config.jobs import SelectConfig
from storage.workspace import Workspace


def plan_lines(config: SelectConfig, workspace: Workspace) -> list[str]:
    """What a run would read, drop, compute, write and cost. Raises InputError."""
    with terminal.collected() as lines:
        dry_run.print_dry_run(config, workspace)
    return lines
