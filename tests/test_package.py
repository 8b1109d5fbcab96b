"""The package as a whole: what imports what, one version, what is declared and shipped."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import hand_tracking_ros
from hand_tracking_ros import paths

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "hand_tracking_ros"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.relative_to(SOURCE).parts[0] != "msg")
TOP_LEVEL = {
    *("hand_tracking_ros", "launch", "msg", "models", "tests", "config", "rviz", "docs", "benchmarks"),
    *("package.xml", "setup.py", "CMakeLists.txt", "pyproject.toml"),
    *("README.md", "CHANGELOG.rst", "CONTRIBUTING.md", "LICENSE"),
}
ROS = re.compile(r"rclpy|cv_bridge|ament_index_python|launch(_ros)?|tf2_\w+|builtin_interfaces|rcl_interfaces|\w+_msgs")
ROS_CLIENTS = {"nodes"}
TORCH_USERS = {"training"}


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a module imports, at its top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_ros(name: str) -> bool:
    return bool(ROS.fullmatch(name.split(".")[0])) or name.startswith("hand_tracking_ros.msg")


def part(path: Path) -> str:
    """The first folder below the package, '' for its own modules."""
    return path.relative_to(SOURCE).parts[0] if path.parent != SOURCE else ""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_nodes_use_ros_and_only_training_uses_torch(path):
    used = imports(path)
    if path == SOURCE / "cli" / "doctor.py":  # it tries whether the messages load
        used = {name for name in used if not name.startswith("hand_tracking_ros.msg")}
    if part(path) not in ROS_CLIENTS:
        assert not {name for name in used if is_ros(name)}
    if part(path) not in TORCH_USERS:
        assert not {name for name in used if name.split(".")[0] == "torch"}


def test_the_runtime_needs_neither_torch_nor_ros():
    runtime = [
        module_name(path)
        for path in MODULES
        if part(path) not in ROS_CLIENTS | TORCH_USERS and path.stem not in ("__main__", "tensorrt", "openvino")
    ]
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script, *runtime], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert not {name for name in loaded if name == "torch" or is_ros(name)}


def test_one_version():
    version = ElementTree.parse(ROOT / "package.xml").findtext("version")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert hand_tracking_ros.__version__ == version
    elsewhere = [path for path in [*MODULES, ROOT / "pyproject.toml", ROOT / "setup.py"] if version in path.read_text()]
    assert elsewhere == []


def test_installed_version_is_that_of_package_xml():
    try:
        installed = importlib.metadata.version("hand_tracking_ros")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("hand_tracking_ros is not installed with pip here")
    assert installed == paths.version()


def test_top_level_is_the_agreed_one():
    listed = ""
    if shutil.which("git"):
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    if listed:
        present = {line.split("/")[0] for line in listed.splitlines()}
        assert {name for name in present if not name.startswith(".")} == TOP_LEVEL
    else:  # a source archive, where builds and demos may have left files
        assert {path.name for path in ROOT.iterdir()} >= TOP_LEVEL


def test_share_directory_has_the_data():
    share = paths.share_directory()
    assert (share / "package.xml").is_file()
    for folder in ("config", "launch", "models", "rviz"):
        shipped = {p.name for p in (share / folder).iterdir() if p.is_file()}
        assert {p.name for p in (ROOT / folder).iterdir() if p.is_file()} <= shipped, folder
    assert paths.models_directory() == share / "models"


def test_share_directory_of_an_install_is_found_above_it_and_a_broken_one_is_reported(tmp_path):
    package = tmp_path / "lib" / "python3" / "site-packages" / "hand_tracking_ros"
    package.mkdir(parents=True)
    for name in ("__init__", "paths", "errors"):
        (package / f"{name}.py").write_text((SOURCE / f"{name}.py").read_text())
    script = "from hand_tracking_ros.paths import share_directory; print(share_directory())"
    command = [sys.executable, "-c", script]
    broken = subprocess.run(command, cwd=package.parent, env={}, capture_output=True, text=True)
    assert broken.returncode != 0 and "reinstall" in broken.stderr

    share = tmp_path / "share" / "hand_tracking_ros"
    share.mkdir(parents=True)
    (share / "package.xml").write_text("<package/>")
    found = subprocess.run(command, cwd=package.parent, env={}, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == share


def test_package_xml_declares_the_ros_packages_that_are_used():
    declared = {node.text for node in ElementTree.parse(ROOT / "package.xml").getroot() if node.tag.endswith("depend")}
    used = {name.split(".")[0] for path in MODULES for name in imports(path) if is_ros(name)}
    used |= {name.split(".")[0] for path in (ROOT / "launch").glob("*.py") for name in imports(path) if is_ros(name)}
    assert used - {"hand_tracking_ros", "cv_bridge"} <= declared  # cv_bridge is used where it is installed


def test_every_node_is_an_executable_with_a_main():
    nodes = {path.stem for path in (SOURCE / "nodes").glob("*_node.py")}
    listed = re.search(r"foreach\(node ([^)]*)\)", (ROOT / "CMakeLists.txt").read_text())[1].split()
    assert set(listed) == nodes
    for node in nodes:
        tree = ast.parse((SOURCE / "nodes" / f"{node}.py").read_text())
        assert any(isinstance(item, ast.FunctionDef) and item.name == "main" for item in tree.body), node


def test_every_folder_is_a_package_and_every_data_file_is_shipped():
    assert {path.parent for path in MODULES} <= {path.parent for path in MODULES if path.name == "__init__.py"}
    block = re.search(r"package-data\]\n(.*?)\n\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)[1]
    suffixes = set(re.findall(r'"\*\*/\*(\.\w+)"', block))
    files = {path for path in SOURCE.rglob("*") if path.is_file() and part(path) != "msg"}
    assert {path.suffix for path in files} - {".py", ".pyc", ".so"} <= suffixes


def test_the_ros_wheels_of_the_build_are_those_of_the_extra():
    extra = dict(re.findall(r'"(ros-[\w-]+)(?:\[\w+\])?==([\d.]+);', (ROOT / "pyproject.toml").read_text()))
    build = dict(re.findall(r'"(ros-[\w-]+)(?:\[\w+\])?==([\d.]+)",', (ROOT / "setup.py").read_text()))
    assert extra.keys() == {"ros-rclpy", "ros-common-interfaces"}
    assert extra.items() <= build.items()
