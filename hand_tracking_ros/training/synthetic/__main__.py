"""Make a pool of synthetic training images, sequences of hands in motion, or the demo clip.

python -m hand_tracking_ros.training.synthetic --kind crops --count 40000 --seed 1 --backgrounds DIR --output pool.npz
python -m hand_tracking_ros.training.synthetic --kind sequence --count 6 --seed 1 --cameras 2 --output FOLDER
python -m hand_tracking_ros.training.synthetic --kind demo --seed 1 --output FOLDER
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.commands import at_least, check_output, command
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.synthetic.poses import MIXTURE
from hand_tracking_ros.training.synthetic.scene import VIEWS

FISHEYE_SHARES = {"pinhole": 0.0, "fisheye": 1.0, "mixed": 0.5}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hand_tracking_ros.training.synthetic", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--kind", choices=("crops", "frames", "objects", "sequence", "demo"), required=True)
    parser.add_argument("--count", type=int, default=1000, help="number of images, or of sequences")
    parser.add_argument("--start", type=int, default=0, help="index of the first one: make a pool in pieces")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--poses", type=int, default=4000, help="poses to draw from")
    for name, known in (("mixture", MIXTURE), ("views", VIEWS)):
        parser.add_argument(
            f"--{name}", nargs="*", type=lambda text, known=known: share(text, known), metavar="NAME=SHARE",
            help=f"instead of {' '.join(f'{k}={v}' for k, v in known.items())}",
        )  # fmt: skip
    parser.add_argument("--holding", type=float, help="share of hands that hold something")
    parser.add_argument("--faces", type=float, help="crops: share with the person's face behind the hand")
    parser.add_argument(
        "--seated", type=float, default=0.0, help="crops: share of people at a table or with a worn camera"
    )
    parser.add_argument("--sharp", action="store_true", help="good light, no blur, no noise: the training adds them")
    parser.add_argument("--backgrounds", type=Path, nargs="*", default=[], help="folders with photos or texture sheets")
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME", help="background files that show hands")
    parser.add_argument("--cameras", type=int, choices=range(1, 5), default=1, help="sequence: cameras of the rig")
    parser.add_argument("--seconds", type=float, default=4.0, help="sequence: length")
    parser.add_argument("--fps", type=float, default=30.0, help="sequence: frames per second")
    parser.add_argument("--lens", choices=tuple(FISHEYE_SHARES), default="pinhole", help="frames, sequence: the lenses")
    parser.add_argument("--rolling", type=float, default=0.0, help="crops, frames: share with a rolling shutter")
    parser.add_argument("--rgb", action="store_true", help="colour instead of mono")
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet with labels (png)")
    parser.add_argument("--output", type=Path, required=True, help="npz file; a folder for sequences, demo")
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


def check(args: argparse.Namespace) -> None:
    """Raises HandTrackingError for what cannot be made, or written, before hours of rendering."""
    at_least(args, 1, "count", "poses")
    at_least(args, 0, "start", "seed")
    at_least(args, 0, "holding", "faces", "seated", "rolling", most=1)
    check_output(args.sheet, ".png")
    if args.kind not in ("sequence", "demo"):
        check_output(args.output, ".npz")
    elif args.output.exists() and not args.output.is_dir():
        raise ConfigError(f"--output {args.output} is a file; a {args.kind} is written into a folder")
    elif args.kind == "sequence" and args.output.is_dir() and any(args.output.iterdir()):
        raise ConfigError(f"--output {args.output} is not empty; sequences are written into a folder of their own")


@command
def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    check(args)
    os.environ.setdefault("LP_NUM_THREADS", "0")  # llvmpipe: one process, one core; start more processes for more
    cv2.setNumThreads(1)
    if args.kind == "demo":
        from hand_tracking_ros.training.synthetic.demo import write_demo

        write_demo(args.output, args.seed)
    elif args.kind == "sequence":
        make_sequences(args)
    else:
        make_pool(args)


def make_sequences(args: argparse.Namespace) -> None:
    from hand_tracking_ros.training.synthetic.recording import write_sequences
    from hand_tracking_ros.training.synthetic.sequence import Director

    director = Director(args.seed, args.cameras, FISHEYE_SHARES[args.lens], args.backgrounds, args.skip, args.poses)
    indices = range(args.start, args.start + args.count)
    write_sequences(director, indices, args.output, args.seconds, args.fps, args.rgb)


def make_pool(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from hand_tracking_ros.training.synthetic import photo
    from hand_tracking_ros.training.synthetic.dataset import FACES, KINDS, Generator
    from hand_tracking_ros.training.synthetic.sheet import contact_sheet

    if args.lens != "pinhole" and args.kind != "frames":
        raise ConfigError(f"--lens {args.lens} is for frames and sequences; {args.kind} are parts of pinhole images")
    make, pack = KINDS[args.kind]
    generator = Generator(
        args.seed, args.backgrounds, poses=args.poses, skip=args.skip,
        mixture=dict(args.mixture or ()), views=dict(args.views or ()), holding=args.holding,
        shot=photo.good_shot if args.sharp else photo.random_shot, channels=3 if args.rgb else 1,
        fisheye=FISHEYE_SHARES[args.lens], rolling=args.rolling, faces=FACES if args.faces is None else args.faces,
        seated=args.seated,
    )  # fmt: skip
    start = time.monotonic()
    samples = [
        make(generator, k) for k in tqdm(range(args.start, args.start + args.count), unit="image", mininterval=2.0)
    ]
    seconds = time.monotonic() - start
    arrays = pack(samples)
    np.savez(args.output, **arrays)
    megabytes = args.output.stat().st_size / 1e6
    rate = args.count / seconds
    print(f"{args.output}: {args.count} images, {megabytes:.0f} MB, in {seconds:.0f} s, {rate:.1f} images/s")
    if args.sheet:
        cv2.imwrite(str(args.sheet), contact_sheet(arrays))
        print(f"{args.sheet}: contact sheet")


if __name__ == "__main__":
    raise SystemExit(main())
