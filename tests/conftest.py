"""Fixtures that several test files share; and the package under test is the one that is installed.

`python -m pytest` puts the checkout first on the path, and there the ROS messages exist only after an editable install.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


def _use_installed_package() -> None:
    """Take the checkout from the path, here and in child processes, where a copy with messages is installed."""
    others = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != CHECKOUT]
    spec = importlib.machinery.PathFinder.find_spec("hand_tracking_ros", others)
    if spec and spec.origin and (Path(spec.origin).parent / "msg").is_dir():
        sys.path[:] = others
        os.environ["PYTHONSAFEPATH"] = "1"


_use_installed_package()


@pytest.fixture(scope="session", autouse=True)
def _empty_cache(tmp_path_factory):
    """A profile of 'hand-tracking tune' on this machine decides no test, here and in child processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def ros_context():
    """One ROS context for all tests of nodes; see ros_graph.py."""
    from ros_graph import Ros

    context = Ros()
    yield context
    context.close()


@pytest.fixture
def ros(ros_context):
    """The context; the nodes that the test adds end with it."""
    yield ros_context
    ros_context.remove_nodes()


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Parameters that choose the test networks, which take bright discs for hands; see ros_graph.py."""
    from ros_graph import write_blob_models

    return write_blob_models(tmp_path_factory.mktemp("models"))
