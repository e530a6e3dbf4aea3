"""UniFormer (arXiv 2201.09450, 2201.04676): local relations where maps are large, global ones where they are small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ...weights import Dialect, Rule

SIZES: dict[str, tuple[list[int], list[int]]] = {  # depths, dims: table 1 and the authors' code
    "small": ([3, 4, 8, 3], [64, 128, 320, 512]),
    "small_plus": ([3, 5, 9, 3], [64, 128, 320, 512]),
    "base": ([5, 8, 20, 7], [64, 128, 320, 512]),
    "large": ([5, 10, 24, 7], [128, 192, 448, 640]),
}
LIGHT: dict[str, tuple[list[int], list[int], int]] = {  # depths, dims, width of heads: the authors' code
    "xxs": ([2, 5, 8, 2], [56, 112, 224, 448], 28),
    "xs": ([3, 5, 9, 3], [64, 128, 256, 512], 32),
}
NORM = {"kind": "layer", "eps": 1e-6}
"""Of blocks with attention; the norms behind patch embeddings have eps 1e-5."""


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    size = name.removeprefix("uniformer_")
    if size.startswith("video_"):
        return video(*SIZES[size.removeprefix("video_")])
    if size in LIGHT:
        return light(*LIGHT[size])
    scale = 1e-6 if size.endswith("_ls") else None
    size = size.removesuffix("_ls")
    head_dim = 32 if size == "small_plus" else 64
    depths, dims = SIZES[size.removesuffix("_dim64")]
    return image(depths, dims, head_dim=head_dim, scale=scale, convs=size.startswith("small_plus"))


def image(
    depths: list[int],
    dims: list[int],
    *,
    head_dim: int = 64,
    scale: float | None = None,
    convs: bool = False,
) -> dict[str, Any]:
    """An image model: local relations in the first half of the stages, global ones in the second.

    With `convs` overlapping convolutions make and merge tokens, with batch norms; else patches, with layer norms.
    `scale` is the first value of the layer scales behind attention.
    """
    if convs:
        widths = [dims[0] // 2, dims[0]]
        stem: dict[str, Any] = {"kind": "convs", "widths": widths, "activation": "gelu", "last_activation": False}
        merge: dict[str, Any] = {"kind": "conv", "size": 3, "padding": 1, "out_norm": "batch"}
    else:
        stem = {"kind": "conv", "dim": dims[0], "size": 4, "stride": 4, "padding": 0, "norm": "layer"}
        merge = {"kind": "conv", "size": 2, "padding": 0, "out_norm": "layer"}
    blocks = [global_block(dim // head_dim, scale=scale) for dim in dims]
    return {"stem": stem, "body": _pyramid(depths, dims, blocks, merge), "head": HEAD}


def light(depths: list[int], dims: list[int], head_dim: int) -> dict[str, Any]:
    """A light image model: a class token from the third stage on, which keeps half of the tokens in all but the first.

    The others are updated through one token that stands for them. In training there are scores of the map and of the
    class token, in evaluation those of the map alone.
    """
    stem = {"kind": "convs", "widths": [dims[0] // 2, dims[0]], "activation": "gelu", "last_activation": False}
    merge = {"kind": "conv", "size": 2, "padding": 0, "out_norm": "layer"}
    blocks = [global_block(dim // head_dim, 3.0) for dim in dims]
    body = _pyramid(depths, dims, blocks, merge, ratio=3.0)
    for i in (2, 3):
        keep = [1.0 if i == 2 and j == 0 else 0.5 for j in range(depths[i])]
        body["stages"][i] |= {"kind": "slow_fast", "keep": keep, "token": "new" if i == 2 else "carried"}
    return {"stem": stem, "body": body, "head": {"kind": "map_and_token", "norm": "batch"}}


def video(
    depths: list[int],
    dims: list[int],
    *,
    head_dim: int = 64,
    split: bool = False,
    overlap: bool = False,
    num_classes: int = 400,
) -> dict[str, Any]:
    """A video model: the image model's parts over time, height and width. The stem halves the frames.

    With `split` attention over time and attention over space take turns (the release's SPLIT); with `overlap` merges
    look at the frames beside as well (its STD).
    """
    stem = {"size": [3, 4, 4], "stride": [2, 4, 4], "padding": [1, 0, 0]}
    size, padding = ([3, 2, 2], [1, 0, 0]) if overlap else ([1, 2, 2], [0, 0, 0])
    merge = {"kind": "conv", "size": size, "stride": [1, 2, 2], "padding": padding, "out_norm": "layer"}
    blocks = [(split_block if split else global_block)(dim // head_dim) for dim in dims]
    return {
        "stem": {"kind": "conv", "dim": dims[0], **stem, "norm": "layer", "frames": 16},
        "body": _pyramid(depths, dims, blocks, merge),
        "head": HEAD | {"num_classes": num_classes},
    }


def dense(
    depths: list[int],
    dims: list[int],
    *,
    head_dim: int = 64,
    relations: Literal["global", "windows", "hybrid"] = "hybrid",
    window: int = 14,
) -> dict[str, Any]:
    """A backbone for dense prediction: the image model's maps, each with a norm of its own.

    In the third stage tokens of a `window` are related, or in every fourth block, if `hybrid`, all of them. What fills
    up a map that is no whole number of windows takes part, as in the published code.
    """
    spec = image(depths, dims, head_dim=head_dim)
    for number, block in enumerate(spec["body"]["stages"][2]["blocks"]):
        if relations == "windows" or (relations == "hybrid" and (number + 1) % 4):
            windowed = {"kind": "window_attention", "window": window, "position": None, "published": True}
            sublayers = [*block["sublayers"]]
            sublayers[1] = windowed | {"heads": block["sublayers"][1]["heads"]}
            spec["body"]["stages"][2]["blocks"][number] = block | {"sublayers": sublayers}
    return spec | {"head": {"kind": "features", "norm": NORM}}


HEAD = {"kind": "classes", "norm": "batch", "order": "norm_pool"}


def _pyramid(
    depths: list[int], dims: list[int], blocks: list[dict[str, Any]], merge: dict[str, Any], ratio: float = 4.0
) -> dict[str, Any]:
    """Local blocks in the first half of the stages, the given ones, one a stage, in the second."""
    stages = [
        {
            "kind": "stack",
            "dim_out": dims[i],
            "merge": merge if i else None,
            "blocks": [local_block(ratio) if i < len(dims) // 2 else blocks[i]] * depths[i],
        }
        for i in range(len(dims))
    ]
    return {"kind": "pyramid", "stages": stages}


POSITION = {"kind": "depthwise_conv", "size": 3}


def local_block(ratio: float = 4.0) -> dict[str, Any]:
    """Position, local relations, MLP (arXiv 2201.09450, equations 1 to 3)."""
    local = {"kind": "separable_conv", "ratio": 1.0, "size": 5}
    scheme = {"kind": "pre", "bare": [0], "norm": "batch"}
    return {"kind": "sequence", "sublayers": [POSITION, local, {"kind": "mlp", "ratio": ratio}], "scheme": scheme}


def global_block(heads: int, ratio: float = 4.0, scale: float | None = None) -> dict[str, Any]:
    """Position, relations between all tokens, MLP."""
    attention = {"kind": "attention", "heads": heads}
    scheme = {"kind": "pre", "bare": [0], "norm": NORM, "scale": scale}
    return {"kind": "sequence", "sublayers": [POSITION, attention, {"kind": "mlp", "ratio": ratio}], "scheme": scheme}


def split_block(heads: int, ratio: float = 4.0) -> dict[str, Any]:
    """Position, relations along time, which only those across space read, MLP."""
    attention = {"kind": "attention", "heads": heads}
    time = {"kind": "axial", "axes": [0], "mixer": attention, "zero_init": True}
    space = {"kind": "axial", "axes": [1, 2], "mixer": attention}
    scheme = {"kind": "detour", "aside": [1], "bare": [0], "norm": NORM}
    return {"kind": "sequence", "sublayers": [POSITION, time, space, {"kind": "mlp", "ratio": ratio}], "scheme": scheme}


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names."""
    ones = (2, 3, 4) if resolved["stem"].get("frames") else (2, 3)
    rules = [Rule("head.norm", "norm"), Rule("head.fc", "head"), *_embedding(resolved["stem"])]
    rules += [Rule("head.token_norm", "norm_cls"), Rule("head.token_fc", "head_cls")]
    rules += [Rule("head.norms.{i}", "norm{i+1}")]
    for i, stage in enumerate(resolved["body"]["stages"]):
        ours, theirs = f"body.stages.{i}", f"patch_embed{i + 1}"
        if stage["merge"]:
            batch = (stage["merge"].get("out_norm") or {}).get("kind") == "batch"
            rules.append(Rule(f"{ours}.merge.conv", f"{theirs}.proj.0" if batch else f"{theirs}.proj"))
            rules.append(Rule(f"{ours}.merge.out_norm", f"{theirs}.proj.1" if batch else f"{theirs}.norm"))
        if stage["kind"] == "slow_fast":
            rules += [Rule(f"{ours}.token", "cls_token"), Rule(f"{ours}.carry", "cls_upsample")]
        for j, block in enumerate(stage["blocks"]):
            rules += _rules_of_block(block, f"{ours}.blocks.{j}", f"blocks{i + 1}.{j}", ones)
    return [Dialect("authors", tuple(rules))]


def doubt(resolved: Mapping[str, Any], theirs: Mapping[str, Any], file: str) -> str | None:
    """Why these weights may have heads of another width than the model, which no shape shows; None if they have not.

    The authors' names of files tell: small_plus and token labelling (tl) have heads of 32 channels unless they say
    dim64, all others 64. Tensors without a file are taken for the model's, but for those of token labelling.
    """
    last = resolved["body"]["stages"][-1]
    heads = next((part.get("heads") for block in last["blocks"] for part in block.get("sublayers", ())[1:]), None)
    if not heads or last["kind"] == "slow_fast":
        return None
    ours, labelled = last["dim_out"] // heads, "aux_head.weight" in theirs
    if "uniformer_" not in file:
        if labelled and last["dim_out"] == 512:
            return (
                "these weights of token labelling have heads of 32 channels, or of 64 where their file is called "
                f"dim64, and no shape tells (here they have {ours}); give the file by its published name"
            )
        return None
    wide = "dim64" in file or "large" in file or not (labelled or "_tl_" in file or "small_plus" in file)
    if ours == (64 if wide else 32):
        return None
    theirs_heads = [stage["dim_out"] // (64 if wide else 32) for stage in resolved["body"]["stages"][2:]]
    change = {f"body.stages.{i}.mixer.heads": n for i, n in enumerate(theirs_heads, start=2)}
    return (
        f"{file} has heads of {64 if wide else 32} channels, this model of {ours}, which no shape tells; "
        f"build it with override={change}"
    )


def _embedding(stem: Mapping[str, Any]) -> list[Rule]:
    """The stem's tensors: with several convolutions, a sequence of convolution, norm and activation there."""
    if stem["kind"] != "convs":
        return [Rule("stem.conv", "patch_embed1.proj"), Rule("stem.norm", "patch_embed1.norm")]
    return [
        Rule("stem.convs.{i}", "patch_embed1.proj.{3i}"),
        Rule("stem.norms.{i}", "patch_embed1.proj.{3i+1}"),
    ]


def _rules_of_block(block: Mapping[str, Any], ours: str, theirs: str, ones: tuple[int, ...]) -> list[Rule]:
    """Sublayers by their order: position, over time where attention is divided, relations, MLP.

    `ones` are the axes of a 1 x 1 convolution's kernel, which dense layers are in blocks of local relations there.
    """
    sublayers = block.get("sublayers", ())
    last = len(sublayers) - 1
    rules = [Rule(f"{ours}.sublayers.0.conv", f"{theirs}.pos_embed")]
    if last == 3:
        time = f"{ours}.sublayers.1.mixer"
        rules += [Rule(f"{ours}.scheme.norms.1", f"{theirs}.t_norm"), *_attention(time, f"{theirs}.t_attn")]
    for n, number in ((last - 1, 1), (last, 2)):
        rules.append(Rule(f"{ours}.scheme.norms.{n}", f"{theirs}.norm{number}"))
        rules.append(Rule(f"{ours}.scheme.scales.{n}.weight", f"{theirs}.gamma_{number}"))
    mixer, mlp = f"{ours}.sublayers.{last - 1}", f"{ours}.sublayers.{last}"
    rules += [*_attention(mixer, f"{theirs}.attn"), *_attention(f"{mixer}.mixer", f"{theirs}.attn")]
    rules += [Rule(f"{mlp}.expand", f"{theirs}.mlp.fc1"), Rule(f"{mlp}.reduce", f"{theirs}.mlp.fc2")]
    if last > 0 and sublayers[last - 1]["kind"] == "separable_conv":
        dense = {f"{mixer}.expand": "conv1", f"{mixer}.reduce": "conv2"}
        rules += [Rule(f"{mixer}.conv", f"{theirs}.attn"), *(Rule(o, f"{theirs}.{t}") for o, t in dense.items())]
        dense |= {f"{mlp}.expand": "mlp.fc1", f"{mlp}.reduce": "mlp.fc2"}
        rules += [Rule(f"{o}.weight", f"{theirs}.{t}.weight", ones=ones) for o, t in dense.items()]
    return rules


def _attention(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}.qkv", f"{theirs}.qkv"), Rule(f"{ours}.out", f"{theirs}.proj")]
