"""Which of two trackers is right, where there is no truth? Sheets for judging by eye, blind.

    python benchmarks/judge_by_eye.py draw VIDEO REFERENCE.jsonl OURS.jsonl --hands 60 --output sheets
    python benchmarks/judge_by_eye.py count sheets

``draw`` picks hands of the reference at random and draws each three times: the image, and with the answers A and B, the
reference's and that of our hand next to it, in an order drawn anew for every hand. Fingers have colours: thumb white,
index blue, middle cyan, ring yellow, little magenta, the wrist green. ``sheets/key.json`` says who is who: do not look.
Whoever judges writes ``sheets/verdicts.json``, ``[{"n": 0, "A": "right", "B": "partly"}, ...]``: 'right', each finger
that can be seen lies under its own line, and the wrist; 'partly', the right fingers in the right order, but sloppy;
'wrong'. ``count`` prints how often each tracker is what.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.commands import command
from hand_tracking_ros.evaluation.matching import keypoint_costs
from hand_tracking_ros.geometry import apply
from hand_tracking_ros.records import read_tracks

COLOURS = ((255, 255, 255), (255, 80, 0), (255, 255, 0), (0, 255, 255), (255, 0, 255))  # BGR, thumb to little finger
TILE, ROWS = 400, 3  # px; two hands in a row
NEAR = 2.5  # palms: further away is another hand
VERDICTS = ("right", "partly", "wrong")


def tile_of(image: np.ndarray, keypoints: np.ndarray | None, view: np.ndarray) -> np.ndarray:
    """What ``view``, (2, 3) from the image to a tile, shows, with keypoints (21, 2) px of the image drawn on it."""
    tile = cv2.warpAffine(image, view, (TILE, TILE))
    if keypoints is None:
        cv2.putText(tile, "no hand", (120, 200), 0, 1, (255, 255, 255), 2)
        return tile
    points = apply(view, np.asarray(keypoints, float)).round().astype(int)
    for finger, colour in enumerate(COLOURS):
        line = points[[0, *range(1 + 4 * finger, 5 + 4 * finger)]]
        cv2.polylines(tile, [line], False, colour, 2, cv2.LINE_AA)
        cv2.circle(tile, tuple(map(int, line[-1])), 6, colour, -1)
    cv2.circle(tile, tuple(map(int, points[0])), 6, (0, 255, 0), -1)
    return tile


def rows(video: Path, reference, ours, hands: int, seed: int):
    """For each picked hand a row of three tiles, and whether A is ours."""
    rng = np.random.default_rng(seed)
    every = [(frame.frame, index) for frame in reference for index in range(len(frame.hands))]
    picked = {every[i] for i in rng.choice(len(every), min(hands, len(every)), replace=False)}
    answers = {frame.frame: [hand.keypoints_px for hand in frame.hands] for frame in ours}
    capture, number = cv2.VideoCapture(str(video)), -1
    for frame in reference:
        while number < frame.frame:
            ok, image = capture.read()
            if not ok:
                raise SystemExit(f"{video} ends before frame {frame.frame} of the reference: is it the same video?")
            number += 1
        for index, hand in enumerate(frame.hands):
            if (frame.frame, index) not in picked:
                continue
            theirs, near = np.asarray(hand.keypoints_px, float), answers.get(frame.frame, [])
            costs = keypoint_costs([theirs], near)[0] if near else np.full(1, np.inf)
            own = near[int(np.argmin(costs))] if np.min(costs) < NEAR else None
            scale = TILE / (2.1 * np.ptp(theirs, axis=0).max())
            view = np.hstack([scale * np.eye(2), (TILE / 2 - scale * theirs.mean(axis=0))[:, None]])
            tiles, swapped = [tile_of(image, points, view) for points in (theirs, own)], bool(rng.random() < 0.5)
            yield [cv2.warpAffine(image, view, (TILE, TILE)), *(tiles[::-1] if swapped else tiles)], swapped


def draw(args: argparse.Namespace) -> None:
    """Write the sheets and the key."""
    args.output.mkdir(parents=True, exist_ok=True)
    lines, key = [], []
    for tiles, swapped in rows(args.video, read_tracks(args.reference), read_tracks(args.ours), args.hands, args.seed):
        for tile, name in zip(tiles, (f"#{len(lines)}", "A", "B")):
            cv2.putText(tile, name, (5, 25), 0, 0.9, (0, 0, 255), 2)
        lines.append(np.hstack(tiles))
        key.append(swapped)
    for sheet, start in enumerate(range(0, len(lines), 2 * ROWS)):
        part = lines[start : start + 2 * ROWS]
        part += [np.zeros_like(part[0])] * (len(part) % 2)
        image = np.vstack([np.hstack(part[i : i + 2]) for i in range(0, len(part), 2)])
        cv2.imwrite(str(args.output / f"sheet{sheet:02d}.png"), image)
    (args.output / "key.json").write_text(json.dumps(key) + "\n")
    print(f"{len(lines)} hands on {-(-len(lines) // (2 * ROWS))} sheets in {args.output}")


def count(args: argparse.Namespace) -> None:
    """Print the verdicts of both trackers."""
    key = json.loads((args.sheets / "key.json").read_text())
    verdicts = {row["n"]: row for row in json.loads((args.sheets / "verdicts.json").read_text())}
    if sorted(verdicts) != list(range(len(key))):
        raise SystemExit(f"{args.sheets / 'verdicts.json'} must judge the hands 0 to {len(key) - 1}, each once")
    judged = {"reference": Counter(), "ours": Counter()}
    for number, swapped in enumerate(key):
        for tracker, column in zip(judged, "BA" if swapped else "AB"):
            judged[tracker][verdicts[number][column]] += 1
    print(f"| of {len(key)} hands | " + " | ".join(VERDICTS) + " |\n|---|---|---|---|")
    for tracker, counts in judged.items():
        print(f"| {tracker} | " + " | ".join(str(counts[verdict]) for verdict in VERDICTS) + " |")


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    drawing = commands.add_parser("draw", help="make the sheets")
    drawing.add_argument("video", type=Path)
    drawing.add_argument("reference", type=Path, help="tracking output: its hands are judged")
    drawing.add_argument("ours", type=Path, help="tracking output of the same video")
    drawing.add_argument("--hands", type=int, default=60)
    drawing.add_argument("--seed", type=int, default=0)
    drawing.add_argument("--output", type=Path, required=True, help="folder")
    drawing.set_defaults(run=draw)
    counting = commands.add_parser("count", help="who was right how often")
    counting.add_argument("sheets", type=Path, help="folder that 'draw' wrote, with verdicts.json")
    counting.set_defaults(run=count)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    raise SystemExit(main())
