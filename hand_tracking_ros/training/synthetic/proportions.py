"""How long people's fingers and phalanges are for their palms, beside those of the generator.

    python -m hand_tracking_ros.training.synthetic.proportions LABELS/labels.jsonl ... --only palm/ stop/ stop_inverted/

Reads labels in the format of docs/evaluation.md and takes the hands whose fingers are straight in the image. What leans
towards the camera looks short, so lengths are a little too small; shares of a finger are not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from hand_tracking_ros.cli.options import text_table
from hand_tracking_ros.commands import command
from hand_tracking_ros.errors import RecordError
from hand_tracking_ros.kinematics import BONES, FLAT_HAND
from hand_tracking_ros.records import read_labels
from hand_tracking_ros.skeleton import FINGERS

STRAIGHT_COS = 0.96  # phalanges that follow each other turn by at most 16 degrees
LEAST_PALM_PX = 25.0  # from the wrist to the middle finger's base
PARENTS, CHILDREN = np.array(BONES).T


def bone_lengths(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Of keypoints (21, D): the lengths of the bones (5 fingers, 4) and the width 5 to 17, over the length 0 to 9."""
    palm = np.linalg.norm(points[9] - points[0])
    bones = np.linalg.norm(points[CHILDREN] - points[PARENTS], axis=1).reshape(5, 4) / palm
    return bones, float(np.linalg.norm(points[5] - points[17]) / palm)


def straight(points: np.ndarray) -> bool:
    """Whether all fingers but the thumb are, in the image, and the hand (21, 2) px is large enough to measure."""
    if np.linalg.norm(points[9] - points[0]) < LEAST_PALM_PX:
        return False
    phalanges = (points[CHILDREN] - points[PARENTS]).reshape(5, 4, 2)[1:, 1:]
    lengths = np.linalg.norm(phalanges, axis=2)
    if lengths.min() == 0:
        return False
    turns = (phalanges[:, :-1] * phalanges[:, 1:]).sum(axis=2) / (lengths[:, :-1] * lengths[:, 1:])
    return bool(turns.min() >= STRAIGHT_COS)


def measured(labels: list[Path], only: list[str]) -> tuple[int, np.ndarray, float]:
    """Straight hands in the files: how many, and the medians of ``bone_lengths``. ``only``: starts of image names.

    Raises RecordError.
    """
    images = [image for path in labels for image in read_labels(path)]
    hands = [hand for image in images if (image.file or "").startswith(tuple(only) or "") for hand in image.hands]
    known = [hand.keypoints_px for hand in hands if hand.keypoints_px is not None]
    found = [bone_lengths(points) for points in known if straight(points)]
    if not found:
        return 0, np.full((5, 4), np.nan), float("nan")
    bones, widths = zip(*found)
    return len(found), np.median(bones, axis=0), float(np.median(widths))


def rows(bones: np.ndarray) -> list[tuple[str, ...]]:
    """Per finger but the thumb: its length, and the shares of its three phalanges."""
    cells = []
    for name, phalanges in zip(list(FINGERS)[1:], bones[1:, 1:]):
        shares = [f"{100 * share:.0f} %" for share in phalanges / phalanges.sum()]
        cells.append((name, f"{phalanges.sum():.2f}", *shares))
    return cells


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="+")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="images whose names start so")
    args = parser.parse_args()
    count, bones, width = measured(args.labels, args.only)
    if not count:
        raise RecordError(f"no hand with straight fingers in {', '.join(map(str, args.labels))}")
    own_bones, own_width = bone_lengths(FLAT_HAND)
    header = ("finger", "palm lengths", "first", "middle", "last")
    print(f"{count} straight hands: palm {width:.2f} wide\n{text_table(rows(bones), header)}\n")
    print(f"the generator's mean hand: palm {own_width:.2f} wide\n{text_table(rows(own_bones), header)}")


if __name__ == "__main__":
    raise SystemExit(main())
