"""Train KeyNet or DetNet, resumable, on a CPU or a GPU.

    python -m hand_tracking_ros.training.train keynet --data DATA --labels LABELS --run runs/keynet --minutes 60
    ... --block mobilenet_v2 --width 0.75    # the same network from another block of the zoo, narrower (docs/zoo.md)

``DATA`` holds the image folders, ``LABELS`` a folder per image folder with the teacher's labels.jsonl
(training/teacher.py). A run goes on where its checkpoint stands; the learning rate follows the minutes of the whole
run.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from hand_tracking_ros.training import networks, tasks
from hand_tracking_ros.training.networks import zoo


class Samples(IterableDataset):
    """An endless stream of batches, different in every worker and every restart."""

    def __init__(self, task, batch: int, seed: int):
        self.task, self.batch, self.seed = task, batch, seed

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        while True:
            yield self.task.batch(rng, self.batch)


class Average:
    """Exponential moving average of a network's weights: steadier than the last step (Polyak and Juditsky, 1992)."""

    def __init__(self, network: torch.nn.Module, decay: float = 0.999):
        self.network, self.decay, self.steps = copy.deepcopy(network).eval(), decay, 0

    @torch.no_grad()
    def update(self, network: torch.nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for mine, theirs in zip(self.network.state_dict().values(), network.state_dict().values()):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)


def learning_rate(progress: float, peak: float) -> float:
    """Warm-up over the first 3 %, then half a cosine down to 1 % of the peak."""
    return peak * (min(1.0, progress / 0.03) * (0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))) + 0.01)


def train(task, args) -> None:
    """Train until the run's minutes are used up, saving ``checkpoint.pt`` and ``log.jsonl`` in the run folder."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint_path = args.run / "checkpoint.pt"
    network = task.network().to(device, memory_format=torch.channels_last)
    average = Average(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=args.learning_rate, weight_decay=1e-3)
    spent_s, samples = 0.0, 0
    if checkpoint_path.exists():
        state = torch.load(checkpoint_path, map_location=device)
        if networks.config_of(args.task, state) != network.config:
            raise SystemExit(f"{checkpoint_path} is of another network: {state.get('config', 'the default one')}")
        network.load_state_dict(state["network"])
        average.network.load_state_dict(state["average"])
        average.steps = state["average_steps"]
        optimiser.load_state_dict(state["optimiser"])
        spent_s, samples = state["spent_s"], state["samples"]
        print(f"resumed {checkpoint_path} at {samples} samples, {spent_s / 60:.1f} min", flush=True)
    elif args.init is not None:
        loaded = tasks.initialise(network, torch.load(args.init, map_location=device))
        average.network.load_state_dict(network.state_dict())
        print(f"took {loaded} tensors from {args.init}", flush=True)

    stream = Samples(task, args.batch, args.seed + samples)
    batches = iter(DataLoader(stream, batch_size=None, num_workers=args.workers, prefetch_factor=4))
    last_s, saved_s = time.monotonic(), time.monotonic()
    smooth: dict[str, float] = {}
    step = 0
    while spent_s < args.minutes * 60:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(spent_s / (args.minutes * 60), args.learning_rate)
        batch = {k: v.to(device) for k, v in next(batches).items()}
        network.train()
        zoo.set_progress(network, spent_s / (args.minutes * 60))
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss, parts = task.loss(network, batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        average.update(network)
        samples += args.batch
        step += 1
        for name, value in parts.items():
            smooth[name] = 0.98 * smooth.get(name, value) + 0.02 * value
        now_s = time.monotonic()
        spent_s += now_s - last_s
        last_s = now_s
        if now_s - saved_s > args.save_every_s or spent_s >= args.minutes * 60:
            saved_s = now_s
            state = {"network": network.state_dict(), "average": average.network.state_dict(), "spent_s": spent_s}
            state |= {"average_steps": average.steps, "optimiser": optimiser.state_dict(), "samples": samples}
            state["config"] = dataclasses.asdict(network.config)
            torch.save(state, checkpoint_path.with_suffix(".tmp"))
            checkpoint_path.with_suffix(".tmp").rename(checkpoint_path)
            report = {
                "minutes": round(spent_s / 60, 1),
                "samples": samples,
                **{k: round(v, 3) for k, v in smooth.items()},
            }
            report |= task.validate(tasks.torch_run(task.runtime(average.network)))
            rate = samples / spent_s
            left_min = (args.minutes * 60 - spent_s) / 60
            print(json.dumps(report), f"{rate:.0f}/s, {left_min:.0f} min left", flush=True)
            with (args.run / "log.jsonl").open("a") as log:
                log.write(json.dumps(report) + "\n")
            last_s = time.monotonic()  # validation is not training time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=sorted(tasks.TASKS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--synthetic", type=Path, nargs="*", default=[], help="pools of training/synthetic")
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="keynet: pools of synthetic frames")
    parser.add_argument("--run", type=Path, required=True, help="folder of the checkpoint and the log")
    parser.add_argument("--init", type=Path, help="weights to start from; tensors that fit are taken")
    parser.add_argument("--block", default="residual", help=f"what the network is built of: {', '.join(zoo.BLOCKS)}")
    parser.add_argument("--neck", default="", help="another block for the pyramid")
    parser.add_argument("--width", type=float, default=1.0, help="multiplies the channels")
    parser.add_argument("--depth", type=float, default=1.0, help="multiplies the blocks per stage")
    parser.add_argument("--resolution", type=float, default=1.0, help="multiplies the input's size")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the whole run, over all restarts")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--save-every-s", type=float, default=300.0)
    args = parser.parse_args()
    cv2.setNumThreads(1)  # before the workers are forked: OpenCV's own threads do not survive that
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    scaling = {key: getattr(args, key) for key in ("block", "neck", "width", "depth", "resolution")}
    config = networks.CONFIGS[args.task](**scaling)
    train(tasks.TASKS[args.task](args.data, args.labels, args.synthetic, args.negatives, config), args)


if __name__ == "__main__":
    main()
