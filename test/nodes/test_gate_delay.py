"""Gate and wire are timed over DDS, with a gate in a process of its own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from wm_mpc.bringup.supervisor import Process
from wm_mpc.cli.bench import Config, run
from wm_mpc.cli.latency import Latency
from wm_mpc.core.errors import UserError
from wm_mpc.trials import gate_delay

QUICK = Latency(
    "gru", "eager", starts="1", iterations=1, ticks=3, cem_seconds=0.01,
    gate_seconds=1.0, gate_rate=20.0,
)  # fmt: skip


def test_the_latency_report_tells_gate_and_wire(
    ros_domain: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    report = tmp_path / "latency.json"
    assert run(Config(latency=True, rows=QUICK, report=report)) == 0, capsys.readouterr()
    way = json.loads(report.read_text())["way"]
    assert 10 <= way["passed"] <= way["requests"] <= 21
    for part in ("gate_ms", "wire_ms", "through_ms", "hop_ms", "inside_ms"):
        found = way[part]
        assert found["n"] == way["passed"]
        assert 0 < found["p50"] <= found["p95"] <= found["p99"] <= found["max"] < 5000, part
    # request by request the two parts add up, so the largest sum is below the sum of the largest
    assert way["through_ms"]["max"] <= way["gate_ms"]["max"] + way["wire_ms"]["max"] + 1e-6
    assert way["inside_ms"]["p50"] < way["gate_ms"]["p50"] < way["through_ms"]["p50"]
    table = report.with_suffix(".md").read_text()
    assert f"| wire: one hop of DDS between two processes | {way['passed']} |" in table
    assert table.splitlines()[-4] in capsys.readouterr().out
    assert "wire: one hop of DDS" in report.with_suffix(".html").read_text()
    assert report.with_suffix(".png").stat().st_size > 1000


def test_the_gate_ends_with_the_measurement(ros_domain: int) -> None:
    with gate_delay.running_gate() as (pid, asker):
        assert asker.connected()
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_gate_that_cannot_start_is_a_failure_of_its_own(
    ros_domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = "print('no gears left'); raise SystemExit(3)"
    broken = [Process("command_gate", (sys.executable, "-c", words))]
    monkeypatch.setattr(gate_delay, "processes", lambda *_: broken)
    with pytest.raises(UserError, match="command_gate: ended with code 3: no gears left"):
        gate_delay.measure_gate_delay(1.0, 10.0)
    report = tmp_path / "latency.json"
    assert run(Config(latency=True, rows=QUICK, report=report)) == 1
    found = json.loads(report.read_text())
    assert len(found["results"]) == 1 and found["way"] is None
    assert found["failures"][0]["model"] == "command_gate"
    assert "gate and wire: not timed; command_gate: ended" in capsys.readouterr().out
