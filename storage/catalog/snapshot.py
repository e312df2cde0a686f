"""The two files of the catalog: `catalog.duckdb` of the writer, `snapshot.duckdb` for readers.

DuckDB lets nobody read a file that is open for writing, so readers get a copy, replaced by one
rename. Either file can be made again from the other, and neither replaces one that knows more.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selection.core.errors import InputError
from storage.catalog.connection import (
    Connection,
    DatabaseError,
    LockedError,
    attach_read_only,
    connect_in_memory,
    faults_explained,
    first_line,
    quoted,
)
from storage.catalog.integrity import Head
from storage.catalog.schema import SCHEMA_SHA256
from storage.files.atomic import write_atomically
from storage.files.workspace import Workspace

log = logging.getLogger(__name__)


@contextmanager
def open_snapshot(workspace: Workspace) -> Iterator[Connection]:
    """Read the published snapshot; its tables and views are found without a prefix.

    Where only the snapshot is missing, the catalog itself is read. So is `hint`, a view like
    `latent_description` with what others wrote about latents (`saelect describe --import`) in its
    place. Raises InputError when nothing has been recorded yet or the file is not readable.
    """
    path = workspace.snapshot if workspace.snapshot.exists() else workspace.catalog
    if not path.exists():
        raise InputError(
            "nothing has been recorded in this workspace yet",
            file=workspace.root,
            remedy="Run `saelect demo` or `saelect run CONFIG` first, or name another --workspace.",
        )
    with open_to_read(path) as connection:
        _make_hints(connection, workspace)
        yield connection


_HINT = """
CREATE OR REPLACE TEMP VIEW hint AS
SELECT sae, latent, coalesce(e.words, d.description) AS description
FROM latent_description d FULL JOIN (
    SELECT sae, latent, string_agg(description, '; ' ORDER BY source) AS words
    FROM read_parquet([{files}]) GROUP BY ALL) e USING (sae, latent)"""


def _make_hints(connection: Connection, workspace: Workspace) -> None:
    """Files that cannot be read are left out with a warning: they are no part of the catalog."""
    connection.execute("CREATE TEMP VIEW hint AS FROM latent_description")
    files = workspace.explanations()
    if files:
        try:
            connection.execute(_HINT.format(files=", ".join(quoted(str(each)) for each in files)))
        except DatabaseError as error:
            log.warning(
                "explanations in %s are not shown (%s): import them again",
                files[0].parent.parent,
                first_line(error),
            )


@contextmanager
def open_to_read(path: Path) -> Iterator[Connection]:
    """A catalog file, read-only. Raises InputError where it is not readable or of another version.

    It is attached to a database in memory: duckdb shares one instance per path within a process,
    which after a new publication would still be the old one.
    """
    with connect_in_memory() as connection:
        attach_read_only(connection, path)
        with faults_explained(path):
            connection.execute("USE snapshot")
            refuse_other_version(connection, path)
            yield connection


def refuse_other_version(connection: Connection, path: Path) -> None:
    """Raise InputError for a database that this version of saelect did not make."""
    try:
        rows = connection.execute(
            "SELECT content->>'schema' FROM catalog_commit ORDER BY number DESC LIMIT 1"
        ).fetchall()
    except DatabaseError as error:
        raise InputError(
            f"not a catalog of saelect ({first_line(error)})",
            file=path,
            remedy="Use another folder with --workspace DIR.",
        ) from None
    if rows and rows[0][0] != SCHEMA_SHA256:
        raise InputError(
            "the catalog was written by another version of saelect",
            file=path,
            remedy="Use that version, or another folder with --workspace DIR.",
        )


def publish(workspace: Workspace) -> None:
    """Replace the snapshot by a copy of the closed catalog; the caller holds the writers' lock.

    Raises InputError where the snapshot has commits that the catalog lacks.
    """
    _refuse_loss(workspace, _links(workspace.snapshot), _links(workspace.catalog) or [])
    write_atomically(workspace.snapshot, lambda temp: _copy(workspace.catalog, temp))


def restore(workspace: Workspace) -> None:
    """Make a missing, damaged or older catalog again from a whole snapshot, before a write.

    The caller holds the writers' lock. Raises InputError where each file has commits that the
    other lacks, and where the catalog is damaged and there is no whole snapshot.
    """
    published = _links(workspace.snapshot)
    here = _links(workspace.catalog)
    if here is None and workspace.catalog.exists() and not published:
        with open_to_read(workspace.catalog):  # raises, with the reason
            return
    if not published or (here is not None and here[: len(published)] == published):
        return
    _refuse_loss(workspace, here, published)
    log.warning(
        "%s %s; restored from %s with commit %d",
        workspace.catalog,
        "was missing or damaged" if here is None else "was older",
        workspace.snapshot,
        published[-1].number,
    )
    workspace.catalog.with_name(f"{workspace.catalog.name}.wal").unlink(missing_ok=True)
    write_atomically(workspace.catalog, lambda temp: _copy(workspace.snapshot, temp))


def published_head(workspace: Workspace) -> Head:
    """The newest commit of the snapshot; (0, "") where there is none that can be read.

    Raises InputError for a file of another version, so what will be recorded in the end asks first.
    """
    links = _links(workspace.snapshot)
    return links[-1] if links else Head(0, "")


def _links(path: Path) -> list[Head] | None:
    """All commits of a catalog file; None where it is missing or not readable.

    Raises LockedError where another program writes it, and InputError for a file of another
    version: that is no damage.
    """
    if not path.exists():
        return None
    with connect_in_memory() as connection:
        try:
            connection.execute(f"ATTACH {quoted(str(path))} AS snapshot (READ_ONLY)")
            connection.execute("USE snapshot")
            if not connection.execute("FROM duckdb_tables() LIMIT 1").fetchall():
                return []  # the first commit was stopped
            rows = connection.execute(
                "SELECT number, sha256 FROM catalog_commit ORDER BY number"
            ).fetchall()
        except DatabaseError as error:
            if isinstance(error, LockedError) and "lock" in str(error):
                raise
            return None
        refuse_other_version(connection, path)
    return [Head(*row) for row in rows]


def _refuse_loss(workspace: Workspace, old: list[Head] | None, new: list[Head]) -> None:
    """Raise InputError where `new` is to replace `old` and lacks commits of it."""
    if not old or new[: len(old)] == old:
        return
    n_lost = len([link for link in old if link not in new])
    raise InputError(
        f"catalog.duckdb and snapshot.duckdb do not go together: {n_lost} commits of one are not"
        " in the other",
        file=workspace.root,
        remedy="Keep copies of both. Then remove the one that is wrong (see `saelect verify`); it"
        " is made again from the other.",
    )


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
