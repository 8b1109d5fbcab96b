"""Backgrounds: photographs from folders, tiles of texture sheets, and procedural scenes. Linear RGB, float32."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.errors import SourceError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
GAMMA = 2.2
TILE_BORDER_PX = 6


class Backgrounds:
    """A bank of images to cut backgrounds from.

    ``folders`` may hold photographs (colour or mono) and sheets of tiles on white; without any, all backgrounds are
    procedural. ``procedural_share`` of the backgrounds are procedural in any case. ``skip`` names files to leave out:
    a photograph with a hand in it would teach a detector not to see it.
    """

    def __init__(self, folders=(), seed: int = 0, bank_size: int = 160, procedural_share: float = 0.3, skip=()):
        self._seed = seed
        self.photos: list[np.ndarray] = []
        self.tiles: list[np.ndarray] = []
        for folder in folders:
            self._load(Path(folder), frozenset(skip))
        self._procedural: list[np.ndarray | None] = [None] * bank_size  # made when first wanted
        self._procedural_share = procedural_share if self.photos or self.tiles else 1.0

    def _load(self, folder: Path, skip: frozenset[str]) -> None:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES) if folder.is_dir() else []
        if not paths:
            raise SourceError(f"no background images in {folder}: give a folder with {', '.join(IMAGE_SUFFIXES)} files")
        for path in (path for path in paths if path.name not in skip):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                raise SourceError(f"cannot read background image {path}: remove it or replace it")
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            tiles = slice_tiles(image)
            if tiles:
                self.tiles += tiles
            else:
                self.photos.append(image)

    def procedural(self, index: int) -> np.ndarray:
        """Procedural scene number ``index``, (256, 256, 3) linear RGB."""
        if self._procedural[index] is None:
            self._procedural[index] = procedural_scene(256, np.random.default_rng([self._seed, 7919, index]))
        return self._procedural[index]

    def sample(self, size_wh: tuple[int, int], rng: np.random.Generator, least_share: float = 0.2) -> np.ndarray:
        """(H, W, 3) linear RGB, about 0..1. Photos are cut to windows of at least ``least_share`` of their side."""
        if rng.random() < self._procedural_share:
            image = self.procedural(int(rng.integers(len(self._procedural))))
            image = cut_window(image, size_wh, rng, max(0.35, least_share))
        else:
            use_photo = self.photos and (not self.tiles or rng.random() < 0.65)
            bank = self.photos if use_photo else self.tiles
            image = bank[rng.integers(len(bank))]
            image = cut_window(image, size_wh, rng, least_share) if use_photo else repeat_tile(image, size_wh, rng)
            image = (image.astype(np.float32) / 255.0) ** GAMMA
        if rng.random() < 0.3:
            image = image + shadow_or_light(size_wh, rng) * image
        return image * np.float32(np.exp(rng.normal(0.0, 0.45)))


def slice_tiles(image: np.ndarray) -> list[np.ndarray]:
    """The square tiles of a contact sheet with white gutters; [] when the image is no such sheet. Captions fall out."""
    width = image.shape[1]
    edges = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    if (edges > 245).mean() < 0.98:
        return []
    filled = cv2.morphologyEx((image.min(axis=2) < 240).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(filled)
    tiles = []
    for x, y, w, h, area in stats[1:]:
        if min(w, h) >= 64 and area > 0.8 * w * h and w < width // 2:
            b = TILE_BORDER_PX
            tiles.append(np.ascontiguousarray(image[y + b : y + h - b, x + b : x + w - b]))
    return tiles


def cut_window(image: np.ndarray, size_wh, rng: np.random.Generator, least_share: float) -> np.ndarray:
    """A random window with the aspect of ``size_wh``, flipped at random, resized to it."""
    height, width = image.shape[:2]
    aspect = size_wh[0] / size_wh[1]
    largest = min(width / aspect, height)
    side = largest * rng.uniform(least_share, 1.0)
    w, h = max(2, int(side * aspect)), max(2, int(side))
    x, y = rng.integers(0, max(width - w, 0) + 1), rng.integers(0, max(height - h, 0) + 1)
    window = image[y : y + h, x : x + w]
    if rng.random() < 0.5:
        window = window[:, ::-1]
    shrinks = w > size_wh[0]
    return cv2.resize(window, size_wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def repeat_tile(tile: np.ndarray, size_wh, rng: np.random.Generator) -> np.ndarray:
    """Fill the size with mirrored copies of a texture tile at a random scale."""
    scale = rng.uniform(0.5, 3.0) * max(size_wh) / 256
    h, w = max(8, int(tile.shape[0] * scale)), max(8, int(tile.shape[1] * scale))
    tile = cv2.resize(tile, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    right, below = max(0, size_wh[0] - w), max(0, size_wh[1] - h)
    filled = cv2.copyMakeBorder(tile, 0, below, 0, right, cv2.BORDER_REFLECT)
    return filled[: size_wh[1], : size_wh[0]]


def fractal(size: int, rng: np.random.Generator, first=3, octaves=5, persistence=0.6) -> np.ndarray:
    """(size, size) smooth noise, about -1..1."""
    total, amplitude = np.zeros((size, size), np.float32), 1.0
    for octave in range(octaves):
        cells = min(first * 2**octave, size)
        layer = rng.standard_normal((cells, cells), dtype=np.float32)
        total += amplitude * cv2.resize(layer, (size, size), interpolation=cv2.INTER_CUBIC)
        amplitude *= persistence
    return total / 2


def procedural_scene(size: int, rng: np.random.Generator) -> np.ndarray:
    """A clutter of shaded, textured shapes before a wall, (size, size, 3) linear RGB."""
    base = rng.uniform(0.05, 0.8) * (1 + rng.uniform(0.05, 0.4) * fractal(size, rng, int(rng.integers(2, 6))))
    image = base[..., None] * random_tint(rng)
    if rng.random() < 0.2:
        image *= 1 + rng.uniform(0.1, 0.6) * stripes(size, rng)[..., None]
    for _ in range(rng.integers(0, 14)):
        mask = np.zeros((size, size), np.uint8)
        draw_random_shape(mask, rng)
        soft = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.5, 2.5))).astype(np.float32)[..., None] / 255
        ramp = 1 + rng.uniform(-0.4, 0.4) * np.linspace(-1, 1, size, dtype=np.float32)
        ramp = ramp[:, None, None] if rng.random() < 0.5 else ramp[None, :, None]
        texture = 1 + rng.uniform(0, 0.3) * fractal(size, rng, 8, 3)[..., None]
        color = rng.uniform(0.01, 0.9) * random_tint(rng) * ramp * texture
        image = image * (1 - soft) + soft * color
    return np.clip(image, 0, 1.5).astype(np.float32)


def draw_random_shape(mask: np.ndarray, rng: np.random.Generator) -> None:
    size = len(mask)
    kind = rng.random()
    if kind < 0.4:
        corners = rng.integers(-size // 4, size + size // 4, (rng.integers(3, 6), 2)).astype(np.int32)
        cv2.fillPoly(mask, [corners], 255)
    elif kind < 0.6:
        center, axes = rng.integers(0, size, 2).tolist(), rng.integers(4, size // 2, 2).tolist()
        cv2.ellipse(mask, center, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    elif kind < 0.85:
        a, b = rng.integers(-20, size + 20, (2, 2)).tolist()
        cv2.line(mask, a, b, 255, int(rng.integers(1, size // 6)))
    else:
        mask[fractal(size, rng, 3, 4) > rng.uniform(0, 0.8)] = 255


def stripes(size: int, rng: np.random.Generator) -> np.ndarray:
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(2, 25)
    y, x = np.mgrid[:size, :size] / size
    wave = np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)))
    return (np.sign(wave) if rng.random() < 0.5 else wave).astype(np.float32)


def random_tint(rng: np.random.Generator) -> np.ndarray:
    tint = np.exp(rng.normal(0, 0.35, 3))
    return (tint / tint.mean()).astype(np.float32)


def shadow_or_light(size_wh, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 1) a soft change of brightness from one side to the other, or a spot."""
    y, x = np.mgrid[: size_wh[1], : size_wh[0]].astype(np.float32) / max(size_wh)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        change = np.tanh(rng.uniform(1, 6) * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)))
    else:
        cx, cy = rng.random(2)
        change = 2 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / rng.uniform(0.02, 0.2))
    return (rng.uniform(-0.7, 0.9) * change)[..., None].clip(-0.9, 3).astype(np.float32)
