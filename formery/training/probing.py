"""Small models of equal size, trained on a probe and judged at every difficulty."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from time import monotonic
from typing import Any

import torch

from .. import registry
from ..create import create_model, model_spec
from ..data.probes.probe import IGNORED, JUDGED, Probe, ProbeData
from ..errors import BadSpec
from ..layout import parse
from ..measure.inputs import as_model
from ..measure.running import evaluating
from ..model import Model
from ..spec import short
from .loop import train

Say = Callable[[str], None]
HEAD_DIM = 16
"""Of the mixers of small models: their heads are as many as fit the width."""
JUDGED_ITEMS = 256
SHOWN = 40
"""Characters of a model's name in a picture, and in the key it is kept under: names of files end at 255 bytes."""


def small(layout: str, probe: Probe, *, width: int = 64, hidden: int | None = None, position: Any = None) -> Any:
    """The spec of a small model: mixers as `layout` says, each followed by a swiglu of `hidden` channels."""
    words = dict.fromkeys(parse(layout).words())
    mixers = {word: {"mixer": sized(word, width, position)} for word in words if word in registry.index("mixer")}
    return {
        "stem": {"kind": "tokens", "dim": width, "vocab": probe.vocab},
        "body": {
            "kind": "stack",
            "layout": layout,
            "blocks": mixers,
            "channel": {"kind": "swiglu", "hidden": hidden or 2 * width},
            "scheme": {"kind": "pre", "norm": "rms"},
        },
        "head": {"kind": "next_token", "norm": "rms"},
    }


