"""``wm-mpc bag``: options, mapping file, exit codes, reports."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from bag_helpers import tape, trajectories

from wm_mpc.cli.main import main
from wm_mpc.data.bags import BagWriter, ExportConfig, Exporter, WriterConfig
from wm_mpc.data.store.store import Store


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    with BagWriter(tmp_path / "bag", WriterConfig(min_free_mb=0)) as writer:
        Exporter(writer).write(trajectories(2))
    return tmp_path / "bag"


def run(*words: object) -> int:
    return main(["bag", *(str(word) for word in words)])


def test_import_writes_store_and_report(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    report = tmp_path / "report.json"
    store = tmp_path / "store"
    words = ("--out", store, "--rate", 10, "--task", "push", "--report", report, "--quiet")
    assert run("import", bag, *words) == 0
    assert "2 episodes, 24 steps, 26 frames" in capsys.readouterr().out
    assert len(Store.open(store)) == 2
    assert Store.open(store).spec.task == "push"
    written = json.loads(report.read_text())
    assert written["results"][0]["counts"]["steps"] == 24
    assert written["statistics"]["actions"]["n"] == 24
    assert written["settings"]["align"]["command_method"] == "zoh"
    # the store now knows rate and size; the same again adds nothing, other settings are refused
    assert run("import", bag, "--out", store, "--task", "push", "--quiet") == 0
    assert "2 of these were in the store" in capsys.readouterr().out
    assert run("import", bag, "--out", store, "--task", "push", "--max-missing", 1, "--quiet") == 2
    assert "imported with other settings" in capsys.readouterr().err


def test_mapping_file_and_options(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("rate: 5\nproprio_topic: /proprio\nsize: 8\nmin_steps: 20\n")
    words = ("--out", tmp_path / "a", "--mapping", mapping, "--quiet")
    assert run("import", bag, *words, "--rate", 10) == 1  # 12 steps are fewer than 20
    assert "2 episodes too short" in capsys.readouterr().out
    assert run("import", bag, *words, "--rate", 10, "--min-steps", 5) == 0
    assert Store.open(tmp_path / "a").spec.image_size == (8, 8)
    mapping.write_text("rtae: 5\n")
    assert run("import", bag, *words) == 2
    assert "'rtae' is none of rate, image_topic" in capsys.readouterr().err
    mapping.write_text("rate: fast\n")
    assert run("import", bag, *words) == 2
    assert "rate: 'fast'; more than 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--rate", "0"), "rate: 0.0; more than 0 and at most 1000 Hz expected"),
        ((), "rate: missing"),
        (
            ("--rate", "10", "--proprio-method", "cubic"),
            "proprio_method: 'cubic'; linear or nearest or zoh expected",
        ),
        (("--rate", "10", "--image-tolerance", "0.2"), "image_tolerance_s: 0.2; less than half"),
        (("--rate", "10", "--command-phase", "1"), "command_phase: 1.0; in [0, 1) expected"),
        (("--rate", "10", "--size", "0"), "size: (0, 0); 1 to 4096 expected"),
        (("--rate", "10", "--image-topic", "cam"), "image_topic: 'cam' is not in the bag"),
        (("--rate", "10", "--stamps", "mine"), "stamps: 'mine'; auto, header or recorder"),
    ],
)
def test_bad_options_get_one_line(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: tuple, complaint: str
) -> None:
    assert run("import", bag, "--out", tmp_path / "store", "--quiet", *words) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_several_bags_of_which_one_is_broken(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "broken.mcap").write_bytes(b"no")
    words = ("--out", tmp_path / "store", "--rate", 10, "--quiet")
    assert run("import", tmp_path / "broken.mcap", bag, *words) == 3
    said = capsys.readouterr().out
    assert "not an MCAP file" in said
    assert "2 episodes from 2 bags" in said
    assert run("import", tmp_path / "broken.mcap", *words) == 1


def test_info_tells_topics_rates_and_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    recording = tape(tmp_path / "tape")
    recording.steps(range(50))
    recording.writer.close()
    assert run("info", tmp_path / "tape", "--check") == 0
    said = capsys.readouterr().out
    assert "/image    sensor_msgs/msg/Image  50 messages, 10.0 Hz" in said
    file = tmp_path / "tape" / "tape_0.mcap"
    file.write_bytes(file.read_bytes()[:-5000])
    words = ("--check", "--recover", tmp_path / "sound", "--report", tmp_path / "info.json")
    assert run("info", tmp_path / "tape", *words) == 3
    assert "truncated at byte" in capsys.readouterr().out
    assert json.loads((tmp_path / "info.json").read_text())["results"][0]["problems"]
    assert run("info", tmp_path / "sound", "--check") == 0


@pytest.mark.parametrize("format_", ["rosbag2", "lerobot"])
def test_export_a_part_of_a_store(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture, format_: str
) -> None:
    if format_ == "lerobot":
        pytest.importorskip("pyarrow")
    run("import", bag, "--out", tmp_path / "store", "--rate", 10, "--quiet")
    words = ("--format", format_, "--first", 1, "--out", tmp_path / "out")
    assert run("export", tmp_path / "store", *words) == 0
    assert "1 episodes written" in capsys.readouterr().out
    if format_ == "rosbag2":
        run("import", tmp_path / "out", "--out", tmp_path / "again", "--rate", 10, "--quiet")
        (episode,) = Store.open(tmp_path / "again")
        np.testing.assert_array_equal(episode.images, trajectories(2)[1].images)
    words = ("--first", 2, "--out", tmp_path / "none")
    assert run("export", tmp_path / "store", *words) == 2
    assert "has 0 to 1" in capsys.readouterr().err
    assert run("export", tmp_path / "nowhere", "--out", tmp_path / "none") == 2


def test_a_damaged_definition_costs_its_topic_only(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "damaged"
    tape_ = tape(other, "sqlite3")
    tape_.steps(range(12))
    tape_.writer.close()
    (file,) = other.glob("*.db3")
    with sqlite3.connect(file) as base:
        where = "WHERE topic_type = 'std_msgs/msg/Float64MultiArray'"
        query = f"SELECT encoded_message_definition FROM message_definitions {where}"
        (text,) = base.execute(query).fetchone()
        damaged = text.replace("MultiArrayLayout", "MultiArrayLayoud", 1)
        base.execute(
            f"UPDATE message_definitions SET encoded_message_definition = ? {where}", (damaged,)
        )
    base.close()
    assert run("info", other, "--check", "--recover", tmp_path / "sound") == 0
    said = capsys.readouterr().out
    assert "/command: left out: type std_msgs/msg/Float64MultiArray" in said
    assert "24 messages copied" in said


def test_names_without_end_are_no_names(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tape_ = tape(tmp_path / "bag")
    tape_.steps(range(12))
    tape_.writer.close()
    file = tmp_path / "bag" / "metadata.yaml"
    file.write_text(file.read_text().replace("name: /proprio", f"name: {'a' * 100_000}"))
    assert run("info", tmp_path / "bag") == 3
    assert "metadata.yaml is damaged" in (said := capsys.readouterr().out)
    assert max(map(len, said.splitlines())) < 2000


def test_parts_of_a_twist_that_never_change_are_left_out_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def twists(name: str, axes: tuple[str, ...]) -> Path:
        config = ExportConfig(command_type="twist_stamped", twist_axes=axes)
        with BagWriter(tmp_path / name, WriterConfig(min_free_mb=0)) as writer:
            Exporter(writer, config).write(trajectories(1))
        return tmp_path / name

    words = ("--out", tmp_path / "store", "--rate", 10, "--quiet")
    assert run("import", twists("a", ("linear.z", "angular.x")), *words) == 0
    said = capsys.readouterr().out
    assert "never changing, left out: twist.linear.x, twist.linear.y, twist.angular.y" in said
    channels = Store.open(tmp_path / "store").spec.action_channels
    assert [channel.name for channel in channels] == ["twist.linear.z", "twist.angular.x"]
    # what the store has is read of later bags, and told where it is not all of them
    assert run("import", twists("b", ("linear.z", "linear.y")), *words) == 3
    assert "twist.linear.y change here and are not in the store" in capsys.readouterr().out
    assert Store.open(tmp_path / "store").spec.action_dim == 2
