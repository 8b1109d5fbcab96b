"""Augmentation of mono pictures: what cameras, light and compression do to them. All functions take a Generator."""

from __future__ import annotations

import cv2
import numpy as np

from hand_tracking_ros.geometry import warp
from hand_tracking_ros.skeleton import EDGES, palm_length

PALM_OUTLINE = (0, 1, 5, 9, 13, 17)
NOISE = np.random.default_rng(0).standard_normal(
    1 << 20, dtype=np.float32
)  # drawn once: drawing costs most of the time


def random_patch(pictures: list[np.ndarray], wh: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random zoomed, mirrored, re-lit cut of a random picture, (H, W) uint8."""
    picture = pictures[rng.integers(len(pictures))]
    height, width = picture.shape
    most = min(width / wh[0], height / wh[1])
    share = np.exp(rng.uniform(np.log(0.25), 0.0)) * most  # picture pixels per output pixel
    low = np.array([rng.uniform(0, width - share * wh[0]), rng.uniform(0, height - share * wh[1])])
    patch = warp(picture, np.column_stack([np.eye(2) / share, -low / share]), wh, border_value=None)
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    gain, offset = rng.uniform(0.4, 1.6), rng.uniform(-40, 40)
    grey = np.arange(256) * gain + max(offset, -patch.mean() * gain * 0.8)
    return cv2.LUT(np.ascontiguousarray(patch), np.clip(grey, 0, 255).astype(np.uint8))


def hand_mask(keypoints_px: np.ndarray, wh: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A soft mask (H, W) float32 0..1 of about the hand and a short forearm, drawn from its keypoints (21, 2).

    Cuts hands out of pictures that have no mask. It keeps a rim of the picture's own background that is as wide as
    chance will have it, or all that lies between the fingers: an outline must not tell where the joints are.
    """
    palm = float(palm_length(keypoints_px))
    mask = np.zeros((wh[1], wh[0]), np.uint8)
    fingers = keypoints_px + rng.normal(0, 0.08 * palm, keypoints_px.shape)
    if rng.random() < 0.5:
        hull = cv2.convexHull(_fixed_point(fingers))
        cv2.fillPoly(mask, [hull], 255, cv2.LINE_8, 3)
        cv2.polylines(mask, [hull], True, 255, max(1, int(palm * rng.uniform(0.3, 0.8))), cv2.LINE_8, 3)
    else:
        for a, b in EDGES:
            ends = _fixed_point(fingers[[a, b]]).tolist()
            cv2.line(mask, *ends, 255, max(1, int(palm * rng.uniform(0.35, 0.7))), cv2.LINE_8, 3)
        cv2.fillPoly(mask, [_fixed_point(keypoints_px[list(PALM_OUTLINE)])], 255, cv2.LINE_8, 3)
    wrist, arm = keypoints_px[0], keypoints_px[0] - keypoints_px[9]
    ends = _fixed_point(np.stack([wrist, wrist + arm * rng.uniform(0.2, 1.0)])).tolist()
    cv2.line(mask, *ends, 255, max(1, int(palm * rng.uniform(0.55, 0.9))), cv2.LINE_8, 3)
    sigma = max(0.6, palm * rng.uniform(0.01, 0.04))
    return cv2.GaussianBlur(mask, (0, 0), sigma).astype(np.float32) / 255.0


def _fixed_point(points_px: np.ndarray) -> np.ndarray:
    """Points (N, 2) as OpenCV draws them with a shift of 3 bits."""
    return np.clip(np.round((points_px - 0.5) * 8), -30000, 30000).astype(np.int32)


def blob_mask(
    wh: tuple[int, int], rng: np.random.Generator, radii: tuple[float, float] = (0.15, 0.5), off_centre: float = 0.2
) -> np.ndarray:
    """A soft random polygon (H, W) float32 0..1; ``radii`` and the most that it is off centre as shares of the side."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 10)))
    lengths = rng.uniform(*radii, len(angles)) * min(wh)
    centre = np.array(wh) * rng.uniform(0.5 - off_centre, 0.5 + off_centre, 2)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * lengths[:, None] + centre
    mask = np.zeros((wh[1], wh[0]), np.uint8)
    cv2.fillPoly(mask, [points.astype(np.int32)], 255)
    return cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.6, 3.0))).astype(np.float32) / 255.0


def blend(front: np.ndarray, back: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``front`` where ``mask`` is 1, ``back`` where it is 0; uint8."""
    return (front * mask + back * (1.0 - mask) + 0.5).astype(np.uint8)


def occlude(image: np.ndarray, pictures: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Cover part of the image with a flat bar or disc, or with a piece of one of the ``pictures``."""
    height, width = image.shape
    if rng.random() < 0.5:
        thing = blob_mask((width, height), rng, radii=(0.08, 0.3), off_centre=0.4)
        return blend(random_patch(pictures, (width, height), rng), image, thing)
    colour, size = int(rng.integers(0, 256)), min(height, width)
    out = image.copy()
    centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
    if rng.random() < 0.5:
        axes = (int(rng.integers(size // 16, size // 5)), int(rng.integers(size // 16, size // 5)))
        cv2.ellipse(out, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
    else:
        end = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.line(out, centre, end, colour, int(rng.integers(2, max(3, size // 9))))
    return out


def degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, blur, resolution, noise and compression as mono cameras give them, on (H, W) uint8.

    A hand far from the camera is small on its sensor, and so are noise and compression before all of it is enlarged.
    """
    height, width = image.shape
    kind = rng.random()
    if kind < 0.25:
        image = cv2.filter2D(image, -1, motion_kernel(rng, max(3, min(height, width) // 7)))
    elif kind < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * float(np.exp(rng.uniform(0, 2.3))))  # out of focus
    if rng.random() < 0.3:  # a far hand
        share = rng.uniform(0.3, 0.95)
        small = (max(8, int(width * share)), max(8, int(height * share)))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)

    level = rng.uniform(0.1, 0.5) if rng.random() < 0.25 else rng.uniform(0.6, 1.3)  # dark scenes
    x = cv2.LUT(image, tone_curve(rng, level))
    if rng.random() < 0.3:
        x *= gradient(rng, x.shape[1], x.shape[0])
    if (brightest := float(x.max())) < 24:  # a camera in the dark still exposes for something
        x *= 24 / max(brightest, 1.0)
    if rng.random() < 0.7:
        sigma = rng.uniform(0, 6) if rng.random() < 0.6 else rng.uniform(6, 22)
        start = rng.integers(len(NOISE) - x.size)
        x += NOISE[start : start + x.size].reshape(x.shape) * np.float32(sigma * min(1.0, level + 0.3))
    out = np.clip(x, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        out = compressed(out, int(rng.integers(15, 80)), *rng.integers(0, 8, 2).tolist())
    return out if out.shape == (height, width) else cv2.resize(out, (width, height))


def compressed(image: np.ndarray, quality: int, down: int, right: int) -> np.ndarray:
    """(H, W) uint8 after JPEG, whose blocks of 8 px begin ``down`` and ``right`` px before the image."""
    padded = cv2.copyMakeBorder(image, down, 0, right, 0, cv2.BORDER_REPLICATE)
    code = cv2.imencode(".jpg", padded, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(code, cv2.IMREAD_GRAYSCALE)[down:, right:]


def tone_curve(rng: np.random.Generator, level: float) -> np.ndarray:
    """Gamma, gain and offset, now and then inverted, as a float32 table of 256 grey levels."""
    grey = np.arange(256, dtype=np.float32)
    if rng.random() < 0.5:
        grey = 255 * (grey / 255) ** np.float32(rng.uniform(0.5, 1.8))
    grey = grey * np.float32(level) + np.float32(rng.uniform(-12, 12) * min(1.0, level))
    return 255 - grey if rng.random() < 0.08 else grey  # inverted: thermal-like scenes


def motion_kernel(rng: np.random.Generator, longest: int) -> np.ndarray:
    """A line of random direction and length that sums to 1."""
    size = int(rng.integers(3, longest + 2)) | 1
    kernel = np.zeros((size, size), np.float32)
    middle, angle = size // 2, rng.uniform(0, np.pi)
    dx, dy = round(middle * np.cos(angle)), round(middle * np.sin(angle))
    cv2.line(kernel, (middle - dx, middle - dy), (middle + dx, middle + dy), 1.0)
    return kernel / kernel.sum()


def gradient(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A linear light fall-off (H, W) around 1."""
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.6)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    return 1 + depth * (np.cos(angle) * x[None, :] + np.sin(angle) * y[:, None]).astype(np.float32)
