"""Fixtures that several test files share."""

from __future__ import annotations

import pytest


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
