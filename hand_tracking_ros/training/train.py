"""Train KeyNet or DetNet, resumable, on a CPU or a GPU: ``hand-tracking train`` (docs/training.md).

A run lives in a folder: ``checkpoint.pt``, ``log.jsonl``, and logs for tensorboard. It goes on where its checkpoint
stands; the learning rate follows the minutes of the whole run.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import json
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training import networks, parallel, tasks
from hand_tracking_ros.training.losses import LossWeights
from hand_tracking_ros.training.networks import zoo
from hand_tracking_ros.training.optimisers import OPTIMISERS, bf16_pays, optimisers
from hand_tracking_ros.training.recipe import RECIPES, Check, Data, Recipe, Source, load_recipe
from hand_tracking_ros.training.weights import measure_norms, start_from

BAR = "{percentage:3.0f}%|{bar:20}| {elapsed}, {remaining} left{postfix}"


class Samples(IterableDataset):
    """An endless stream of batches, different in every worker and every restart."""

    def __init__(self, task, batch: int, seed: int):
        self.task, self.batch, self.seed = task, batch, seed

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self.seed, parallel.rank(), worker.id if worker else 0))
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


class Trainer:
    """One run: network, running average, optimiser and loss weights, as one checkpoint."""

    def __init__(self, recipe: Recipe, data: Data, run: Path):
        self.recipe, self.run = recipe, run
        self.task = tasks.TASKS[recipe.task](recipe, data)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        fixed = {name: float(recipe.loss.get(name, weight)) for name, weight in self.task.weights.items()}
        self.weigh = LossWeights(fixed, learned=bool(recipe.loss.get("learned"))).to(self.device)
        self.network = self.task.network().to(self.device, memory_format=torch.channels_last)
        self.average = Average(self.network)
        learned = [p for p in self.weigh.parameters() if p.requires_grad]
        self.optimisers = optimisers(recipe.optimiser, self.network, learned, recipe.learning_rate)
        self.spent_s, self.samples = 0.0, 0

    @property
    def checkpoint(self) -> Path:
        """Where the run is saved."""
        return self.run / "checkpoint.pt"

    def resume(self, init: str) -> str:
        """Go on from the checkpoint, else start from ``init`` (weights.py; '' for random). Returns what was done."""
        self.run.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device)
            if networks.config_of(self.recipe.task, state) != self.network.config:
                raise ConfigError(f"{self.checkpoint} is of another network: {state.get('config', 'the default one')}")
            self.network.load_state_dict(state["network"])
            self.average.network.load_state_dict(state["average"])
            self.average.steps = state["average_steps"]
            for optimiser, old in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(old)
            self.weigh.load_state_dict(state.get("weigh", self.weigh.state_dict()))
            self.spent_s, self.samples = state["spent_s"], state["samples"]
            return f"resumed {self.checkpoint} at {self.samples} samples, {self.spent_s / 60:.1f} min"
        if not init:
            return "starting from random weights"
        taken = start_from(self.network, init)
        if not (init.endswith(".pt") or self.recipe.freeze_norms):
            rng = np.random.default_rng(self.recipe.seed)
            measure_norms(self.network, lambda: self.task.loss(self.network, self._batch(rng)))
        self.average.network.load_state_dict(self.network.state_dict())
        return f"took {taken}"

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {"network": self.network.state_dict(), "average": self.average.network.state_dict()}
        state |= {"average_steps": self.average.steps, "optimisers": [o.state_dict() for o in self.optimisers]}
        state |= {"weigh": self.weigh.state_dict(), "spent_s": self.spent_s, "samples": self.samples}
        state["config"] = dataclasses.asdict(self.network.config)
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").rename(self.checkpoint)

    def _batch(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        return {key: value.to(self.device) for key, value in self.task.batch(rng, self.recipe.batch).items()}

    def step(self, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        """One update of the weights; returns the parts of the loss."""
        progress = self.spent_s / (self.recipe.minutes * 60)
        for group in (group for optimiser in self.optimisers for group in optimiser.param_groups):
            group["lr"] = learning_rate(progress, self.recipe.learning_rate)
        self.network.train()
        if self.recipe.freeze_norms:
            for module in self.network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
        zoo.set_progress(self.network, progress)
        with torch.autocast(self.device, torch.bfloat16, enabled=bf16_pays(self.device)):
            parts = self.task.loss(self.network, {key: value.to(self.device) for key, value in batch.items()})
            loss = self.weigh(parts)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._share()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.average.update(self.network)
        self.samples += self.recipe.batch * parallel.size()
        return {name: float(value.detach()) for name, value in parts.items()}

    def _share(self) -> None:
        """All processes go on with the mean of their gradients."""
        weights = [*self.network.parameters(), *self.weigh.parameters()]
        parallel.average([weight.grad for weight in weights if weight.grad is not None])

    def mine(self) -> None:
        """Look for hard images, where the recipe wants that."""
        if self.recipe.mining:
            rng = np.random.default_rng((self.samples, parallel.rank()))
            self.task.mine(tasks.torch_run(self.average.network), rng)

    def validate(self) -> dict[str, float]:
        """The task's checks, with the averaged weights."""
        return self.task.validate(tasks.torch_run(self.average.network))

    def train(self, workers: int = 1, save_every_s: float = 300.0) -> dict[str, float]:
        """Train until the run's minutes are used up, saving now and then; returns the last report."""
        recipe, limit_s = self.recipe, self.recipe.minutes * 60
        stream = Samples(self.task, recipe.batch, recipe.seed + self.samples)
        loader = DataLoader(stream, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
        batches, first = iter(loader), parallel.rank() == 0
        log = _Log(self.run) if first else None
        smooth: dict[str, float] = {}
        report: dict[str, float] = {}
        last_s = saved_s = time.monotonic()
        with tqdm(
            total=round(limit_s), initial=round(self.spent_s), unit="s", bar_format=BAR, disable=not first
        ) as bar:
            while self.spent_s < limit_s:
                for name, value in self.step(next(batches)).items():
                    smooth[name] = 0.98 * smooth.get(name, value) + 0.02 * value
                now_s = time.monotonic()
                self.spent_s = parallel.mean(self.spent_s + now_s - last_s)
                last_s = now_s
                parts = " ".join(f"{name} {value:.3f}" for name, value in smooth.items())
                bar.set_postfix_str(f"{self.samples / self.spent_s:.0f} samples/s, {parts}", refresh=False)
                bar.update(min(round(self.spent_s), round(limit_s)) - bar.n)
                if now_s - saved_s > save_every_s or self.spent_s >= limit_s:
                    saved_s = now_s
                    self.mine()
                    if first:
                        self.save()
                        report = {"minutes": round(self.spent_s / 60, 1), "samples": self.samples}
                        report |= {name: round(value, 3) for name, value in smooth.items()} | self.validate()
                        bar.clear()
                        log.write(report)
                    last_s = time.monotonic()  # validation is not training time
        return report


class _Log:
    """Reports on stdout, in log.jsonl, and for tensorboard where that is installed."""

    def __init__(self, folder: Path):
        self._file = folder / "log.jsonl"
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder))
        except ImportError:
            self._board = None

    def write(self, report: dict[str, float]) -> None:
        print(json.dumps(report), flush=True)
        with self._file.open("a") as lines:
            lines.write(json.dumps(report) + "\n")
        if self._board is not None:
            for name, value in report.items():
                self._board.add_scalar(name, value, report["samples"])
            self._board.flush()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``hand-tracking train``."""
    parser.add_argument("task", choices=sorted(tasks.TASKS))
    parser.add_argument("--config", type=Path, help="recipe (default: that of the shipped network)")
    parser.add_argument("--data", type=Path, default=Path(), help="folder that holds the recipe's image folders")
    parser.add_argument(
        "--labels", type=Path, help="folder with <image folder>/labels.jsonl (default: beside the images)"
    )
    parser.add_argument(
        "--images", type=Path, nargs="+", default=[],
        help="fine-tune the shipped network on these folders of labelled images instead",
    )  # fmt: skip
    parser.add_argument("--kind", choices=("frame", "tight", "cutout"), default="frame", help="of --images")
    parser.add_argument("--synthetic", type=Path, nargs="*", default=[], help="pools of training/synthetic")
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="keynet: pools of synthetic frames")
    parser.add_argument("--run", dest="folder", type=Path, required=True, help="folder of the checkpoint and the logs")
    parser.add_argument("--init", help="start from: checkpoint .pt, or a model's name or manifest; 'none': random")
    parser.add_argument("--block", help=f"what the network is built of: {', '.join(zoo.BLOCKS)}")
    parser.add_argument("--neck", help="another block for the pyramid")
    parser.add_argument("--width", type=float, help="multiplies the channels")
    parser.add_argument("--depth", type=float, help="multiplies the blocks per stage")
    parser.add_argument("--resolution", type=float, help="multiplies the input's size")
    parser.add_argument("--temporal", action="store_true", default=None, help="keynet: train KeyNet-F")
    for name, kind in (("minutes", float), ("batch", int), ("learning_rate", float), ("seed", int), ("mining", float)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"instead of the recipe's {name}")
    parser.add_argument("--optimiser", choices=OPTIMISERS, help="instead of the recipe's optimiser")
    parser.add_argument(
        "--processes", type=int, default=1, help="that train together, each with --batch samples a step"
    )
    parser.add_argument("--threads", type=int, default=1, help="per process")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare images")
    parser.add_argument("--save-every-s", type=float, default=300.0)


def run(args: argparse.Namespace) -> int:
    """0. Raises HandTrackingError when recipe, data or weights are wrong."""
    parallel.run_processes(args.processes, functools.partial(_train, args))
    return 0


def _train(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)  # before the workers are forked: OpenCV's own threads do not survive that
    torch.set_num_threads(args.threads)
    recipe = recipe_of(args)
    torch.manual_seed(recipe.seed)
    pools = {"pools": tuple(args.synthetic), "negatives": tuple(args.negatives)}
    trainer = Trainer(recipe, Data(args.data, args.labels, **pools), args.folder)
    init = args.init or (recipe.task if args.images else "none")
    print(trainer.resume("" if init == "none" else init), flush=True)
    trainer.train(args.workers, args.save_every_s)


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe of a command line: the file's, or one to fine-tune on --images, with what the arguments override."""
    if args.images:
        recipe = fine_tuning(args.task, args.kind, args.images)
    else:
        recipe = load_recipe(args.config or RECIPES / f"{args.task}.yaml")
    if recipe.task != args.task:
        raise ConfigError(f"{args.config} is a recipe for {recipe.task}, not for {args.task}")
    if not args.synthetic and not args.config:
        rest = tuple(source for source in recipe.sources if source.kind != "synthetic")
        recipe = dataclasses.replace(recipe, sources=rest)
    names = ("minutes", "batch", "learning_rate", "seed", "mining", "optimiser")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    scaling = ("block", "neck", "width", "depth", "resolution", "temporal")
    network = {name: getattr(args, name) for name in scaling if getattr(args, name) is not None}
    return dataclasses.replace(recipe, **changes, network={**recipe.network, **network})


def fine_tuning(task: str, kind: str, folders: list[Path]) -> Recipe:
    """A short, careful run on a few images: small steps, norms as they are, a tenth of the images held out."""
    sources = tuple(Source(kind, images=str(folder.resolve()), held_out_percent=10) for folder in folders)
    checks = tuple(Check(str(folder.resolve()), held_out_percent=10) for folder in folders)
    return Recipe(
        task, sources, {"held_out": checks}, minutes=10, batch=32 if task == "keynet" else 8,
        learning_rate=2e-4, freeze_norms=True,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
