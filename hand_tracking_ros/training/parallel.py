"""Several processes that train one network: each its own samples, all the same weights.

On a CPU, two processes of one thread each train nearly twice as fast as one process of two threads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist

from hand_tracking_ros.errors import HandTrackingError


def run_processes(count: int, work: Callable[[], None]) -> None:
    """``work()`` in ``count`` processes that belong together. It must be picklable; what one raises ends all."""
    if count == 1:
        return work()
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "error"
        try:
            torch.multiprocessing.spawn(_joined, (count, Path(folder) / "meeting", said, work), nprocs=count)
        except torch.multiprocessing.ProcessRaisedException as error:
            if said.exists():
                raise HandTrackingError(said.read_text()) from error
            raise


def _joined(rank: int, count: int, meeting: Path, said: Path, work: Callable[[], None]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    try:
        work()
    except HandTrackingError as error:
        said.write_text(str(error))
        raise
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0. The first one saves, reports and validates."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in one message."""
    if size() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    pieces = (flat / size()).split([tensor.numel() for tensor in tensors])
    for tensor, piece in zip(tensors, pieces):
        tensor.copy_(piece.view(tensor.shape))


def mean(value: float) -> float:
    """The mean of a number over the processes: what all of them must agree on, such as when to stop."""
    tensor = torch.tensor(value, dtype=torch.float64)
    average([tensor])
    return float(tensor)
