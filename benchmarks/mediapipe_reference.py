"""Track a video with MediaPipe Hands, the reference peer, and write its hands in this package's tracking format.

Stands alone on purpose: MediaPipe needs numpy < 2 and so its own virtual environment
(``pip install mediapipe==0.10.21``); run it there as

    python mediapipe_reference.py VIDEO... --output-dir reference            # colour, as MediaPipe expects
    python mediapipe_reference.py VIDEO... --output-dir reference --mono     # the same frames in grey
    python mediapipe_reference.py VIDEO... --output-dir reference --mirrored # the mirrored frames, mirrored back

Each video gives ``<stem>.rgb.jsonl``, ``.mono.jsonl`` or ``.mirrored.jsonl`` (docs/evaluation.md, tracking output).
MediaPipe gives no ids, so ``id`` is 0; it names hands as in a mirrored selfie, so its names are swapped here; it does
not say which frames it ran its palm detector on, so ``source`` is always ``detected``. Its landmarks are shares of the
width and the height counted from the top-left corner, so keypoints are corner-origin pixels without further terms.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import mediapipe
import numpy as np


def tracked_hands(result, width: int, height: int, mirrored: bool = False) -> list[dict]:
    """One record per hand of a MediaPipe result, in pixels of the image; ``mirrored``: it was shown mirrored."""
    hands = []
    found = zip(result.multi_hand_landmarks or (), result.multi_handedness or (), strict=True)
    for landmarks, handedness in found:
        points = np.array([[(1 - p.x if mirrored else p.x) * width, p.y * height] for p in landmarks.landmark])
        named, score = handedness.classification[0].label, handedness.classification[0].score
        hands.append(
            {
                "id": 0,
                "side": "right" if (named == "Left") != mirrored else "left",
                "side_score": round(score, 4),
                "score": 1.0,
                "source": "detected",
                "box": box_around(points),
                "keypoints_px": points.round(3).tolist(),
                "keypoint_scores": [1.0] * 21,
                "keypoints_m": None,
                "scale": "none",
            }
        )
    return hands


def box_around(points: np.ndarray) -> dict:
    """Square box, tight around points (21, 2) px, turned so that the wrist-to-finger-bases direction points up."""
    forward = points[[5, 9, 13]].mean(axis=0) - points[0]
    angle = float(np.arctan2(forward[0], -forward[1]))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    local = points @ turn
    low, high = local.min(axis=0), local.max(axis=0)
    center = turn @ ((low + high) / 2)
    side = float(max((high - low).max(), 1.0))
    return {
        "center_px": center.round(3).tolist(),
        "size_px": [round(side, 3)] * 2,
        "angle_rad": round(angle, 5),
    }


def track_video(path: Path, output: Path, look: str, complexity: int, max_hands: int) -> tuple[int, int, list[float]]:
    """Write one record per frame; return (frames, those with a hand, ms per frame). ``look``: rgb, mono or mirrored."""
    capture = cv2.VideoCapture(str(path))
    fps = capture.get(cv2.CAP_PROP_FPS)
    if not capture.isOpened() or not fps > 0:
        raise SystemExit(f"cannot read {path}: no such file, or not a video that OpenCV can decode")
    frames, with_hand, times_ms = 0, 0, []
    tracker = mediapipe.solutions.hands.Hands(
        static_image_mode=False, max_num_hands=max_hands, model_complexity=complexity
    )
    with tracker, output.open("w") as out:
        while True:
            ok, image = capture.read()
            if not ok:
                break
            if look == "mono":
                image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2RGB)
            else:
                image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            if look == "mirrored":
                image = np.ascontiguousarray(image[:, ::-1])
            height, width = image.shape[:2]
            start = time.perf_counter()
            hands = tracked_hands(tracker.process(image), width, height, look == "mirrored")
            times_ms.append(1000 * (time.perf_counter() - start))
            record = {
                "frame": frames,
                "stamp_s": round(frames / fps, 6),
                "width": width,
                "height": height,
                "latency_ms": {"total": round(times_ms[-1], 3)},
                "hands": hands,
            }
            out.write(json.dumps(record) + "\n")
            frames += 1
            with_hand += bool(hands)
    capture.release()
    return frames, with_hand, times_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--output-dir", type=Path, required=True)
    looks = parser.add_mutually_exclusive_group()
    looks.add_argument("--mono", dest="look", action="store_const", const="mono", help="give MediaPipe the grey image")
    looks.add_argument(
        "--mirrored",
        dest="look",
        action="store_const",
        const="mirrored",
        help="the mirrored one: what does it repeat?",
    )
    parser.set_defaults(look="rgb")
    parser.add_argument("--complexity", type=int, choices=(0, 1), default=1)
    parser.add_argument("--max-hands", type=int, default=2)
    args = parser.parse_args()

    cv2.setNumThreads(1)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for path in args.videos:
        output = args.output_dir / f"{path.stem}.{args.look}.jsonl"
        frames, with_hand, times_ms = track_video(path, output, args.look, args.complexity, args.max_hands)
        median = np.median(times_ms) if times_ms else float("nan")
        print(f"{output}: {frames} frames, {with_hand} with a hand, median {median:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
