"""What the numbers of a vector are, and that stores keep it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from wm_mpc.core.channels import Channel, channels, difference
from wm_mpc.data.store.store import Store, StoreError, StoreSpec, StoreWriter

JOINTS = ("shoulder", "elbow")
SPEC = StoreSpec(
    "arm", 2, 4, 0, 0.1, (8, 8),
    channels("position", JOINTS, "rad") + channels("velocity", JOINTS),
    channels("velocity", JOINTS, "rad/s"),
)  # fmt: skip


def test_a_store_keeps_names_units_and_roles(tmp_path: Path) -> None:
    StoreWriter(tmp_path, SPEC).close()
    found = Store.open(tmp_path).spec
    assert found == SPEC
    assert [str(c) for c in found.action_channels] == [
        "shoulder velocity [rad/s]", "elbow velocity [rad/s]",
    ]  # fmt: skip


def test_old_stores_open_and_are_appended_to(tmp_path: Path) -> None:
    old = replace(SPEC, proprio_channels=(), action_channels=())
    StoreWriter(tmp_path, old).close()
    assert "channels" not in (tmp_path / "store.json").read_text()
    assert Store.open(tmp_path).spec == old
    StoreWriter(tmp_path, SPEC).close()


def test_another_order_of_joints_is_not_appended(tmp_path: Path) -> None:
    StoreWriter(tmp_path, SPEC).close()
    other = replace(SPEC, action_channels=SPEC.action_channels[::-1])
    said = r"action_channels: number 0 is elbow velocity \[rad/s\]; shoulder velocity"
    with pytest.raises(StoreError, match=said):
        StoreWriter(tmp_path, other)


def test_what_is_not_known_is_not_compared() -> None:
    assert not difference((), SPEC.action_channels)
    assert not difference(channels("", JOINTS), SPEC.action_channels)
    assert "number 1 is elbow [deg/s]" in difference(
        (Channel("shoulder"), Channel("elbow", "deg/s")), SPEC.action_channels
    )


def test_bad_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="role"):
        Channel("x", role="wish")
    with pytest.raises(ValueError, match="action_channels: 1 entries; 2 expected"):
        replace(SPEC, action_channels=(Channel("x"),))
    StoreWriter(tmp_path, SPEC).close()
    file = tmp_path / "store.json"
    manifest = json.loads(file.read_text())
    manifest["action_channels"][0]["colour"] = "red"
    file.write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="colour"):
        Store.open(tmp_path)
