"""A model: stem, body, head, built from a spec, with the surface that timm's and transformers' users know."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import cards, registry, saving
from .bodies.body import Body
from .context import NOTHING, Context, State, Stream
from .errors import BadSpec, CannotRun, FormeryError
from .feature_info import FeatureInfo
from .ops.forms import watched
from .parts.heads.features import MapFeatures, as_map
from .parts.heads.head import Classifier, Features, Head, outward
from .parts.heads.next_token import NextToken
from .parts.initial import draw
from .parts.mixers.mixer import Mixer
from .parts.norms.norm import Norm
from .parts.part import Part
from .parts.positions.position import Position
from .parts.several import Grids, Widths, each, several
from .parts.stems.stem import Stem
from .parts.stems.tokens import Tokens
from .parts.strides import PerAxis
from .spec import Node, Place, build, count, override, parse, resolve
from .spec import short as in_short


class Model(nn.Module):
    """Images (B, C, H, W) or videos (B, C, T, H, W) to scores (B, classes), or tokens (B, L) to scores (B, L, vocab),
    as the spec's head says.

    `spec` is what was asked for, `resolved` its canonical form, whose paths are the paths of the modules; `plans` are
    the rewrites performed since, and `extra` plain data that travels with the model (classes, preprocessing).
    """

    stem: Stem
    body: Body
    head: Head

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__()
        self.plans: list[dict[str, Any]] = []
        self.extra: dict[str, Any] = {}
        self._std: float | None = 0.02
        self._build(spec)

    def _build(self, spec: Mapping[str, Any]) -> None:
        self.spec: Node = copy.deepcopy(dict(spec))
        self.resolved: Node = resolve(spec)
        node, depth = self.resolved, count("body", "block", self.resolved["body"])
        self.stem = build("stem", node["stem"], place=Place("stem"))
        self.body = build("body", node["body"], self.stem.dim, place=Place("body", grid=self.stem.grid, depth=depth))
        if isinstance(self.body.dim, tuple) and not registry.find("head", node["head"]["kind"]).takes_several:
            raise BadSpec(
                f"head: {node['head']['kind']!r} reads one tensor of tokens, this body gives {len(self.body.dim)}; "
                "use 'branch_classes' or 'features'"
            )
        self.head = build("head", node["head"], self.body.dim, place=Place("head", grid=self.body.grid))
        if isinstance(self.head, MapFeatures):
            infos = self.body.feature_info()
            self.head.furnish({i: infos[i]["num_chs"] for i in self._taps()})
        self._tie()
        self._check()
        if not self._is_meta:
            self.init_weights(self._std)

    @property
    def _is_meta(self) -> bool:
        """Whether the model stands on the meta device, without values."""
        return next(self.parameters()).is_meta

    def _tie(self) -> None:
        if isinstance(self.head, NextToken) and self.head.tie:
            if not isinstance(self.stem, Tokens):
                raise BadSpec("head.tie: the stem has no table of tokens to share; set it to false")
            self.head.tie_to(self.stem.embed.weight)
        for body in self._bodies():
            body.share()

    def _check(self) -> None:
        """What only the whole model can tell."""
        if isinstance(self.head, Classifier):
            _check_pool(self.head.pool, self.head, self.body)
        if not self.head.causal:
            return
        if self.stem.modality == "text" and self.stem.stride > 1:
            raise BadSpec(
                "stem: its tokens join neighbouring words, so they cannot predict the next one; take 'tokens'"
            )
        if self.body.num_prefix:
            raise BadSpec("body.prefix: tokens in front of a text have no place in a stream of it; set it to 0")
        for path, mixer in self.mixers():
            if mixer.causal == "never":
                kind = registry.name_of("mixer", type(mixer)) or type(mixer).__name__
                raise BadSpec(f"{path}: {kind!r} lets tokens see later ones, so it cannot predict the next token")
        for path, norm in self._norms_over_grid():
            kind = registry.name_of("norm", type(norm)) or type(norm).__name__
            raise BadSpec(f"{path}: {kind!r} takes statistics of later tokens, so it cannot predict the next token")
        for path, part in self.named_modules():
            if isinstance(part, Part) and part.looks_at_batch:
                raise BadSpec(
                    f"{path}: in training a token's output would depend on later tokens and on other rows here, so it "
                    "cannot learn to predict the next token; use norm 'rms' or 'layer'"
                )

    @torch.no_grad()
    def init_weights(self, std: float | None = 0.02) -> None:
        """Linears and convolutions: truncated normal of `std`, zero biases. Other parameters keep their part's own.

        With `std` None it is 1 / sqrt(inputs of a unit) (LeCun et al., Efficient BackProp, section 4.6), which suits
        models much narrower than those that 0.02 was made for. Layers that are made later, by `reset_classifier` or
        `rebuild`, follow the same rule.
        """
        self._std = std
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                draw(module, std)
        for module in self.modules():
            if isinstance(module, Part):
                module.first_values()

    # -------------------------------------------------------------------------------------------- facts

    @property
    def name(self) -> str:
        """The variant's name, or "custom"."""
        return str(self.resolved.get("name", "custom"))

    @property
    def modality(self) -> str:
        """What goes in: image, text, ..."""
        return self.stem.modality

    @property
    def num_features(self) -> int:
        """Width of the tokens that the head sees; of several tensors, all widths together."""
        return sum(several(self.body.dim))

    @property
    def head_hidden_size(self) -> int:
        """Width of the pooled features that scores are made of, of several tensors together: `num_features`."""
        return self.num_features

    @property
    def embed_dim(self) -> Widths:
        """Width of the stem's tokens; a tuple where they are several tensors."""
        return self.stem.dim

    @property
    def num_classes(self) -> int:
        """Classes (or vocabulary) of the head; 0 where it gives features."""
        return self.head.num_classes

    @property
    def num_prefix_tokens(self) -> int:
        """Class and register tokens in front of the grid's."""
        return self.body.num_prefix

    @property
    def grad_checkpointing(self) -> bool:
        """Whether blocks are worked out again in the backward pass."""
        return any(body.checkpointing for body in self._bodies())

    @property
    def feature_info(self) -> FeatureInfo:
        """Width, stride and module of each map that can be tapped, and its branch where tokens are several tensors.

        Strides are rounded where a branch sees the image at another size (224 pixels of 240 in patches of 16: 17);
        those of a video are (time, height, width).
        """
        maps = []
        for info in self.body.feature_info():
            stride = several(self.stem.stride)[info.get("branch", 0) if isinstance(self.stem.stride, tuple) else 0]
            total = info["reduction"] * stride
            told = total.values if isinstance(total, PerAxis) else round(total)
            maps.append(info | {"reduction": told, "module": f"body.{info['module']}"})
        return FeatureInfo(maps, self._taps())

    @property
    def default_cfg(self) -> dict[str, Any]:
        """Input size, normalisation and the names of first and last layer, as timm gives them."""
        stem = self.resolved["stem"]
        size = stem.get("img_size", 0)
        height, width = (size, size) if isinstance(size, int) else size
        frames, visual = [stem["frames"]] if stem.get("frames") else [], self.modality in ("image", "video")
        card = cards.card_of_variant(self.name)
        published = cards.PREPROCESS if card is None else card.preprocess(self.name)
        pre = {**published, **self.extra.get("preprocess", {})}
        return {
            "architecture": self.name,
            "num_classes": self.num_classes,
            "input_size": (stem.get("in_chans", 3), *frames, height, width),
            "pool_size": grid if len(grid := tuple(self.body.grid)) > 1 and isinstance(grid[0], int) else None,
            "mean": tuple(pre["mean"]),
            "std": tuple(pre["std"]),
            "interpolation": pre["interpolation"],
            "crop_pct": pre["crop_pct"],
            "first_conv": each(lambda name: f"stem.{name}", self.stem.first or ()) if visual else None,
            "classifier": _alone(tuple(f"head.{name}" for name in self.head.layers)),
            "fixed_input_size": self.stem.fixed_grid or any(mixer.fixed_grid for _, mixer in self.mixers()),
        }

    pretrained_cfg = default_cfg

    def mixers(self) -> Iterator[tuple[str, Mixer]]:
        """(dotted path, mixer) of every token mixer, outermost ones only."""
        inside = "\0"
        for path, module in self.named_modules():
            if isinstance(module, Mixer) and not path.startswith(inside):
                inside = f"{path}."
                yield path, module

    def _norms_over_grid(self) -> Iterator[tuple[str, Norm]]:
        for path, module in self.named_modules():
            if isinstance(module, Norm) and module.over == "grid and channels":
                yield path, module

    def _bodies(self) -> Iterator[Body]:
        return (module for module in self.modules() if isinstance(module, Body))

    @property
    def streams(self) -> bool:
        """Whether `new_state` can be asked for."""
        return self.head.causal and all(m.causal != "never" and m.streams == "any" for _, m in self.mixers())

    # -------------------------------------------------------------------------------------------- forward

    def _taps(self) -> tuple[int, ...]:
        """Numbers of the maps that the head gives out, as it does: from the first of the body to the last."""
        return tuple(sorted(self._indices(self.head.indices))) if isinstance(self.head, MapFeatures) else ()

    def _indices(self, indices: int | Sequence[int] | None) -> tuple[int, ...]:
        """Indices of maps: counted from the end where negative, all where None, the last few where a number."""
        total = len(self.body.feature_info())
        if isinstance(indices, int):
            if not 1 <= indices <= total:
                raise BadSpec(f"a number of last maps is 1 to {total}, got {indices}; give a list for other maps")
            indices = range(total - indices, total)
        chosen = range(total) if indices is None else [i + total if i < 0 else i for i in indices]
        if bad := [i for i in chosen if not 0 <= i < total]:
            raise BadSpec(f"out_indices: this body has maps 0 to {total - 1}, got {bad[0]}")
        if len(set(chosen)) < len(chosen):
            raise BadSpec(
                f"out_indices: each map is given once, got {list(indices or ())}; leave out the repeated ones"
            )
        return tuple(chosen)

    def _run(
        self, inputs: Tensor, ctx: Context | None, state: Stream | None, taps: tuple[int, ...]
    ) -> tuple[Features, Context]:
        ctx = (ctx or NOTHING).but(causal=self.head.causal or bool(ctx and ctx.causal), taps=taps, memo={})
        self._check_dtype(inputs)
        if ctx.padding is not None or ctx.bounds is not None:
            self._check_rows(inputs, ctx)
        if state is None:
            if ctx.padding is not None:
                ctx = ctx.but(key_padding=ctx.padding, positions=_places(ctx))
            x, ctx = self.stem(inputs, ctx)
            return self.body(x, ctx), ctx
        if state.seen.shape[0] != inputs.shape[0]:
            raise CannotRun(f"this state holds {state.seen.shape[0]} streams, the input has {inputs.shape[0]} rows")
        before, begun = state.counts(), False
        try:
            x, ctx = self.stem(inputs, state.context(ctx, inputs.shape[1]))
            begun = True
            return self.body(x, ctx, state.parts), ctx
        except BaseException as error:  # what is refused has not been read: the stream goes on where it was
            state.recount(before)
            state.broken |= begun and not isinstance(error, FormeryError)
            raise

    def _check_dtype(self, inputs: Tensor) -> None:
        """CannotRun where numbers come in another precision than the stem's weights have, and nothing casts them."""
        weight = None if self.modality == "text" else next(self.stem.parameters(), None)
        if weight is None or weight.dtype == inputs.dtype or watched() or torch.is_autocast_enabled(inputs.device.type):
            return
        if weight.is_floating_point() and inputs.is_floating_point():
            raise CannotRun(
                f"the input is {inputs.dtype}, the model {weight.dtype}; convert one of them, "
                f"as by input.to({weight.dtype})"
            )

    def _check_rows(self, inputs: Tensor, ctx: Context) -> None:
        """CannotRun where a part would take padding, or a neighbour in a packed row, for tokens."""
        if ctx.padding is not None and ctx.padding.shape != inputs.shape[:2]:
            raise CannotRun(
                f"padding is (batch, length) as the tokens {tuple(inputs.shape)}, got {tuple(ctx.padding.shape)}"
            )
        if ctx.bounds is not None and not watched():  # numbers of a traced tensor cannot be asked for
            _check_bounds(inputs, ctx.bounds)
        unable = [path for path, mixer in self.mixers() if not mixer.packs]
        unable += [path for path, _ in self._norms_over_grid()]
        if unable:
            raise CannotRun(f"{unable[0]} cannot tell padding or packed sequences apart; give rows of one length")

    def forward(self, inputs: Tensor, *, ctx: Context | None = None, state: Stream | None = None) -> Any:
        """The head's output. With a `state` from `new_state`, `inputs` are the next tokens of its streams."""
        features, ctx = self._run(inputs, ctx, state, self._taps())
        features.x = self._finished(features.x, ctx)
        return self.head(features, ctx)

    def _finished(self, x: Any, ctx: Context) -> Any:
        """Last tokens as the head's features, where they have the width that it reads."""
        if isinstance(x, tuple):
            return tuple(self._finished_branch(tokens, ctx, b) for b, tokens in enumerate(x))
        return self.head.finish(x, ctx) if x.shape[-1] == self.body.dim else x

    def _finished_branch(self, x: Tensor, ctx: Context, branch: int) -> Tensor:
        fits = x.shape[-1] == several(self.body.dim)[branch]
        return self.head.finish_branch(x, ctx, branch) if fits else x

    def new_state(self, batch: int, capacity: int) -> Stream:
        """State of `batch` streams that have seen nothing, for at most `capacity` tokens each (padding included)."""
        if not self.head.causal:
            raise CannotRun(f"{self.name} does not stream: its head does not predict tokens in order")
        if batch < 0 or capacity < 0:
            raise CannotRun(f"a state is of 0 or more streams of 0 or more tokens, got {batch} of {capacity}")
        for path, part in self.named_modules():
            if isinstance(part, Position) and part.longest is not None and capacity > part.longest:
                raise CannotRun(
                    f"{path}: the positions end at {part.longest} tokens, a capacity of {capacity} is too large; "
                    f"ask for {part.longest} or set a larger length"
                )
        parts = State()
        for path, mixer in self.mixers():
            if mixer.streams != "any" or mixer.causal == "never":
                raise CannotRun(f"{path} does not stream; models whose mixers all do can")
            own = mixer.new_state(batch, capacity)
            if own is not None:
                parts.put(path.removeprefix("body."), own)
        return Stream.start(parts, batch, capacity, next(self.parameters()).device)

    def forward_features(self, inputs: Tensor, *, ctx: Context | None = None) -> Any:
        """What the head pools: a map (B, C, H, W), or tokens (B, prefix + tokens, C); the list of these where tokens
        are several tensors."""
        features, ctx = self._run(inputs, ctx, None, ())
        return _turned(self._finished(features.x, ctx))

    def forward_head(self, x: Tensor | Sequence[Tensor], pre_logits: bool = False) -> Any:
        """The rest of `forward`, from `forward_features`' output; with `pre_logits`, the pooled features
        that scores are made of: what the model without classes gives."""
        given = x if isinstance(x, Tensor) else tuple(x)
        tokens = each(lambda t: t.movedim(1, -1) if t.dim() > 3 else t, given)
        grid: Grids = () if several(given)[0].dim() > 3 else self.body.grid
        features = Features(tokens, grid, self.num_prefix_tokens)
        if isinstance(self.head, Classifier):
            pooled = self.head.pooled(features, NOTHING)
            return outward(pooled if pre_logits else self.head.scores(pooled))
        return tokens if pre_logits else self.head(features, NOTHING)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NHWC", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The features and the maps at `indices` (the last n where it is a number), as timm gives them.

        `norm` applies the head's norm, where it comes before pooling, to maps of its width as well. With `stop_early`
        nothing behind the last of the maps runs; the features then are that map, with the head's norm where it has its
        width.
        """
        taps = self._indices(indices)
        last_map = max(taps) if stop_early and taps else None
        features, ctx = self._run(x, NOTHING.but(last_map=last_map), None, taps)
        maps = [features.of_map(i) for i in taps]
        shaped: list[Any] = []
        for i, one in zip(taps, maps, strict=True):
            if norm and isinstance(features.x, tuple):
                one.x = self._finished_branch(one.x, ctx, features.branch_of[i])
            elif norm:
                one.x = self._finished(one.x, ctx)
            if output_fmt == "NLC":
                shaped.append(one.x[:, one.prefix :] if one.x.dim() == 3 else one.x.flatten(1, -2))
            else:
                shaped.append(as_map(one.x, one, channels_last=output_fmt == "NHWC"))
        if return_prefix_tokens and features.prefix:
            shaped = [(m, one.x[:, : one.prefix]) for m, one in zip(shaped, maps, strict=True)]
        return shaped if intermediates_only else (_turned(self._finished(features.x, ctx)), shaped)

    # -------------------------------------------------------------------------------------------- timm's surface

    def get_classifier(self) -> nn.Module:
        """The last dense layer (identity where there is none)."""
        layers = [getattr(self.head, name, None) for name in ("fc", "scores")]
        return next((layer for layer in layers if isinstance(layer, nn.Module)), nn.Identity())

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh last layer for `num_classes` (none for 0), and another pooling where one is given."""
        if not isinstance(self.head, Classifier):
            raise CannotRun(f"{self.name} has no classifier to reset")
        changes: Node = {"num_classes": num_classes}
        if global_pool is not None:
            changes["pool"] = global_pool
        resolved = override(self.resolved, {f"head.{option}": value for option, value in changes.items()})
        _check_pool(resolved["head"]["pool"], self.head, self.body)
        like = next(self.parameters())
        self.head.set_classes(num_classes, self._std)
        self.head.set_pool(resolved["head"]["pool"], self._std)
        self.head.to(device=like.device, dtype=like.dtype).train(self.training)
        if num_classes != self.resolved["head"]["num_classes"]:  # names of classes that are gone
            self.extra = {key: value for key, value in self.extra.items() if key != "classes"}
        self.resolved = resolved
        kind, given = parse("head", self.spec["head"], "head")
        self.spec = {**self.spec, "head": {"kind": kind, **given, **changes}}

    def set_input_size(self, img_size: int | Sequence[int]) -> None:
        """Become an image model of another resolution: weights are kept, what is bound to a grid is resized by its
        declared rule. Parameters are new tensors, so do it before an optimizer is made. BadWeights without a rule."""
        from .published import resize

        size = list(img_size) if isinstance(img_size, Sequence) else img_size
        if override(self.resolved, {"stem.img_size": size}) != self.resolved:
            resize(self, size)

    def set_distilled_training(self, enable: bool = True) -> None:
        """Whether a head with two classifiers gives the outputs of both in training, as it does unless told otherwise;
        else training gives what evaluation does. Heads with one classifier are as they were."""
        self.head.set_apart(enable)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: blocks are worked out again in the backward pass."""
        for body in self._bodies():
            body.checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that group parameters by depth, for layer-wise learning rates; `coarse`: by stage."""
        groups = self.body.groups()
        return {
            "stem": r"^stem" if groups.first is None else rf"^stem|^body\.(?:{groups.first})",
            "blocks": [
                *((rf"^body\.(?:{name})", last or None) for name, last in (groups.coarse if coarse else groups.depths)),
                (r"^head\.norm", (99999,)),  # timm's number for what goes with the last block
                (r"^head", (100000,)),
            ],
        }

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone, vectors apart."""
        names = {
            f"{path}.{name}" if path else name
            for path, module in self.named_modules()
            if isinstance(module, Part)
            for name in module.undecayed
        }
        return {name for name, _ in self.named_parameters() if name in names}

    # -------------------------------------------------------------------------------------------- saving, loading

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` into `folder`; nothing else is needed to load the model."""
        saving.save(self, Path(folder))

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Model:
        """The model saved in a folder, a run's included, or in a repository of the Hugging Face hub
        (`hf-hub:owner/name`).

        Runs no code from there. BadFile says what is missing, altered or damaged.
        """
        return saving.load(cls, source, revision=revision)

    def push_to_hub(self, repo_id: str, *, private: bool = False, commit_message: str = "Upload model") -> str:
        """Save the model into a repository of the Hugging Face hub; returns its address."""
        return saving.push(self, repo_id, private=private, message=commit_message)

    def load_published(
        self, source: str | Path | Mapping[str, Tensor], *, img_size: int | list[int] | None = None
    ) -> list[str]:
        """Load weights under the authors', timm's, transformers' or formery's own names; returns the names that had no
        use here.

        Averaged weights are taken before raw ones where a file has both. Adopts what dialect and checkpoint imply
        (order of norm and pooling, classes, resolution), rebuilding those nodes; `img_size` asks for another
        resolution, to which bound tables are resized. BadWeights lists every name that could not be placed.
        """
        from .published import load_published

        return load_published(self, source, img_size=img_size)

    def to_published(self, dialect: str = "authors") -> dict[str, Tensor]:
        """The weights under published names: those of `dialect`, "formery" for its own.

        BadWeights where there is no such dialect, and where the models it is of are other functions (another order of
        norm and pooling); where only an epsilon differs, the log says so.
        """
        from .published import to_published

        return to_published(self, dialect)

    def rebuild(self, spec: Mapping[str, Any]) -> None:
        """Become the model of another spec, on the same device and in the same dtype, with fresh weights."""
        like = next(self.parameters())
        device, dtype, training, apart = like.device, like.dtype, self.training, self.head.apart
        with torch.device(device):
            self._build(spec)
        if not apart:
            self.head.set_apart(False)
        self.plans = []
        self.to(dtype=dtype).train(training)

    def reset_derived(self) -> None:
        """Make every buffer that follows from the options again; called after loading."""
        for module in self.modules():
            if isinstance(module, Part):
                module.reset_derived()

    def extra_repr(self) -> str:
        return f"name={self.name}, head={in_short(self.resolved['head']['kind'])}"


