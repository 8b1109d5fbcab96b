"""Label images with MediaPipe Hands, the teacher, and keep only labels that it repeats under augmentation.

Stands alone on purpose: MediaPipe needs numpy < 2 and so its own virtual environment
(``pip install mediapipe==0.10.21``). ``hand-tracking label`` runs it there; by hand:
``python teacher.py FOLDER --output labels.jsonl``.

An image is searched with several paddings and rotations until hands are found; what is found must be found again, at
the same places, with another padding, a further rotation and mirrored. Every image gets a line in the output, those
without a kept hand too, so that an interrupted run goes on where it stopped.

Conventions: pixels with (0, 0) at the top-left corner of the image, x right, y down, of the stored image; 21 keypoints
in MediaPipe order; ``side`` is the person's own hand in an image that is not mirrored (MediaPipe names hands as in a
mirrored selfie, so its names are swapped here). ``relative_depth`` is the distance along the viewing axis relative to
joint 9, in units of the 3D length 0-9. Format: one JSON object per image, see docs/evaluation.md; ``dropped`` counts
why hands (or the whole image) fell out, ``looks`` how many views it took. ``hard.txt`` beside it names the images whose
hands were found in turned or wider views only: recipes can draw them more often.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import random
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
CHUNK = 100  # images per worker process
PALM_PAIRS = np.array([(0, 5), (0, 9), (0, 13), (0, 17), (5, 17)])


@dataclass(frozen=True)
class View:
    """An augmented look at an image: padding as a share of the long side, rotation in degrees, mirrored."""

    padding: float
    flip: bool
    rotation_deg: float = 0.0


# Tight crops need a margin before MediaPipe's palm detector finds them; frames are already wide.
PADDINGS = {"crops": (0.25, 0.6), "frames": (0.0, 0.3)}
ROTATIONS_DEG = (0.0, 90.0, -90.0, 180.0)


def search_views(kind: str) -> list[View]:
    """First looks, in order, until one shows hands: the usual padding at all rotations, then the wide one upright."""
    usual, wide = PADDINGS[kind]
    return [View(usual, False, rotation) for rotation in ROTATIONS_DEG] + [View(wide, False)]


def second_look(view: View) -> View:
    """The look that has to show the same hands: other padding, mirrored, turned a little."""
    return View(view.padding + {0.0: 0.1}.get(view.padding, 0.2), True, view.rotation_deg + 8.0)


def render_view(image: np.ndarray, view: View, min_long_side_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Warp ``image`` as ``view`` says; return it and the 2x3 matrix from image to view pixels (corner origin)."""
    height, width = image.shape[:2]
    side = max(height, width) * (1 + 2 * view.padding)
    scale = max(1.0, min_long_side_px / side)
    angle = np.radians(view.rotation_deg)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if view.flip:
        matrix = np.diag([-1.0, 1.0]) @ matrix
    out_wh = np.round(scale * (np.array([width, height]) + 2 * view.padding * max(height, width))).astype(int)
    view_from_image = np.column_stack([matrix, out_wh / 2 - matrix @ [width / 2, height / 2]])
    centre_to_centre = view_from_image.copy()  # OpenCV counts pixel centres, we count corners
    centre_to_centre[:, 2] += view_from_image[:, :2] @ [0.5, 0.5] - 0.5
    warped = cv2.warpAffine(
        image, centre_to_centre, tuple(out_wh.tolist()), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return warped, view_from_image


def hands_in_view(detector, image_bgr: np.ndarray, view: View, min_long_side_px: int) -> list[dict]:
    """Run MediaPipe on one view; return hands in pixels of the stored image."""
    warped, view_from_image = render_view(image_bgr, view, min_long_side_px)
    result = detector.process(cv2.cvtColor(warped, cv2.COLOR_BGR2RGB))
    hands = []
    for landmarks, handedness in zip(result.multi_hand_landmarks or (), result.multi_handedness or ()):
        height, width = warped.shape[:2]
        points = np.array([[p.x * width, p.y * height, p.z * width] for p in landmarks.landmark])
        points_px = np.linalg.solve(view_from_image[:, :2], (points[:, :2] - view_from_image[:, 2]).T).T
        palm = np.linalg.norm(points[9] - points[0])
        named_right = handedness.classification[0].label == "Left"  # selfie convention, see module docstring
        hands.append(
            {
                "points_px": points_px,
                "depth": (points[:, 2] - points[9, 2]) / max(palm, 1e-6),
                "right": named_right != view.flip,
                "score": float(handedness.classification[0].score),
            }
        )
    return hands


def palm_length(points_px: np.ndarray) -> float:
    """Largest distance among the palm pairs, in pixels."""
    return float(np.linalg.norm(points_px[PALM_PAIRS[:, 0]] - points_px[PALM_PAIRS[:, 1]], axis=1).max())


def agreeing_hands(views: list[list[dict]], tolerance: float, reasons: collections.Counter) -> list[dict]:
    """Hands of the first view that every other view repeats within ``tolerance`` (share of palm), averaged."""
    kept = []
    for hand in views[0]:
        group = [hand]
        for others in views[1:]:
            if not others:
                break
            gaps = [np.linalg.norm(o["points_px"] - hand["points_px"], axis=1).mean() for o in others]
            best = int(np.argmin(gaps))
            if gaps[best] <= tolerance * palm_length(hand["points_px"]):
                group.append(others[best])
        if len(group) < len(views):
            reasons["hand not found again in the second look"] += 1
            continue
        points_px = np.mean([h["points_px"] for h in group], axis=0)
        same_side = len({h["right"] for h in group}) == 1
        spread = max(np.linalg.norm(h["points_px"] - points_px, axis=1).mean() for h in group)
        kept.append(
            {
                "side": ("right" if hand["right"] else "left") if same_side else None,
                "box": [*points_px.min(0).round(2).tolist(), *points_px.max(0).round(2).tolist()],
                "keypoints_px": points_px.round(2).tolist(),
                "relative_depth": np.mean([h["depth"] for h in group], axis=0).round(3).tolist(),
                "spread_palm": round(spread / max(palm_length(points_px), 1e-6), 4),
            }
        )
    return kept


def label_image(detector, image: np.ndarray, kind: str, tolerance: float, min_long_side_px: int):
    """(hands, why others fell out, looks until a hand was found) of one image: grey, BGR or BGR with alpha."""
    reasons: collections.Counter = collections.Counter()
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.shape[2] == 4:  # cut-out: on mid grey
        alpha = image[..., 3:] / 255.0
        image = (image[..., :3] * alpha + 128 * (1 - alpha)).astype(np.uint8)
    views = search_views(kind)
    for looks, view in enumerate(views, start=1):
        first = hands_in_view(detector, image, view, min_long_side_px)
        if first:
            again = hands_in_view(detector, image, second_look(view), min_long_side_px)
            return agreeing_hands([first, again], tolerance, reasons), reasons, looks
    reasons["no hand found"] += 1
    return [], reasons, len(views)


def label_files(args: tuple) -> list[dict]:
    """Worker: label one list of files. Returns label objects."""
    root, files, kind, tolerance, min_long_side_px, max_hands = args
    import mediapipe  # only here: absent from the environment of the package itself

    cv2.setNumThreads(1)
    detector = mediapipe.solutions.hands.Hands(
        static_image_mode=True, max_num_hands=max_hands, model_complexity=1, min_detection_confidence=0.5
    )
    labels = []
    for file in files:
        image = cv2.imread(str(root / file), cv2.IMREAD_UNCHANGED)
        if image is None:
            labels.append({"file": str(file), "width": 0, "height": 0, "hands": [], "dropped": {"image unreadable": 1}})
            continue
        hands, reasons, looks = label_image(detector, image, kind, tolerance, min_long_side_px)
        height, width = image.shape[:2]
        label = {"file": str(file), "width": width, "height": height, "hands": hands, "dropped": dict(reasons)}
        labels.append({**label, "looks": looks})
    return labels


def finished(output: Path) -> set[str]:
    """Files that the output already names. A last line that was cut short is removed."""
    if not output.exists():
        return set()
    text = output.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        output.write_bytes(whole)
    return {json.loads(line)["file"] for line in whole.splitlines()}


def list_hard(output: Path) -> Path:
    """Write hard.txt beside the output: the files whose hands were found in turned or wider views only."""
    labels = map(json.loads, output.read_text().splitlines())
    hard = output.with_name("hard.txt")
    hard.write_text("".join(label["file"] + "\n" for label in labels if label["hands"] and label.get("looks", 1) > 1))
    return hard


def summary(output: Path) -> str:
    """How many images were kept, and why others fell out, from the whole output file."""
    images = with_hands = hands = unclear = 0
    dropped: collections.Counter = collections.Counter()
    for line in output.read_text().splitlines():
        label = json.loads(line)
        images += 1
        with_hands += bool(label["hands"])
        hands += len(label["hands"])
        unclear += sum(hand["side"] is None for hand in label["hands"])
        dropped.update(label.get("dropped", {}))
    lines = [f"{images} images: {with_hands} kept, with {hands} hands ({unclear} of unclear side)"]
    lines += [f"{count} fell out: {reason}" for reason, count in dropped.most_common()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="labels.jsonl to write")
    parser.add_argument("--kind", choices=sorted(PADDINGS), default="crops", help="tight crops, or whole frames")
    parser.add_argument("--tolerance", type=float, default=0.12, help="largest disagreement, share of the palm")
    parser.add_argument("--min-long-side-px", type=int, default=400)
    parser.add_argument("--max-hands", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()

    files = sorted(p.relative_to(args.folder) for p in args.folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        parser.error(f"no images below {args.folder}; expected one of {sorted(IMAGE_SUFFIXES)}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    done = finished(args.output)
    if done:
        print(f"going on with {args.output}: {len(done)} images are done", flush=True)
    files = [file for file in files if str(file) not in done]
    random.Random(0).shuffle(files)  # an interrupted run is still a fair sample
    chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
    jobs = [(args.folder, c, args.kind, args.tolerance, args.min_long_side_px, args.max_hands) for c in chunks]
    start_s, count = time.monotonic(), 0
    # A fresh process per chunk: MediaPipe's graphs keep their memory until their process ends.
    with multiprocessing.Pool(args.workers, maxtasksperchild=1) as pool, args.output.open("a") as out:
        for labels in pool.imap_unordered(label_files, jobs):
            out.writelines(json.dumps(label) + "\n" for label in labels)
            out.flush()
            count += len(labels)
            left_s = (time.monotonic() - start_s) / count * (len(files) - count)
            print(f"{count}/{len(files)} images, {left_s / 60:.0f} min left", flush=True)
    print(summary(args.output))
    print(f"{len(list_hard(args.output).read_text().splitlines())} of the kept ones were hard to find: hard.txt")


if __name__ == "__main__":
    main()
