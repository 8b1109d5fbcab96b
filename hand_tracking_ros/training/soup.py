"""Average the weights of several runs into one checkpoint: a model soup (Wortsman et al., ICML 2022).

python -m hand_tracking_ros.training.soup RUN_A RUN_B=2 RUN_C --run SOUP

Runs that went on from each other, or from the same weights, lie in one valley of the loss: their average is often
better than each of them, on data that none has seen most of all. RUN=SHARE counts a run more. The soup is exported as
any run (``training.export``), and ``hand-tracking train --init`` goes on from it. The last run says what the soup is:
a KeyNet-F before a KeyNet counts as the KeyNet in it, and a KeyNet before a KeyNet-F for what both have.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hand_tracking_ros.commands import command
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.weights import read_checkpoint

CHECKPOINT = "checkpoint.pt"
WEIGHTS = ("network", "average")  # the parts of a checkpoint that hold weights
ONLY_TEMPORAL = "prior."  # what a KeyNet-F has beyond its KeyNet


def mixed(checkpoints: Sequence[dict[str, Any]], shares: Sequence[float]) -> dict[str, Any]:
    """The last checkpoint with the mean weights of all. Raises ConfigError where their networks differ."""
    if any(share <= 0 for share in shares):
        raise ConfigError(f"shares must be above 0, got {list(shares)}")
    soup = dict(checkpoints[-1])
    for part in WEIGHTS:
        if any(_common(c[part]) != _common(soup[part]) for c in checkpoints):
            raise ConfigError("these runs have different networks: only weights of one network can be averaged")
        soup[part] = dict(soup[part])
        for name, value in checkpoints[-1][part].items():
            if value.is_floating_point():
                parts = [(c[part][name].double(), share) for c, share in zip(checkpoints, shares) if name in c[part]]
                total = sum(share for _, share in parts)
                soup[part][name] = sum(share / total * weights for weights, share in parts).to(value.dtype)
    return soup


def _common(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    """Shapes of the weights that a KeyNet has as well as its KeyNet-F."""
    return {name: value.shape for name, value in weights.items() if not name.startswith(ONLY_TEMPORAL)}


def read(text: str) -> tuple[dict[str, Any], float]:
    """Checkpoint and share of 'RUN' or 'RUN=SHARE'. Raises ConfigError."""
    folder, _, share = text.partition("=")
    file = Path(folder) / CHECKPOINT
    try:
        number = float(share or 1)
    except ValueError as error:
        raise ConfigError(f"'{text}' is not RUN or RUN=SHARE") from error
    return read_checkpoint(file, *WEIGHTS), number


@command
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m hand_tracking_ros.training.soup", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("runs", nargs="+", metavar="RUN[=SHARE]", help="folders of 'hand-tracking train --run'")
    parser.add_argument("--run", type=Path, required=True, help="folder for the soup")
    args = parser.parse_args(arguments)
    checkpoints, shares = zip(*map(read, args.runs), strict=True)
    soup = mixed(checkpoints, shares)
    args.run.mkdir(parents=True, exist_ok=True)
    torch.save(soup, args.run / CHECKPOINT)
    print(f"{args.run / CHECKPOINT}: {len(shares)} runs")


if __name__ == "__main__":
    raise SystemExit(main())