def _alone(names: tuple[str, ...]) -> str | tuple[str, ...] | None:
    """Names as timm gives them: one by itself, several as a tuple."""
    return names if len(names) > 1 else next(iter(names), None)


def _turned(x: Any) -> Any:
    """Features as they are given out: maps with channels first, several tensors as a list."""
    if isinstance(x, tuple):
        return [_turned(tokens) for tokens in x]
    return outward(x)


def _check_pool(pool: str, head: Classifier, body: Body) -> None:
    if pool == "token" and body.num_prefix < head.num_tokens:
        needed = "a class token" if head.num_tokens == 1 else f"{head.num_tokens} prefix tokens"
        raise BadSpec(f"head.pool: 'token' needs {needed}; set body.prefix to {head.num_tokens}, or pool otherwise")


def _check_bounds(inputs: Tensor, bounds: Tensor) -> None:
    """CannotRun unless the sequences packed along one row cover its tokens, each once."""
    if inputs.shape[0] != 1:
        raise CannotRun(f"bounds: packed sequences stand in one row, got {inputs.shape[0]} rows; join them along it")
    length, wrong = inputs.shape[1], bounds.dim() != 1 or bounds.is_floating_point() or bounds.dtype == torch.bool
    at = [] if wrong else bounds.tolist()
    if len(at) < 2 or at[0] != 0 or at[-1] != length or any(a >= b for a, b in pairwise(at)):
        given = f"{bounds.dtype} {list(bounds.shape)}" if wrong else at if len(at) < 9 else f"{at[:8]} and so on"
        raise CannotRun(f"bounds: offsets of packed sequences rise from 0 to the {length} tokens, got {given}")


def _places(ctx: Context) -> Tensor | None:
    """Positions of the real tokens, padding not counted."""
    if ctx.positions is not None or ctx.padding is None:
        return ctx.positions
    return ((~ctx.padding).long().cumsum(1) - 1).clamp(min=0)
