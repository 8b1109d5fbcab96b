"""Cameras, videos and image folders as one thing: a source of timed images.

Files carry media time (index / fps), which keeps rising over loops; live sources carry ``time.monotonic()`` at the
moment of capture. Images are (H, W, 3) BGR or (H, W) mono uint8, as the source delivers them.
"""

from __future__ import annotations

import glob
import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.errors import ImageError, SourceError
from hand_tracking_ros.images import decode_compressed

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
FOLDER_FPS = 30.0  # media time of image folders, which carry none
PACES = ("realtime", "fast")
_MAX_CATCH_UP_S = 1.0  # a reader that is further behind starts the clock anew instead of racing after it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceImage:
    """One image of a source. ``index`` counts from 0 over all loops; ``name`` says where the image came from."""

    image: np.ndarray
    stamp_s: float
    index: int
    name: str


class Source(ABC):
    """Base of all sources: iterate, or call ``read`` until it returns None; close when done (or use ``with``).

    ``live``: a camera or stream, which has no end of its own. ``fps`` is nominal.
    """

    live = False
    fps: float

    @abstractmethod
    def read(self) -> SourceImage | None:
        """The next image, or None at the end of a file. Raises SourceError when the source fails."""

    def __len__(self) -> int:
        """Images in one pass, 0 when not known (live sources)."""
        return 0

    def __bool__(self) -> bool:
        return True

    def close(self) -> None:  # noqa: B027 - a folder has nothing to give back
        """Give the device or file back. Further calls do nothing."""

    def __iter__(self) -> Iterator[SourceImage]:
        while (item := self.read()) is not None:
            yield item

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _FileSource(Source):
    """Media time, pacing and looping, shared by videos and folders."""

    def __init__(self, fps: float, loop: bool, pace: str, size: tuple[int, int] | None) -> None:
        self.fps, self._loop, self._pace, self._size = fps, loop, pace, size
        self._index = 0
        self._zero_s: float | None = None  # time.monotonic() of stamp 0

    @abstractmethod
    def _next(self) -> tuple[np.ndarray, str] | None:
        """Image and name, or None at the end of a pass."""

    @abstractmethod
    def _rewind(self) -> None:
        """Begin another pass."""

    def read(self) -> SourceImage | None:
        try:
            item = self._next()
            if item is None and self._loop:
                self._rewind()
                item = self._next()
        except SourceError:
            self._index += 1  # a damaged image has had its time as well
            raise
        if item is None:
            return None
        image, name = item
        if self._size is not None and image.shape[1::-1] != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        result = SourceImage(image, self._index / self.fps, self._index, name)
        self._index += 1
        if self._pace == "realtime":
            self._wait_until(result.stamp_s)
        return result

    def _wait_until(self, stamp_s: float) -> None:
        now = time.monotonic()
        if self._zero_s is None or now - (self._zero_s + stamp_s) > _MAX_CATCH_UP_S:
            self._zero_s = now - stamp_s
        time.sleep(max(0.0, self._zero_s + stamp_s - now))


class VideoSource(_FileSource):
    """A video file (or a URL of one)."""

    def __init__(self, path: str, fps: float | None, loop: bool, pace: str, size: tuple[int, int] | None) -> None:
        self._path = path
        self._capture = self._open()
        own_fps = self._capture.get(cv2.CAP_PROP_FPS)
        if fps is None and not 0 < own_fps < 1000:
            self._capture.release()
            raise SourceError(f"video {path} does not say its frame rate; give one (fps)")
        super().__init__(fps or own_fps, loop, pace, size)
        self._in_pass = 0

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self._path)
        if not capture.isOpened():
            raise SourceError(
                f"cannot open {self._path} as a video: damaged, or in a format that this OpenCV cannot decode; try to "
                "play it, or convert it to H.264 in mp4"
            )
        return capture

    def __len__(self) -> int:
        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def _next(self) -> tuple[np.ndarray, str] | None:
        ok, image = self._capture.read()
        if ok:
            self._in_pass += 1
            return image, Path(self._path).name
        if self._in_pass == 0:
            raise SourceError(f"video {self._path} has no frame that can be decoded: damaged file?")
        if self._in_pass < 0.9 * len(self):
            log.warning("%s ended after %d of %d frames: truncated?", self._path, self._in_pass, len(self))
        return None

    def _rewind(self) -> None:
        self._capture.release()  # seeking to 0 is not exact in every container
        self._capture = self._open()
        self._in_pass = 0

    def close(self) -> None:
        self._capture.release()


class FolderSource(_FileSource):
    """Image files in natural order (frame_2 before frame_10)."""

    def __init__(
        self, files: list[Path], fps: float | None, loop: bool, pace: str, size: tuple[int, int] | None
    ) -> None:
        super().__init__(fps or FOLDER_FPS, loop, pace, size)
        self._files = files
        self._position = 0

    def __len__(self) -> int:
        return len(self._files)

    def _next(self) -> tuple[np.ndarray, str] | None:
        if self._position == len(self._files):
            return None
        file = self._files[self._position]
        self._position += 1
        return self._load(file), file.name

    def _load(self, file: Path) -> np.ndarray:
        return read_image(file)

    def _rewind(self) -> None:
        self._position = 0


