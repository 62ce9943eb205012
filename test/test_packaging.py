"""The build files of ROS, CMake and pip say the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

import wm_mpc
from wm_mpc.bringup.description import BRINGUPS, node_parameters
from wm_mpc.cli.main import COMMANDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
CMAKE = (ROOT / "CMakeLists.txt").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
SCRIPTS = sorted((ROOT / "scripts").iterdir())


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    # where two Python versions have pins of their own, the newer one's
    newest = [r for r in requirements if "<" not in str(r.marker or "")]
    return {canonical(r.name): r for r in newest}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[Requirement]:
    project = PYPROJECT["project"]
    texts = [*project["dependencies"], *PYPROJECT["build-system"]["requires"]]
    for group in ("sim", "ros", "viz", "view", "export", "docs", "dev"):
        texts += project["optional-dependencies"][group]
    return [Requirement(text) for text in texts]


def test_one_version() -> None:
    assert MANIFEST.findtext("version") == wm_mpc.__version__
    changelog = (ROOT / "CHANGELOG.rst").read_text()
    released = re.search(r"^(\d+\.\d+\.\d+) \(", changelog, re.MULTILINE)
    assert released and released[1] == wm_mpc.__version__


def test_one_name_and_licence() -> None:
    assert MANIFEST.findtext("name") == "wm_mpc" == PYPROJECT["project"]["name"].replace("-", "_")
    assert MANIFEST.findtext("license") == PYPROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]


def test_cmake_lists_every_interface_file() -> None:
    listed = set(re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', CMAKE))
    files = {
        f"{folder}/{path.name}"
        for folder in ("msg", "srv", "action")
        for path in (ROOT / folder).iterdir()
    }
    assert listed == files


def test_cmake_installs_every_executable() -> None:
    listed = set(re.findall(r"scripts/([\w-]+)", CMAKE))
    assert listed == {path.name for path in SCRIPTS}


def test_every_node_of_a_bringup_is_an_executable() -> None:
    used = {node.executable for bringup in BRINGUPS.values() for node in bringup.nodes}
    assert used == {path.name for path in SCRIPTS} - {"wm-mpc"}


def test_interface_dependencies_are_declared_to_ros() -> None:
    declared = {element.text for element in MANIFEST.findall("depend")}
    found = set(re.findall(r"find_package\((\w+_(?:msgs|interfaces)) REQUIRED\)", CMAKE))
    (listed,) = re.findall(r"DEPENDENCIES ([\w ]+)\)", CMAKE)
    assert found == set(listed.split()) == declared


def test_ros_modules_that_are_imported_are_declared() -> None:
    declared = {e.text for tag in ("depend", "exec_depend") for e in MANIFEST.findall(tag)}
    ros = r"rclpy|launch\w*|\w+_msgs|std_srvs|rcl_interfaces"
    pattern = re.compile(rf"^\s*(?:from|import) ({ros})\b", re.M)
    used = {
        module
        for package in ("wm_mpc", "sim_bridge", "launch")
        for path in (ROOT / package).rglob("*.py")
        if not {"msg", "srv", "action"} & set(path.relative_to(ROOT).parts)
        for module in pattern.findall(path.read_text())
    }
    assert used <= declared


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_run_from_a_shell_and_read_as_python(script: Path) -> None:
    assert os.access(script, os.X_OK)
    compile(script.read_text(), str(script), "exec")
    subprocess.run(["sh", "-n", "-c", script.read_text().split("\n'''\n")[0]], check=True)


def test_a_script_prefers_the_interpreter_of_its_prefix(tmp_path: Path) -> None:
    target = tmp_path / "lib" / "wm_mpc" / "mpc_node"
    target.parent.mkdir(parents=True)
    target.write_bytes((ROOT / "scripts" / "mpc_node").read_bytes())
    target.chmod(0o755)
    interpreter = tmp_path / "bin" / "python3"
    interpreter.parent.mkdir()
    interpreter.write_text('#!/bin/sh\necho "mine: $*"\n')
    interpreter.chmod(0o755)
    done = subprocess.run([target, "a b"], capture_output=True, text=True, check=True)
    assert done.stdout == f"mine: {target} a b\n"


def test_everything_that_is_required_is_pinned() -> None:
    pinned = pins()
    assert [r.name for r in requirements() if canonical(r.name) not in pinned] == []


def test_pins_satisfy_the_bounds() -> None:
    pinned = pins()
    for requirement in requirements():
        (specifier,) = pinned[canonical(requirement.name)].specifier
        assert requirement.specifier.contains(specifier.version), requirement


def test_what_is_installed_is_what_is_pinned() -> None:
    if not Path(sys.prefix).is_relative_to(ROOT):
        pytest.skip("not the environment that `make setup` created")
    environment = default_environment()
    for name, pin in pins().items():
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.specifier.contains(metadata.version(name)), name


def test_nothing_drags_in_a_second_opencv_or_torchvision() -> None:
    names = {canonical(r.name) for r in requirements()} | set(pins())
    assert not names & {"torchvision", "opencv-python-headless", "opencv-contrib-python"}


def test_python_bound_and_packages() -> None:
    assert PYPROJECT["project"]["requires-python"] == ">=3.10"
    include = PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert include == ["wm_mpc*", "sim_bridge*"]
    for package in ("wm_mpc", "sim_bridge"):
        for module in (ROOT / package).rglob("*.py"):
            if {"msg", "srv", "action"} & set(module.relative_to(ROOT).parts):
                continue
            assert (module.parent / "__init__.py").is_file(), f"{module.parent} is no package"


def test_bundled_files_are_small_enough() -> None:
    for path in (ROOT / "wm_mpc" / "assets").rglob("*"):
        assert path.stat().st_size <= 16 * 2**20, f"{path} is larger than 16 MiB"


PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_the_interface_reference_quotes_the_files() -> None:
    reference = (ROOT / "docs" / "ros_interface.md").read_text()
    for folder in ("msg", "srv", "action"):
        for path in (ROOT / folder).iterdir():
            assert f"```\n{path.read_text().rstrip()}\n```" in reference, path.name


def test_the_readme_names_every_command_and_parameter() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"`wm-mpc {name}" not in readme] == []
    sections = node_parameters(ROOT / "config" / "robot.yaml")
    sections |= node_parameters(ROOT / "config" / "pusht.yaml")
    for node in ("mpc_node", "sim_bridge"):
        assert [name for name in sections[node] if f"`{name}`" not in readme] == []


def test_the_shared_memory_profile_is_one_that_fast_dds_reads() -> None:
    spaces = {"d": "http://www.eprosima.com"}
    root = ElementTree.parse(ROOT / "config" / "fastdds_shm.xml").getroot()
    defined = {e.text for e in root.findall(".//d:transport_descriptor/d:transport_id", spaces)}
    used = {e.text for e in root.findall(".//d:userTransports/d:transport_id", spaces)}
    assert used and used == defined
    segment = root.findtext(".//d:segment_size", namespaces=spaces)
    assert int(segment) >= 4 * int(root.findtext(".//d:maxMessageSize", namespaces=spaces))
