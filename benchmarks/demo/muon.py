"""Optimizers and the learning-rate schedule of the demo model.

Matrices inside the blocks take orthogonalized momentum steps (Muon, the implementation of torch);
embeddings, which are also the output layer, and norm gains take AdamW steps. Both follow one
schedule.
"""

import torch
from torch import nn

MUON_LR = 0.02
ADAMW_LR = 4e-3
WEIGHT_DECAY = 0.05


def build_optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest; groups keep their `initial_lr`."""
    named = list(model.named_parameters())
    matrices = [
        p for name, p in named if p.ndim == 2 and "embed" not in name and "lm_head" not in name
    ]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    muon = torch.optim.Muon(
        matrices, lr=MUON_LR, momentum=0.95, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    adamw = torch.optim.AdamW(rest, lr=ADAMW_LR, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
    optimizers: list[torch.optim.Optimizer] = [muon, adamw]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def lr_factor(share: float, step: int, *, warmup_steps: int, decay_from: float) -> float:
    """Linear warm-up over steps, constant, then linear to zero over the used `share` in [0, 1]."""
    warmup = min((step + 1) / max(warmup_steps, 1), 1.0)
    decay = min((1.0 - share) / (1.0 - decay_from), 1.0)
    return max(warmup * decay, 0.0)


def set_lr(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's initial learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
