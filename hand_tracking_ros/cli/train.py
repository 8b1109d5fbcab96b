"""`hand-tracking train`: train KeyNet or DetNet, or fine-tune them on own images. Needs the 'train' extra."""

from __future__ import annotations


def add_parser(subparsers) -> None:
    from hand_tracking_ros.training.train import add_arguments, run

    parser = subparsers.add_parser(
        "train",
        help="train or fine-tune the networks",
        description="Train a network by a recipe, or fine-tune the shipped one on --images. Goes on where the run's "
        "checkpoint stands. See docs/training.md.",
    )
    add_arguments(parser)
    parser.set_defaults(run=run)
