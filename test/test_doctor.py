"""The doctor finds what is missing and says how to get it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from wm_mpc.bringup import ros_env
from wm_mpc.cli import doctor
from wm_mpc.cli import main as cli


def by_name(findings: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in findings}


def test_everything_that_is_not_ok_has_a_cure() -> None:
    for finding in doctor.examine():
        assert finding.status in (doctor.OK, doctor.WARN, doctor.FAIL)
        assert finding.detail
        assert finding.status == doctor.OK or finding.cure


def test_missing_libraries_are_named_by_debian_package() -> None:
    none = by_name(doctor.check_libraries(lambda name: None))
    assert none["libgl1"].status == none["libglib2.0-0"].status == doctor.FAIL
    assert none["libgl1"].cure == "apt install libgl1"
    assert none["libegl1 or libosmesa6"].status == doctor.WARN
    some = by_name(doctor.check_libraries(lambda name: name if name != "EGL" else None))
    assert all(finding.status == doctor.OK for finding in some.values())


def test_what_was_not_yet_run_on_a_gpu_is_told_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    properties = SimpleNamespace(total_memory=8 * 2**30)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: properties)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "Orin")
    finding = doctor.check_gpu()
    assert finding.status == doctor.OK and finding.detail.startswith("Orin, 8 GiB; ")
    assert "CUDA graphs are off" in finding.detail
    assert "not yet run on a Jetson" in finding.detail


def test_a_missing_package_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_has", lambda module: module != "mujoco")
    findings = by_name(doctor.check_packages())
    assert findings["mujoco"].status == doctor.WARN
    assert "PointMaze" in findings["mujoco"].detail and "[sim]" in findings["mujoco"].cure
    assert [n for n, f in findings.items() if f.status != doctor.OK] == ["mujoco"]


def test_two_opencv_builds_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "4.8")
    (finding,) = doctor.check_opencv_builds()
    assert finding.status == doctor.FAIL and "opencv-python-headless" in finding.detail


def test_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    assert doctor.check_compiler(lambda name: None).status == doctor.WARN
    found = doctor.check_compiler(lambda name: "/bin/clang" if name == "clang" else None)
    assert (found.status, found.detail) == (doctor.OK, "/bin/clang")
    monkeypatch.setenv("CC", "my-cc")
    assert doctor.check_compiler(lambda name: f"/opt/{name}").detail == "/opt/my-cc"


@pytest.mark.parametrize(
    ("source", "variables", "expected"),
    [
        (None, {}, {"rclpy": doctor.WARN}),
        (ros_env.WHEELS, {}, {"rclpy": doctor.OK, "AMENT_PREFIX_PATH": doctor.OK}),
        (ros_env.DISTRIBUTION, {}, {"AMENT_PREFIX_PATH": doctor.FAIL}),
        (
            ros_env.DISTRIBUTION,
            {"AMENT_PREFIX_PATH": "/opt/ros/x", "ROS_DISTRO": "x"},
            {"rclpy": doctor.OK, "AMENT_PREFIX_PATH": doctor.OK},
        ),
        (
            ros_env.WHEELS,
            {"AMENT_PREFIX_PATH": "/opt/ros/x", "ROS_DISTRO": "x"},
            {"rclpy mixture": doctor.FAIL},
        ),
    ],
)
def test_where_rclpy_comes_from(
    source: str | None,
    variables: dict[str, str],
    expected: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AMENT_PREFIX_PATH", "ROS_DISTRO"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ros_env, "rclpy_source", lambda: source)
    findings = by_name(doctor.check_ros())
    assert {name: findings[name].status for name in expected} == expected


def test_little_room_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 2**30})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    finding = doctor.check_disk(tmp_path)
    assert finding.status == doctor.WARN and "1.0 GiB" in finding.detail


@pytest.mark.parametrize(("status", "code"), [(doctor.WARN, 0), (doctor.FAIL, 1)])
def test_exit_code_and_report(
    status: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finding = doctor.Finding("thing", status, "missing", "get it")
    monkeypatch.setattr(doctor, "examine", lambda: [finding])
    assert cli.main(["doctor", "--report", str(tmp_path / "d.json")]) == code
    out = capsys.readouterr().out
    assert "thing" in out and "-> get it" in out
    (row,) = json.loads((tmp_path / "d.json").read_text())["results"]
    assert row == {"name": "thing", "status": status, "detail": "missing", "cure": "get it"}


def test_a_report_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["doctor", "--report", str(tmp_path / "file" / "d.json")]) == 2
    assert "report: " in capsys.readouterr().err
