"""The SROS2 policy: it allows what the nodes really use, nothing else, and it is enforced."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from rclpy.action import get_action_server_names_and_types_by_node
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import NodeNameNonExistentError
from ros import START_S, Probe
from std_msgs.msg import Bool, Float64MultiArray

from wm_mpc.control.gate import GateState
from wm_mpc.core.errors import UserError
from wm_mpc.msg import GateStatus
from wm_mpc.nodes.common import qos

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools.keystore import Grant, make_keystore, read_policy  # noqa: E402

# what rclpy raises for a node that is known by half
RCLError = rclpy_implementation.RCLError
POLICY = read_policy(ROOT / "config" / "security" / "policy.xml")
# by remapping (arms), for cameras that compress, with use_sim_time only, of robots under twists
ON_DEMAND = {"/joint_states", "/clock", "/image/compressed", "/tip_pose"}
NODES = ("sim_bridge", "command_gate", "mpc_node")
INTRUDER = """
import sys
from wm_mpc.bringup.ros_env import prepare
prepare()
import rclpy
from std_msgs.msg import Float64MultiArray
rclpy.init(args=sys.argv)
node = rclpy.create_node("intruder")
try:
    node.create_publisher(Float64MultiArray, sys.argv[1], 1)
except Exception as error:
    print("refused", str(error).splitlines()[0])
else:
    print("allowed")
