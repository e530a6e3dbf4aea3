"""Claims of UniFormer (arXiv 2201.09450, 2201.04676)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..context import NOTHING
from ..create import create_model
from ..inflation import load_inflated
from ..measure import count_macs
from ..model import Model
from ..spec import Place, build
from ..systems.vision import uniformer
from .check import Measured, Progress, check
from .comparing import relative
from .figures import counted
from .uniformer_learning import local_then_global

__all__ = ["figures", "fewer_tokens", "inflation", "one_window", "local_affinity", "local_then_global"]


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    why = (
        "The authors' tool counted norms as well, which rounds B up to 8.3G. Their 100M of UniFormer-L hold the "
        "auxiliary head of token labelling; their 12.6G are less than the dense layers of its third and fourth stage."
    )
    return counted("uniformer", progress, why)


@check
def local_affinity(seed: int, progress: Progress) -> Measured:
    """The local aggregator against a sum over offsets of affinity times value, for maps and videos."""
    worst = 0.0
    for grid in ((9, 7), (4, 6, 5)):
        mixer: Any = build(
            "mixer", {"kind": "separable_conv", "ratio": 1.0, "size": 5}, 16, place=Place(grid=grid)
        ).double()
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
            x = torch.randn(2, *grid, 16, dtype=torch.float64)
            worst = max(worst, relative(mixer(x), by_offsets(mixer, x)))
    said = f"largest difference {worst:.1e} of the output's scale, on maps and videos"
    return Measured({"relative": worst}, worst <= 1e-5, said)


@check
def fewer_tokens(seed: int, progress: Progress) -> Measured:
    """Products of attention in the light model's third stage, and a stage that keeps all against a plain one.

    The plain one is a stack with a class token in front, of the same blocks and weights.
    """
    with torch.device("meta"):
        modules = count_macs(create_model("uniformer_xxs")).modules
    own = [modules[f"body.stages.2.blocks.{i}.sublayers.1"] for i in range(8)]
    ratios = [n / own[0] for n in own[1:]]
    blocks, place = [uniformer.global_block(2)] * 2, Place("body", grid=(6, 5))
    slow: Any = build("body", {"kind": "slow_fast", "blocks": blocks, "keep": [1.0, 1.0]}, 16, place=place).eval()
    plain: Any = build("body", {"kind": "stack", "blocks": blocks, "prefix": 1}, 16, place=place).eval()
    with torch.no_grad():
        for parameter in slow.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
        plain.load_state_dict({**slow.blocks.state_dict(prefix="blocks."), "prefix": slow.token[0]})
        x = torch.randn(2, 6, 5, 16)
        features, wanted = slow(x, NOTHING), plain(x, NOTHING).x
    got = torch.cat([features.extras["token"], features.x.flatten(1, -2)], dim=1)
    equal = torch.equal(got, wanted)
    said = (
        f"{min(ratios):.3f} to {max(ratios):.3f} of the first block's products; keeping all, equal to a plain stack: "
    )
    value = {"ratios": ratios, "equal": equal}
    return Measured(value, equal and all(0.22 <= r <= 0.28 for r in ratios), said + str(equal), "a quarter")


@check
def one_window(seed: int, progress: Progress) -> Measured:
    """A block of windows and one of relations between all tokens, of the same weights, on a map that is one window."""
    spec = uniformer.dense([1, 1, 4, 1], [16, 16, 16, 16], head_dim=8, window=6)
    blocks, found = spec["body"]["stages"][2]["blocks"], {}
    for side in (6, 7):
        windowed, whole = (build("block", b, 16, place=Place(grid=(side, side))) for b in (blocks[0], blocks[3]))
        with torch.no_grad():
            for parameter in whole.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
            windowed.load_state_dict(whole.state_dict())
            x = torch.randn(2, side, side, 16)
            found[side] = relative(windowed(x), whole(x))
    said = f"difference {found[6]:.1e} of the scale on a map of one window, {found[7]:.2g} on one that is a token wider"
    return Measured({str(k): v for k, v in found.items()}, found[6] <= 1e-6 < found[7], said)


FRAMES = 8


@check
def inflation(seed: int, progress: Progress) -> Measured:
    """An image model's features, and the inflated video model's in every frame of a clip whose frames are all one."""
    sizes = ([1, 1, 1, 1], [16, 24, 32, 32])
    flat: Any = Model({"name": "uniformer", **uniformer.image(*sizes, head_dim=16)}).eval()
    flat.init_weights(None)
    with torch.no_grad():
        for parameter in flat.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter) * parameter[0].numel() ** -0.5)
    images = torch.randn(1, 3, 64, 64)
    clip = images[:, :, None].repeat(1, 1, FRAMES, 1, 1)
    found: dict[str, list[float]] = {}
    for rule in ("centre", "mean"):
        video: Any = Model({"name": "uniformer", **uniformer.video(*sizes, head_dim=16)}).eval()
        load_inflated(video, flat.to_published(), rule=rule)
        with torch.no_grad():
            wanted, got = flat.forward_features(images), video.forward_features(clip)
        found[rule] = [relative(got[:, :, t], wanted) for t in range(got.shape[2])]
    centre, mean = max(found["centre"]), max(found["mean"])
    said = f"largest difference over the frames {centre:.1e} by the centre, {mean:.2g} by the mean, of the scale"
    return Measured(found, centre <= 1e-4 < mean, said)


def by_offsets(mixer: Any, x: Tensor) -> Tensor:
    """The aggregator with its affinity written out: for each token, over all offsets o, a(o) v(token + o).

    v (B, *grid, C) are the values of all tokens, a (C,) depends on the offset alone; beyond the border v is zero.
    """
    kernel, bias = mixer.conv.weight.squeeze(1), mixer.conv.bias
    reach = kernel.shape[-1] // 2
    values = F.pad(F.linear(x, mixer.expand.weight, mixer.expand.bias), (0, 0, *(reach,) * (2 * (x.dim() - 2))))
    total = torch.zeros_like(x) + bias
    for offset in torch.cartesian_prod(*(torch.arange(size) for size in kernel.shape[1:])).tolist():
        place = tuple(slice(o, o + n) for o, n in zip(offset, x.shape[1:-1], strict=True))
        total = total + kernel[(slice(None), *offset)] * values[(slice(None), *place)]
    return F.linear(total, mixer.reduce.weight, mixer.reduce.bias)