def sized(word: str, width: int, position: Any = None) -> dict[str, Any]:
    """A mixer with heads of 16 channels and no biases, as far as it has such options, and the position asked for."""
    known = inspect.signature(registry.find("mixer", word).__init__).parameters
    wanted = {
        "heads": max(1, width // HEAD_DIM), "head_dim": HEAD_DIM, "value_dim": HEAD_DIM, "bias": False,
        "out_bias": False, "position": position,
    }  # fmt: skip
    return {"kind": word} | {name: value for name, value in wanted.items() if name in known and value is not None}


def equal(layouts: Sequence[str], probe: Probe, *, width: int = 64, position: Any = None) -> dict[str, dict[str, Any]]:
    """Specs of the layouts whose MLPs are widened until all have as many parameters as the largest (within a unit)."""

    def make(layout: str, hidden: int) -> Any:
        return small(layout, probe, width=width, hidden=hidden, position=position)

    start = 2 * width
    largest = max(_params(make(layout, start)) for layout in layouts)
    return {layout: matched(partial(make, layout), largest, start) for layout in layouts}


def matched(make: Callable[[int], dict[str, Any]], wanted: int, start: int) -> dict[str, Any]:
    """The spec that `make` gives for so many hidden channels that its parameters are the `wanted` (within a unit of
    channels); `start` is a number of channels near it."""
    size = _params(make(start))
    unit = _params(make(start + 1)) - size
    return make(start + (round((wanted - size) / unit) if unit else 0))


def _params(spec: Mapping[str, Any]) -> int:
    return sum(p.numel() for p in as_model(spec).parameters())


def learned(
    spec: Mapping[str, Any],
    data: Any,
    *,
    steps: int,
    seed: int,
    say: Say | None = None,
    learning_rate: float = 3e-3,
    batch_size: int = 64,
    warmup: int | None = None,
) -> Model:
    """The model of `spec` after a training on endless data, in evaluation; first weights by fan-in, as it is narrow.

    warmup: steps in which the learning rate rises, a tenth of all unless given.
    """
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        model = create_model(spec)
        model.init_weights(None)
    options: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}

    def tell(now: Any) -> None:
        if say is not None:
            say(f"step {now.step} of {now.steps}, loss {now.loss:.3f}")

    train(
        model, data, None, options, warmup=max(1, steps // 10) if warmup is None else warmup, weight_decay=0.01,
        betas=(0.9, 0.999), eval_every=max(1, steps // 4), devices="cpu", quiet=True, on_progress=tell,
    )  # fmt: skip
    return model.eval()


@torch.inference_mode()
def accuracy(
    model: Model,
    probe: Probe,
    size: int,
    *,
    seed: int = 0,
    items: int = JUDGED_ITEMS,
    last: int | None = None,
    start: int = JUDGED + 1,
) -> float:
    """Share of right answers on fresh sequences of a size, or among the `last` answers of each; sequences are drawn for
    the steps from `start` on."""
    right = counted = 0
    batch = max(1, min(items, 65536 // probe.tokens(size)))
    with evaluating(model):
        for step in range(-(-items // batch)):
            ids, targets = probe.draw(seed, start + step, batch, size)
            counts = targets != IGNORED
            if last is not None:
                counts &= counts.flip(1).cumsum(1).flip(1) <= last
            right += int(((model(ids).argmax(-1) == targets) & counts).sum())
            counted += int(counts.sum())
    return right / counted


def run_probe(
    probe: Probe,
    models: Mapping[str, Mapping[str, Any]],
    *,
    steps: int = 600,
    seeds: Sequence[int] = (0,),
    learning_rate: float = 3e-3,
    batch_size: int = 64,
    say: Say | None = None,
    once: Callable[[str, Callable[[], Any]], Any] | None = None,
) -> dict[str, Any]:
    """Train every model (name -> spec) on the probe for each seed and judge it at the probe's sizes; plain data.

    `once(key, make)` may keep what was had before (a journal's), so that an interrupted probe goes on; a key is what
    `trial_key` says, so that the same name with another spec is trained anew.
    """
    if not models:
        raise BadSpec("nothing to probe: give at least one model")
    keep = once or (lambda key, make: make())
    rows = []
    for name, spec in models.items():
        resolved = model_spec(spec)
        if resolved["head"]["kind"] != "next_token":
            raise BadSpec(f"{name}: a probe asks for the next token; give a causal model of tokens")
        if resolved["head"].get("vocab") not in (None, probe.vocab) or resolved["stem"].get("vocab") != probe.vocab:
            raise BadSpec(f"{name}: {probe.name} has {probe.vocab} tokens, the model {resolved['stem'].get('vocab')}")
        trials = []
        for seed in seeds:

            def trial(spec: Mapping[str, Any] = spec, seed: int = seed, name: str = name) -> dict[str, Any]:
                begun = monotonic()
                tell = None if say is None else (lambda text: say(f"{name}, seed {seed}: {text}"))
                model = learned(
                    spec, ProbeData(probe, steps, seed), steps=steps, seed=seed, say=tell,
                    learning_rate=learning_rate, batch_size=batch_size,
                )  # fmt: skip
                found = {str(size): accuracy(model, probe, size, seed=seed) for size in probe.sizes}
                return {"seed": seed, "accuracy": found, "seconds": round(monotonic() - begun, 2)}

            trials.append(keep(trial_key(name, resolved, seed), trial))
        rows.append({
            "name": name,
            "parameters": _params(spec),
            "accuracy": {str(n): mean(t["accuracy"][str(n)] for t in trials) for n in probe.sizes},
            "trials": trials,
        })  # fmt: skip
    return {
        "probe": probe.name, "options": probe.options, "unit": probe.unit, "chance": probe.chance,
        "sizes": list(probe.sizes), "trained": list(probe.trained), "steps": steps, "seeds": list(seeds),
        "batch_size": batch_size, "learning_rate": learning_rate, "models": rows,
    }  # fmt: skip


def trial_key(name: str, resolved: Mapping[str, Any], seed: int) -> str:
    """What a trained model is kept under, fit for a file's name: the start of its name for who looks, and a digest of
    its resolved spec, as the size of a layout depends on those it is compared with."""
    shown = re.sub(r"[^A-Za-z0-9_]+", "_", name.replace("*", "x"))[:SHOWN]
    digest = hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:16]
    return f"{shown}-{digest}-{seed}"


def plot(found: Mapping[str, Any], path: str | Path) -> None:
    """Accuracy against difficulty, a line a model, as PNG or SVG by the path's ending."""
    from matplotlib.figure import Figure

    from ..files import atomic

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    sizes = found["sizes"]
    for row in found["models"]:
        values = [100 * row["accuracy"][str(n)] for n in sizes]
        (line,) = axes.plot(sizes, values, marker="o", label=f"{short(row['name'], SHOWN)} ({row['parameters']:,})")
        for trial in row["trials"] if len(row["trials"]) > 1 else ():
            axes.scatter(
                sizes, [100 * trial["accuracy"][str(n)] for n in sizes], s=9, color=line.get_color(), alpha=0.5
            )
    axes.axhline(100 * found["chance"], ls=":", c="black", lw=0.9, label="chance")
    axes.axvspan(min(found["trained"]), max(found["trained"]), color="black", alpha=0.06, lw=0, label="trained")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set_ylim(-3, 103)
    axes.set_xlabel(f"{found['probe']}: {found['unit']}")
    axes.set_ylabel("right answers (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with atomic(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lstrip(".") or "png", dpi=150)
