"""The live page over running launches, in a real browser: it shows, and the nodes obey."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_encoder, tiny_model
from rclpy.serialization import serialize_message
from ros import START_S, Probe
from sensor_msgs.msg import Image
from std_msgs.msg import Float64MultiArray
from test_view import get, live, wait_for, words

from wm_mpc.core.locations import ASSETS
from wm_mpc.data.bags.writer import BagWriter, WriterConfig
from wm_mpc.models.decoder import Decoder, DecoderConfig
from wm_mpc.msg import GateStatus, Plan, PlannerStatus, TaskState
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.messages import rgb_to_image, to_stamp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).parents[2]
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Debian's chromium: apt install chromium"
)


@contextmanager
def command(log: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """A ``wm-mpc`` command that runs until the test ends it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "wm_mpc.cli", *arguments], stdout=out,
            stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def address(log: Path) -> str:
    """Address that the page printed."""
    wait_for(lambda: "view: http" in log.read_text(), START_S)
    return re.findall(r"view: (http\S+)", log.read_text())[0]


@contextmanager
def launched(
    tmp_path: Path, bringup: str, *arguments: str, goals_from: Path | None = None
) -> Iterator[Path]:
    """A launch with the page on a free port, which may offer goals of a bag; its log."""
    file = tmp_path / f"{bringup}.yaml"
    text = (ROOT / "config" / f"{bringup.removesuffix('_sim')}.yaml").read_text()
    gate, page = "/**/command_gate:\n  ros__parameters:\n", "port: 8765"
    assert gate in text and page in text
    offered = f"\n    goals_from: {goals_from}" if goals_from else ""
    text = text.replace(page, f"port: 0{offered}  #")
    file.write_text(text.replace(gate, f"{gate}    e_stop_file: {tmp_path / 'e_stop'}\n"))
    log = tmp_path / "launch.log"
    words = ["launch", bringup, f"params_file:={file}", "view:=true", *arguments]
    with command(log, *words):
        yield log


@pytest.fixture
def probe(ros_domain: int) -> Iterator[Probe]:
    probe = Probe(ros_domain)
    probe.listen(PlannerStatus, "status", qos.EVENT)
    probe.listen(GateStatus, "gate_status")
    probe.listen(TaskState, "task_state")
    probe.listen(Float64MultiArray, "command", qos.COMMAND)
    probe.listen(Image, "image", qos.IMAGE)
    yield probe
    probe.close()


def arm_model(folder: Path) -> Path:
    """An untrained model of the planar arm's interface, with an untrained decoder."""
    encoder = tiny_encoder(folder / "encoder")
    model = tiny_model(encoder, task="planar_arm")
    model.proprio_mean.zero_()
    model.proprio_std.fill_(1.0)
    model.save(folder, encoder="encoder")
    shape = tuple(model.latent_shape)
    Decoder(DecoderConfig(shape, 32, width=16, depth=1)).save(folder, model)
    return folder


class Tab:
    """A browser's page, and what it asked for and complained of."""

    def __init__(self, play: Any, url: str) -> None:
        self.browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        self.page = self.browser.new_page(viewport={"width": 1400, "height": 1000})
        self.asked: list[str] = []
        self.faults: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "console", lambda m: self.faults.append(m.text) if m.type == "error" else None
        )
        self.page.goto(url)
        self.host = url.split("/")[2]

    def close(self) -> None:
        self.browser.close()
        assert self.faults == []
        own = ("blob:", "data:", f"http://{self.host}/", f"ws://{self.host}/")
        assert [url for url in self.asked if not url.startswith(own)] == []
        assert any(url.startswith("ws:") for url in self.asked)

    @property
    def frames(self) -> int:
        """Camera pictures shown so far."""
        return int(self.page.locator("body").get_attribute("data-frames") or 0)

    def picks(self, place: str) -> bytes:
        """Press the first picture offered as a goal; the goal that the page shows then."""
        before = self.page.locator("#goal").get_attribute("src")
        self.page.locator(f"{place} button").first.click()
        wait_for(lambda: self.page.locator("#goal").get_attribute("src") != before, 30)
        return self.page.locator("#goal").screenshot()


def rests(probe: Probe) -> bool:
    """The gate tells the stop, and the robot is told zeros."""
    gate, told = probe.last("gate_status"), probe.last("command")
    return gate.e_stop and gate.state == GateStatus.E_STOP and not np.any(told.data)


def keeps_up(tab: Tab, probe: Probe, window_s: float = 3.0) -> bool:
    """Whether the page showed nine of ten pictures a second, of a camera that sent as many."""
    sent, shown, began = len(probe.heard["image"]), tab.frames, time.monotonic()
    time.sleep(window_s)
    took = time.monotonic() - began
    shown, sent = tab.frames - shown, len(probe.heard["image"]) - sent
    return shown >= 9.0 * took and shown >= 0.9 * sent


