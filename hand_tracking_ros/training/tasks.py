"""What is trained on what: the two training tasks, with their data, batches, losses and held-out checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from hand_tracking_ros.geometry import apply, box_around, crop_from_image, warp
from hand_tracking_ros.skeleton import palm_length
from hand_tracking_ros.training.crops import CropSampler, load_synthetic_crops
from hand_tracking_ros.training.frames import FrameSampler, dense_target, load_synthetic_frames
from hand_tracking_ros.training.labelled import held_out, load_backgrounds, load_labelled
from hand_tracking_ros.training.networks.blocks import normalised
from hand_tracking_ros.training.networks.detnet import DetNet, DetNetConfig, DetNetRuntime, DetNetTarget, detnet_loss
from hand_tracking_ros.training.networks.keynet import KeyNet, KeyNetConfig, KeyNetRuntime, KeyNetTarget, keynet_loss

HAGRID, SUBHIH, ASL, DIGITS, CUTOUTS = (
    "hagrid_hand_crops", "subhih_hands", "asl_letters_davidlee", "sign_digits_218", "slp_3dhands_cutouts",
)  # fmt: skip
HARD_GESTURES = ("fist", "like", "dislike", "none", "mute", "call", "stop_inverted")  # curled, or seen from the back
HELD_OUT_PERCENT = 6.0  # of HaGRID photos; DIGITS is held out whole
HELD_OUT_ROOMS = ("images_46", "images_25", "images_96", "images_16")  # of SUBHIH, for DetNet


Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]  # as Backend.run: inputs to outputs, by name


def torch_run(runtime: torch.nn.Module) -> Run:
    """A network's runtime module (one input) as something to validate."""
    runtime.eval()

    @torch.no_grad()
    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = runtime(*map(torch.from_numpy, feeds.values()))
        return {name: value.numpy() for name, value in zip(runtime.outputs, outputs, strict=True)}

    return run


def _load(data: Path, labels: Path, name: str, keep=lambda name: True, boxes: bool = False):
    return load_labelled(
        data / name, labels / name / "labels.jsonl", keep=keep, boxes=data / name / "boxes.jsonl" if boxes else None
    )


def _is_hard(name: str) -> bool:
    return Path(name).parts[0] in HARD_GESTURES


def _in_held_out_room(name: str) -> bool:
    return Path(name).name.startswith(HELD_OUT_ROOMS)


