"""Templates are compiled once per installation, and again when what matters has changed."""

import shutil
import sys
from pathlib import Path

import jinja2
import pytest

from storage.report import templates
from storage.report.templates import TEMPLATES, CompiledTemplates, page_environment


class Counting(jinja2.Environment):
    """Counts what it had to compile."""

    n_compiled = 0

    def _generate(self, *arguments: object, **options: object) -> str:
        self.n_compiled += 1
        return super()._generate(*arguments, **options)  # type: ignore[arg-type]


def compiled(folder: Path, cache: Path) -> tuple[int, str]:
    """Templates compiled to write a page, and the page."""
    environment = Counting(
        loader=jinja2.FileSystemLoader(folder), bytecode_cache=CompiledTemplates(cache)
    )
    page = environment.get_template("page.txt").render(name="Ann")
    return environment.n_compiled, page


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one template; Python may keep what it compiles."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "page.txt").write_text("Dear {{ name }}")
    return tmp_path


def test_a_template_is_compiled_once(folder: Path) -> None:
    assert compiled(folder, folder / "cache") == (1, "Dear Ann")
    assert compiled(folder, folder / "cache") == (0, "Dear Ann")


def test_a_changed_template_is_compiled_again(folder: Path) -> None:
    compiled(folder, folder / "cache")
    (folder / "page.txt").write_text("Hello {{ name }}")
    assert compiled(folder, folder / "cache") == (1, "Hello Ann")


def test_another_jinja_or_other_options_compile_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(folder, folder / "cache")
    monkeypatch.setattr(jinja2, "__version__", "99")
    assert compiled(folder, folder / "cache")[0] == 1
    changed = folder / "templates.py"
    shutil.copyfile(templates.__file__, changed)
    changed.write_text(changed.read_text().replace("autoescape=True", "autoescape=False"))
    monkeypatch.setattr(templates, "__file__", str(changed))
    assert compiled(folder, folder / "cache")[0] == 1


def test_nothing_is_kept_where_python_keeps_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert compiled(folder, folder / "cache") == (1, "Dear Ann")
    assert not (folder / "cache").exists()


def test_a_page_is_made_where_nothing_can_be_kept(folder: Path) -> None:
    (folder / "cache").write_text("a file where the folder would be")
    assert compiled(folder, folder / "cache") == (1, "Dear Ann")


def test_a_broken_file_is_compiled_again(folder: Path) -> None:
    compiled(folder, folder / "cache")
    (kept,) = (folder / "cache").iterdir()
    kept.write_bytes(b"\0" * 20)
    assert compiled(folder, folder / "cache") == (1, "Dear Ann")


def test_our_pages_use_it() -> None:
    cache = page_environment().bytecode_cache
    assert isinstance(cache, CompiledTemplates)
    assert cache.folder == TEMPLATES / "__pycache__"
