"""Pages of reports: they hold all they show, and the strips tell what the model imagined."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from wm_mpc.core.locations import ASSETS
from wm_mpc.core.provenance import write_report
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.evaluation.kept import Frame
from wm_mpc.evaluation.pages import eval_page, figures_page, shown, table_of
from wm_mpc.evaluation.rows import evaluate
from wm_mpc.evaluation.strips import best_median_worst, decoder_of, imagine
from wm_mpc.models.world_model import WorldModel
from wm_mpc.tasks.environments import make_env
from wm_mpc.viz.report_page import write_page


@pytest.fixture(scope="module")
def wall() -> WorldModel:
    return WorldModel.load(ASSETS / "wall")


class Page(HTMLParser):
    """What a browser would fetch or run, and how many pictures there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_a_row_has_a_page_with_strips_of_what_was_imagined(
    wall: WorldModel, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    seen: list[Episode] = []
    row = evaluate(
        wall, "wall", "adam", 4, 3, steps=20, options=("iterations=3",), progress=False, seen=seen
    )
    assert [len(episode.frames) > 1 for episode in seen] == [True] * 4
    report = write_report(tmp_path / "r.json", 3, [row])
    path = write_page(report, lambda: eval_page(shown(row, seen, wall)))
    assert path == tmp_path / "r.html" and f"page: {path}" in capsys.readouterr().out
    text = path.read_text()
    page = Page(text)
    assert all(link.startswith("data:") for link in page.links)
    assert not {"script", "iframe"} & set(page.tags) and "url(" not in text
    assert re.findall(r"<b>(best|median|worst): ", text) == ["best", "median", "worst"]
    assert text.count(">imagined</th>") == 3 and text.count("<svg") == 2
    assert f"{row['successes']} of 4 goals reached" in text


def test_what_is_imagined_follows_the_plan(wall: WorldModel) -> None:
    decoder = decoder_of(wall)
    assert decoder is not None
    task = make_env("wall", wall.encoder.image_size).unwrapped
    task.reset(seed=5)
    state = task.draw_state(np.random.default_rng(2))
    seen = task.observe(state)
    for action in ([0.0, 0.0], list(task.spec_task.action_high)):
        plan = np.tile(np.array(action, np.float32), (10, 1))
        frame = Frame.keep(0, seen["image"], seen["proprio"], plan)
        drawn = imagine(wall, decoder, frame, 10)
        task.restore(state)
        for step in plan:
            after = task.advance(step)
        came = task.render_state(after, drawn.shape[0])
        assert np.abs(drawn.astype(float) - came).mean() < 4
        assert imagine(wall, decoder, frame, 7) is None, "no whole model step"
        assert imagine(wall, decoder, frame, 15) is None, "beyond the plan"


def test_kept_pictures_come_back_as_they_were() -> None:
    image = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    assert (Frame.keep(3, image).image == image).all()


def test_episodes_are_ranked_by_success_then_steps_then_error() -> None:
    blank = [Frame.keep(0, np.zeros((4, 4, 3), np.uint8))]
    outcomes = [(False, 20, 9.0), (True, 12, 1.0), (False, 20, 2.0), (True, 7, 1.5)]
    episodes = [
        Episode(seed, success, steps=steps, final_error=error, frames=blank)
        for seed, (success, steps, error) in enumerate(outcomes)
    ]
    ranked = {name: episode.seed for name, episode in best_median_worst(episodes)}
    assert ranked == {"best": 3, "median": 2, "worst": 0}
    assert [name for name, _ in best_median_worst(episodes[:1])] == ["best"]
    assert best_median_worst([Episode(0)]) == []


def test_text_in_a_page_is_text(tmp_path: Path) -> None:
    report = write_report(tmp_path / "r.json", None, [])
    tables = [("Table", *table_of("| a | b |\n|---|---|\n| <script>x</script> | 2 |"))]
    path = write_page(report, lambda: figures_page("<b>", tables=tables))
    text = path.read_text()
    assert "<script>" not in text and "&lt;script&gt;x" in text and "<h1>&lt;b&gt;" in text


def test_without_jinja_the_report_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    report = write_report(tmp_path / "r.json", None, [])
    assert write_page(report, lambda: figures_page("x")) is None
    assert "jinja2 is missing (pip install 'wm-mpc[viz]')" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]
