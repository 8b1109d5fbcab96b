"""How weights are updated: Muon for convolutions, AdamW for everything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

OPTIMISERS = ("muon", "adamw")
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of Jordan et al.: fast to singular values around 1


def bf16_pays(device: str) -> bool:
    """Whether to multiply in bf16: on GPUs, and on CPUs that have it (AVX-512 BF16 or AMX)."""
    return device == "cuda" or bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


class Muon(torch.optim.Optimizer):
    """Momentum whose update of each weight matrix has all singular values near 1 (Jordan et al., "Muon", 2024).

    For convolutions (out, in, H, W), as matrices (out, in * H * W). Updates are as large as AdamW's (Liu et al.,
    "Muon is scalable for LLM training", 2025), so its learning rate fits both. Wants few, not too small batches.
    """

    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.02):
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """One update of all weights that have a gradient."""
        for group in self.param_groups:
            alike = defaultdict(list)  # matrices of one shape are orthogonalised together
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                momentum = state.setdefault("momentum", torch.zeros_like(weight))
                momentum.mul_(group["momentum"]).add_(weight.grad)
                update = weight.grad.add(momentum, alpha=group["momentum"])  # Nesterov
                alike[tuple(weight.shape)].append((weight, update.reshape(len(weight), -1)))
            for pairs in alike.values():
                stack = torch.stack([update for _, update in pairs])
                updates = orthogonalised(stack.bfloat16() if bf16_pays(stack.device.type) else stack).float()
                size = 0.2 * max(updates.shape[1:]) ** 0.5
                for (weight, _), update in zip(pairs, updates):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.reshape(weight.shape), alpha=-group["lr"] * size)


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """(N, rows, columns) with about the same singular vectors and all singular values about 1: Newton-Schulz."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


def optimisers(name: str, network: nn.Module, others: Iterable[nn.Parameter], lr: float) -> list[torch.optim.Optimizer]:
    """'muon': Muon for the convolutions that mix channels, AdamW for the rest; 'adamw' for all. ``others``: parameters
    beside the network's, of which those that want no gradient stay as they are."""
    learning = [p for p in network.parameters() if p.requires_grad]
    weights = [p for p in learning if name == "muon" and p.ndim == 4 and p.shape[1] > 1]
    taken = {id(weight) for weight in weights}
    rest = [p for p in learning if id(p) not in taken] + list(others)
    adamw = torch.optim.AdamW(rest, lr=lr, weight_decay=1e-3)
    return [Muon(weights, lr), adamw] if weights else [adamw]
