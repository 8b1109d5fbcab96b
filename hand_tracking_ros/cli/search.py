"""`hand-tracking search`: networks as fast as a device allows. Needs the 'train' extra."""

from __future__ import annotations


def add_parser(subparsers) -> None:
    from hand_tracking_ros.training.search.command import add_arguments, run

    parser = subparsers.add_parser(
        "search",
        help="find networks that are as fast as a device allows",
        description="Measure a device (--measure), check the table (--check), search by it (--method), or prune a "
        "trained network (--prune). A search goes on where its run's log ends. See docs/search.md.",
    )
    add_arguments(parser)
    parser.set_defaults(run=run)
