"""Make a pool of synthetic training images, or the demo clip.

python -m hand_tracking_ros.training.synthetic --kind crops --count 40000 --seed 1 --backgrounds DIR --output pool.npz
python -m hand_tracking_ros.training.synthetic --kind demo --seed 1 --output FOLDER
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.training.synthetic.poses import MIXTURE
from hand_tracking_ros.training.synthetic.scene import VIEWS


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hand_tracking_ros.training.synthetic", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--kind", choices=("crops", "frames", "objects", "demo"), required=True)
    parser.add_argument("--count", type=int, default=1000, help="number of images")
    parser.add_argument("--start", type=int, default=0, help="index of the first image: make a pool in pieces")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--poses", type=int, default=4000, help="poses to draw from")
    for name, known in (("mixture", MIXTURE), ("views", VIEWS)):
        parser.add_argument(
            f"--{name}", nargs="*", type=lambda text, known=known: share(text, known), metavar="NAME=SHARE",
            help=f"instead of {' '.join(f'{k}={v}' for k, v in known.items())}",
        )  # fmt: skip
    parser.add_argument("--holding", type=float, default=0.25, help="crops: share of hands that hold something")
    parser.add_argument("--sharp", action="store_true", help="good light, no blur, no noise: the training adds them")
    parser.add_argument("--backgrounds", type=Path, nargs="*", default=[], help="folders with photos or texture sheets")
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME", help="background files that show hands")
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet with labels (png)")
    parser.add_argument("--output", type=Path, required=True, help="npz file, or a folder for the demo")
    return parser.parse_args(arguments)


def share(text: str, known) -> tuple[str, float]:
    """'fist=0.5' as a pair. Raises ArgumentTypeError."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if name not in known or not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=SHARE with a name of {', '.join(known)}")
    return name, number


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    os.environ.setdefault("LP_NUM_THREADS", "0")  # llvmpipe: one process, one core; start more processes for more
    cv2.setNumThreads(1)
    try:
        if args.kind == "demo":
            from hand_tracking_ros.training.synthetic.sequence import write_demo

            write_demo(args.output, args.seed)
        else:
            make_pool(args)
    except HandTrackingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def make_pool(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from hand_tracking_ros.training.synthetic import photo
    from hand_tracking_ros.training.synthetic.dataset import KINDS, Generator
    from hand_tracking_ros.training.synthetic.sheet import contact_sheet

    make, pack = KINDS[args.kind]
    generator = Generator(
        args.seed, args.backgrounds, poses=args.poses, skip=args.skip,
        mixture=dict(args.mixture or ()), views=dict(args.views or ()), holding=args.holding,
        shot=photo.good_shot if args.sharp else photo.random_shot,
    )  # fmt: skip
    start = time.monotonic()
    samples = [
        make(generator, k) for k in tqdm(range(args.start, args.start + args.count), unit="image", mininterval=2.0)
    ]
    seconds = time.monotonic() - start
    arrays = pack(samples)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez(args.output, **arrays)
    megabytes = args.output.stat().st_size / 1e6
    rate = args.count / seconds
    print(f"{args.output}: {args.count} images, {megabytes:.0f} MB, in {seconds:.0f} s, {rate:.1f} images/s")
    if args.sheet:
        cv2.imwrite(str(args.sheet), contact_sheet(arrays))
        print(f"{args.sheet}: contact sheet")


if __name__ == "__main__":
    sys.exit(main())
