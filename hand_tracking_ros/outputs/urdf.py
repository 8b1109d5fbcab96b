"""A hand as a URDF: 20 revolute joints, whose forward kinematics is that of kinematics.KinematicHand.

Joints are named <side>_<angle>, as in ``~/joint_states``: ``left_index_flexion``. Links of keypoints are named as
OpenXR's joints: ``left_index_proximal`` begins at the base of the index finger, ``left_index_tip`` is its tip. The
root, ``left_hand``, is the wrist with the axes of outputs/frames.py (x to the fingers, z out of the back of the hand);
in the flat hand, at angles 0, all links have its axes.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

import numpy as np

from hand_tracking_ros.kinematics import ANGLE_NAMES, LIMITS, MEAN_HAND, NUM_ANGLES, HandPose, KinematicHand
from hand_tracking_ros.outputs.frames import PALM_SHARE, WRIST_AXES
from hand_tracking_ros.skeleton import FINGERS, Joint, Side

_THUMB_LINKS = ("metacarpal", "proximal", "distal", "tip")
_FINGER_LINKS = ("proximal", "intermediate", "distal", "tip")
LINKS = {finger: _THUMB_LINKS if finger == "thumb" else _FINGER_LINKS for finger in FINGERS}
RADII = (0.11, 0.10, 0.085, 0.075)  # of the links' joints, palm lengths
PALM_RADIUS = 0.12
EFFORT, SPEED = 10.0, 20.0  # a URDF must state limits; nobody measured these of hands
COLORS = {Side.LEFT: "0.2 0.6 1.0 1.0", Side.RIGHT: "1.0 0.5 0.1 1.0"}


def joint_names(side: Side) -> list[str]:
    """The 20 joints of one hand, in the order of kinematics.ANGLE_NAMES."""
    return [f"{side.name.lower()}_{name}" for name in ANGLE_NAMES]


def keypoint_links(side: Side) -> list[str]:
    """The 21 links that begin at the keypoints: the root, then four of each finger."""
    name = side.name.lower()
    return [f"{name}_hand", *(f"{name}_{finger}_{link}" for finger, links in LINKS.items() for link in links)]


def hand_urdf(side: Side, palm_m: float, finger_ratio: float = 1.0, shape: KinematicHand = MEAN_HAND) -> str:
    """The URDF of one hand of palm length ``palm_m``, as text. Raises ValueError for a side that is unknown or a size
    that is not positive."""
    if side not in (Side.LEFT, Side.RIGHT):
        raise ValueError("a hand's URDF needs its side: left or right")
    if not 0 < palm_m < 1:
        raise ValueError(f"palm_m must be above 0 and below 1 m, got {palm_m}; 0.088 is an adult's")
    if not 0 < finger_ratio < 3:
        raise ValueError(f"finger_ratio must be above 0 and below 3, got {finger_ratio}; 1 is a mean hand's")
    robot = ElementTree.Element("robot", name=f"{side.name.lower()}_hand")
    robot.append(ElementTree.Comment(f" palm_m {palm_m:g}, finger_ratio {finger_ratio:g}; hand-tracking urdf "))
    material = ElementTree.SubElement(robot, "material", name=f"{side.name.lower()}_hand")
    ElementTree.SubElement(material, "color", rgba=COLORS[side])
    flat = HandPose(side, WRIST_AXES.T, np.zeros(3), np.zeros(NUM_ANGLES), palm_m, finger_ratio, shape)
    _Writer(robot, flat).write()
    ElementTree.indent(robot)
    return '<?xml version="1.0"?>\n' + ElementTree.tostring(robot, encoding="unicode") + "\n"


class _Writer:
    """Writes links and joints of the hand ``flat``, whose frame is that of the root."""

    def __init__(self, robot: ElementTree.Element, flat: HandPose):
        self.robot, self.side, self.palm_m = robot, flat.side.name.lower(), flat.palm_m
        self.points = flat.points()
        # A mirror turns the sense of a rotation around: axes are mirrored, then negated.
        sense = -1.0 if flat.side == Side.LEFT else 1.0
        to_root = sense * flat.rotation * flat.mirror
        self.bend_axes, self.spread_axes = flat.shape.bend_axes @ to_root.T, flat.shape.spread_axes @ to_root.T

    def write(self) -> None:
        root = self._link(f"{self.side}_hand")
        self._sphere(root, PALM_RADIUS)
        for first, *_ in FINGERS.values():
            self._cylinder(root, self.points[first], PALM_RADIUS)
        palm = f"{self.side}_palm"
        self._link(palm)
        self._joint("fixed", f"{palm}_joint", f"{self.side}_hand", palm, PALM_SHARE * self.points[Joint.MIDDLE_MCP])
        for number, (finger, chain) in enumerate(FINGERS.items()):
            self._finger(number, finger, self.points[list(chain)])

    def _finger(self, number: int, finger: str, points: np.ndarray) -> None:
        """Spread, then bend, at the base; bend at the next two joints; the tip is fixed."""
        prefix = f"{self.side}_{finger}"
        offsets = np.vstack([points[:1], np.diff(points, axis=0)])
        bend, spread = self.bend_axes[number], self.spread_axes[number]
        names = [f"{prefix}_{name}" for name in LINKS[finger]]
        flexion, abduction, *further = range(4 * number, 4 * number + 4)
        self._link(f"{prefix}_base")
        self._revolute(abduction, f"{self.side}_hand", f"{prefix}_base", offsets[0], spread)
        self._phalanx(names[0], offsets[1], 0)
        self._revolute(flexion, f"{prefix}_base", names[0], np.zeros(3), bend)
        for k, angle in enumerate(further, start=1):
            self._phalanx(names[k], offsets[k + 1], k)
            self._revolute(angle, names[k - 1], names[k], offsets[k], bend)
        self._sphere(self._link(names[3]), RADII[3])
        self._joint("fixed", f"{names[3]}_joint", names[2], names[3], offsets[3])

    def _link(self, name: str) -> ElementTree.Element:
        return ElementTree.SubElement(self.robot, "link", name=name)

    def _phalanx(self, name: str, end: np.ndarray, place: int) -> None:
        link = self._link(name)
        self._sphere(link, RADII[place])
        self._cylinder(link, end, RADII[place])

    def _revolute(self, angle: int, parent: str, child: str, origin: np.ndarray, axis: np.ndarray) -> None:
        joint = self._joint("revolute", f"{self.side}_{ANGLE_NAMES[angle]}", parent, child, origin)
        ElementTree.SubElement(joint, "axis", xyz=_numbers(axis))
        low, high = LIMITS[angle]
        limits = {"lower": f"{low:.6f}", "upper": f"{high:.6f}", "effort": f"{EFFORT:g}", "velocity": f"{SPEED:g}"}
        ElementTree.SubElement(joint, "limit", limits)

    def _joint(self, kind: str, name: str, parent: str, child: str, origin: np.ndarray) -> ElementTree.Element:
        joint = ElementTree.SubElement(self.robot, "joint", name=name, type=kind)
        ElementTree.SubElement(joint, "parent", link=parent)
        ElementTree.SubElement(joint, "child", link=child)
        ElementTree.SubElement(joint, "origin", xyz=_numbers(origin), rpy="0 0 0")
        return joint

    def _sphere(self, link: ElementTree.Element, radius: float) -> None:
        self._visual(link, np.zeros(3), (0.0, 0.0, 0.0), "sphere", {"radius": f"{radius * self.palm_m:.6f}"})

    def _cylinder(self, link: ElementTree.Element, end: np.ndarray, radius: float) -> None:
        """From the link's origin to ``end``: a cylinder lies along z, which pitch and yaw turn to ``end``."""
        x, y, z = end.tolist()
        turn = (0.0, math.atan2(math.hypot(x, y), z), math.atan2(y, x))
        size = {"radius": f"{radius * self.palm_m:.6f}", "length": f"{np.linalg.norm(end):.6f}"}
        self._visual(link, end / 2, turn, "cylinder", size)

    def _visual(
        self, link: ElementTree.Element, at: np.ndarray, turn: Sequence[float], shape: str, size: dict[str, str]
    ) -> None:
        visual = ElementTree.SubElement(link, "visual")
        ElementTree.SubElement(visual, "origin", xyz=_numbers(at), rpy=_numbers(turn))
        ElementTree.SubElement(ElementTree.SubElement(visual, "geometry"), shape, size)
        ElementTree.SubElement(visual, "material", name=f"{self.side}_hand")


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return " ".join(f"{value + 0.0:.9f}" for value in np.asarray(values, float).tolist())
