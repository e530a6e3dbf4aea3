"""Pre-CRMSNorm (arXiv 2305.14858, section 3.4): a stream without mean needs one channel less."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..context import NOTHING, Context
from ..model import Model
from ..parts.norms.norm import Norm
from ..rewrites.anatomy import of
from ..rewrites.fold import Fold
from ..rewrites.fold_steps import Recentre
from ..rewrites.surgery import module_at, replace, tensor_at


class Compressed(Norm):
    """z / sqrt((sum z^2 + (sum z)^2) / (d + 1) + eps) of d channels: the RMS norm of z and minus its sum."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        squares = x.square().sum(-1, keepdim=True) + x.sum(-1, keepdim=True).square()
        return x * torch.rsqrt(squares / (x.shape[-1] + 1) + self.eps)


@torch.no_grad()
def compressed(model: Model) -> Model:
    """The recentred model, of one stage and with norms without weights, with a stream of one channel less.

    What writes loses its last output; what reads, W, becomes W[:, :-1] - W[:, -1:], which reads z as W (z, -sum z).
    """
    narrow = copy.deepcopy(model)
    plan = Fold.decide(narrow, recentre=True)
    Fold.perform(narrow, plan)
    (step,) = (s for s in Fold.steps_of(plan) if isinstance(s, Recentre))
    readers = [path for _, _, sub in of(narrow).sublayers() for path in sub.reads]
    last: Any = narrow.get_classifier()
    for layer in [*(module_at(narrow, path) for path in readers), last]:
        layer.weight = nn.Parameter(layer.weight[:, :-1] - layer.weight[:, -1:])
    for path in step.dense:
        writer: Any = module_at(narrow, path)
        writer.weight = nn.Parameter(writer.weight[:-1].clone())
        if writer.bias is not None:
            writer.bias = nn.Parameter(writer.bias[:-1].clone())
    for path in step.tables:
        replace(narrow, path, nn.Parameter(tensor_at(narrow, path)[..., :-1].clone()))
    for path in step.norms:
        norm: Any = module_at(narrow, path)
        replace(narrow, path, Compressed(norm.eps))
    narrow.body.dim -= 1
    return narrow


def saved_by_formula(resolved: Mapping[str, Any]) -> int:
    """Parameters less, of a stack of attention and MLP: one row of all that writes, one column of all that reads.

    All layers have biases. A block of width d and hidden h: d + 1 and h + 1 of what writes, 3 d and h of what reads.
    """
    stem, body, head = resolved["stem"], resolved["body"], resolved["head"]
    width, total = stem["dim"], 0
    for block in body["blocks"]:
        mixer, hidden = block["mixer"], int(width * block["channel"]["ratio"])
        share = (mixer["kv_heads"] or mixer["heads"]) / mixer["heads"]
        total += (width + 1) + (hidden + 1) + int(width * (1 + 2 * share)) + hidden
    if stem["kind"] == "tokens":
        total += stem["vocab"] + stem["length"] + head["vocab"]
    else:
        patches = (stem["img_size"] // stem["size"]) ** 2
        total += (
            stem["in_chans"] * stem["size"] ** 2 + 1 + (patches + body["prefix"]) + body["prefix"] + head["num_classes"]
        )
    return total
