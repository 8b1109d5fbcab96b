"""Training pools: crops around one hand, and whole frames with none to four hands. Exact keypoints, depth, visibility.

Every sample has its own random generator, from (seed, index): a pool is the same in whatever pieces it is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hand_tracking_ros.skeleton import NUM_JOINTS, Side
from hand_tracking_ros.training.synthetic import lenses, people, photo, scene
from hand_tracking_ros.training.synthetic.backgrounds import Backgrounds
from hand_tracking_ros.training.synthetic.lenses import Lens
from hand_tracking_ros.training.synthetic.model import HandModel
from hand_tracking_ros.training.synthetic.poses import MIXTURE
from hand_tracking_ros.training.synthetic.render import Renderer, SceneHand, Solid
from hand_tracking_ros.types import Camera

CROP_PX = 160
FRAME_WH = (320, 240)
SUPERSAMPLING = 1.5
SEATED = 0.5  # share of frames whose first two hands are those of a person at a table, or who wears the camera
HOLDING = {"crops": 0.25, "frames": 0.2}  # share of hands that hold something
CLEAR = 0.35  # share of images of objects in which these are like glass, or clear plastic
FACES = 0.25  # share of crops with the person's face behind the hand
# A joint lies at most this far below the skin, in model units: the palm is thicker than the fingers.
FLESH = np.where(np.isin(np.arange(NUM_JOINTS), (0, 1, 2, 5, 9, 13, 17)), 0.27, 0.14)


@dataclass(frozen=True)
class HandLabel:
    """keypoints_px (21, 2) corner-origin pixels; keypoints_m (21, 3) camera's optical frame; visible (21,) bool."""

    side: Side
    keypoints_px: np.ndarray
    keypoints_m: np.ndarray
    visible: np.ndarray

    def depth_rel(self) -> np.ndarray:
        """(21,) depth relative to joint 9 in palm lengths (0 to 9 in 3D)."""
        palm = np.linalg.norm(self.keypoints_m[9] - self.keypoints_m[0])
        return ((self.keypoints_m[:, 2] - self.keypoints_m[9, 2]) / palm).astype(np.float32)


