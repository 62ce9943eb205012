"""The live page: who may come in, what it shows and does, with real nodes and a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from wm_mpc.core.errors import UserError
from wm_mpc.msg import GateStatus, Plan, PlannerStatus
from wm_mpc.nodes.view.board import Board
from wm_mpc.nodes.view.buttons import PLANNERS as OFFERED
from wm_mpc.nodes.view.config import ViewConfig
from wm_mpc.nodes.view.server import MOST_BROWSERS, MOST_WAITING, PageServer
from wm_mpc.nodes.view.words import gate_words, plan_words, status_words
from wm_mpc.planners.registry import PLANNERS

RELEASED = threading.Event()
"""Lets slow buttons of the page fixture end."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def page() -> Iterator[PageServer]:
    """A page of a board that the test fills; its buttons answer what they were asked."""

    def act(request: dict[str, Any]) -> str:
        if request.get("do") == "slow":
            assert RELEASED.wait(30)
        if request.get("do") == "fail":
            raise UserError("do: refused")
        return json.dumps(request)

    served = PageServer(Board(85, 60.0), act, ViewConfig(port=0, rate_hz=60.0))
    served.start()
    wait_for(lambda: reachable(served.url))
    yield served
    served.stop()


def reachable(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).read()
    except OSError:
        return False
    return True


def wait_for(condition: Any, timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)