class KeyNetTask:
    """KeyNet on teacher-labelled crops and frames, and on synthetic crops. The digits are never trained on."""

    def __init__(self, data: Path, labels: Path, synthetic: list[Path], negatives: list[Path], config=KeyNetConfig()):
        self.config = config
        backgrounds = load_backgrounds(data / "backgrounds_office", data / "backgrounds_ambientcg")
        hagrid = _load(data, labels, HAGRID)
        train = [image for image in hagrid if not held_out(image.name, HELD_OUT_PERCENT)]
        frames = _load(data, labels, SUBHIH, boxes=True) + _load(data, labels, ASL, boxes=True)
        groups = [
            ("tight", 0.26, [image for image in train if _is_hard(image.name)]),
            ("tight", 0.1, [image for image in train if not _is_hard(image.name)]),
            ("frame", 0.08, [f for f in frames if any(h.has_keypoints for h in f.hands)]),
            ("cutout", 0.12, _load(data, labels, CUTOUTS)),
            ("synthetic", 0.44, [image for path in synthetic for image in load_synthetic_crops(path)]),
        ]
        print([(kind, len(images)) for kind, _, images in groups], flush=True)
        rendered = [image for path in negatives for image in load_synthetic_frames(path)]
        self.sampler = CropSampler(groups, backgrounds, frames + rendered, config.size)
        self.checks = {
            "digits": _fixed_crops(_load(data, labels, DIGITS), config.size),
            "hagrid": _fixed_crops([i for i in hagrid if held_out(i.name, HELD_OUT_PERCENT)][:1500], config.size),
        }

    def network(self) -> KeyNet:
        return KeyNet(self.config)

    def runtime(self, network: KeyNet) -> KeyNetRuntime:
        return KeyNetRuntime(network)

    def batch(self, rng: np.random.Generator, count: int) -> dict[str, torch.Tensor]:
        """``count`` samples as tensors, crop uint8 (B, 1, S, S)."""
        samples = [self.sampler.sample(rng) for _ in range(count)]
        stack = {
            key: np.stack([getattr(s, key) for s in samples])
            for key in ("crop", "keypoints", "depth", "presence", "right")
        }
        return {
            key: torch.from_numpy(value if key == "crop" else value.astype(np.float32)) for key, value in stack.items()
        }

    def loss(self, network: KeyNet, batch):
        """Loss and its parts on one batch."""
        crop = normalised(batch["crop"][:, None].float()).contiguous(memory_format=torch.channels_last)
        target = KeyNetTarget(batch["keypoints"], batch["depth"].clamp(-3, 3), batch["presence"], batch["right"])
        return keynet_loss(network(crop), target, network.config.size)

    def images(self, batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """The batch as the exported graph takes it."""
        return {"crop": batch["crop"][:, None].numpy()}

    def validate(self, run: Run) -> dict[str, float]:
        """Held-out mean error in % of the palm, PCK at 20 % and side accuracy, clean mono crops."""
        report = {}
        for name, (crops, keypoints, right) in self.checks.items():
            outputs = [run({"crop": crops[i : i + 16, None]}) for i in range(0, len(crops), 16)]
            predicted = np.concatenate([o["keypoints"] for o in outputs])
            error = np.linalg.norm(predicted - keypoints, axis=-1) / palm_length(keypoints)[:, None]
            side = (np.concatenate([o["right"] for o in outputs]) > 0.5) == (right > 0.5)
            report[f"{name}_palm_percent"] = round(100 * float(error.mean()), 2)
            report[f"{name}_pck20_percent"] = round(100 * float((error < 0.2).mean()), 1)
            report[f"{name}_side_percent"] = round(100 * float(side[right != 0.5].mean()), 1)
        return report


def _fixed_crops(images, size: int, scale: float = 1.5):
    """Crops as the tracker would cut them with perfect boxes: (N, S, S) uint8, keypoints (N, 21, 2), right (N,)."""
    crops, keypoints, rights = [], [], []
    for image in images:
        for hand in image.hands:
            matrix = crop_from_image(box_around(hand.keypoints_px).scaled(scale), (size, size))
            crops.append(warp(image.mono, matrix, (size, size), border_value=None))
            keypoints.append(apply(matrix, hand.keypoints_px))
            rights.append(hand.right)
    return np.stack(crops), np.stack(keypoints), np.array(rights)


class DetNetTask:
    """DetNet on real frames, on hands pasted into backgrounds, and on synthetic frames."""

    def __init__(self, data: Path, labels: Path, synthetic: list[Path], negatives: list[Path], config=DetNetConfig()):
        self.config = config
        backgrounds = load_backgrounds(data / "backgrounds_office", data / "backgrounds_ambientcg")
        subhih = _load(data, labels, SUBHIH, boxes=True)
        asl = _load(data, labels, ASL, boxes=True)
        frames = [i for i in subhih if not _in_held_out_room(i.name)] + [i for i in asl if not held_out(i.name, 12)]
        pasteable = _load(data, labels, HAGRID, keep=lambda name: not held_out(name, HELD_OUT_PERCENT))
        pasteable += _load(data, labels, CUTOUTS) * 3
        rendered = [image for path in synthetic + negatives for image in load_synthetic_frames(path)]
        print({"frames": len(frames), "pasteable": len(pasteable), "synthetic": len(rendered)}, flush=True)
        self.sampler = FrameSampler(frames, pasteable, rendered, backgrounds, config.size)
        self.check = [i for i in subhih if _in_held_out_room(i.name)] + [i for i in asl if held_out(i.name, 12)]

    def network(self) -> DetNet:
        return DetNet(self.config)

    def runtime(self, network: DetNet) -> DetNetRuntime:
        return DetNetRuntime(network)

    def batch(self, rng: np.random.Generator, count: int) -> dict[str, torch.Tensor]:
        """``count`` frames with dense targets as tensors, image uint8 (B, H, W)."""
        samples = [self.sampler.sample(rng) for _ in range(count)]
        targets = [dense_target(s.hands, self.sampler.size) for s in samples]
        batch = {key: torch.from_numpy(np.stack([t[key] for t in targets])) for key in targets[0]}
        return {"image": torch.from_numpy(np.stack([s.image for s in samples])), **batch}

    def loss(self, network: DetNet, batch):
        """Loss and its parts on one batch."""
        image = normalised(batch["image"][:, None].float()).contiguous(memory_format=torch.channels_last)
        target = DetNetTarget(**{key: value for key, value in batch.items() if key != "image"})
        return detnet_loss(network(image), target)

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


TASKS = {"keynet": KeyNetTask, "detnet": DetNetTask}


def initialise(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> int:
    """Copy the tensors of ``weights`` that fit, paired in the order of the layers; returns how many were taken.

    Accepts a checkpoint of train.py (its averaged weights) or a plain state dict of a network with the same layout,
    whatever its layers are called. Raises ValueError when the layout differs.
    """
    weights = weights.get("average", weights)
    own = network.state_dict()
    if len(own) != len(weights):
        raise ValueError(f"the weights to start from have {len(weights)} tensors, the network has {len(own)}")
    pairs = [(key, value) for (key, mine), value in zip(own.items(), weights.values()) if mine.shape == value.shape]
    own.update(pairs)
    network.load_state_dict(own)
    return len(pairs)
