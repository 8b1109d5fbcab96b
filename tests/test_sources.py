"""Sources: real files written here, decoded back; what is missing or damaged is named."""

from __future__ import annotations

import functools
import http.server
import threading
import time

import cv2
import numpy as np
import pytest

from hand_tracking_ros.errors import SourceError
from hand_tracking_ros.sources import open_source

COUNT = 10
FPS = 30000 / 1001


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """10 frames whose grey level tells the index."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (64, 48))
    for index in range(COUNT):
        writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path):
    for index in (2, 10, 1):
        cv2.imwrite(str(tmp_path / f"frame_{index}.png"), np.full((4, 6), index, np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_video_has_media_time_and_ends(video):
    with open_source(str(video), pace="fast") as source:
        assert source.fps == pytest.approx(FPS, abs=1e-3) and not source.live and len(source) == COUNT
        items = list(source)
        assert source.read() is None
    assert [item.index for item in items] == list(range(COUNT))
    assert np.allclose([item.stamp_s for item in items], np.arange(COUNT) / source.fps)
    assert all(abs(item.image.mean() - 20 * item.index) < 3 for item in items)
    assert items[0].image.shape == (48, 64, 3) and items[0].name == "clip.avi"


def test_loop_keeps_time_rising(video):
    with open_source(str(video), pace="fast", loop=True) as source:
        items = [source.read() for _ in range(2 * COUNT + 3)]
    assert [item.index for item in items] == list(range(2 * COUNT + 3))
    assert np.allclose(np.diff([item.stamp_s for item in items]), 1 / source.fps)
    assert abs(items[COUNT].image.mean() - items[0].image.mean()) < 1


def test_realtime_is_not_faster_than_the_clock(video):
    with open_source(str(video), pace="realtime", fps=100.0) as source:
        start = time.monotonic()
        items = list(source)
    assert time.monotonic() - start >= items[-1].stamp_s == pytest.approx(0.09)


def test_files_are_resized_when_asked(video):
    with open_source(video, pace="fast", width=32, height=24) as source:
        assert source.read().image.shape == (24, 32, 3)


def test_folder_in_natural_order(folder):
    with open_source(str(folder), pace="fast", fps=10) as source:
        items = list(source)
    assert [item.name for item in items] == ["frame_1.png", "frame_2.png", "frame_10.png"]
    assert [int(item.image[0, 0]) for item in items] == [1, 2, 10]
    assert [item.stamp_s for item in items] == [0.0, 0.1, 0.2]


def test_single_image(folder):
    with open_source(f"file://{folder / 'frame_2.png'}", pace="fast") as source:
        assert [item.name for item in source] == ["frame_2.png"]


def test_video_behind_a_url(video):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(video.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_source(f"http://127.0.0.1:{server.server_port}/clip.avi", pace="fast") as source:
            assert len(list(source)) == COUNT
        server.shutdown()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no/such/file.mp4", "no such source: no/such/file.mp4; give a camera index"),
        (97, "no camera /dev/video97; present:"),
        ("/dev/video98", "no camera /dev/video98; present:"),
        ("http://127.0.0.1:9/stream", "cannot open http://127.0.0.1:9/stream: wrong address"),
    ],
)
def test_missing_sources_are_named(spec, message):
    with pytest.raises(SourceError, match=message):
        open_source(spec)


def test_gstreamer_failure_says_why():
    with pytest.raises(SourceError, match=r"built without GStreamer|must end in '! appsink'"):
        open_source("gst:nosuchelement ! appsink")


def test_a_device_that_is_no_camera():
    with pytest.raises(SourceError, match="cannot open camera /dev/null"):
        open_source("/dev/null")


def test_damaged_files(tmp_path, folder):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is not a video" * 100)
    with pytest.raises(SourceError, match=r"cannot open .*broken\.mp4 as a video"):
        open_source(broken)
    (folder / "frame_1.png").write_bytes(b"this is not an image")
    unreadable = pytest.raises(
        SourceError, match=r"cannot read image .*frame_1\.png: empty, damaged, .*; remove or replace it$"
    )
    with open_source(folder, pace="fast") as source, unreadable:
        source.read()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no images in folder .*empty"):
        open_source(tmp_path / "empty")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"pace": "slow"}, "realtime, fast"), ({"width": 640}, "both be given"), ({"fps": 0}, "above 0 and below 1000")],
)
def test_bad_arguments(video, arguments, message):
    with pytest.raises(SourceError, match=message):
        open_source(video, **arguments)
