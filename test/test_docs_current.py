"""What the documentation shows is made from what is in the checkout, and is up to date."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PRINTED = (
    "| model | 10 to 15 px |",  # tools/room_distances.py
)
"""Tables of the measurements that docs_tables.py does not write yet."""


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_measured_tables_are_what_the_reports_say() -> None:
    tables = load("docs_tables")
    texts = {page.name: page.read_text() for page in tables.pages()}
    stale = [name for name, text in texts.items() if tables.filled(text) != text]
    assert stale == [], "out of date: python tools/docs_tables.py"


def test_every_table_is_used_and_has_rows() -> None:
    tables = load("docs_tables")
    used = {m["name"] for page in tables.pages() for m in tables.BLOCK.finditer(page.read_text())}
    assert used == set(tables.TABLES)
    assert all(len(make()) > 2 for make in tables.TABLES.values())


def test_another_number_in_a_report_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = load("docs_tables")
    text = (ROOT / "README.md").read_text()
    other = text.replace("88/100", "89/100")
    assert other != text and tables.filled(other) == text


def test_no_table_of_the_measurements_is_written_by_hand() -> None:
    tables = load("docs_tables")
    rest = tables.BLOCK.sub("", (ROOT / "docs" / "benchmarks.md").read_text())
    heads = re.findall(r"^(\|.*)\n\|[-|]+$", rest, re.MULTILINE)
    unknown = [head for head in heads if head.strip("| ") and not head.startswith(PRINTED)]
    assert unknown == []


def test_concept_pictures_are_what_the_tool_draws() -> None:
    pictures: dict[str, Callable[[], str]] = load("concept_pictures").PICTURES
    for name, draw in pictures.items():
        assert (ROOT / "docs" / "images" / name).read_text() == draw(), name


def test_the_film_moves() -> None:
    film = Image.open(ROOT / "docs" / "images" / "demo.webp")
    assert film.is_animated and film.n_frames >= 15
    assert (ROOT / "docs" / "images" / "demo.webp").stat().st_size < 2**20
    script = (ROOT / "tools" / "film.sh").read_text()
    assert "demo --headless" in script and "docs/images/demo.webp" in script
    subprocess.run(["bash", "-n", ROOT / "tools" / "film.sh"], check=True)


def git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)


def test_commits_that_are_named_are_in_the_history() -> None:
    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("no whole git history here")
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"commit `?([0-9a-f]{7,40})\b", text))
    assert len(named) >= 5
    assert [c for c in named if git("merge-base", "--is-ancestor", c, "HEAD").returncode] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_page_knows_a_machine(page: Path) -> None:
    assert re.findall(r"(?<![\w.])/(?:work|root|home/\w+|tmp/\w+)\b", page.read_text()) == []


def test_words_in_italics_of_the_concepts_are_explained() -> None:
    concepts = (ROOT / "docs" / "concepts.md").read_text()
    words = (ROOT / "docs" / "words.md").read_text().lower()
    marked = re.findall(r"(?<!\*)\*([a-z][a-z \n-]+)\*(?!\*)", concepts)
    assert len(marked) >= 8
    rows = re.findall(r"^\| ([^|]+) \|", words, re.MULTILINE)
    told = {cell for row in rows for cell in row.split(", ")}
    missing = [m for m in (" ".join(w.split()).rstrip("s") for w in marked) if m not in told]
    assert [m for m in missing if m != "italic"] == []
