"""Frames and the transforms between them, as /tf and /tf_static state them, and chains of them. No ROS in here.

A transform ``T_dst_from_src`` is a 4x4 matrix in metres, x_dst = T_dst_from_src x_src, of a rotation and a shift. As in
tf every frame but the root of a tree has one parent, and what is stated of a frame replaces what was stated before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hand_tracking_ros.errors import TransformError
from hand_tracking_ros.outputs.frames import rotation_of


class _Link(NamedTuple):
    """How a frame hangs below its parent."""

    parent: str
    T_parent_from_child: np.ndarray
    moves: bool


class FrameTree:
    """What is known of frames so far: ``state`` takes it, ``T_dst_from_src`` composes it."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}  # by child

    @property
    def frames(self) -> list[str]:
        """The names of all frames, in alphabetical order."""
        return sorted({*self._links, *(link.parent for link in self._links.values())})

    def state(self, parent: str, child: str, T_parent_from_child: np.ndarray, moves: bool = False) -> None:
        """``child`` stands in ``parent`` as the matrix (4, 4) says; ``moves``: not for good. Raises TransformError."""
        if not parent or not child or parent == child:
            raise TransformError(f"a transform needs two frames with names of their own, got '{parent}' and '{child}'")
        self._links[child] = _Link(parent, T_parent_from_child, moves)

    def T_dst_from_src(self, dst: str, src: str) -> np.ndarray:
        """The matrix (4, 4) that takes points of the frame ``src`` to ``dst``.

        Raises TransformError, which names the frames that are missing, while no chain of transforms joins the two.
        """
        up_from_dst, up_from_src = self._ways(dst, src)
        return _inverse(self._compose(up_from_dst)) @ self._compose(up_from_src)

    def links_between(self, dst: str, src: str) -> dict[str, bool]:
        """The frames whose place in their parent counts on the way, and whether it may move. Raises TransformError."""
        return {child: self._links[child].moves for way in self._ways(dst, src) for child in way}

    def _ways(self, dst: str, src: str) -> tuple[list[str], list[str]]:
        """The frames from ``dst`` and from ``src`` up to below the frame where they meet."""
        known = self.frames
        for frame in (dst, src):
            if frame not in known and dst != src:
                raise TransformError(f"frame '{frame}' is not in tf; known: {', '.join(known) or 'none so far'}")
        from_dst, from_src = self._up(dst), self._up(src)
        meeting = next((frame for frame in from_src if frame in from_dst), None)
        if meeting is None:
            raise TransformError(
                f"no chain of transforms joins '{dst}' and '{src}': one hangs below '{from_dst[-1]}', the other below "
                f"'{from_src[-1]}', and nothing joins those; known: {', '.join(known)}"
            )
        return from_dst[: from_dst.index(meeting)], from_src[: from_src.index(meeting)]

    def _up(self, frame: str) -> list[str]:
        """The frame and all above it. Raises TransformError when they make a circle."""
        way = [frame]
        while way[-1] in self._links:
            parent = self._links[way[-1]].parent
            if parent in way:
                raise TransformError(f"transforms run in a circle: {' below '.join([*way, parent])}; correct the tree")
            way.append(parent)
        return way

    def _compose(self, way: Sequence[str]) -> np.ndarray:
        """From the first frame of ``way`` to the parent of its last one."""
        T = np.eye(4)
        for child in way:
            T = self._links[child].T_parent_from_child @ T
        return T


def transform(translation_m: Sequence[float], quaternion: Sequence[float]) -> np.ndarray:
    """T_parent_from_child (4, 4) of a transform message: translation (3,), quaternion (4,) x, y, z, w, not
    necessarily normalised. Raises TransformError when these make no transform."""
    if not np.isfinite(translation_m).all():
        raise TransformError(f"not a translation: {list(translation_m)}")
    T = np.eye(4)
    try:
        T[:3, :3] = rotation_of(np.asarray(quaternion))
    except ValueError as error:
        raise TransformError(str(error)) from error
    T[:3, 3] = translation_m
    return T


def _inverse(T_a_from_b: np.ndarray) -> np.ndarray:
    """T_b_from_a of a rotation and a shift."""
    T = np.eye(4)
    T[:3, :3] = T_a_from_b[:3, :3].T
    T[:3, 3] = -T[:3, :3] @ T_a_from_b[:3, 3]
    return T