@needs_browser
@pytest.mark.parametrize("bringup", ["pusht_sim", "planar_arm_sim"])
def test_a_browser_sees_the_robot_move_and_the_nodes_obey_it(
    bringup: str, tmp_path: Path, probe: Probe
) -> None:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)
    arm = bringup == "planar_arm_sim"
    bag = tmp_path / "bag"
    record(bag, 20, side=96)
    model = (f"model:={arm_model(tmp_path / 'model')}",) if arm else ()

    def state() -> int:
        return probe.last("status").state

    launch = launched(tmp_path, bringup, *model, goals_from=bag)
    with launch as log, sync_playwright() as play:
        tab = Tab(play, address(log))
        page = tab.page
        wait_for(lambda: probe.last("status") is not None, START_S)
        expect(page.locator("body")).to_have_attribute("data-frames", re.compile(r"^[2-9]\d"))
        if arm:
            page.click("#reset")
            expect(page.locator("#answer")).to_contain_text("a simulator expected")
        else:
            before = probe.last("task_state").episode
            page.click("#reset")
            expect(page.locator("#answer")).to_have_text("new episode")
            wait_for(lambda: probe.last("task_state").episode > before)
        page.click("#snap")
        expect(page.locator("#answer")).to_have_text("goal taken from the camera")
        wait_for(lambda: state() == PlannerStatus.RUNNING, 30)
        wait_for(lambda: keeps_up(tab, probe), 60)
        camera = tab.picks("#shots")
        expect(page.locator("#answer")).to_have_text("goal taken from the camera")
        expect(page.locator("#recorded button")).to_have_count(20)
        assert tab.picks("#recorded") != camera
        expect(page.locator("#answer")).to_have_text("goal taken from the recording")
        # the search and what the model imagines, beside what came
        expect(page.locator("#search")).to_have_attribute("data-candidates", re.compile("^[1-9]"))
        expect(page.locator("#search")).to_have_attribute("data-chunks", re.compile("^[1-9]"))
        expect(page.locator("#came")).to_have_attribute("data-drawn", re.compile("^[2-9]"))
        page.click("#pause")
        wait_for(lambda: state() == PlannerStatus.IDLE)
        page.click("#go-on")
        expect(page.locator("#answer")).to_have_text("going on")
        wait_for(lambda: state() != PlannerStatus.IDLE, 30)
        before = probe.last("status").budget_ms
        page.fill("#budget", "0.5")
        page.click("#settings button")
        expect(page.locator("#answer")).to_have_text("budget_fraction: 0.005")
        wait_for(lambda: probe.last("status").budget_ms < before / 2, 30)
        page.fill("#budget", "")
        page.select_option("#planner", "mppi")
        page.click("#settings button")
        expect(page.locator("#answer")).to_have_text("planner: mppi")
        wait_for(lambda: (s := probe.last("status")).planner == "mppi" and s.iterations > 0, 30)
        expect(page.locator("#facts")).to_contain_text("mppi, ")
        page.click("#e-stop")
        wait_for(lambda: state() == PlannerStatus.E_STOP and rests(probe))
        expect(page.locator("#states .on")).to_have_text("E_STOP")
        expect(page.locator("#gate")).to_contain_text("E_STOP")
        page.click("#e-stop")
        wait_for(lambda: not probe.last("gate_status").e_stop)
        tab.close()


def test_planner_and_budget_are_set_or_refused_with_the_reason(
    tmp_path: Path, probe: Probe
) -> None:
    with launched(tmp_path, "wall_sim") as log:
        with live(address(log)) as socket:
            words(socket, "status", START_S)
            for text, said in [
                ('{"do": "set", "name": "seed", "value": 3}', "name: 'seed'; one of"),
                ('{"do": "set", "name": "planner", "value": "magic"}', "planner"),
                ('{"do": "set", "name": "budget_fraction", "value": -1}', "budget_fraction"),
            ]:
                socket.send(text)
                answer = words(socket, "answer", 30)
                assert not answer["ok"] and said in answer["message"]
            before = words(socket, "status")["budget_ms"]
            socket.send('{"do": "set", "name": "budget_fraction", "value": 0.02}')
            assert words(socket, "answer", 30)["ok"]
            wait_for(lambda: words(socket, "status")["budget_ms"] < before / 2, 30)
            assert words(socket, "plan", 30)["candidate_costs"]
            socket.send('{"do": "set", "name": "publish_search", "value": false}')
            assert words(socket, "answer", 30)["ok"]
            wait_for(lambda: not words(socket, "plan")["candidate_costs"], 30)


