"""What is trained on what: the two training tasks, with their data, batches, losses and held-out checks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hand_tracking_ros.config import KeypointConfig
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.geometry import apply, box_around, crop_from_image, warp
from hand_tracking_ros.skeleton import palm_length
from hand_tracking_ros.training.crops import CropSampler, load_synthetic_crops, sampling_options
from hand_tracking_ros.training.distillation import detnet_distance, keynet_distance
from hand_tracking_ros.training.frames import FrameSampler, dense_target, load_synthetic_frames
from hand_tracking_ros.training.labelled import load_backgrounds
from hand_tracking_ros.training.networks import runtime_of
from hand_tracking_ros.training.networks.blocks import normalised
from hand_tracking_ros.training.networks.detnet import (
    DETNET_WEIGHTS,
    DetNet,
    DetNetConfig,
    DetNetTarget,
    detnet_loss,
)
from hand_tracking_ros.training.networks.keynet import (
    KEYNET_WEIGHTS,
    KeyNet,
    KeyNetConfig,
    KeyNetTarget,
    keynet_loss,
    prior_maps,
    soft_argmax,
)
from hand_tracking_ros.training.priors import no_prior, simulated_prior, told_itself
from hand_tracking_ros.training.recipe import Data, Recipe
from hand_tracking_ros.training.synthetic.backgrounds import GAMMA, Backgrounds

PROCEDURAL = 48  # backgrounds, where the recipe names none
MINED = 400  # images per source that are measured at a time
MISTAKE_ROUNDS, MISTAKE_TRIES = 64, 64  # boxes in which false hands are looked for at a time

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]  # as Backend.run: inputs to outputs, by name


def torch_run(network: torch.nn.Module) -> Run:
    """A network, on whatever device it is, as something to validate: numpy in, numpy out."""
    runtime, device = runtime_of(network), next(network.parameters()).device

    @torch.no_grad()
    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = runtime(*(torch.from_numpy(value).to(device) for value in feeds.values()))
        return {name: value.cpu().numpy() for name, value in zip(runtime.outputs, outputs, strict=True)}

    return run


def _backgrounds(recipe: Recipe, data: Data) -> list[np.ndarray]:
    folders = data.background_folders(recipe)
    if folders:
        return load_backgrounds(folders, recipe.skip_backgrounds)
    scenes = Backgrounds(seed=recipe.seed, bank_size=PROCEDURAL)
    light = [scenes.procedural(index).mean(axis=2) for index in range(PROCEDURAL)]
    return [(255 * np.clip(scene, 0, 1) ** (1 / GAMMA)).astype(np.uint8) for scene in light]


def _counted(recipe: Recipe, loaded: Sequence[Sequence]) -> list[tuple[str, int]]:
    """Name and number of images of every source, which are printed."""
    names = [Path(source.images).name or source.kind for source in recipe.sources]
    counts = [(name, len(images)) for name, images in zip(names, loaded, strict=True)]
    print(f"sources: {', '.join(f'{name} ({count} images)' for name, count in counts)}", flush=True)
    return counts


class KeyNetTask:
    """KeyNet on labelled crops, cut-outs and frames, and on synthetic crops; checked on crops with perfect boxes."""

    weights = KEYNET_WEIGHTS
    config_type = KeyNetConfig

    def __init__(self, recipe: Recipe, data: Data):
        self.config = KeyNetConfig(**recipe.network)
        groups = []
        pools = [image for path in data.pools for image in load_synthetic_crops(path)]
        for source in recipe.sources:
            groups.append((source.kind, source.share, pools if source.kind == "synthetic" else data.load(source)))
        self.counts = _counted(recipe, [images for _, _, images in groups])
        frames = [image for kind, _, images in groups if kind == "frame" for image in images]
        negatives = frames + [image for path in data.negatives for image in load_synthetic_frames(path)]
        backgrounds = _backgrounds(recipe, data)
        options = sampling_options(recipe.sampling)
        self.sampler = CropSampler(groups, backgrounds, negatives, self.config.size, mining=recipe.mining, **options)
        if self.sampler.self_told and not self.config.temporal:
            raise ConfigError("sampling: self_told is for KeyNet-F, which alone is told anything: add --temporal")
        self.checks = {
            name: fixed_crops([image for check in checks for image in data.load(check)], self.config.size)
            for name, checks in recipe.checks.items()
        }

    def network(self) -> KeyNet:
        return KeyNet(self.config)

    def batch(self, rng: np.random.Generator, count: int) -> dict[str, torch.Tensor]:
        """``count`` samples as tensors, crop uint8 (B, 1, S, S)."""
        samples = [self.sampler.sample(rng) for _ in range(count)]
        stack = {
            key: np.stack([getattr(s, key) for s in samples])
            for key in ("crop", "keypoints", "depth", "presence", "right", "prior", "prior_scores", "self_told")
        }
        return {
            key: torch.from_numpy(value if key == "crop" else value.astype(np.float32)) for key, value in stack.items()
        }

    def loss(self, network: KeyNet, batch, teacher: KeyNet | None = None):
        """The parts of the loss on one batch."""
        crop = normalised(batch["crop"][:, None].float()).contiguous(memory_format=torch.channels_last)
        target = KeyNetTarget(batch["keypoints"], batch["depth"].clamp(-3, 3), batch["presence"], batch["right"])
        size = network.config.size
        prior = self._expected(network, crop, batch) if self.config.temporal else None
        outputs = network(crop, prior)
        parts = keynet_loss(outputs, target, size, self.sampler.right)
        if teacher is not None:
            with torch.no_grad():
                wanted = teacher(crop, prior if teacher.config.temporal else None)
            parts["teacher"] = keynet_distance(outputs, wanted)
        return parts

    @torch.no_grad()
    def _expected(self, network: KeyNet, crop: torch.Tensor, batch) -> torch.Tensor:
        """What KeyNet-F is told, as maps (B, 21, S/4, S/4): the simulated expectation, or its own answer to that."""
        size, own = network.config.size, batch["self_told"] > 0.5
        maps = prior_maps(batch["prior"], batch["prior_scores"], size // 4, size)
        if own.any():
            training = [module for module in network.modules() if module.training]
            network.eval()  # as in use: norms by their statistics, which stay as they are
            answer, _ = soft_argmax(network(crop[own], maps[own])[0], size)
            for module in training:
                module.training = True
            maps[own] = prior_maps(*told_itself(answer, batch["prior_scores"][own], size), size // 4, size)
        return maps

    def mine(self, run: Run, rng: np.random.Generator) -> None:
        """Measure some images of every source, so that the hard ones are drawn more often; look for false hands."""
        if self.sampler.mistaken:
            for _ in range(MISTAKE_ROUNDS):
                self.sampler.look_for_mistakes(functools.partial(self._look, run), rng, MISTAKE_TRIES)
        for (_, _, images), draw in zip(self.sampler.groups, self.sampler.draws if self.sampler.mining else ()):
            indices = rng.choice(len(images), min(MINED, len(images)), replace=False)
            hands = [next(hand for hand in images[i].hands if hand.has_keypoints) for i in indices]
            one_each = [replace(images[i], hands=(hand,)) for i, hand in zip(indices, hands)]
            crops, keypoints, _ = fixed_crops(one_each, self.config.size)
            gaps = np.linalg.norm(self.answers(run, crops)[0] - keypoints, axis=-1).mean(axis=1)
            draw.learn(indices, gaps / palm_length(keypoints))

    def _look(self, run: Run, crops: np.ndarray, expected: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (N, 21, 2) px and presence (N,) of crops (N, S, S): as of new hands, or told what is expected."""
        feeds = {"crop": crops[:, None]}
        if self.config.temporal:
            nothing, unknown = (np.array([part] * len(crops), np.float32) for part in no_prior())
            told = expected is not None
            feeds |= {"prior": expected.astype(np.float32) if told else nothing, "prior_scores": unknown + told}
        outputs = run(feeds)
        return outputs["keypoints"], outputs["presence"]

    def images(self, batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """The batch as the exported graph takes it."""
        feeds = {"crop": batch["crop"][:, None].numpy()}
        if self.config.temporal:
            feeds |= {name: batch[name].numpy() for name in ("prior", "prior_scores")}
        return feeds

    def validate(self, run: Run) -> dict[str, float]:
        """Held-out mean error in % of the palm, PCK at 20 % and side accuracy, clean mono crops."""
        report = {}
        for name, (crops, keypoints, right) in self.checks.items():
            predicted, answered = self.answers(run, crops)
            error = np.linalg.norm(predicted - keypoints, axis=-1) / palm_length(keypoints)[:, None]
            side = (answered > 0.5) == (right > 0.5)
            report[f"{name}_palm_percent"] = round(100 * float(error.mean()), 2)
            report[f"{name}_pck20_percent"] = round(100 * float((error < 0.2).mean()), 1)
            report[f"{name}_side_percent"] = round(100 * float(side[right != 0.5].mean()), 1)
            if self.config.temporal:
                rng = np.random.default_rng(0)
                priors = [simulated_prior(points, self.config.size, rng) for points in keypoints]
                error = np.linalg.norm(self.answers(run, crops, priors)[0] - keypoints, axis=-1)
                error = error / palm_length(keypoints)[:, None]
                report[f"{name}_tracked_palm_percent"] = round(100 * float(error.mean()), 2)
        return report

    @staticmethod
    def accuracy(report: Mapping[str, float]) -> float:
        """0..1, from what validate reports: the mean PCK of its checks."""
        return float(np.mean([value for name, value in report.items() if name.endswith("_pck20_percent")])) / 100

    def answers(self, run: Run, crops: np.ndarray, priors=None) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (N, 21, 2) px and right (N,) of crops (N, S, S); ``priors``: one per crop, default none."""
        if not self.config.temporal:
            return look_both_ways(run, crops)
        expected, scores = zip(*([no_prior()] * len(crops) if priors is None else priors))
        return look_both_ways(run, crops, np.stack(expected), np.stack(scores))


def look_both_ways(
    run: Run, crops: np.ndarray, expected: np.ndarray | None = None, scores: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (N, 21, 2) px and right (N,) of crops (N, S, S), as the tracker gets them of new hands.

    Both the crop and its mirror image are looked at, and the one that looks more like a right hand counts. ``expected``
    (N, 21, 2) px and ``scores`` (N, 21) are what KeyNet-F is told.
    """
    size, batch = crops.shape[-1], 16

    def look(crops: np.ndarray, expected: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        feeds = {"crop": np.ascontiguousarray(crops[:, None])}
        if expected is not None:
            feeds |= {"prior": expected.astype(np.float32), "prior_scores": scores.astype(np.float32)}
        parts = [run({key: value[i : i + batch] for key, value in feeds.items()}) for i in range(0, len(crops), batch)]
        return np.concatenate([o["keypoints"] for o in parts]), np.concatenate([o["right"] for o in parts])

    points, right = look(crops, expected)
    flipped = None if expected is None else np.where(scores[..., None] > 0, expected * [-1, 1] + [size, 0], 0.0)
    points_mirrored, left = look(crops[:, :, ::-1], flipped)
    is_left = left > right
    points = np.where(is_left[:, None, None], points_mirrored * [-1, 1] + [size, 0], points)
    return points, np.where(is_left, 1 - left, right)


def fixed_crops(images, size: int, scale: float = KeypointConfig().crop_scale):
    """Crops as the tracker would cut them with perfect boxes: (N, S, S) uint8, keypoints (N, 21, 2), right (N,)."""
    crops, keypoints, rights = [], [], []
    for image in images:
        for hand in (hand for hand in image.hands if hand.has_keypoints):
            matrix = crop_from_image(box_around(hand.keypoints_px).scaled(scale), (size, size))
            crops.append(warp(image.mono, matrix, (size, size), border_value=None))
            keypoints.append(apply(matrix, hand.keypoints_px))
            rights.append(hand.right)
    return np.stack(crops), np.stack(keypoints), np.array(rights)


class DetNetTask:
    """DetNet on real frames, on hands pasted into backgrounds, and on synthetic frames."""

    weights = DETNET_WEIGHTS
    config_type = DetNetConfig

    def __init__(self, recipe: Recipe, data: Data):
        self.config = DetNetConfig(**recipe.network)
        frames, pasteable, shares = [], [], dict.fromkeys(("frame", "pasted", "synthetic"), 0.0)
        rendered = [image for path in (*data.pools, *data.negatives) for image in load_synthetic_frames(path)]
        loaded = [rendered if source.kind == "synthetic" else data.load(source) for source in recipe.sources]
        for source, images in zip(recipe.sources, loaded, strict=True):
            shares["pasted" if source.kind in ("tight", "cutout") else source.kind] += source.share
            if source.kind == "frame":
                frames.append((source.share, images))
            elif source.kind != "synthetic":
                pasteable.append((source.share, images))
        self.counts = _counted(recipe, loaded)
        backgrounds = _backgrounds(recipe, data)
        self.sampler = FrameSampler(
            even(frames), even(pasteable), rendered, backgrounds, self.config.size, tuple(shares.values())
        )
        self.check = [image for checks in recipe.checks.values() for check in checks for image in data.load(check)]

    def network(self) -> DetNet:
        return DetNet(self.config)

    def batch(self, rng: np.random.Generator, count: int) -> dict[str, torch.Tensor]:
        """``count`` frames with dense targets as tensors, image uint8 (B, H, W)."""
        samples = [self.sampler.sample(rng) for _ in range(count)]
        targets = [dense_target(s.hands, self.sampler.size) for s in samples]
        batch = {key: torch.from_numpy(np.stack([t[key] for t in targets])) for key in targets[0]}
        return {"image": torch.from_numpy(np.stack([s.image for s in samples])), **batch}

    def loss(self, network: DetNet, batch, teacher: DetNet | None = None):
        """The parts of the loss on one batch."""
        image = normalised(batch["image"][:, None].float()).contiguous(memory_format=torch.channels_last)
        target = DetNetTarget(**{key: value for key, value in batch.items() if key != "image"})
        outputs = network(image)
        parts = detnet_loss(outputs, target)
        if teacher is not None:
            with torch.no_grad():
                wanted = teacher(image)
            parts["teacher"] = detnet_distance(outputs, wanted)
        return parts

    def mine(self, run: Run, rng: np.random.Generator) -> None:
        """Nothing: the focal loss weighs hard cells already."""

    def images(self, batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """The batch as the exported graph takes it."""
        return {"image": batch["image"][:, None].numpy()}

    def validate(self, run: Run) -> dict[str, float]:
        """Recall of held-out hands at score 0.4 (centre within half a box side), and false hands per frame."""
        found = hands = false = 0
        for image in self.check:
            height, width = image.mono.shape
            scale = min(self.config.size[0] / width, self.config.size[1] / height)
            small = warp(image.mono, scale * np.eye(2, 3), self.config.size)
            outputs = run({"image": small[None, None]})
            scores, boxes = outputs["scores"][0], outputs["boxes"][0]
            centres = boxes[:2, scores > 0.4].T / scale
            sides = boxes[2, scores > 0.4] / scale
            used = np.zeros(len(centres), bool)
            for hand in image.hands:
                hands += 1
                gaps = np.linalg.norm(centres - hand.box.center_px, axis=1) if len(centres) else np.zeros(0)
                near = (gaps < 0.5 * hand.box.size_px[0]) & (np.abs(np.log(sides / hand.box.size_px[0])) < np.log(1.8))
                found += bool(near.any())
                used |= near
            false += int((~used).sum())
        recall = round(100 * found / max(hands, 1), 1)
        return {"recall_percent": recall, "false_per_frame": round(false / len(self.check), 3)}

    @staticmethod
    def accuracy(report: Mapping[str, float]) -> float:
        """0..1, from what validate reports: recall, less for false hands."""
        return report["recall_percent"] / 100 / (1 + report["false_per_frame"])


def even(groups: list[tuple[float, list]]) -> list:
    """One list from (share, images): each repeated so often that a random pick honours the shares, more or less."""
    density = [share / len(images) for share, images in groups]
    return [image for d, (_, images) in zip(density, groups) for image in images * max(1, round(d / min(density)))]


TASKS = {"keynet": KeyNetTask, "detnet": DetNetTask}