class Generator:
    """Makes samples of both kinds. Needs OpenGL (render.py); one per process."""

    def __init__(
        self, seed: int, background_folders=(), channels: int = 1, poses: int = 4000, skip=(), mixture=None, views=None,
        holding: float | None = None, shot=photo.random_shot, fisheye: float = 0.0, rolling: float = 0.0,
        faces: float = FACES, seated: float = 0.0,
    ):  # fmt: skip
        """``holding``: share of hands that hold something, by default HOLDING; ``shot``: how pictures are taken;
        ``fisheye``: share of frames through a fisheye; ``rolling``: share of all pictures with a rolling shutter;
        ``faces``: share of crops with a face behind the hand; ``seated``: share of crops of a hand of somebody at a
        table, or who wears the camera, instead of a hand of nobody, turned as ``views`` say."""
        model = HandModel()
        self.seed, self.channels = seed, channels
        self.holding = HOLDING if holding is None else dict.fromkeys(HOLDING, holding)
        self.shot, self.fisheye, self.rolling, self.faces, self.seated = shot, fisheye, rolling, faces, seated
        self.scenes = scene.SceneSampler(model, seed, poses, mixture or MIXTURE, views or scene.VIEWS)
        self.backgrounds = Backgrounds(background_folders, seed, skip=skip)
        self.renderer = Renderer(model)

    def crop(self, index: int) -> tuple[np.ndarray, HandLabel]:
        """(160, 160) uint8 around one hand, whose tight box covers 42 to 62 % of the side, and its label."""
        rng = np.random.default_rng([self.seed, 1, index])
        while True:
            sample = self._try_crop(rng)
            if sample is not None:
                return sample

    def _try_crop(self, rng: np.random.Generator):
        person = self.scenes.person(rng)
        side = Side(int(rng.integers(1, 3)))
        distance = np.exp(rng.uniform(np.log(0.2), np.log(1.1)))
        position = distance * np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.45, 0.45), 1.0])
        holds = rng.random() < self.holding["crops"]
        if self.seated and rng.random() < self.seated:
            setting = people.random_setting(position / np.linalg.norm(position), rng)
            hand = setting.hand(self.scenes, person, side, rng, holds)
            solids = setting.company(person, [hand], rng)
        else:
            hand = self.scenes.hand(person, side, rng, position, holds=holds)
            solids = []
        if hand.keypoints_m()[:, 2].min() < 0.09:
            return None
        hands, solids = [hand], solids or self._company(hand, person, rng)
        if holds:
            solids.append(scene.held_object(hand, rng))
        if rng.random() < 0.18:
            hands.append(self._neighbour(hand, person, rng))
        image, labels = self._shoot(crop_lens(hand, rng), hands, solids, rng)
        return (image, labels[0]) if labels[0].visible.sum() >= 8 else None

    def _company(self, hand: SceneHand, person: scene.Person, rng: np.random.Generator) -> list[Solid]:
        """What else is near a hand: the person's face behind it, or right behind it; things in the way."""
        points = hand.keypoints_m()
        center, solids = points.mean(axis=0), []
        if rng.random() < self.faces:
            if rng.random() < 0.5:
                back, spread = points[:, 2].max() - center[2] + rng.uniform(0.1, 0.16), 0.06  # at the cheek
            else:
                back, spread = rng.uniform(0.14, 0.5), 0.09
            behind = center * (1 + back / center[2]) + rng.normal(0, spread, 3) * [1, 1, 0]
            solids += scene.face_and_body(behind, person, rng)
        for _ in range(rng.poisson(0.35)):
            near = rng.random() < 0.2
            depth = center[2] * rng.uniform(0.55, 0.9) if near else center[2] + rng.uniform(0.08, 0.4)
            spread = 0.16 * depth / center[2]
            place = center * depth / center[2] + rng.normal(0, spread, 3) * [1, 1, 0]
            solids.append(scene.stray_object(place, person, rng))
        return solids

    def _neighbour(self, hand: SceneHand, person: scene.Person, rng: np.random.Generator) -> SceneHand:
        """A second hand beside, behind or before the first, usually the same person's other one."""
        other = Side.LEFT if hand.posed.side == Side.RIGHT else Side.RIGHT
        side = other if rng.random() < 0.85 else hand.posed.side
        center = hand.keypoints_m().mean(axis=0)
        angle, apart = rng.uniform(0, 2 * np.pi), rng.uniform(0.06, 0.2)
        shift = np.array([apart * np.cos(angle), apart * np.sin(angle), 0.0])
        depth = rng.choice([-1, 1]) * max(0.02, 0.11 - 0.6 * apart) + rng.normal(0, 0.02)
        position = (center + shift) * max(0.15, center[2] + depth) / center[2]
        return self.scenes.hand(person, side, rng, position)

    def frame(self, index: int) -> tuple[np.ndarray, list[HandLabel]]:
        """(240, 320) uint8 and the labels of its hands: none to four, of one or several people."""
        rng = np.random.default_rng([self.seed, 2, index])
        width, height = FRAME_WH
        focal = width / 2 / np.tan(np.radians(rng.uniform(50, 100)) / 2)
        lens = Lens(Camera(focal, focal, width / 2 + rng.normal(0, 4), height / 2 + rng.normal(0, 4)), FRAME_WH)
        own = np.random.default_rng([self.seed, 4, index])  # its own, so that the other frames stay what they are
        if own.random() < self.fisheye:
            lens = lenses.random_lens("fisheye", own, FRAME_WH, own.uniform(100, 155))
        count = int(rng.choice(5, p=[0.16, 0.36, 0.34, 0.07, 0.07]))
        person = self.scenes.person(rng)
        hands: list[SceneHand] = []
        solids: list[Solid] = []
        setting = self._setting(lens, rng) if rng.random() < SEATED else None
        sitter = person
        for k in range(count):
            if k >= 2 or (setting is None and rng.random() < 0.2):
                person = self.scenes.person(rng)
            holds = bool(rng.random() < self.holding["frames"])
            hand = self._place(lens, person, hands, holds, rng, setting if k < 2 else None)
            if hand is not None:
                hands.append(hand)
                if holds:
                    solids.append(scene.held_object(hand, rng))
        if setting is not None:
            solids += setting.company(sitter, hands[:2], rng)
        solids += people.bystanders(lens, hands, person, rng)
        return self._shoot(lens, hands, solids, rng)

    @staticmethod
    def _setting(lens: Lens, rng: np.random.Generator) -> people.Setting | None:
        """A person whose hands are in view; None where the lens sees nothing."""
        ray = lens.ray(rng.uniform(0.2, 0.8, 2) * lens.size_wh)
        return None if np.isnan(ray).any() else people.random_setting(ray, rng)

    def objects(self, index: int) -> tuple[np.ndarray, list[HandLabel]]:
        """(160, 160) uint8 with something that is no hand in the middle, as large as a hand would be; no labels."""
        rng = np.random.default_rng([self.seed, 3, index])
        person = self.scenes.person(rng)
        position = np.array([rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2), 1.0]) * rng.uniform(0.3, 1.1)
        kind, reach = str(rng.choice(["bottle", "bundle", "stray", "face"], p=[0.35, 0.2, 0.25, 0.2])), 0.1
        if kind == "bottle":
            solids = scene.bottle(position, rng)
        elif kind == "bundle":
            solids = scene.bundle(position, rng)
        elif kind == "stray":
            solids = [scene.stray_object(position, person, rng) for _ in range(rng.integers(1, 4))]
        else:
            solids, reach = scene.face_and_body(position, person, rng), 0.12
        for _ in range(rng.poisson(0.6)):
            solids.append(scene.stray_object(position + rng.normal(0, 0.12, 3) * [1, 1, 0], person, rng))
        side = 2 * reach / position[2] * np.exp(rng.uniform(np.log(0.7), np.log(2.5)))
        focal, center = CROP_PX / side, position[:2] / position[2] + rng.uniform(-0.15, 0.15, 2) * side
        camera = Camera(focal, focal, CROP_PX / 2 - focal * center[0], CROP_PX / 2 - focal * center[1])
        opacity = rng.uniform(0.2, 0.8) if rng.random() < CLEAR else 1.0
        return self._shoot(Lens(camera, (CROP_PX, CROP_PX)), [], solids, rng, opacity)

    def _place(self, lens: Lens, person: scene.Person, hands: list[SceneHand], holds: bool, rng, setting=None):
        """A hand of 20 to 200 px in the frame, not on top of another, where the ``setting`` has it or somewhere; None
        when there is no room."""
        boxes = [pixel_box(lens, hand.keypoints_m()) for hand in hands]
        other = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}
        for _ in range(12):
            if setting is not None:
                side = other[hands[-1].posed.side] if hands else Side(int(rng.integers(1, 3)))
                hand = setting.hand(self.scenes, person, side, rng, holds)
                if self._fits(lens, hand, boxes, rng):
                    return hand
                continue
            wanted_px = np.exp(rng.uniform(np.log(20), np.log(200)))
            if hands and rng.random() < 0.6:  # hands of one person have similar sizes
                wanted_px = np.clip(side_of(boxes[-1]) * np.exp(rng.normal(0, 0.2)), 20, 200)
            depth = np.clip(lens.camera.fx * 1.8 * person.palm_m / wanted_px, 0.13, 4.0)
            pixel = rng.uniform(-0.02, 1.02, 2) * FRAME_WH
            ray = lens.ray(pixel)
            if np.isnan(ray).any():
                continue
            sides = {hand.posed.side for hand in hands[-1:]}
            side = Side(int(rng.integers(1, 3)))
            if sides == {side} and rng.random() < 0.7:
                side = other[side]
            hand = self.scenes.hand(person, side, rng, depth * ray, holds=holds)
            if self._fits(lens, hand, boxes, rng):
                return hand
        return None

    def _fits(self, lens: Lens, hand: SceneHand, boxes: list[np.ndarray], rng: np.random.Generator) -> bool:
        """Whether a hand is of the right size in the frame, and not on top of those with ``boxes``."""
        points = hand.keypoints_m()
        if lens.range_m(points).min() < 0.07:
            return False
        box = pixel_box(lens, points)
        inside = (center_of(box) >= 0) & (center_of(box) < FRAME_WH)
        apart = [np.hypot(*(center_of(box) - center_of(b))) / (side_of(box) + side_of(b)) for b in boxes]
        near = 0.22 if rng.random() < 0.25 else 0.5
        return bool(inside.all()) and 14 <= side_of(box) <= 215 and all(gap > near for gap in apart)

    def _shoot(self, lens: Lens, hands, solids, rng: np.random.Generator, opacity: float = 1.0):
        """Render, composite and photograph: the uint8 image and one label per hand. ``opacity`` of what is rendered."""
        factor, size_wh = SUPERSAMPLING, lens.size_wh
        large = lens.scaled(factor)
        light, depth = lenses.render(self.renderer, large, hands, scene.random_lights(rng), solids)
        labels = [label_of(hand, large, depth, factor) for hand in hands]
        background = self.backgrounds.sample(size_wh, rng, least_share=0.2 if size_wh[0] == CROP_PX else 0.45)
        if self.channels == 1:
            weights = photo.MONO_WEIGHTS[str(rng.choice(list(photo.MONO_WEIGHTS), p=photo.MONO_CHANCES))]
            light, background = photo.to_mono(light, weights), photo.to_mono(background, weights)
        shot = self.shot(rng, min(size_wh))
        if self.rolling and rng.random() < self.rolling:
            shot = photo.with_rolling_shutter(shot, rng, min(size_wh))
        return photo.take(light, opacity * (depth > 0).astype(np.float32), background, shot, rng), labels


