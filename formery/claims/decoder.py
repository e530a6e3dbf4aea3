"""Claims of the plain decoder (arXiv 2302.13971)."""

from __future__ import annotations

import torch

from ..context import NOTHING
from ..create import create_model
from .check import Measured, Progress, check
from .comparing import relative
from .figures import counted

MOVED = 100
"""Tokens. Angles are float32, so that those of token 100 are right to some 1e-6."""


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("decoder", progress)


@check
def relative_positions(seed: int, progress: Progress) -> Measured:
    """All positions moved on by a number of tokens; and, as a contrast, stretched to twice their distances."""
    model = create_model("decoder_tiny").double().eval()
    ids = torch.randint(0, 256, (2, 48))
    places = torch.arange(48)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        scores = model(ids)
        moved, stretched = (
            relative(model(ids, ctx=NOTHING.but(positions=p)), scores) for p in (places + MOVED, places * 2)
        )
    said = (
        f"moved by {MOVED} tokens, scores change by {moved:.1e} of their scale; stretched to twice, by {stretched:.1e}"
    )
    return Measured({"moved": moved, "stretched": stretched}, moved <= 1e-5 and stretched > 1e-3, said)


@check
def streams(seed: int, progress: Progress) -> Measured:
    """A text in chunks against the whole, and grouped keys and values against their bytes."""
    worst = 0.0
    bytes_ = {}
    ids = torch.randint(0, 256, (2, 40))
    for kv_heads in (4, 2, 1):
        override = {"body.blocks.*.mixer.kv_heads": kv_heads}
        model = create_model("decoder_tiny", override=override).double().eval()
        state = model.new_state(2, 40)
        bytes_[str(kv_heads)] = state.parts.nbytes()
        with torch.no_grad():
            whole = model(ids)
            parts = torch.cat([model(part, state=state) for part in ids.split([7, 1, 1, 20, 11], dim=1)], dim=1)
        worst = max(worst, relative(parts, whole))
    ratio = [bytes_["4"] / bytes_["2"], bytes_["4"] / bytes_["1"]]
    smaller = f"with 2 and 1 heads for keys caches are {ratio[0]:g} and {ratio[1]:g} times smaller"
    said = f"largest difference {worst:.1e} of the scale; {smaller}"
    return Measured({"relative": worst, "bytes": bytes_}, worst <= 1e-10 and ratio == [2, 4], said)
