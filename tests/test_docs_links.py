"""Links between pages, to their headings and to files, and paths of pages in the sources."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
SITE = [page for page in PAGES if page.is_relative_to(ROOT / "docs")]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


@cache
def anchors(page: Path) -> set[str]:
    """What its headings are called in links, on GitHub and on the site alike."""
    names = []
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.M):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "", heading)).strip().lower()
        names.append(re.sub(r"\s", "-", words))
    return set(names)


def broken_links(page: Path) -> list[str]:
    """Relative links of a page whose file or heading is not there."""
    broken = []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", prose(page)):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{target}#{anchor}")
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A b: `c`\n[1](#a-b-c) [2](page.md#a-b-c) [3](#a-b) [4](other.md) [5](.)\n")
    assert broken_links(page) == ["#a-b", "other.md#"]


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs/index.md"
    reached, ahead = {index}, [index]
    while ahead:
        page = ahead.pop()
        for target in re.findall(r"\]\(([^)#\s:]+\.md)", prose(page)):
            file = (page.parent / target).resolve()
            if file not in reached:
                reached.add(file)
                ahead.append(file)
    assert [page for page in SITE if page not in reached] == []


def test_the_site_has_every_page_once() -> None:
    sections = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed: list[str] = []
    for section in sections:
        (pages,) = section.values()
        listed += [pages] if isinstance(pages, str) else pages
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in SITE]
    records = [page for page in pages if re.match(r"developing/decisions/\d", page)]
    assert sorted(listed) == sorted(set(pages) - set(records))


def test_paths_of_pages_in_the_sources_exist() -> None:
    done = subprocess.run(
        ["git", "grep", "-oIE", r"docs/[a-z/_-]+\.(md|csv|svg|ipynb)"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode > 1:
        pytest.skip("not a git checkout")
    found = [line.rpartition(":") for line in done.stdout.splitlines()]
    assert len(found) > 50
    assert [f"{file}: {path}" for file, _, path in found if not (ROOT / path).exists()] == []
