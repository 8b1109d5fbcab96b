"""Depth images in files, as a source: a folder of 16-bit PNG, or a video that keeps 16 bits (FFV1)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.errors import SourceError
from hand_tracking_ros.sources import FolderSource, Source, VideoSource, images_in

MM = np.float32(0.001)


class _DepthFolder(FolderSource):
    def _load(self, file: Path) -> np.ndarray:
        return _metres(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), str(file))


class _DepthVideo(VideoSource):
    def _open(self) -> cv2.VideoCapture:
        capture = super()._open()
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)  # else 16 bits become 8
        return capture

    def _next(self) -> tuple[np.ndarray, str] | None:
        item = super()._next()
        return item and (_metres(item[0], self._path), item[1])


def open_depth(path: str | Path, folder_fps: float, fps: float | None = None, loop: bool = False) -> Source:
    """Depth images of ``path`` as (H, W) float32 metres along z, from 16-bit millimetres; 0 where nothing was measured.

    A folder is read in natural order, at ``folder_fps``; ``fps`` wins over that, and over the rate of a video. Raises
    SourceError, later too, when an image is not one of depth.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _DepthFolder(images_in(path), fps or folder_fps, loop, "fast", None)
    if not path.is_file():
        raise SourceError(f"no depth images: {path} is neither a folder of 16-bit PNG nor a video")
    return _DepthVideo(str(path), fps, loop, "fast", None)


def _metres(image: np.ndarray | None, name: str) -> np.ndarray:
    if image is None:
        raise SourceError(f"cannot read depth image {name}: damaged, or no image")
    if image.dtype != np.uint16 or image.ndim != 2:
        raise SourceError(
            f"{name} is no depth image: {image.dtype} {image.shape}, but depth is one channel of 16 bits in "
            "millimetres; write PNG, or video with a codec that keeps 16 bits (FFV1)"
        )
    return image * MM