def get(url: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def live(url: str, **options: Any) -> ClientConnection:
    address, _, query = url.replace("http", "ws", 1).partition("?")
    return connect(f"{address}live" + (f"?{query}" if query else ""), **options)


def words(socket: ClientConnection, wanted: str, timeout_s: float = 10.0) -> Any:
    """The next part named ``wanted``; an answer, or a part of the state."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        text = socket.recv(timeout_s)
        if isinstance(text, str) and wanted in (found := json.loads(text)):
            return found[wanted]
    raise AssertionError(f"{wanted}: never came")


def test_the_page_is_whole_and_asks_for_nothing_from_elsewhere(page: PageServer) -> None:
    status, body = get(page.url)
    assert status == 200
    text = body.decode()
    links = re.findall(r'(?:src|href)="([^"]+)"', text)
    local = [link for link in links if link.startswith("web/")]
    assert set(links) - set(local) == {"data:,"}
    for link in local:
        assert get(page.url + link)[0] == 200
    assert "http" not in get(page.url + "web/view.js")[1].decode().replace("https:", "")


@pytest.mark.parametrize(
    "path",
    ["web/..%2fserver.py", "web/../server.py", "web/none.js", "web/uplot.LICENSE", "shot/7"],
)
def test_nothing_else_is_served(page: PageServer, path: str) -> None:
    assert get(page.url + path)[0] == 404


@pytest.mark.parametrize(
    "headers", [{"Host": "robot.example"}, {"Origin": "http://robot.example"}]
)
def test_a_page_from_elsewhere_can_neither_look_nor_press(
    page: PageServer, headers: dict[str, str]
) -> None:
    assert get(page.url, **headers)[0] == 403
    host = page.url.split("/")[2]
    with pytest.raises((InvalidStatus, ConnectionClosed)):
        with live(page.url, origin=headers.get("Origin", "http://" + "robot.example")) as socket:
            socket.recv(5)
    assert get(page.url, Origin=f"http://{host}")[0] == 200


def test_beyond_loopback_only_the_token_opens() -> None:
    served = PageServer(Board(85, 60.0), json.dumps, ViewConfig(host="0.0.0.0", port=0))
    served.start()
    try:
        url, _, token = served.url.replace("0.0.0.0", "127.0.0.1").partition("?token=")
        assert len(token) >= 16
        wait_for(lambda: get(url + "web/view.css")[0] == 200)
        assert get(url)[0] == 403
        assert get(url + "?token=guess")[0] == 403
        assert get(f"{url}?token={token}")[0] == 200
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            with live(url) as socket:
                socket.recv(5)
        with live(f"{url}?token={token}") as socket:
            assert words(socket, "pictures") == {}
    finally:
        served.stop()


def test_a_port_that_is_taken_is_one_clear_error(page: PageServer) -> None:
    port = int(page.url.rsplit(":", 1)[1].strip("/"))
    with pytest.raises(UserError, match=f"port: 127.0.0.1:{port}: .*in use"):
        PageServer(Board(85, 60.0), json.dumps, ViewConfig(port=port))


def test_the_newest_picture_and_the_words_arrive(page: PageServer) -> None:
    page.board.tell("status", {"state": "RUNNING"})
    page.board.keep(1.0, np.zeros((8, 8, 3), np.uint8), None)
    with live(page.url) as socket:
        assert words(socket, "status") == {"state": "RUNNING"}
        page.board.show("camera", np.full((8, 8, 3), 200, np.uint8))
        picture = next(m for m in iter(lambda: socket.recv(5), None) if isinstance(m, bytes))
    assert picture[0] == 0 and picture[1:3] == b"\xff\xd8"
    status, jpeg = get(page.url + "shot/1")
    assert status == 200 and jpeg[:2] == b"\xff\xd8"


def test_buttons_are_answered_and_nonsense_is_told(page: PageServer) -> None:
    with live(page.url) as socket:
        for text, ok in [
            ('{"do": "goal"}', True), ('{"do": "fail"}', False), ("[1]", False), ("{", False),
        ]:  # fmt: skip
            socket.send(text)
            assert words(socket, "answer")["ok"] is ok
    with live(page.url) as socket:
        socket.send("x" * 5000)
        with pytest.raises(ConnectionClosed):
            while True:
                socket.recv(5)
    assert get(page.url)[0] == 200


def test_an_emergency_stop_waits_for_no_other_button(page: PageServer) -> None:
    RELEASED.clear()
    try:
        with live(page.url) as socket:
            for _ in range(MOST_WAITING + 2):
                socket.send('{"do": "slow"}')
            socket.send('{"do": "e_stop", "on": true}')
            answers = [words(socket, "answer") for _ in range(3)]
            assert [a["message"] for a in answers[:2]] == ["busy; press again later"] * 2
            assert answers[2]["do"] == "e_stop" and answers[2]["ok"]
            RELEASED.set()
            assert [words(socket, "answer")["do"] for _ in range(MOST_WAITING)] == (
                ["slow"] * MOST_WAITING
            )
    finally:
        RELEASED.set()


def test_browsers_that_never_read_do_not_stop_the_others(page: PageServer) -> None:
    hung = [live(page.url, max_queue=1) for _ in range(MOST_BROWSERS - 1)]
    noise = np.random.default_rng(0)
    with live(page.url) as socket:
        came = 0
        for _ in range(100):
            page.board.show("camera", noise.integers(0, 255, (240, 320, 3), dtype=np.uint8))
            came += isinstance(socket.recv(5), bytes)
        assert came > 10
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            with live(page.url) as one_too_many:
                one_too_many.recv(5)
    for other in hung:
        other.socket.close()


def test_the_page_offers_the_planners_that_there_are() -> None:
    assert sorted(OFFERED) == sorted(PLANNERS)


def test_messages_become_words_that_json_holds() -> None:
    status = PlannerStatus(state=PlannerStatus.SAFE_STOP, reason="image: none received")
    status.novelty = float("nan")
    told = status_words(status)
    assert (told["state"], told["novelty"]) == ("SAFE_STOP", None)
    gate = gate_words(GateStatus(state=GateStatus.RAMPING, command=[0.5], request_age_s=np.inf))
    assert (gate["state"], gate["command"], gate["request_age_s"]) == ("RAMPING", [0.5], None)
    plan = Plan(
        horizon=2, action_dim=2, actions=[1.0, 2.0, 3.0, 4.0], candidates=1, cost=np.inf,
        candidate_costs=[0.5], candidate_actions=[0.0, 1.0, 2.0, 3.0], cost_history=[3.0, 1.0],
    )  # fmt: skip
    told = plan_words(plan)
    assert told["actions"] == [[1.0, 2.0], [3.0, 4.0]]
    assert told["candidates"] == [[[0.0, 1.0], [2.0, 3.0]]]
    assert told["cost"] is None and told["history"] == [3.0, 1.0]
    json.dumps([told, gate, status_words(status)], allow_nan=False)


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    for arguments, said in [
        (["--port", "70000"], "port"),
        (["--host", "robot"], "host: 'robot'"),
        (["--bag", str(tmp_path / "none")], "bag: "),
    ]:
        command = [sys.executable, "-m", "wm_mpc.cli", "view", *arguments]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == 2
        assert said in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