def test_a_page_that_hangs_floods_or_dies_changes_nothing(tmp_path: Path, probe: Probe) -> None:
    """Its process is stopped, its buttons are hammered, then it is killed."""
    with launched(tmp_path, "wall_sim") as log:
        url = address(log)
        wait_for(lambda: (s := probe.last("status")) is not None and s.ticks > 5, START_S)

        def ticks() -> int:
            return probe.last("status").ticks

        def running() -> bool:
            return probe.last("status").state == PlannerStatus.RUNNING

        with live(url) as socket:
            for _ in range(300):
                socket.send('{"do": "set", "name": "planner", "value": "magic"}')
            went = ticks()
            wait_for(lambda: ticks() > went + 10, 30)
        page = pid_of_view(log)
        os.kill(page, signal.SIGSTOP)
        try:
            went = ticks()
            wait_for(lambda: ticks() > went + 10 and running(), 30)
        finally:
            os.kill(page, signal.SIGCONT)
        os.kill(page, signal.SIGKILL)
        went = ticks()
        wait_for(lambda: ticks() > went + 10 and running(), 30)


def pid_of_view(log: Path) -> int:
    """Process of the page, among the children of the launch."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        mine = str(log.parent) in " ".join(words)
        if mine and any(word.endswith("/view") for word in words):
            return int(entry.name)
    raise AssertionError("no view process")


def record(path: Path, count: int, side: int = 48) -> None:
    """``count`` pictures at 10 Hz, each of another grey, and what controller and gate said."""
    with BagWriter(path, WriterConfig()) as writer:
        writer.add_topic("/image", "sensor_msgs/msg/Image")
        writer.add_topic("/status", "wm_mpc/msg/PlannerStatus")
        writer.add_topic("/plan", "wm_mpc/msg/Plan")
        writer.add_topic("/gate_status", "wm_mpc/msg/GateStatus")
        for k in range(count):
            stamp = 1000.0 + 0.1 * k
            picture = rgb_to_image(np.full((side, side, 3), 10 * k, np.uint8), to_stamp(stamp))
            status = PlannerStatus(state=PlannerStatus.RUNNING, ticks=k, planner="adam")
            status.header.stamp = to_stamp(stamp)
            plan = Plan(horizon=2, action_dim=1, dt=0.1, actions=[0.5, 1.0], cost=0.25)
            gate = GateStatus(state=GateStatus.PASSING, command=[0.5])
            for topic, message in (
                ("/image", picture), ("/status", status), ("/plan", plan), ("/gate_status", gate),
            ):  # fmt: skip
                writer.write(topic, round(stamp * 1e9), serialize_message(message))


def test_a_recording_is_played_through_the_page_and_offers_goals(
    tmp_path: Path, ros_domain: int
) -> None:
    bag = tmp_path / "bag"
    record(bag, 20)
    log = tmp_path / "view.log"
    options = ("--bag", str(bag), "--goals-from", str(bag), "--port", "0", "--speed", "0.5")
    with command(log, "view", *options):
        url = address(log)
        with live(url) as socket:
            status = words(socket, "status", 60)
            assert status["state"] == "RUNNING" and status["planner"] == "adam"
            numbers = words(socket, "recorded", 30)
            end = time.monotonic() + 30
            while len(numbers) < 20 and time.monotonic() < end:
                numbers = words(socket, "recorded", 30)
            assert numbers == list(range(-1, -21, -1))
            assert get(f"{url}shot/-3")[1][:2] == b"\xff\xd8"
            socket.send('{"do": "goal", "number": -3}')
            answer = words(socket, "answer", 30)
            assert not answer["ok"] and "offered by no node" in answer["message"]


@needs_browser
def test_a_browser_shows_a_recording_as_it_shows_a_run(tmp_path: Path, ros_domain: int) -> None:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)
    bag = tmp_path / "bag"
    record(bag, 20)
    log = tmp_path / "view.log"
    options = ("--bag", str(bag), "--goals-from", str(bag), "--port", "0", "--speed", "0.2")
    with command(log, "view", *options), sync_playwright() as play:
        tab = Tab(play, address(log))
        page = tab.page
        expect(page.locator("body")).to_have_attribute("data-frames", re.compile("^[5-9]|^1"))
        expect(page.locator("#states .on")).to_have_text("RUNNING")
        expect(page.locator("#plan-note")).to_contain_text("cost 0.250")
        expect(page.locator("#gate")).to_contain_text("PASSING")
        expect(page.locator("#recorded button")).to_have_count(20)
        page.click("#reset")
        expect(page.locator("#answer")).to_contain_text("offered by no node")
        tab.close()


def test_the_bundled_decoders_draw_what_the_encoders_see() -> None:
    for task in ("wall", "point_maze", "pusht"):
        assert Decoder.load(ASSETS / task).config.image_size == 96