def crop_lens(hand: SceneHand, rng: np.random.Generator) -> Lens:
    """The part of a pinhole image around a hand, as a lens of its own."""
    points = hand.keypoints_m()
    rays = points[:, :2] / points[:, 2:]
    low, high = rays.min(axis=0), rays.max(axis=0)
    side = (high - low).max() / rng.uniform(0.42, 0.62)
    center = (low + high) / 2 + rng.uniform(-0.07, 0.07, 2) * side
    focal = CROP_PX / side
    camera = Camera(focal, focal, CROP_PX / 2 - focal * center[0], CROP_PX / 2 - focal * center[1])
    return Lens(camera, (CROP_PX, CROP_PX))


def label_of(hand: SceneHand, lens: Lens, depth: np.ndarray, factor: float) -> HandLabel:
    """The label in pixels of the final image, NaN for points that the lens cannot see.

    ``lens`` and ``depth`` (H, W), from ``lenses.render``, are ``factor`` times larger.
    """
    points = hand.keypoints_m()
    pixels = lens.camera.project(points)
    inside = lens.inside(pixels)
    column, row = np.where(inside[:, None], pixels, 0.0).astype(int).T
    seen = depth[row, column]
    visible = inside & ((seen == 0) | (lens.range_m(points) - seen < FLESH * hand.posed.unit_m))
    return HandLabel(hand.posed.side, (pixels / factor).astype(np.float32), points.astype(np.float32), visible)