"""


def test_only_the_gate_may_command() -> None:
    assert [path for path, grant in POLICY.items() if "/command" in grant.publish] == [
        "/wm_mpc/command_gate"
    ]
    assert {path for path, grant in POLICY.items() if "/command_request" in grant.publish} == {
        "/wm_mpc/mpc_node", "/wm_mpc/explore_node"
    }  # fmt: skip
    for grant in POLICY.values():
        assert not any("*" in name for names in vars(grant).values() for name in names)


def test_names_of_dds() -> None:
    write, read = Grant(publish={"/a"}, reply={"/s"}, call={"/go"}).dds()
    assert {"rt/a", "rr/sReply", "rq/go/_action/send_goalRequest"} <= write
    assert {"rq/sRequest", "rt/go/_action/feedback", "rr/go/_action/get_resultReply"} <= read
    assert not {"rt/a", "rr/sReply"} & read


@pytest.fixture
def keystore(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    folder = tmp_path / "keystore"
    assert make_keystore(folder) == list(POLICY)
    return folder


def test_the_keystore_holds_what_the_middleware_asks_for(keystore: Path) -> None:
    authority = keystore / "public" / "ca.cert.pem"
    for path in POLICY:
        own = keystore / "enclaves" / path.strip("/")
        verify = ["openssl", "verify", "-CAfile", authority, own / "cert.pem"]
        subprocess.run(verify, check=True, capture_output=True)
        name = ["openssl", "x509", "-in", own / "cert.pem", "-noout", "-subject"]
        said = subprocess.run(name, check=True, capture_output=True, text=True).stdout
        assert said.strip().endswith(f"CN = {path}") or said.strip().endswith(f"CN={path}")
        assert (own / "key.pem").stat().st_mode & 0o077 == 0
        for document in ("governance", "permissions"):
            signed = ["openssl", "smime", "-verify", "-in", own / f"{document}.p7s", "-CAfile"]
            done = subprocess.run(
                [*signed, own / "permissions_ca.cert.pem"], check=True, capture_output=True
            )
            assert b"<dds " in done.stdout
        may = ElementTree.parse(own / "permissions.xml").getroot()
        writes = {e.text for e in may.iterfind(".//publish/topics/topic")}
        assert ("rt/command" in writes) is (path == "/wm_mpc/command_gate")
        assert may.findtext(".//grant/subject_name") == f"CN={path}"
        assert may.findtext(".//grant/default") == "DENY"


def test_a_second_keystore_keeps_the_authority_and_the_certificates(keystore: Path) -> None:
    files = {
        p: p.read_bytes() for p in keystore.rglob("*.pem") if p.parent.name != "private"
    }
    make_keystore(keystore)
    assert files == {p: p.read_bytes() for p in files}


def test_what_is_not_understood_allows_nothing(tmp_path: Path) -> None:
    policy = tmp_path / "policy.xml"
    policy.write_text(
        '<policy version="0.2.0"><enclaves><enclave path="/a"><profiles><profile ns="/" node="n">'
        '<topics publish="DENY"><topic>t</topic></topics></profile></profiles></enclave>'
        "</enclaves></policy>"
    )
    with pytest.raises(UserError, match="publish='DENY'"):
        read_policy(policy)
    policy.write_text("<policy/>")
    with pytest.raises(UserError, match="no enclave"):
        read_policy(policy)


@contextmanager
def launched(log: Path, *more: str) -> Iterator[None]:
    """``wm-mpc launch wall_sim`` in a process of its own."""
    words = [sys.executable, "-m", "wm_mpc.cli", "launch", "wall_sim", *more]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        launch = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, env=env)
    try:
        yield
    finally:
        launch.terminate()
        launch.wait(30)


def passes(probe: Probe) -> bool:
    status = probe.last("gate_status")
    return status is not None and status.state == GateState.PASSING


def used_by(probe: Probe, name: str) -> dict[str, set[str]]:
    """What a node really uses, as the fields of a ``Grant``."""
    node = probe.node

    def names(of: str) -> set[str]:
        ask = getattr(node, f"get_{of}_names_and_types_by_node")
        return {topic for topic, _ in ask(name, "/")}

    execute = {a for a, _ in get_action_server_names_and_types_by_node(node, name, "/")}
    found = {
        "publish": names("publisher"), "subscribe": names("subscriber"),
        "reply": names("service"), "request": names("client"),
    }  # fmt: skip
    own = tuple(f"{action}/_action/" for action in execute)
    found = {k: {n for n in v if not n.startswith(own or "\n")} for k, v in found.items()}
    return found | {"execute": execute, "call": set()}


def test_the_policy_allows_what_a_running_launch_uses_and_no_more(
    ros_domain: int, tmp_path: Path
) -> None:
    probe = Probe(ros_domain)
    probe.listen(GateStatus, "gate_status")
    more = ("record:=true", f"bag:={tmp_path / 'bag'}", "view:=true", "markers:=true")
    try:
        with launched(tmp_path / "launch.log", *more):
            probe.wait(lambda: passes(probe), START_S, "commands")
            for name in (*NODES, "recorder_node", "view", "markers"):
                grant = vars(POLICY[f"/wm_mpc/{name}"])
                unused: dict[str, set[str]] = {}

                def all_is_used(name: str = name, grant: Any = grant, out: Any = unused) -> bool:
                    # what is discovered comes piece by piece
                    with suppress(NodeNameNonExistentError, RCLError):
                        used = used_by(probe, name)
                        out.update({k: grant[k] - used[k] - ON_DEMAND for k in used})
                        return not any(out.values())
                    return False

                try:
                    probe.wait(all_is_used, START_S, name)
                except AssertionError:
                    raise AssertionError(f"{name} may what it does not use: {unused}") from None
                for kind, names in used_by(probe, name).items():
                    assert names <= grant[kind], (name, kind)
            gate = {"/command"} & used_by(probe, "command_gate")["publish"]
            assert gate and len(probe.node.get_publishers_info_by_topic("/command")) == 1
    finally:
        probe.close()


def publish_as(enclave: str, topic: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", INTRUDER, topic, "--ros-args", "--enclave", enclave],
        capture_output=True, text=True, timeout=START_S,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.stdout or done.stderr


def test_the_launch_runs_under_the_policy_and_nobody_else_commands(
    keystore: Path, ros_domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_SECURITY_KEYSTORE", str(keystore))
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    monkeypatch.setenv("ROS_SECURITY_STRATEGY", "Enforce")
    try:
        probe = Probe(ros_domain, ["--ros-args", "--enclave", "/wm_mpc/operator"])
    except RuntimeError as error:
        if "have the security libraries" not in str(error):
            raise
        pytest.skip("the ROS wheels are built without DDS security; a distribution is needed")
    probe.listen(GateStatus, "gate_status")
    probe.listen(Float64MultiArray, "command")
    try:
        with launched(tmp_path / "launch.log", "enclave:=/wm_mpc"):
            probe.wait(lambda: passes(probe), START_S, "commands")
            probe.wait(lambda: probe.heard["command"], 10.0, "commands at the robot")
            for enclave in ("/wm_mpc/mpc_node", "/wm_mpc/operator", "/wm_mpc/trainer_node"):
                assert publish_as(enclave, "command").startswith("refused"), enclave
            assert publish_as("/wm_mpc/command_gate", "command") == "allowed\n"
            stop = probe.node.create_publisher(Bool, "e_stop", qos.LATCHED)
            stop.publish(Bool(data=True))
            stopped = lambda: probe.last("gate_status").state == GateState.E_STOP  # noqa: E731
            probe.wait(stopped, 10.0, "the operator's stop")
    finally:
        probe.close()
