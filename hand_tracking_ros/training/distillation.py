"""A bigger network as teacher: its outputs are soft targets beside the labels (Hinton et al., 2015, temperature 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks import CONFIGS, NETWORKS
from hand_tracking_ros.training.networks.detnet import DETNET_WEIGHTS
from hand_tracking_ros.training.networks.keynet import KEYNET_WEIGHTS
from hand_tracking_ros.training.networks.scaling import Scaling
from hand_tracking_ros.training.weights import load_checkpoint, options_of_model, start_from

TEACHER_WEIGHT = 1.0  # of the part 'teacher' of the loss, where the recipe says nothing else


def load_teacher(task: str, source: str, student: Scaling) -> nn.Module:
    """The network of a checkpoint (.pt), or of a model (name or manifest), frozen.

    Raises ModelError when it cannot be taken, ConfigError when its input has another size than the student's.
    """
    if source.endswith(".pt"):
        network = load_checkpoint(task, source)
    else:
        network = NETWORKS[task](CONFIGS[task](**options_of_model(task, source)))
        start_from(network, source)
    if network.config.size != student.size:
        raise ConfigError(
            f"teacher {source} takes images of {network.config.size} px, the network to train of {student.size} px: "
            "give both the same resolution"
        )
    return network.eval().requires_grad_(False)


def keynet_distance(outputs: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> Tensor:
    """How far KeyNet's outputs are from a teacher's; 0 when they are the same.

    Kullback-Leibler divergence of each joint's heatmap and smooth L1 of the depth, as far as the teacher sees a hand;
    divergence of presence and side. Weighed like the parts of the loss on labels.
    """
    (heatmaps, depth, *scores), (wanted_heatmaps, wanted_depth, *wanted_scores) = outputs, wanted
    seen = torch.sigmoid(wanted_scores[0].float())  # (B,)
    log_p = torch.log_softmax(heatmaps.float().flatten(2), dim=-1)  # (B, 21, cells)
    log_q = torch.log_softmax(wanted_heatmaps.float().flatten(2), dim=-1)
    keypoints = (log_q.exp() * (log_q - log_p)).sum(dim=-1).mean(dim=1)  # (B,)
    distance = F.smooth_l1_loss(depth.float(), wanted_depth.float(), reduction="none", beta=0.1).mean(dim=1)
    presence, side = (_divergence(mine, theirs) for mine, theirs in zip(scores, wanted_scores))
    parts = {"kp": keypoints * seen, "depth": distance * seen, "presence": presence, "side": side * seen}
    return sum(KEYNET_WEIGHTS[name] * part.mean() for name, part in parts.items())


def detnet_distance(outputs: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> Tensor:
    """How far DetNet's outputs are from a teacher's; 0 when they are the same.

    Divergence of the centres, smooth L1 of the box fields and divergence of the side, weighed by the teacher's centres.
    """
    (centre, fields), (wanted_centre, wanted_fields) = outputs, wanted
    seen = torch.sigmoid(wanted_centre[:, 0].float())  # (B, h, w)
    error = F.smooth_l1_loss(fields.float(), wanted_fields.float(), reduction="none", beta=0.1)
    parts = {
        "centre": _divergence(centre[:, 0], wanted_centre[:, 0]),
        "box": error[:, :3].sum(dim=1) * seen,
        "angle": error[:, 3:5].sum(dim=1) * seen,
        "side": _divergence(fields[:, 5], wanted_fields[:, 5]) * seen,
    }
    hands = seen.sum().clamp(min=1.0)
    return sum(DETNET_WEIGHTS[name] * part.sum() / hands for name, part in parts.items())


def _divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence of yes-or-no outputs, per element."""
    logits, wanted = logits.float(), wanted.float()
    target = torch.sigmoid(wanted)
    own = F.binary_cross_entropy_with_logits(wanted, target, reduction="none")
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none") - own
