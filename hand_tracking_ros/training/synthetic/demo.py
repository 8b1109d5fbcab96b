"""The demo clip: two hands in motion before a desk, seen by a head-worn camera, with exact ground truth.

Smooth keyed trajectories of pose, orientation and position; one hand leaves the picture and comes back. The clip is
made of nothing but this code, so it may be shipped: ``python -m hand_tracking_ros.training.synthetic --kind demo``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.records import LabelledImage, write_labels
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.training.synthetic import film, photo, scene
from hand_tracking_ros.training.synthetic.backgrounds import fractal
from hand_tracking_ros.training.synthetic.dataset import HandLabel
from hand_tracking_ros.training.synthetic.film import VideoFile
from hand_tracking_ros.training.synthetic.lenses import Lens, RigCamera
from hand_tracking_ros.training.synthetic.model import HandModel
from hand_tracking_ros.training.synthetic.poses import gesture, trajectory
from hand_tracking_ros.training.synthetic.render import Lights, Look, Renderer, SceneHand, Solid
from hand_tracking_ros.types import Camera

CLIP_NAME, LABELS_NAME = "demo_hands.mp4", "labels.jsonl"
SIZE_WH, FPS, SECONDS = (640, 480), 30, 6.0
CAMERA = Camera(580.0, 580.0, 320.0, 240.0)
LENS = Lens(CAMERA, SIZE_WH)


@dataclass(frozen=True)
class Key:
    """A hand at one time: gesture, roll / pitch / yaw in degrees (scene.rotation_of), centre in metres, wrist bend."""

    time_s: float
    gesture: str
    spread: float
    turn_deg: tuple[float, float, float]
    center_m: tuple[float, float, float]
    wrist_deg: tuple[float, float] = (0.0, 0.0)

    def vector(self) -> np.ndarray:
        pose = gesture(self.gesture, self.spread)
        pose[25:27] = self.wrist_deg
        return np.concatenate([pose, self.turn_deg, self.center_m])


MOTIONS = {
    Side.RIGHT: (
        Key(0.0, "relaxed", -0.3, (-25, -15, 180), (0.09, 0.04, 0.46), (-5, 0)),
        Key(0.5, "relaxed", -0.3, (-25, -15, 180), (0.09, 0.04, 0.46), (-5, 0)),
        Key(1.0, "open", 0.6, (-5, -5, 185), (0.10, 0.00, 0.45), (-15, 8)),
        Key(1.6, "open", 0.2, (-35, -5, 170), (0.08, 0.01, 0.43), (-10, -10)),
        Key(2.3, "fist_thumb_side", -0.3, (-20, -10, 165), (0.09, 0.03, 0.45)),
        Key(3.1, "point", -0.3, (-35, 5, 150), (0.05, -0.01, 0.43)),
        Key(3.9, "peace", 0.5, (-10, -5, 190), (0.11, 0.00, 0.46), (-12, 0)),
        Key(4.9, "three", 0.3, (-5, -5, 340), (0.10, 0.01, 0.47)),
        Key(5.4, "open", 0.2, (10, -10, 360), (0.09, 0.00, 0.45), (-8, 0)),
        Key(6.0, "open", 0.2, (10, -10, 360), (0.09, 0.00, 0.45), (-8, 0)),
    ),
    Side.LEFT: (
        Key(0.0, "flat", -0.6, (20, -10, 180), (-0.10, 0.03, 0.48)),
        Key(0.4, "flat", -0.6, (20, -10, 180), (-0.10, 0.03, 0.48)),
        Key(1.0, "claw", 0.3, (30, -15, 175), (-0.09, 0.02, 0.45)),
        Key(1.7, "ok", 0.1, (10, -5, 160), (-0.10, 0.00, 0.44), (-10, 0)),
        Key(2.3, "relaxed", -0.3, (25, -10, 180), (-0.14, 0.03, 0.46)),
        Key(2.9, "relaxed", -0.3, (40, -10, 180), (-0.46, 0.10, 0.48)),
        Key(3.6, "open", 0.2, (40, -10, 180), (-0.46, 0.08, 0.48)),
        Key(4.3, "open", 0.2, (15, -5, 180), (-0.10, 0.01, 0.45), (-12, 0)),
        Key(4.9, "grasp", -0.3, (20, -10, 175), (-0.08, 0.02, 0.42)),
        Key(5.5, "love", 0.2, (15, -5, 185), (-0.11, 0.00, 0.45), (-8, 0)),
        Key(6.0, "love", 0.2, (15, -5, 185), (-0.11, 0.00, 0.45), (-8, 0)),
    ),
}
LOOK = Look(
    skin_color=(0.50, 0.31, 0.22), palm_lightness=0.2, mottle=0.06, specular=0.05, gloss=14.0, relief=0.05,
    sleeve_start=0.45, sleeve_thickness=0.11, sleeve_color=(0.05, 0.09, 0.19),
)  # fmt: skip
LIGHTS = Lights(
    key_direction=np.array([-0.5, -0.8, -0.6]), key_color=(1.25, 1.2, 1.1), fill_direction=np.array([0.9, -0.1, -0.5]),
    fill_color=(0.22, 0.24, 0.28), sky_color=(0.34, 0.36, 0.40), ground_color=(0.20, 0.17, 0.14), shadow_strength=0.75,
)  # fmt: skip
SHOT = photo.Shot(
    target_level=0.24, meter_hand=False, read_noise=0.008, shot_noise=0.008, defocus_px=0.6, background_defocus_px=1.6,
    vignette=0.25,
)  # fmt: skip


def render_demo(seed: int) -> Iterator[tuple[np.ndarray, list[HandLabel]]]:
    """BGR uint8 frames (480, 640, 3) of the demo clip with the labels of both hands, also while out of the picture."""
    rng = np.random.default_rng([seed, 31])
    model = HandModel()
    times = np.arange(round(SECONDS * FPS)) / FPS
    paths = {side: moved(keys, times, rng) for side, keys in MOTIONS.items()}
    shape = int(rng.integers(model.num_shapes))

    def scene_at(time_s: float) -> tuple[list[SceneHand], list[Solid]]:
        frame = round(time_s * FPS)
        return [posed_hand(model, shape, side, path[frame], LOOK) for side, path in paths.items()], []

    with Renderer(model, shadow_px=1024) as renderer:
        background = render_room(renderer, rng)
        frames = film.film(
            renderer, RigCamera("demo", LENS), scene_at, LIGHTS, background, SHOT, film.Exposure(), times, rng
        )
        for image, labels in frames:
            yield np.ascontiguousarray(image[..., ::-1]), labels


def moved(keys: tuple[Key, ...], times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T, 34) pose, turn and centre at every time, with the small sway of a living hand."""
    path = trajectory(np.stack([key.vector() for key in keys]), np.array([key.time_s for key in keys]), times)
    sway = np.concatenate([np.full(25, 0.8), [0.8, 0.8, 0.0], [0.6, 0.8, 0.8], [0.001, 0.001, 0.002]])
    for frequency in (0.4, 1.3):
        phase = rng.uniform(0, 2 * np.pi, len(sway))
        path = path + sway / 2 * np.sin(2 * np.pi * frequency * times[:, None] + phase)
    return path


