"""Claims of TNT (arXiv 2103.00112); `tnt_learning` has those that need trainings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..bodies.nested import Nested
from ..context import Context
from ..create import create_model
from ..measure import count_macs
from ..model import Model
from ..spec import Place, build
from .check import Measured, Progress, check
from .comparing import relative
from .figures import counted
from .tnt_learning import word_positions_help, words_help

__all__ = ["figures", "small_cost", "vit_inside", "word_positions_help", "words_help", "words_stay"]


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    note = "Published parameters of tnt_b count the frozen table that nothing reads."
    return counted("tnt", progress, note)


@check
def vit_inside(seed: int, progress: Progress) -> Measured:
    """The model with joins that give zeros, against a stack with the weights of its outer blocks; float64."""
    model, body = _tiny(torch.float64)
    node = model.resolved["body"]
    plain = build("body", {"kind": "stack", "blocks": node["outer"]}, body.dim, place=Place(grid=body.grid, prefix=1))
    plain.double().eval().load_state_dict(
        {n.replace("outer.", "blocks.", 1): t for n, t in body.state_dict().items() if n.startswith("outer.")}
    )
    found: list[Tensor] = []
    for join in body.joins:
        join.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
    body.outer[0].register_forward_pre_hook(lambda module, args: found.append(args[0]))
    with torch.no_grad():
        ours = model._run(torch.randn(2, 3, 64, 64, dtype=torch.float64), None, None, ())[0].x
        theirs = plain(found[0], Context(grid=body.grid, prefix=1)).x
    worst = relative(ours, theirs)
    return Measured({"relative": worst}, worst <= 1e-12, f"largest difference {worst:.1e} of the output's scale")


@check
def words_stay(seed: int, progress: Progress) -> Measured:
    """The words and tokens behind each block, for two images that differ in one patch."""
    model, body = _tiny(torch.float32)
    images = torch.randn(1, 3, 64, 64).repeat(2, 1, 1, 1)
    images[1, :, 16:32, 32:48] += 1.0  # patch 6 of 16
    behind: dict[str, list[Tensor]] = {"words": [], "tokens": []}
    for name, blocks in (("words", body.inner), ("tokens", body.outer)):
        for block in blocks:
            block.register_forward_hook(lambda module, args, output, name=name: behind[name].append(output))
    with torch.no_grad():
        model(images)
    others = torch.arange(16) != 6
    words = [x.unflatten(0, (2, 16)) for x in behind["words"]]
    kept = all(torch.equal(x[0, others], x[1, others]) for x in words)
    own = all(bool((x[0, 6] != x[1, 6]).any()) for x in words)
    told = all(bool((x[0, 1:][others] != x[1, 1:][others]).any()) for x in behind["tokens"])
    said = f"words of other patches equal: {kept}, of the patch itself changed: {own}; other tokens changed: {told}"
    return Measured({"kept": kept, "own": own, "told": told}, kept and own and told, said)


@check
def small_cost(seed: int, progress: Progress) -> Measured:
    """Multiply-accumulates of the inner blocks and joins of tnt_s beside those of its outer blocks."""
    with torch.device("meta"):
        model = create_model("tnt_s").eval()
    report = count_macs(model)
    parts = {name: report.below(f"body.{name}") for name in ("inner", "joins", "outer")}
    ratio = sum(parts.values()) / parts["outer"]
    said = f"{ratio:.3f} times: " + ", ".join(f"{name} {n:,}" for name, n in parts.items())
    return Measured(parts | {"ratio": ratio}, round(ratio, 2) == 1.14, said, "about 1.14 times")


def _tiny(dtype: torch.dtype) -> tuple[Model, Nested]:
    """The smallest variant on images of 64 pixels, its numbers moved off their first values."""
    options: dict[str, Any] = {"img_size": 64, "num_classes": 5}
    model = create_model("tnt_tiny", **options).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    body: nn.Module = model.body
    assert isinstance(body, Nested)
    return model, body
