"""Hook of mkdocs.yml: files of the checkout that pages link to go along with the site.

Pages say ``[config/robot.yaml](../config/robot.yaml)``, which leads somewhere in the checkout but
not in ``docs/``. Each such file is copied to ``files/`` of the site, and the link follows it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((?P<up>(?:\.\./)+)(?P<path>[^)#\s]+)")


def outside(page: Path, up: str, path: str) -> Path | None:
    """The file of the checkout that a link names, where it lies outside ``docs/``."""
    target = (page.parent / up / path).resolve()
    inside = target.is_relative_to(ROOT / "docs") or not target.is_relative_to(ROOT)
    return None if inside or not target.is_file() else target


def on_files(files: Any, config: Any) -> Any:
    """Add what pages link to."""
    linked = set()
    for file in files.documentation_pages():
        page = Path(file.abs_src_path)
        for match in LINK.finditer(page.read_text()):
            target = outside(page, match["up"], match["path"])
            if target is not None:
                linked.add(target)
    for target in sorted(linked):
        name = _published(target)
        files.append(File.generated(config, name, abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links out of ``docs/`` into links to the copies."""
    source = Path(page.file.abs_src_path)
    climb = "../" * page.file.src_uri.count("/")

    def follow(match: re.Match[str]) -> str:
        target = outside(source, match["up"], match["path"])
        return match[0] if target is None else f"]({climb}{_published(target)}"

    return LINK.sub(follow, markdown)


def _published(target: Path) -> str:
    # a page of Markdown would be built, not copied
    name = target.relative_to(ROOT).as_posix()
    return f"files/{name}.txt" if target.suffix == ".md" else f"files/{name}"