def posed_hand(model: HandModel, shape: int, side: Side, values: np.ndarray, look: Look) -> SceneHand:
    """The hand that one row of a path describes; the turn is mirrored for the left hand in the keys themselves."""
    posed = model.posed(shape, values[:28].astype(np.float32), side, 0.088)
    rotation = scene.rotation_of(*values[28:31])
    return SceneHand(posed, rotation, values[31:34] - rotation @ posed.keypoints.mean(axis=0), look)


def render_room(renderer: Renderer, rng: np.random.Generator) -> np.ndarray:
    """(480, 640, 3) linear RGB: a wall with a board, a desk with books, a mug, a plant pot and a lamp."""
    wall = Solid("box", np.eye(3), np.array([0, 0, 2.2]), (3, 3, 0.02), (0.42, 0.44, 0.42), seed=1.0)
    desk = Solid(
        "box", np.eye(3), np.array([0, 0.62, 1.4]), (2.2, 0.02, 0.8), (0.30, 0.19, 0.11), specular=0.15, seed=2.0
    )
    board = Solid("box", np.eye(3), np.array([0.45, -0.35, 2.15]), (0.55, 0.38, 0.02), (0.55, 0.56, 0.58), seed=3.0)
    frame = Solid("box", np.eye(3), np.array([0.45, -0.35, 2.17]), (0.58, 0.41, 0.02), (0.06, 0.05, 0.05), seed=4.0)
    shelf = Solid("box", np.eye(3), np.array([-0.65, -0.1, 2.05]), (0.5, 0.015, 0.12), (0.25, 0.16, 0.1), seed=5.0)
    solids = [wall, desk, frame, board, shelf]
    left = -1.1
    while left < -0.25:
        width, height = rng.uniform(0.012, 0.035), rng.uniform(0.09, 0.15)
        place = np.array([left + width, -0.115 - height, 2.03])
        solids.append(Solid("box", np.eye(3), place, (width, height, 0.09), scene.random_color(rng), seed=left))
        left += 2 * width + 0.004
    for x, color in ((-0.35, (0.5, 0.08, 0.06)), (0.75, (0.06, 0.2, 0.3))):
        solids.append(Solid("cylinder", np.eye(3), np.array([x, 0.53, 1.35]), (0.05, 0.07, 0.05), color, specular=0.3))
    solids.append(Solid("box", np.eye(3), np.array([0.15, 0.46, 1.9]), (0.28, 0.16, 0.015), (0.02, 0.02, 0.025)))
    pot = np.array([-0.75, 0.50, 1.6])
    solids.append(Solid("cylinder", np.eye(3), pot, (0.07, 0.1, 0.07), (0.45, 0.2, 0.11)))
    for _ in range(14):
        leaf = pot + np.array([rng.normal(0, 0.09), rng.uniform(-0.38, -0.14), rng.normal(0, 0.05)])
        turned, size = scene.random_direction_rotation(rng), (0.03, 0.09, 0.006)
        solids.append(Solid("sphere", turned, leaf, size, (0.07, 0.2, 0.05), seed=float(rng.uniform(0, 9))))
    lights = Lights(key_direction=np.array([-0.6, -0.7, -0.7]), key_color=(0.9, 0.85, 0.75), shadow_strength=0.0)
    large = Camera(*(2 * v for v in (CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy)))
    light, _ = renderer.render(large, (2 * SIZE_WH[0], 2 * SIZE_WH[1]), [], lights, solids)
    room = cv2.resize(light, SIZE_WH, interpolation=cv2.INTER_AREA)
    grain = cv2.resize(fractal(512, rng, 4, 6), SIZE_WH)[..., None]
    return (room * (1 + 0.06 * grain)).astype(np.float32)


def write_demo(folder: Path, seed: int) -> None:
    """Write the clip and its ground truth (docs/evaluation.md) into ``folder``. Raises HandTrackingError."""
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    path, images = folder / CLIP_NAME, []
    with VideoFile(path, "mp4v", FPS, SIZE_WH, color=True) as video:
        for index, (image, labels) in enumerate(tqdm(render_demo(seed), total=round(SECONDS * FPS), unit="frame")):
            video.write(image)
            images.append(labelled(index, labels))
    write_labels(folder / LABELS_NAME, images)
    print(f"{path}: {len(images)} frames, {path.stat().st_size / 1e6:.2f} MB; truth in {folder / LABELS_NAME}")


def labelled(index: int, labels: list[HandLabel]) -> LabelledImage:
    """The record of one frame."""
    return film.labelled(index, labels, LENS, FPS, CLIP_NAME, ids=[int(label.side) for label in labels])
