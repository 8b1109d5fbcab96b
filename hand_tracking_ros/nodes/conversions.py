"""Between the core's values and messages. Headers pass through untouched; nothing is computed here."""

from __future__ import annotations

import array
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from hand_tracking_ros import images, msg
from hand_tracking_ros.calibration import camera_from_info
from hand_tracking_ros.errors import ImageError
from hand_tracking_ros.geometry import Box
from hand_tracking_ros.skeleton import EDGES, JOINT_NAMES
from hand_tracking_ros.types import Camera, HandBox, HandKeypoints, Source

SECOND_NS = 1_000_000_000


def stamp_ns(stamp: Time) -> int:
    """Nanoseconds of a stamp: exact, so it can be a key."""
    return stamp.sec * SECOND_NS + stamp.nanosec


def stamp_s(stamp: Time) -> float:
    """Seconds of a stamp, as the core counts time."""
    return stamp.sec + stamp.nanosec * 1e-9


def time_from_ns(nanoseconds: int) -> Time:
    """A stamp from nanoseconds."""
    return Time(sec=nanoseconds // SECOND_NS, nanosec=nanoseconds % SECOND_NS)


# Images


def image_from_message(message: Image | CompressedImage, *, color: bool = False, bits: int = 16) -> np.ndarray:
    """(H, W) mono, or (H, W, 3) BGR with ``color``, uint8; a view of the message where the encoding allows it.

    Encodings that images.py does not know go through cv_bridge where that is installed. Raises ImageError.
    """
    if isinstance(message, CompressedImage):
        image = images.decode_compressed(message.data, message.format)
        return _as_bgr(image) if color else images.as_mono(image)
    if message.encoding not in images.SUPPORTED_ENCODINGS:
        bridged = _through_cv_bridge(message, "bgr8" if color else "mono8")
        if bridged is not None:
            return bridged
    read = images.to_bgr if color else images.to_mono
    return read(
        message.data,
        height=message.height,
        width=message.width,
        step=message.step,
        encoding=message.encoding,
        is_bigendian=bool(message.is_bigendian),
        bits=bits,
    )


def depth_from_message(message: Image) -> np.ndarray:
    """(H, W) float32 metres of a depth image. Raises ImageError."""
    return images.to_depth_m(
        message.data,
        height=message.height,
        width=message.width,
        step=message.step,
        encoding=message.encoding,
        is_bigendian=bool(message.is_bigendian),
    )


def image_to_message(image: np.ndarray, header: Header) -> Image:
    """mono8 or bgr8 message of a uint8 image (H, W) or (H, W, 3)."""
    height, width = image.shape[:2]
    encoding = "mono8" if image.ndim == 2 else "bgr8"
    message = Image(header=header, height=height, width=width, encoding=encoding, step=image.nbytes // height)
    data = array.array("B")  # assigning anything else makes rclpy check byte by byte: 10 to 40 ms per image
    data.frombytes(memoryview(np.ascontiguousarray(image)).cast("B"))
    message.data = data
    return message


def _as_bgr(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def _through_cv_bridge(message: Image, encoding: str) -> np.ndarray | None:
    """The image as cv_bridge converts it; None without cv_bridge. Raises ImageError when it cannot."""
    try:
        from cv_bridge import CvBridge
    except ImportError:
        return None
    try:
        return CvBridge().imgmsg_to_cv2(message, encoding)
    except Exception as error:  # cv_bridge raises its own error, cv2.error, KeyError and more
        raise ImageError(f"cv_bridge cannot turn encoding '{message.encoding}' into {encoding}: {error}") from error


def camera_info_message(calibration, header: Header, width: int, height: int) -> CameraInfo:
    """camera_info of a calibration.Calibration; without one K is 0, which means uncalibrated."""
    message = CameraInfo(header=header, width=width, height=height)
    if calibration is None:
        return message
    message.distortion_model = calibration.distortion_model
    for name in ("d", "k", "r", "p"):
        setattr(message, name, np.asarray(getattr(calibration, name.upper()), float).ravel().tolist())
    return message


def camera_from_message(message: CameraInfo) -> Camera | None:
    """The camera of a camera_info, as its images have it: K is for the full sensor, images may be a binned part of it.

    None when it is not calibrated. Raises CalibrationError.
    """
    camera = camera_from_info(message.k, message.d, message.distortion_model)
    if camera is None:
        return None
    across, down = max(message.binning_x, 1), max(message.binning_y, 1)
    return replace(
        camera,
        fx=camera.fx / across,
        fy=camera.fy / down,
        cx=(camera.cx - message.roi.x_offset) / across,
        cy=(camera.cy - message.roi.y_offset) / down,
    )


# Boxes, keypoints (hands: hand_messages.py)


def boxes_to_message(boxes: Sequence[HandBox], header: Header, width: int, height: int) -> msg.HandBoxArray:
    """HandBoxArray of one image of ``width`` x ``height`` px."""
    message = msg.HandBoxArray(header=header, image_width=width, image_height=height)
    message.boxes = [
        msg.HandBox(
            box=box_to_message(b.box),
            score=float(b.score),
            right_score=float(b.right_score),
            id=b.id,
            source=int(b.source),
            expected_px=[] if b.expected_px is None else _points_2d(b.expected_px),
            expected_variance=[] if b.expected_variance is None else np.asarray(b.expected_variance, np.float64),
        )
        for b in boxes
    ]
    return message


def boxes_from_message(message: msg.HandBoxArray) -> list[HandBox]:
    """The boxes of a HandBoxArray. Raises ValueError on a box that is not finite."""
    return [
        HandBox(
            box_from_message(b.box),
            score=b.score,
            right_score=b.right_score,
            id=b.id,
            source=Source(b.source),
            expected_px=np.array([(p.x, p.y) for p in b.expected_px]) if b.expected_px else None,
            expected_variance=np.array(b.expected_variance, float) if len(b.expected_variance) else None,
        )
        for b in message.boxes
    ]


def keypoints_to_message(
    hands: Sequence[HandKeypoints], header: Header, width: int, height: int
) -> msg.HandKeypointsArray:
    """HandKeypointsArray of one image of ``width`` x ``height`` px."""
    message = msg.HandKeypointsArray(header=header, image_width=width, image_height=height)
    message.hands = [
        msg.HandKeypoints(
            id=h.id,
            box=box_to_message(h.box),
            source=int(h.source),
            keypoints_px=_points_2d(h.keypoints_px),
            keypoint_scores=np.asarray(h.keypoint_scores, np.float32),
            depth_rel=np.asarray(h.depth_rel, np.float32),
            presence=float(h.presence),
            right_score=float(h.right_score),
        )
        for h in hands
    ]
    return message


def keypoints_from_message(message: msg.HandKeypointsArray) -> list[HandKeypoints]:
    """The hands of a HandKeypointsArray."""
    return [
        HandKeypoints(
            id=h.id,
            box=box_from_message(h.box),
            source=Source(h.source),
            keypoints_px=np.array([(p.x, p.y) for p in h.keypoints_px]),
            keypoint_scores=np.array(h.keypoint_scores, float),
            depth_rel=np.array(h.depth_rel, float),
            presence=h.presence,
            right_score=h.right_score,
        )
        for h in message.hands
    ]


def _points_2d(points_px: np.ndarray) -> list[msg.Point2D]:
    return [msg.Point2D(x=x, y=y) for x, y in points_px.tolist()]


def box_to_message(box: Box) -> msg.RotatedBox:
    """RotatedBox of a box."""
    x, y = box.center_px
    width, height = box.size_px
    center = msg.Point2D(x=float(x), y=float(y))
    return msg.RotatedBox(
        center_px=center, width_px=float(width), height_px=float(height), angle_rad=float(box.angle_rad)
    )


def box_from_message(box: msg.RotatedBox) -> Box:
    """The box of a RotatedBox. Raises ValueError when it is not finite."""
    return Box((box.center_px.x, box.center_px.y), (box.width_px, box.height_px), box.angle_rad)


# Models


def model_info_message(stages: Iterable) -> msg.HandModelInfo:
    """HandModelInfo of stages with ``manifest`` and ``backend`` (HandDetector, KeypointEstimator)."""
    models = [
        msg.HandModel(
            name=stage.manifest.name,
            task=stage.manifest.task,
            file=stage.manifest.file.name,
            sha256=stage.manifest.sha256,
            backend=stage.backend.name,
            precision=stage.backend.precision,
        )
        for stage in stages
    ]
    edges = [joint for edge in EDGES for joint in edge]
    return msg.HandModelInfo(models=models, joint_names=list(JOINT_NAMES), skeleton_edges=edges)
