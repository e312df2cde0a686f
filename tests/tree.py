"""The rooms of the product: files, lines, job, and what each imports.

In the order of the layers that pyproject.toml lists, so each room stands above those it imports.

    python -m tests.tree            prints rooms and arrows
    python -m tests.tree --write    writes the rooms into docs/developing/architecture.md
"""

import ast
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/developing/architecture.md"
TOP = ("flows", "storage", "selection")
BEGIN, END = "<!-- rooms -->\n", "<!-- /rooms -->\n"


@dataclass
class Room:
    """One folder of the product with the modules that lie in it directly.

    job: the first sentence of the docstring of its `__init__.py`.
    imports: rooms that its modules import, by their paths, such as "selection/core".
    """

    path: str
    job: str
    modules: list[Path]
    imports: set[str] = field(default_factory=set)

    @property
    def n_lines(self) -> int:
        """Lines of its modules, blank ones and comments included."""
        return sum(len(module.read_text().splitlines()) for module in self.modules)


def read_rooms(root: Path = ROOT) -> list[Room]:
    """All rooms, each after the room that holds it, with the arrows between them."""
    layers = read_layers(root)
    folders = [f for top in TOP for f in _sorted_folders(root, root / top, layers)]
    rooms = [_read_room(root, folder) for folder in folders]
    by_module = {_dotted(root, module): room for room in rooms for module in room.modules}
    for room in rooms:
        for module in room.modules:
            arrows = {by_module[name].path for name in imported_names(module) if name in by_module}
            room.imports |= arrows - {room.path}
    return rooms


def format_rooms(rooms: list[Room]) -> str:
    """One line a room: path, number of files, lines, job."""
    rows = []
    for room in rooms:
        depth = room.path.count("/")
        name = "  " * depth + room.path.rsplit("/", 1)[-1] + "/"
        size = f"{len(room.modules):3} files {room.n_lines:5} lines" if room.modules else " " * 21
        rows.append(f"    {name:18}{size}  {room.job}".rstrip())
    return "\n".join(rows) + "\n"


def format_arrows(rooms: list[Room]) -> str:
    """One line a room: the rooms that it imports."""
    rows = [f"    {room.path:28} -> {', '.join(sorted(room.imports))}" for room in rooms]
    return "\n".join(row for row in rows if not row.endswith("-> ")) + "\n"


def write_page(page: Path, rooms: list[Room]) -> None:
    """Put the rooms between the two marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{format_rooms(rooms)}\n{END}{after}")


def rooms_in(page: Path) -> str:
    """The rooms as a page lists them."""
    return page.read_text().partition(BEGIN)[2].partition(END)[0].strip("\n") + "\n"


def read_layers(root: Path = ROOT) -> list[str]:
    """Dotted names of the rooms and modules that the contracts place, from top to bottom."""
    tool = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    return [
        f"{container}.{name.strip('() ')}"
        for contract in tool["contracts"]
        for container in contract.get("containers", [])
        for layer in contract["layers"]
        for name in re.split("[|:]", layer)
    ]


def _sorted_folders(root: Path, top: Path, layers: list[str]) -> list[Path]:
    """The rooms under a folder, each after the room that holds it, siblings by their layer."""
    rank_of = {name: i for i, name in enumerate(layers)}

    def order(folder: Path) -> list[tuple[int, str]]:
        parts = folder.relative_to(root).parts
        names = [".".join(parts[: i + 1]) for i in range(len(parts))]
        return [(rank_of.get(name, len(layers)), name) for name in names]

    return sorted({file.parent for file in top.rglob("__init__.py")}, key=order)


def _read_room(root: Path, folder: Path) -> Room:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    job = re.split(r"\.(?:\s|$)", re.sub(r"\s+", " ", docstring))[0]
    modules = sorted(f for f in folder.glob("*.py") if f.name != "__init__.py")
    return Room(folder.relative_to(root).as_posix(), job, modules)


def _dotted(root: Path, module: Path) -> str:
    return ".".join(module.relative_to(root).with_suffix("").parts)


def imported_names(module: Path) -> set[str]:
    """Dotted names that a module imports anywhere in its text."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


if __name__ == "__main__":
    rooms = read_rooms()
    if "--write" in sys.argv:
        write_page(PAGE, rooms)
    else:
        total = sum(room.n_lines for room in rooms)
        sys.stdout.write(f"{format_rooms(rooms)}\n{format_arrows(rooms)}\n{total:,} lines\n")