class LiveSource(Source):
    """A camera, stream or GStreamer pipeline. The end of images is a failure: reopen to reconnect."""

    live = True

    def __init__(self, capture: cv2.VideoCapture, name: str, fps: float | None, size: tuple[int, int] | None) -> None:
        self._capture, self._name, self._index = capture, name, 0
        if size is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        if fps is not None:
            capture.set(cv2.CAP_PROP_FPS, fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest image, not a queue of old ones; not every backend obeys
        got = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if size is not None and got != size:
            log.warning("%s delivers %dx%d instead of the %dx%d asked for", name, *got, *size)
        reported = capture.get(cv2.CAP_PROP_FPS)
        self.fps = reported if 0 < reported < 1000 else fps or FOLDER_FPS

    def read(self) -> SourceImage | None:
        grabbed = self._capture.grab()
        stamp_s = time.monotonic()
        ok, image = self._capture.retrieve() if grabbed else (False, None)
        if not ok or image is None:
            raise SourceError(f"{self._name} stopped delivering images: unplugged, or the stream ended; reopen it")
        result = SourceImage(image, stamp_s, self._index, self._name)
        self._index += 1
        return result

    def close(self) -> None:
        self._capture.release()


def open_source(
    spec: str | int,
    *,
    loop: bool = False,
    pace: str = "realtime",
    width: int | None = None,
    height: int | None = None,
    fps: float | None = None,
) -> Source:
    """Open what ``spec`` names; the kind of source follows from it.

    ``spec``: a camera (0, '0', '/dev/video0'), a video file, an image, a folder of images, a URL (rtsp://, http://),
    or 'gst:<pipeline>' ending in appsink. ``loop`` and ``pace`` ('realtime' sleeps until each image is due and skips
    none, 'fast' does not wait) concern files; ``width`` and ``height`` (both or neither) ask the camera for that size
    and resize files; ``fps`` asks the camera, and overrides the media time of files. Raises SourceError.
    """
    if pace not in PACES:
        raise SourceError(f"pace must be one of {', '.join(PACES)}, got '{pace}'")
    if (width is None) != (height is None) or min(width or 1, height or 1) < 1:
        raise SourceError(f"width and height must both be given, and positive: got {width}x{height}")
    if fps is not None and not 0 < fps < 1000:
        raise SourceError(f"fps must be above 0 and below 1000, got {fps}")
    size = None if width is None or height is None else (width, height)

    text = str(spec)
    if not text.strip():
        raise SourceError("the source is empty; a folder's images are named by its path, '.' for the current one")
    if text.isdigit() or text.startswith("/dev/"):
        return LiveSource(_open_camera(text), f"camera {text}", fps, size)
    if text.startswith("gst:"):
        return LiveSource(_open_gstreamer(text[len("gst:") :].strip()), text, fps, size)
    if re.match(r"[a-z]+://", text) and not text.startswith("file://"):
        return _open_url(text, fps, loop, pace, size)
    path = Path(text.removeprefix("file://")).expanduser()
    if path.is_dir():
        return FolderSource(images_in(path), fps, loop, pace, size)
    if not path.is_file():
        raise SourceError(
            f"no such source: {path}; give a camera index, /dev/videoN, a video file, a folder of images, a URL or "
            "'gst:<pipeline>'"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return FolderSource([path], fps, loop, pace, size)
    return VideoSource(str(path), fps, loop, pace, size)


def read_image(path: Path) -> np.ndarray:
    """An image file as mono or BGR uint8, in the orientation it is stored in. Raises SourceError."""
    try:
        return decode_compressed(path.read_bytes())
    except OSError as error:
        raise SourceError(f"cannot read image {path}: {error.strerror}; check the path") from error
    except ImageError as error:
        raise SourceError(
            f"cannot read image {path}: empty, damaged, or of a format that is not known; remove or replace it"
        ) from error


def images_in(folder: Path) -> list[Path]:
    """The images in ``folder``, in natural order. Raises SourceError when there are none."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise SourceError(f"no images in folder {folder}; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return sorted(files, key=lambda path: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", path.name)])


def _open_camera(text: str) -> cv2.VideoCapture:
    device = f"/dev/video{text}" if text.isdigit() else text
    if not Path(device).exists():
        present = ", ".join(sorted(glob.glob("/dev/video*"))) or "none"
        raise SourceError(f"no camera {device}; present: {present}. Plug it in, or pass it to the container (--device)")
    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise SourceError(
            f"cannot open camera {device}: another program uses it, it is not a capture device, or you may not read it "
            "(join the group 'video')"
        )
    return capture


def _open_gstreamer(pipeline: str) -> cv2.VideoCapture:
    if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise SourceError(
            f"cannot open GStreamer pipeline '{pipeline}': this OpenCV {cv2.__version__} is built without GStreamer "
            "(PyPI's is); use your distribution's python3-opencv or JetPack's"
        )
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise SourceError(
            f"cannot open GStreamer pipeline '{pipeline}': it must end in '! appsink'; try it with gst-launch-1.0 and "
            "autovideosink instead"
        )
    return capture


def _open_url(url: str, fps: float | None, loop: bool, pace: str, size: tuple[int, int] | None) -> Source:
    capture = cv2.VideoCapture(url)
    if not capture.isOpened():
        raise SourceError(f"cannot open {url}: wrong address, no answer, or not a stream that this OpenCV can decode")
    if capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:  # a video file behind a URL
        capture.release()
        return VideoSource(url, fps, loop, pace, size)
    return LiveSource(capture, url, fps, size)
