"""Claims of Qwen3-Next."""

from __future__ import annotations

import torch

from ..context import Cache
from ..create import create_model
from ..measure.inputs import as_model
from ..model import Model
from ..parts.channels.mixture_of_experts import MixtureOfExperts
from .check import Measured, Progress, check
from .comparing import scores_in_pieces
from .figures import counted

TOKENS = 262_144
"""The released checkpoints' longest sequence."""


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("qwen3_next", progress)


def _released() -> Model:
    model = as_model("qwen3_next_80b_a3b")
    assert isinstance(model, Model)
    return model


@check
def active(seed: int, progress: Progress) -> Measured:
    """Parameters that one token meets, counted on the released sizes; and experts that no token goes to, replaced."""
    model = _released()
    total = sum(p.numel() for p in model.parameters())
    tables = model.stem.embed.weight.numel() + model.head.scores.weight.numel()  # type: ignore[operator,union-attr]
    idle = 0
    for module in model.modules():
        if isinstance(module, MixtureOfExperts):
            idle += (module.expand.numel() + module.reduce.numel()) * (module.experts - module.top) // module.experts
    met = total - idle - int(tables)
    small, ids = create_model("qwen3_next_tiny").eval(), torch.randint(0, 256, (1, 2))
    with torch.no_grad():
        before = small(ids)
        replaced = sum(_replace_idle(module) for module in _used(small, ids))
        same = torch.equal(small(ids), before)
    said = (
        f"{met / 1e9:.2f} billion of {total / 1e9:.2f}; {replaced} experts that no token goes to, replaced by NaN, "
        f"{'change nothing' if same else 'change outputs'}"
    )
    passed = 2.5e9 <= met <= 3.5e9 and 79e9 <= total <= 81e9 and same and replaced > 0
    return Measured({"total": total, "met": met, "replaced": replaced, "same": same}, passed, said, "80B, 3B active")


def _used(model: Model, ids: torch.Tensor) -> list[tuple[MixtureOfExperts, set[int]]]:
    """Every mixture, and the experts that these tokens go to."""
    found: list[tuple[MixtureOfExperts, set[int]]] = []

    def note(module: torch.nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        assert isinstance(module, MixtureOfExperts)
        chosen = module.router(args[0]).topk(module.top, dim=-1).indices
        found.append((module, set(chosen.flatten().tolist())))

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, MixtureOfExperts)]
    model(ids)
    for hook in hooks:
        hook.remove()
    return found


def _replace_idle(used: tuple[MixtureOfExperts, set[int]]) -> int:
    module, chosen = used
    idle = [expert for expert in range(module.experts) if expert not in chosen]
    for parameter in (module.expand, module.reduce):
        parameter[idle] = torch.nan
    return len(idle)


@check
def streams(seed: int, progress: Progress) -> Measured:
    """The tiny one's scores in pieces against the whole."""
    worst = scores_in_pieces("qwen3_next_tiny", torch.float64)
    return Measured({"relative": worst}, worst <= 1e-10, f"largest difference {worst:.1e} of the scale")


@check
def state(seed: int, progress: Progress) -> Measured:
    """Bytes of the caches against those of the same model with attention everywhere."""
    attention = _released().resolved["body"]["blocks"][3]["mixer"]
    everywhere = create_hollow({f"body.blocks.{i}.mixer": attention for i in range(48)})
    sizes = [
        sum(leaf.nbytes() for _, leaf in model.new_state(1, TOKENS).parts.leaves() if isinstance(leaf, Cache))
        for model in (_released(), everywhere)
    ]
    said = f"{sizes[0] / 2**30:.2f} GiB against {sizes[1] / 2**30:.2f} GiB for {TOKENS:,} tokens in float32"
    value = {"hybrid": sizes[0], "attention": sizes[1], "tokens": TOKENS}
    return Measured(value, 4 * sizes[0] == sizes[1], said, "12 of 48 layers are attention")


def create_hollow(override: dict[str, object]) -> Model:
    """The released sizes with some nodes replaced, without values."""
    with torch.device("meta"):
        return create_model("qwen3_next_80b_a3b", override=override).eval()
