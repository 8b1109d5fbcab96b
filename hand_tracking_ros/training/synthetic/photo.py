"""From rendered light to a camera's 8-bit image: compositing, blur, exposure, noise, tone, compression."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

# How much red, green and blue a mono sensor sees, and how often.
MONO_WEIGHTS = {
    "luma": (0.30, 0.59, 0.11),
    "flat": (0.34, 0.33, 0.33),
    "infrared": (0.85, 0.15, 0.0),  # near infrared shows all skin bright, which red comes closest to
    "green": (0.1, 0.8, 0.1),
}
MONO_CHANCES = (0.6, 0.1, 0.2, 0.1)


@dataclass(frozen=True)
class Shot:
    """How one picture is taken. Lengths in pixels of the final image; ``None`` leaves a step out."""

    motion_px: tuple[float, float] = (0.0, 0.0)  # of the foreground during the exposure
    shake_px: tuple[float, float] = (0.0, 0.0)  # of the whole image
    rolling_px: tuple[float, float] = (0.0, 0.0)  # motion of the foreground from the first row's time to the last one's
    defocus_px: float = 0.0
    background_defocus_px: float = 0.0
    target_level: float = 0.4  # mean linear level of what is metered
    meter_hand: bool = True
    veil: float = 0.0  # stray light added everywhere
    vignette: float = 0.0
    read_noise: float = 0.0
    shot_noise: float = 0.0
    row_noise: float = 0.0
    gamma: float = 2.2
    contrast: float = 1.0
    lift: float = 0.0
    shrink: float = 1.0  # the sensor was smaller by this factor, and the image enlarged
    jpeg_quality: int | None = None


def random_shot(rng: np.random.Generator, size_px: float) -> Shot:
    """A plausible camera setting for an image of about ``size_px``; one in twelve is a dark scene full of noise."""
    unit = size_px / 160
    angle, dark = rng.uniform(0, 2 * np.pi), rng.random() < 0.08
    moving = rng.random() < 0.18
    length = rng.uniform(1.5, 11) * unit if moving else 0.0
    shaking = rng.random() < 0.1
    shake = rng.uniform(1, 6) * unit if shaking else 0.0
    strong = rng.random() < 0.12
    noise = abs(rng.normal(0, 0.045 if strong or dark else 0.012))
    darkest, brightest = (0.02, 0.08) if dark else (0.09, 0.55)
    return Shot(
        motion_px=(length * np.cos(angle), length * np.sin(angle)),
        shake_px=(shake * np.cos(angle + 1), shake * np.sin(angle + 1)),
        defocus_px=unit * (rng.uniform(0.3, 2.2) if rng.random() < 0.35 else rng.uniform(0.0, 0.6)),
        background_defocus_px=unit * rng.uniform(1, 6) if rng.random() < 0.25 else 0.0,
        target_level=float(np.exp(rng.uniform(np.log(darkest), np.log(brightest)))),
        meter_hand=bool(rng.random() < 0.65),
        veil=rng.uniform(0, 0.25) if rng.random() < 0.12 else 0.0,
        vignette=rng.uniform(0, 0.5) if rng.random() < 0.3 else 0.0,
        read_noise=0.5 * noise,
        shot_noise=0.6 * noise,
        row_noise=abs(rng.normal(0, 0.008)) if rng.random() < 0.1 else 0.0,
        gamma=rng.uniform(1.6, 2.5) if rng.random() < 0.85 else 1.0,
        contrast=rng.uniform(0.7, 1.25),
        lift=rng.uniform(-0.06, 0.08),
        shrink=rng.uniform(1.3, 3.0) if rng.random() < 0.15 else 1.0,
        jpeg_quality=int(rng.integers(20, 92)) if rng.random() < 0.3 else None,
    )


def good_shot(rng: np.random.Generator, size_px: float) -> Shot:
    """A sharp picture in good light: for training that degrades its images itself (training/augment.py)."""
    return Shot(
        background_defocus_px=size_px / 160 * rng.uniform(1, 6) if rng.random() < 0.25 else 0.0,
        target_level=float(np.exp(rng.uniform(np.log(0.12), np.log(0.45)))),
        meter_hand=bool(rng.random() < 0.65),
        read_noise=0.002,
        gamma=rng.uniform(1.8, 2.4),
        contrast=rng.uniform(0.85, 1.2),
    )


def with_rolling_shutter(shot: Shot, rng: np.random.Generator, size_px: float) -> Shot:
    """The shot with rows that are read one after the other: the foreground leans in the direction of its motion.

    Labels hold for the time of the middle row.
    """
    motion = np.array(shot.motion_px) * rng.uniform(0.5, 3.0)
    if not motion.any():  # too short an exposure for blur, but not too short a readout
        motion = rng.normal(0, 0.03, 2) * size_px
    return replace(shot, rolling_px=tuple(np.clip(motion, -0.15 * size_px, 0.15 * size_px)))


def to_mono(rgb: np.ndarray, weights: tuple[float, float, float]) -> np.ndarray:
    """(H, W, 3) -> (H, W)."""
    return rgb @ np.array(weights, np.float32)


def take(foreground: np.ndarray, mask: np.ndarray, background: np.ndarray, shot: Shot, rng: np.random.Generator):
    """uint8 image of the size of ``background``, (H, W) or (H, W, 3) as the inputs are.

    foreground, mask: linear light and 0/1 coverage, supersampled or not; background: linear light.
    """
    size_wh = background.shape[1::-1]
    if foreground.ndim == 3:
        mask = mask[..., None]
    light = cv2.resize(foreground * mask, size_wh, interpolation=cv2.INTER_AREA)
    cover = cv2.resize(mask.astype(np.float32), size_wh, interpolation=cv2.INTER_AREA)
    light, cover = (roll(smear(part, shot.motion_px), shot.rolling_px) for part in (light, cover))
    return compose(light, cover, background, shot, rng)


def compose(light: np.ndarray, cover: np.ndarray, background: np.ndarray, shot: Shot, rng: np.random.Generator):
    """As ``take``, from the light of the foreground (black elsewhere) and its coverage (H, W), 0..1, in final size."""
    size_wh = background.shape[1::-1]
    background = blur(background, shot.background_defocus_px)
    if light.ndim == 3:
        cover = cover[..., None]
    image = light + (1 - cover) * background
    image = blur(smear(image, shot.shake_px), shot.defocus_px)
    image = image * exposure_gain(image, cover, shot)
    if shot.shrink > 1:
        small = [max(8, int(side / shot.shrink)) for side in size_wh]
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, size_wh, interpolation=cv2.INTER_LINEAR)
    image = (image + shot.veil) * vignette(size_wh, shot.vignette, image.ndim)
    return develop(image, shot, rng)


def exposure_gain(image: np.ndarray, cover: np.ndarray, shot: Shot) -> float:
    """The gain that brings the metered mean (the foreground, or everything) to the target level."""
    weight = np.clip(cover, 0, 1) if shot.meter_hand and cover.mean() > 0.01 else np.ones_like(cover)
    mean = float((image * weight).sum() / np.broadcast_to(weight, image.shape).sum())
    return shot.target_level / max(mean, 1e-3)


def develop(image: np.ndarray, shot: Shot, rng: np.random.Generator) -> np.ndarray:
    """Linear light to uint8: sensor noise, gamma, contrast, JPEG."""
    sigma = shot.read_noise + shot.shot_noise * np.sqrt(np.clip(image, 0, 1))
    encoded = np.clip(image, 0, 1) ** np.float32(1 / shot.gamma)
    encoded = (encoded - 0.5) * shot.contrast + 0.5 + shot.lift
    if shot.read_noise or shot.shot_noise:
        encoded = encoded + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    if shot.row_noise:
        rows = rng.standard_normal((image.shape[0],) + (1,) * (image.ndim - 1), dtype=np.float32)
        encoded = encoded + shot.row_noise * rows
    out = np.clip(encoded * 255 + 0.5, 0, 255).astype(np.uint8)
    if shot.jpeg_quality is not None:
        flag = cv2.IMREAD_GRAYSCALE if out.ndim == 2 else cv2.IMREAD_COLOR
        _, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, shot.jpeg_quality])
        out = cv2.imdecode(data, flag)
    return out


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.2 else image


def smear(image: np.ndarray, motion_px: tuple[float, float]) -> np.ndarray:
    """Mean over a straight motion centred on the true position, so that labels stay exact."""
    length = float(np.hypot(*motion_px))
    if length < 1:
        return image
    half = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for share in np.linspace(-0.5, 0.5, 4 * half + 1):
        x, y = half + share * motion_px[0], half + share * motion_px[1]
        x0, y0 = int(np.floor(x)), int(np.floor(y))
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            kernel[y0 + dy, x0 + dx] += (1 - abs(x - x0 - dx)) * (1 - abs(y - y0 - dy))
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def roll(image: np.ndarray, motion_px: tuple[float, float]) -> np.ndarray:
    """What a rolling shutter makes of something in motion: each row is seen at its own time, the middle one at 0."""
    if not np.any(motion_px):
        return image
    height, width = image.shape[:2]
    time = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height - 0.5
    columns = np.arange(width, dtype=np.float32) - np.float32(motion_px[0]) * time
    rows = np.arange(height, dtype=np.float32)[:, None] - np.float32(motion_px[1]) * time
    return cv2.remap(image, columns, np.broadcast_to(rows, columns.shape).copy(), cv2.INTER_LINEAR)


def vignette(size_wh, strength: float, ndim: int):
    if strength <= 0:
        return np.float32(1.0)
    y, x = np.mgrid[: size_wh[1], : size_wh[0]].astype(np.float32)
    r2 = ((x / size_wh[0] - 0.5) ** 2 + (y / size_wh[1] - 0.5) ** 2) * 2
    falloff = 1 - strength * r2
    return falloff if ndim == 2 else falloff[..., None]