def pixel_box(lens: Lens, points_m: np.ndarray) -> np.ndarray:
    """(4,) x0, y0, x1, y1; NaN when the lens does not see all points (N, 3)."""
    pixels = lens.camera.project(points_m)
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def center_of(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2


def side_of(box: np.ndarray) -> float:
    return float((box[2:] - box[:2]).max())


def pack_crops(samples) -> dict[str, np.ndarray]:
    """Arrays of a crop pool: images (N, 160, 160), keypoints (N, 21, 2) px, depth_rel, side (N,), visible."""
    images, labels = zip(*samples, strict=True)
    return {"images": np.stack(images)} | _label_arrays(list(labels))


def pack_frames(samples) -> dict[str, np.ndarray]:
    """Arrays of a frame pool: as crops, one row per hand, with hand_image_index (M,) and boxes (M, 4) x0 y0 x1 y1."""
    images, groups = zip(*samples, strict=True)
    labels = [label for group in groups for label in group]
    arrays = {"images": np.stack(images)} | _label_arrays(labels)
    arrays["hand_image_index"] = np.repeat(np.arange(len(groups)), [len(g) for g in groups]).astype(np.int32)
    keypoints = arrays["keypoints"]
    arrays["boxes"] = np.concatenate([keypoints.min(axis=1), keypoints.max(axis=1)], axis=1)
    return arrays


def _label_arrays(labels: list[HandLabel]) -> dict[str, np.ndarray]:
    count = len(labels)
    return {
        "keypoints": np.array([label.keypoints_px for label in labels], np.float32).reshape(count, NUM_JOINTS, 2),
        "depth_rel": np.array([label.depth_rel() for label in labels], np.float32).reshape(count, NUM_JOINTS),
        "side": np.array([label.side for label in labels], np.uint8),
        "visible": np.array([label.visible for label in labels], bool).reshape(count, NUM_JOINTS),
    }


KINDS = {
    "crops": (Generator.crop, pack_crops),
    "frames": (Generator.frame, pack_frames),
    "objects": (Generator.objects, pack_frames),
}
