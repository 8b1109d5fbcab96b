"""Run MediaPipe Hands on the single images of data sets, and write its hands in this package's tracking format.

Runs in MediaPipe's own virtual environment, as mediapipe_reference.py does, whose conventions hold here too:

    python mediapipe_images.py FOLDER...

Every FOLDER has a labels.jsonl (docs/evaluation.md), of which only the file names are read; grey images are given to
MediaPipe as three equal channels. Each gets ``mediapipe.jsonl``: one line per image, ``frame`` is the line in
labels.jsonl, counted from 0. Images are looked at one by one (``static_image_mode``), never tracked.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import mediapipe
from mediapipe_reference import tracked_hands


def find_hands(folder: Path, complexity: int, max_hands: int) -> tuple[int, int]:
    """Write FOLDER/mediapipe.jsonl; return (images, hands)."""
    files = [json.loads(line)["file"] for line in (folder / "labels.jsonl").read_text().splitlines() if line.strip()]
    detector = mediapipe.solutions.hands.Hands(
        static_image_mode=True, max_num_hands=max_hands, model_complexity=complexity
    )
    count = 0
    with detector, (folder / "mediapipe.jsonl").open("w") as out:
        for index, file in enumerate(files):
            image = cv2.imread(str(folder / file), cv2.IMREAD_COLOR)
            if image is None:
                raise SystemExit(f"cannot read {folder / file}, which labels.jsonl names")
            height, width = image.shape[:2]
            hands = tracked_hands(detector.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)), width, height)
            record = {"frame": index, "stamp_s": float(index), "width": width, "height": height, "hands": hands}
            out.write(json.dumps(record) + "\n")
            count += len(hands)
    return len(files), count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--complexity", type=int, choices=(0, 1), default=1)
    parser.add_argument("--max-hands", type=int, default=2)
    args = parser.parse_args()

    cv2.setNumThreads(1)
    for folder in args.folders:
        images, hands = find_hands(folder, args.complexity, args.max_hands)
        print(f"{folder.name}: {images} images, {hands} hands", flush=True)


if __name__ == "__main__":
    main()
