"""The size of a person's hands, and of their bones: what is assumed, what was measured, and the file that keeps it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.kinematics import BONE_RATIOS, MEAN_HAND, NUM_BONES, KinematicHand, shape_of
from hand_tracking_ros.skeleton import FINGERS

PALM_M = 0.088  # wrist to middle finger base, of an adult
SIZE_SIGMA = 0.075  # of the logarithm of palm lengths among adults
CALIBRATED_SIGMA = 0.025  # a size known this well counts as measured
GIVEN_SIGMA = 0.015  # of a length that somebody measured with a ruler
PALMS_PER_HAND = 2.07  # crease of the wrist to the tip of the middle finger, over the palm length
RANGE_M = (0.03, 0.2)
FINGER_SIGMA = 0.12  # of the logarithm of finger ratios, when nothing is known of the person
FINGER_RANGE = (0.6, 1.5)


@dataclass(frozen=True)
class HandSize:
    """Palm length (0 to 9) in metres, and the standard deviation of its logarithm. Raises ConfigError.

    ``bone_ratios`` (20,): of each bone, in units of the palm, over that of the mean hand (kinematics.py); (): all 1.
    ``finger_ratio``: what all phalanges are longer by than that, and ``finger_sigma`` of its logarithm.
    """

    palm_m: float = PALM_M
    sigma: float = SIZE_SIGMA
    bone_ratios: tuple[float, ...] = ()
    finger_ratio: float = 1.0
    finger_sigma: float = FINGER_SIGMA

    def __post_init__(self) -> None:
        if not RANGE_M[0] <= self.palm_m <= RANGE_M[1]:
            raise ConfigError(
                f"a palm (wrist to middle finger base) measures {RANGE_M[0]} to {RANGE_M[1]} m, got {self.palm_m}"
            )
        if not 0 < self.sigma < math.inf:
            raise ConfigError(f"sigma of a hand's size must be positive, got {self.sigma}")
        if not FINGER_RANGE[0] <= self.finger_ratio <= FINGER_RANGE[1] or not 0 < self.finger_sigma < math.inf:
            raise ConfigError(
                f"finger_ratio must be {FINGER_RANGE[0]} to {FINGER_RANGE[1]} and its sigma positive, got "
                f"{self.finger_ratio} and {self.finger_sigma}"
            )
        try:
            shape_of(self.bone_ratios)
        except ValueError as error:
            raise ConfigError(f"no hand has such bones: {error}") from error

    @property
    def shape(self) -> KinematicHand:
        """The bones in units of the palm."""
        return shape_of(self.bone_ratios)

    @property
    def is_measured(self) -> bool:
        """Whether the size is known well enough for positions to count as measured."""
        return self.sigma <= CALIBRATED_SIGMA

    @property
    def fingers_are_measured(self) -> bool:
        """Whether the length of the fingers was given, and stays as it is."""
        return self.finger_sigma <= CALIBRATED_SIGMA


def from_hand_length(length_m: float) -> HandSize:
    """The size of a hand that measures ``length_m`` from the crease of the wrist to the tip of the middle finger."""
    return HandSize(length_m / PALMS_PER_HAND, 1.5 * GIVEN_SIGMA)


def with_fingers(size: HandSize, lengths_m: Mapping[str, Sequence[float]]) -> HandSize:
    """``size`` with the lengths of some fingers' phalanges from base to tip (thumb: its three bones), in metres. They
    stay; fingers that are not given have their mean length.

    Raises ConfigError for unknown fingers, other than three lengths each, and hands out of proportion.
    """
    ratios = np.array(size.bone_ratios or np.ones(NUM_BONES)).reshape(len(FINGERS), -1)
    mean_m = size.palm_m * MEAN_HAND.bone_lengths.reshape(ratios.shape)
    for finger, lengths in lengths_m.items():
        if finger not in FINGERS:
            raise ConfigError(f"no finger is called '{finger}'; there are {', '.join(FINGERS)}")
        if len(lengths) != 3:
            raise ConfigError(f"the {finger} has three bones from its base to its tip, got {len(lengths)} lengths")
        row = list(FINGERS).index(finger)
        ratios[row, 1:] = np.asarray(lengths, float) / mean_m[row, 1:]
        if not ((ratios[row] >= BONE_RATIOS[0]) & (ratios[row] <= BONE_RATIOS[1])).all():
            mean_mm = ", ".join(f"{1000 * length:.0f}" for length in mean_m[row, 1:])
            raise ConfigError(
                f"no {finger} has bones of {', '.join(f'{1000 * length:g}' for length in lengths)} mm on a palm of "
                f"{1000 * size.palm_m:.0f} mm: the mean one's are {mean_mm}; from half to twice that is possible"
            )
    given = tuple(ratios.reshape(-1).round(4).tolist())
    return replace(size, bone_ratios=given, finger_ratio=1.0, finger_sigma=GIVEN_SIGMA) if lengths_m else size


def load_hand_size(path: str | Path) -> HandSize:
    """Read what ``save_hand_size`` wrote. Raises ConfigError."""
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text())
    except (OSError, RuntimeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read hand size {path}: {error}; 'hand-tracking size' writes one") from error
    if not isinstance(content, dict) or not all(map(_is_number, map(content.get, ("palm_m", "sigma")))):
        raise ConfigError(f"hand size {path} must have the numbers palm_m and sigma, got {content!r:.80}")
    ratios = content.get("bone_ratios", [])
    if not isinstance(ratios, list) or not all(map(_is_number, ratios)):
        raise ConfigError(f"hand size {path}: bone_ratios must be {NUM_BONES} numbers, got {ratios!r:.80}")
    fingers = [content.get("finger_ratio", 1.0), content.get("finger_sigma", FINGER_SIGMA)]
    if not all(map(_is_number, fingers)):
        raise ConfigError(f"hand size {path}: finger_ratio and finger_sigma must be numbers, got {fingers!r:.80}")
    try:
        return HandSize(
            float(content["palm_m"]), float(content["sigma"]), tuple(map(float, ratios)), *map(float, fingers)
        )
    except ConfigError as error:
        raise ConfigError(f"hand size {path}: {error}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def save_hand_size(path: str | Path, size: HandSize) -> None:
    """Write the size; the folder is made where it is missing. Raises ConfigError."""
    text = (
        "# Size of a person's hands: wrist to middle finger base in metres, and the standard deviation of its "
        f"logarithm.\npalm_m: {size.palm_m:.5f}\nsigma: {size.sigma:.5f}\n"
    )
    if size.bone_ratios:
        text += "# Bones from the wrist, thumb first, in units of the palm: over those of the mean hand.\n"
        text += f"bone_ratios: [{', '.join(f'{ratio:g}' for ratio in size.bone_ratios)}]\n"
    if size.finger_sigma < FINGER_SIGMA:
        text += "# What all finger bones are longer by than that, and the standard deviation of its logarithm.\n"
        text += f"finger_ratio: {size.finger_ratio:.4f}\nfinger_sigma: {size.finger_sigma:.4f}\n"
    try:
        file = Path(path).expanduser()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except (OSError, RuntimeError) as error:  # the latter: nobody has that home
        raise ConfigError(f"cannot write hand size {path}: {getattr(error, 'strerror', error)}") from error
