"""Train KeyNet or DetNet, resumable, on a CPU or a GPU: ``hand-tracking train`` (docs/training.md).

A run lives in a folder: ``checkpoint.pt``, ``log.jsonl``, and logs for tensorboard. It goes on where its checkpoint
stands; the learning rate follows the minutes, or the samples, of the whole run.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import json
import math
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from hand_tracking_ros.commands import at_least, command
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.manifest import ModelManifest, load_manifest
from hand_tracking_ros.training import parallel, tasks
from hand_tracking_ros.training.arguments import add_recipe_arguments, data_of, recipe_of
from hand_tracking_ros.training.card import CARD, write_card
from hand_tracking_ros.training.distillation import TEACHER_WEIGHT, load_teacher
from hand_tracking_ros.training.losses import LossWeights
from hand_tracking_ros.training.networks import zoo
from hand_tracking_ros.training.networks.scaling import not_default
from hand_tracking_ros.training.optimisers import bf16_pays, optimisers
from hand_tracking_ros.training.recipe import Recipe
from hand_tracking_ros.training.slimming import penalty
from hand_tracking_ros.training.weights import load_checkpoint, measure_norms, read_checkpoint, start_from

BAR = "{percentage:3.0f}%|{bar:20}| {elapsed}, {remaining} left{postfix}"
STEPS = 10_000  # of the progress bar
RUN_PARTS = ("network", "average", "average_steps", "optimisers", "spent_s", "samples")  # of the checkpoint of a run


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


def freeze_all_but(network: torch.nn.Module, only: Sequence[str]) -> list[torch.nn.Module]:
    """Parts of a network whose names do not start with one of ``only`` learn nothing; returns these. None: all learn.

    Raises ConfigError when nothing would be left to learn.
    """
    if not only:
        return []
    for name, weight in network.named_parameters():
        weight.requires_grad = name.startswith(tuple(only))
    if not any(weight.requires_grad for weight in network.parameters()):
        parts = ", ".join(name for name, _ in network.named_children())
        raise ConfigError(f"only: no part of the network is called {', '.join(only)}; it has {parts}")
    return [module for name, module in network.named_modules() if not name.startswith(tuple(only))]


class Trainer:
    """One run: network, running average, optimiser and loss weights, as one checkpoint."""

    def __init__(
        self, recipe: Recipe, task: tasks.KeyNetTask | tasks.DetNetTask, run: Path, teacher: str | None = None
    ):
        self.recipe, self.task, self.run = recipe, task, run
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.teacher = load_teacher(recipe.task, teacher, task.config).to(self.device) if teacher else None
        parts = task.weights | ({"teacher": TEACHER_WEIGHT} if teacher else {})
        fixed = {name: float(recipe.loss.get(name, weight)) for name, weight in parts.items()}
        self.weigh = LossWeights(fixed, learned=bool(recipe.loss.get("learned"))).to(self.device)
        self.network = self.task.network().to(self.device, memory_format=torch.channels_last)
        self._frozen = freeze_all_but(self.network, recipe.only)
        self.average = Average(self.network)
        self.init = ""  # what the weights at the start were taken from
        self.start: dict[str, torch.Tensor] = {}  # the weights at the start, of which a share is kept
        learned = [p for p in self.weigh.parameters() if p.requires_grad]
        self.optimisers = optimisers(recipe.optimiser, self.network, learned, recipe.learning_rate)
        self.spent_s, self.samples = 0.0, 0

    @property
    def checkpoint(self) -> Path:
        """Where the run is saved."""
        return self.run / "checkpoint.pt"

    @property
    def progress(self) -> float:
        """The share of the whole run that is done."""
        recipe = self.recipe
        return self.samples / recipe.samples if recipe.samples else self.spent_s / (60 * recipe.minutes)

    def resume(self, init: str) -> str:
        """Go on from the checkpoint, else start from ``init`` (weights.py; '' for random). Returns what was done."""
        try:
            self.run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--run: cannot make the folder {self.run}: {error.strerror}") from error
        if self.checkpoint.exists():
            config = load_checkpoint(self.recipe.task, self.checkpoint).config
            if config != self.network.config:
                other = not_default(config) or "the default one"
                raise ConfigError(f"{self.checkpoint} is of another network: {other}; take another --run")
            self.restore(read_checkpoint(self.checkpoint, *RUN_PARTS, device=self.device))
            done = "; it is done: give more --minutes or --samples, or another --run" if self.progress >= 1 else ""
            return f"resumed {self.checkpoint} at {self.samples} samples, {self.spent_s / 60:.1f} min{done}"
        self.init = init
        if not init:
            return "starting from random weights"
        taken = start_from(self.network, init)
        if not (init.endswith(".pt") or self.recipe.freeze_norms):
            rng = np.random.default_rng(self.recipe.seed)
            measure_norms(self.network, lambda: self.task.loss(self.network, self._batch(rng)))
        self.average.network.load_state_dict(self.network.state_dict())
        if self.recipe.kept:
            self.start = copy.deepcopy(self.network.state_dict())
        return f"took {taken}"

    def restore(self, state: dict) -> None:
        """Take what ``state`` returned."""
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state.get("trained", state["average"]))
        self.init, self.start = state.get("init", ""), state.get("start", {})
        self.average.steps = state["average_steps"]
        try:
            for optimiser, old in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(old)
        except ValueError as error:
            raise ConfigError(
                f"{self.checkpoint} is of another --optimiser than {self.recipe.optimiser}, or of other parts of the "
                "network (only); take another --run"
            ) from error
        self.weigh.load_state_dict(state.get("weigh", self.weigh.state_dict()))
        self.spent_s, self.samples = state["spent_s"], state["samples"]

    def state(self) -> dict[str, object]:
        """All that a run needs to go on."""
        state = {"network": self.network.state_dict(), "average": self.result().state_dict()}
        if self.start:
            state |= {"trained": self.average.network.state_dict(), "start": self.start}
        state |= {"average_steps": self.average.steps, "optimisers": [o.state_dict() for o in self.optimisers]}
        state |= {"weigh": self.weigh.state_dict(), "spent_s": self.spent_s, "samples": self.samples}
        return state | {"config": dataclasses.asdict(self.network.config), "init": self.init}

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        torch.save(self.state(), self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").rename(self.checkpoint)

    def _batch(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        return {key: value.to(self.device) for key, value in self.task.batch(rng, self.recipe.batch).items()}

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What is minimised, and its parts."""
        with torch.autocast(self.device, torch.bfloat16, enabled=bf16_pays(self.device)):
            parts = self.task.loss(self.network, batch, self.teacher)
            loss = self.weigh(parts)
        slim = float(self.recipe.loss.get("slim", 0.0))
        return (loss + slim * penalty(self.network) if slim else loss), parts

    def step(self, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        """One update of the weights; returns the parts of the loss."""
        for group in (group for optimiser in self.optimisers for group in optimiser.param_groups):
            group["lr"] = learning_rate(self.progress, self.recipe.learning_rate)
        self.network.train()
        for module in self.network.modules() if self.recipe.freeze_norms else self._frozen:
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        zoo.set_progress(self.network, self.progress)
        loss, parts = self.loss({key: value.to(self.device) for key, value in batch.items()})
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._share()
        if torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0).isfinite():
            for optimiser in self.optimisers:
                optimiser.step()
            self.average.update(self.network)
        else:
            print(f"sample {self.samples}: the gradient is not finite, this batch teaches nothing", flush=True)
        self.samples += self.recipe.batch * parallel.size()
        return {name: float(value.detach()) for name, value in parts.items()}

    def _share(self) -> None:
        """All processes go on with the mean of their gradients."""
        weights = [*self.network.parameters(), *self.weigh.parameters()]
        parallel.average([weight.grad for weight in weights if weight.grad is not None])

    def result(self) -> torch.nn.Module:
        """The network that comes out: the running average, with the share that is kept of the weights at the start
        (WiSE-FT, Wortsman et al., CVPR 2022): nearer on what is like the own images, not as far off on all else."""
        if not self.start:
            return self.average.network
        mixed = copy.deepcopy(self.average.network)
        for name, value in mixed.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(self.start[name].to(value), self.recipe.kept)
        return mixed

    def mine(self) -> None:
        """Look for hard images, where the recipe wants that."""
        rng = np.random.default_rng((self.samples, parallel.rank()))
        self.task.mine(tasks.torch_run(self.result()), rng)

    def validate(self) -> dict[str, float]:
        """The task's checks, with the weights that come out."""
        return self.task.validate(tasks.torch_run(self.result()))

    def train(
        self, workers: int = 1, save_every_s: float = 300.0, note: Callable[[dict[str, float]], None] = lambda _: None
    ) -> dict[str, float]:
        """Train until the run's minutes or samples are used up, saving now and then; returns the last report.

        ``note`` gets what the checks say, whenever they are made.
        """
        recipe = self.recipe
        stream = Samples(self.task, recipe.batch, recipe.seed + self.samples)
        loader = DataLoader(stream, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
        batches, first = iter(loader), parallel.rank() == 0
        log = _Log(self.run) if first else None
        smooth: dict[str, float] = {}
        report: dict[str, float] = {}
        self.mine()
        last_s = saved_s = time.monotonic()
        with tqdm(total=STEPS, initial=round(self.progress * STEPS), bar_format=BAR, disable=not first) as bar:
            while self.progress < 1:
                for name, value in self.step(next(batches)).items():
                    smooth[name] = 0.98 * smooth.get(name, value) + 0.02 * value
                now_s = time.monotonic()
                self.spent_s = parallel.mean(self.spent_s + now_s - last_s)
                last_s = now_s
                parts = " ".join(f"{name} {value:.3f}" for name, value in smooth.items())
                bar.set_postfix_str(f"{self.samples / self.spent_s:.0f} samples/s, {parts}", refresh=False)
                bar.update(min(round(self.progress * STEPS), STEPS) - bar.n)
                if now_s - saved_s > save_every_s or self.progress >= 1:
                    saved_s = now_s
                    self.mine()
                    if first:
                        self.save()
                        report = {"minutes": round(self.spent_s / 60, 1), "samples": self.samples}
                        checked = self.validate()
                        report |= {name: round(value, 3) for name, value in smooth.items()} | checked
                        bar.clear()
                        log.write(report)
                        note(checked)
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
    add_recipe_arguments(parser)
    parser.add_argument("--run", dest="folder", type=Path, required=True, help="folder of the checkpoint and the logs")
    parser.add_argument("--init", help="start from: checkpoint .pt, or a model's name or manifest; 'none': random")
    parser.add_argument("--teacher", help="learn the outputs of this network, too: checkpoint .pt, or a model")
    parser.add_argument(
        "--processes", type=int, default=1, help="that train together, each with --batch samples a step"
    )
    parser.add_argument("--save-every-s", type=float, default=300.0)


def run(args: argparse.Namespace) -> int:
    """0. Raises HandTrackingError when arguments, recipe, data or weights are wrong."""
    at_least(args, 1, "processes", "threads")
    at_least(args, 0, "workers", "save_every_s")
    recipe_of(args)
    parallel.run_processes(args.processes, functools.partial(_train, args))
    return 0


def _train(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)  # before the workers are forked: OpenCV's own threads do not survive that
    torch.set_num_threads(args.threads)
    recipe = recipe_of(args)
    torch.manual_seed(recipe.seed)
    task = tasks.TASKS[recipe.task](recipe, data_of(args))
    trainer = Trainer(recipe, task, args.folder, args.teacher)
    init = args.init or (recipe.task if args.images else "none")
    print(trainer.resume("" if init == "none" else init), flush=True)
    if args.images and not trainer.samples and parallel.rank() == 0:
        print(json.dumps({"before": trainer.validate()}), flush=True)
    if trainer.progress >= 1:
        return
    if args.images and trainer.init and not trainer.init.endswith(".pt"):
        note = functools.partial(_write_card, trainer, args, load_manifest(trainer.init))
        trainer.train(args.workers, args.save_every_s, note)
    else:
        trainer.train(args.workers, args.save_every_s)


def _write_card(trainer: Trainer, args: argparse.Namespace, base: ModelManifest, checked: dict[str, float]) -> None:
    """What the manifest of the network is to say, as far as the run knows it."""
    recipe = trainer.recipe
    command = ["hand-tracking", "train", recipe.task, "--images", *map(str, args.images), "--kind", args.kind]
    notes = (
        f"fine-tuned from {base.name}, whose own manifest says how that was trained: {trainer.samples} samples in "
        f"{trainer.spent_s / 60:.1f} minutes, batch {recipe.batch}, learning rate {recipe.learning_rate}; the share of "
        f"the weights at the start in these is {recipe.kept}"
    )
    write_card(
        trainer.run / CARD, base, trainer.task.counts, checked, command=shlex.join([*command, "--init", trainer.init]),
        seed=recipe.seed, hours=round(trainer.spent_s / 3600, 2), notes=notes,
    )  # fmt: skip


@command
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
