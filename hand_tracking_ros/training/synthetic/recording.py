"""Writes sequences: one folder each, with a lossless video and labels per camera, the rig's calibration and the truth.

- ``labels.jsonl``: all videos, for ``hand-tracking evaluate FOLDER --task track``
- ``0007/cameras.yaml``: intrinsics and extrinsics
- ``0007/truth.npz``: every hand in every frame, also hidden ones and those out of the picture
- ``0007/cam0/video.avi``: FFV1, lossless
- ``0007/cam0/labels.jsonl``: docs/evaluation.md
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.records import LabelledImage, write_labels
from hand_tracking_ros.training.synthetic.dataset import HandLabel
from hand_tracking_ros.training.synthetic.film import VideoFile, film, labelled
from hand_tracking_ros.training.synthetic.render import Renderer
from hand_tracking_ros.training.synthetic.sequence import Director, Sequence

VIDEO_NAME, LABELS_NAME, CAMERAS_NAME, TRUTH_NAME = "video.avi", "labels.jsonl", "cameras.yaml", "truth.npz"


def write_sequences(
    director: Director, indices: range, folder: Path, seconds: float, fps: float, rgb: bool = False
) -> None:
    """Write the sequences ``indices`` into ``folder``. Raises ConfigError and HandTrackingError."""
    from tqdm import tqdm

    if not 0 < seconds <= 600 or not 1 <= fps <= 1000:
        raise ConfigError(f"a sequence needs 0 < seconds <= 600 and 1 <= fps <= 1000, got {seconds} and {fps}")
    count = round(seconds * fps)
    if count < 2:
        raise ConfigError(f"{seconds} s at {fps} fps are fewer than two frames: give more --seconds or --fps")
    started, labels = time.monotonic(), []
    frames = len(indices) * count * director.cameras
    with Renderer(director.model, shadow_px=768) as renderer, tqdm(total=frames, unit="frame", mininterval=2.0) as bar:
        for index in indices:
            sequence = director.sequence(index, count / fps)
            name, seed = f"{index:04d}", (director.seed, index)
            own = write_sequence(renderer, sequence, folder / name, count, fps, seed, rgb, bar)
            labels += [replace(image, video=f"{name}/{image.video}") for image in own]
    write_labels(folder / LABELS_NAME, labels)
    rate = frames / (time.monotonic() - started)
    print(f"{folder}: {len(indices)} sequences, {frames} frames of {director.cameras} camera(s), {rate:.1f} frames/s")


def write_sequence(
    renderer: Renderer, sequence: Sequence, folder: Path, count: int, fps: float, seed: tuple[int, int], rgb: bool, bar
) -> list[LabelledImage]:
    """Write one sequence of ``count`` frames; returns its labels, with videos relative to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    rig = {"cameras": [camera.record() for camera in sequence.rig]}
    (folder / CAMERAS_NAME).write_text(yaml.safe_dump(rig, sort_keys=False, default_flow_style=None))
    times, truth, images = np.arange(count) / fps, [], []
    backgrounds = sequence.room.views(sequence.rig, renderer)
    for number, (camera, background) in enumerate(zip(sequence.rig, backgrounds, strict=True)):
        own = folder / camera.name
        own.mkdir(exist_ok=True)
        rng = np.random.default_rng([*seed, 7, number])
        frames = film(
            renderer, camera, sequence.at, sequence.lights, background, sequence.shot, sequence.exposure, times, rng,
            None if rgb else sequence.mono,
        )  # fmt: skip
        records, seen = [], []
        with VideoFile(own / VIDEO_NAME, "FFV1", fps, camera.lens.size_wh, color=rgb) as video:
            for index, (image, labels) in enumerate(frames):
                video.write(np.ascontiguousarray(image[..., ::-1]) if rgb else image)
                person = f"synthetic-{seed[0]}-{seed[1]}"
                records.append(labelled(index, labels, camera.lens, fps, VIDEO_NAME, person=person))
                seen.append(labels)
                bar.update()
        write_labels(own / LABELS_NAME, records)
        images += [replace(record, video=f"{camera.name}/{VIDEO_NAME}") for record in records]
        truth.append(seen)
    np.savez_compressed(folder / TRUTH_NAME, times_s=times, **truth_arrays(truth))
    return images


def truth_arrays(truth: list[list[list[HandLabel]]]) -> dict[str, np.ndarray]:
    """Arrays of all hands (H), cameras (C) and frames (T): ``side`` (H,) 1 left, 2 right; ``keypoints_m``
    (H, T, 21, 3) in the rig's frame; ``keypoints_px`` (C, H, T, 21, 2), ``visible`` (C, H, T, 21)."""

    def stacked(name: str, labels) -> np.ndarray:
        return np.array([[getattr(label, name) for label in frame] for frame in labels]).swapaxes(0, 1)

    return {
        "side": np.array([label.side for label in truth[0][0]], np.uint8),
        "keypoints_m": stacked("keypoints_m", truth[0]),  # the rig's frame is camera 0's
        "keypoints_px": np.stack([stacked("keypoints_px", labels) for labels in truth]),
        "visible": np.stack([stacked("visible", labels) for labels in truth]),
    }
