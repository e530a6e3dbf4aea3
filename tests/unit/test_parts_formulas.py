"""Parts against their formulas, written out once more and plainly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formery.context import NOTHING, Context
from formery.errors import BadSpec
from formery.ops import linear_attention, random_features, soft_split
from formery.parts.activations import ACTIVATIONS
from formery.parts.heads.head import Features
from formery.parts.stems.token_blocks import TokenPerformer
from formery.spec import Place, build
from tests.contract.subjects import moved

DIM = 16


@pytest.fixture(autouse=True)
def _double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make(role: str, spec: Any, *args: int, grid: tuple[int, ...] = (), dim: int = DIM) -> Any:
    """A part in evaluation with moved parameters."""
    return moved(build(role, spec, dim, *args, place=Place(grid=grid))).eval()


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-9)


# ------------------------------------------------------------------------------------------------ norms


def test_layer_norm() -> None:
    norm, x = make("norm", {"kind": "layer", "eps": 1e-3}), torch.randn(2, 5, DIM) + 3
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    close(norm(x), (x - mean) / (variance + 1e-3).sqrt() * norm.weight + norm.bias)


def test_rms_norm() -> None:
    norm, x = make("norm", {"kind": "rms", "eps": 1e-3, "bias": True}), torch.randn(2, 5, DIM) + 3
    close(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight + norm.bias)


def test_group_norm_of_one_group() -> None:
    norm, x = make("norm", {"kind": "group1", "eps": 1e-3}), torch.randn(2, 3, 4, DIM) + 3
    plain = nn.GroupNorm(1, DIM, eps=1e-3)
    plain.load_state_dict(norm.state_dict())
    close(norm(x), plain(x.movedim(-1, 1)).movedim(1, -1))


def test_batch_norm() -> None:
    norm, x = make("norm", "batch").train(), torch.randn(4, 3, 5, DIM) + 3
    plain = nn.BatchNorm2d(DIM)
    plain.load_state_dict(norm.state_dict() | {"num_batches_tracked": torch.tensor(0)})
    for _ in range(3):
        close(norm(x), plain(x.movedim(-1, 1)).movedim(1, -1))
    close(norm.running_mean, plain.running_mean)
    close(norm.running_var, plain.running_var)


# ------------------------------------------------------------------------------------------------ channel mixers


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_mlp(activation: Any) -> None:
    formulas = {
        "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
        "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "relu": lambda x: x.clamp(min=0),
        "relu2": lambda x: x.clamp(min=0) ** 2,
        "silu": lambda x: x / (1 + (-x).exp()),
        "tanh": torch.tanh,
    }
    mlp, x = make("channel", {"kind": "mlp", "ratio": 1.5, "activation": activation}), torch.randn(2, 5, DIM)
    assert mlp.expand.weight.shape == (24, DIM)
    hidden = formulas[activation](x @ mlp.expand.weight.T + mlp.expand.bias)
    close(mlp(x), hidden @ mlp.reduce.weight.T + mlp.reduce.bias)


def test_swiglu() -> None:
    swiglu, x = make("channel", "swiglu"), torch.randn(2, 5, DIM)
    assert swiglu.reduce.weight.shape == (DIM, 48)  # 8/3 of 16, up to the next multiple of 8
    gate, up = swiglu.expand.weight[:48], swiglu.expand.weight[48:]
    gated = x @ gate.T
    close(swiglu(x), (gated / (1 + (-gated).exp()) * (x @ up.T)) @ swiglu.reduce.weight.T)


# ------------------------------------------------------------------------------------------------ mixers


def attended(mixer: Any, x: Tensor, visible: Tensor) -> Tensor:
    """Softmax attention head by head; `visible` (L, L) says which key (column) a query (row) sees."""
    q, k, v = (x @ mixer.qkv.weight.T + mixer.qkv.bias).split(mixer.widths, dim=-1)[:3]
    heads, group, width = [], mixer.heads // mixer.kv_heads, mixer.head_dim
    for head in range(mixer.heads):
        own, shared = slice(head * width, (head + 1) * width), slice(head // group * width, (head // group + 1) * width)
        scores = q[..., own] @ k[..., shared].mT / math.sqrt(width)
        heads.append(scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v[..., shared])
    return torch.cat(heads, dim=-1) @ mixer.out.weight.T + mixer.out.bias


@pytest.mark.parametrize(
    ("options", "causal"),
    [
        ({"heads": 4}, False),
        ({"heads": 4}, True),
        ({"heads": 4, "kv_heads": 2}, True),
        ({"heads": 3, "head_dim": 6}, False),
        ({"heads": 4, "window": 1}, True),
        ({"heads": 4, "window": 4}, True),
        ({"heads": 4, "window": 40}, True),
        ({"heads": 4, "window": 4}, False),
    ],
)
def test_attention(options: dict[str, Any], causal: bool) -> None:
    mixer, x = make("mixer", {"kind": "attention", **options}), torch.randn(2, 12, DIM)
    visible = torch.ones(12, 12, dtype=torch.bool)
    if causal:
        visible = visible.tril().triu(1 - options.get("window", 12))
    close(mixer(x, Context(causal=causal)), attended(mixer, x, visible))


def test_attention_over_maps_is_over_their_tokens() -> None:
    mixer, x = make("mixer", {"kind": "attention", "heads": 4}), torch.randn(2, 3, 4, DIM)
    close(mixer(x).flatten(1, 2), attended(mixer, x.flatten(1, 2), torch.ones(12, 12, dtype=torch.bool)))


def test_rotary_attention_sees_distances_only() -> None:
    mixer, x = make("mixer", {"kind": "attention", "heads": 4, "position": "rope"}), torch.randn(2, 12, DIM)
    near, far = (mixer(x, Context(causal=True, positions=torch.arange(12) + shift)) for shift in (0, 1000))
    torch.testing.assert_close(far, near, rtol=1e-3, atol=1e-3)  # angles are float32
    apart = mixer(x, Context(causal=True, positions=2 * torch.arange(12)))
    assert (apart - near).abs().max() > 0.01


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_turns_pairs(interleaved: bool) -> None:
    rope = make("position", {"kind": "rope", "theta": 100.0, "fraction": 0.5, "interleaved": interleaved}, dim=8)
    x = torch.randn(1, 1, 7, 8)
    y = rope(x)
    close(y[..., 4:], x[..., 4:])
    for pair, rate in ((0, 1.0), (1, 0.1)):
        a, b = (2 * pair, 2 * pair + 1) if interleaved else (pair, pair + 2)
        turned = torch.complex(x[..., a], x[..., b]) * torch.polar(torch.ones(7), rate * torch.arange(7.0))
        torch.testing.assert_close(torch.complex(y[..., a], y[..., b]), turned, rtol=1e-6, atol=1e-6)


def test_yarn_raises_what_it_turns() -> None:
    options = {"kind": "yarn", "factor": 4.0, "trained": 16, "fraction": 0.5}
    plain, raised = (make("position", options | {"gain": gain}, dim=8) for gain in (1.0, 1.5))
    x = torch.randn(1, 2, 7, 8)
    torch.testing.assert_close(raised(x)[..., :4], 1.5 * plain(x)[..., :4], rtol=1e-6, atol=1e-6)  # float32 tables
    close(raised(x)[..., 4:], x[..., 4:])
    memo: dict[Any, Any] = {}  # of one forward with layers of both
    for position in (plain, raised):
        close(position(x, Context(memo=memo)), position(x))


def test_pooling() -> None:
    mixer, x = make("mixer", {"kind": "pooling", "size": 3}, grid=(4, 5)), torch.randn(2, 4, 5, DIM)
    for i, j in ((0, 0), (1, 2), (3, 4), (0, 3)):
        near = x[:, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
        close(mixer(x)[:, i, j], near.mean((1, 2)) - x[:, i, j])
    with pytest.raises(BadSpec, match="size is an odd number, got 4"):
        make("mixer", {"kind": "pooling", "size": 4}, grid=(4, 5))


def test_depthwise_convolutions() -> None:
    mixer, x = make("mixer", {"kind": "depthwise_conv", "size": 3}, grid=(6, 5)), torch.randn(2, 6, 5, DIM)
    weight = mixer.conv.weight
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    expected = sum(padded[:, i : i + 6, j : j + 5] * weight[:, 0, i, j] for i in range(3) for j in range(3))
    close(mixer(x), expected + mixer.conv.bias)
    along, x = make("mixer", {"kind": "depthwise_conv", "size": 4}, grid=(12,)), torch.randn(2, 12, DIM)
    back = F.pad(x, (0, 0, 3, 0))
    expected = sum(back[:, i : i + 12] * along.conv.weight[:, 0, i] for i in range(4))
    close(along(x, Context(causal=True)), expected + along.conv.bias)
    both = F.pad(x, (0, 0, 1, 2))
    expected = sum(both[:, i : i + 12] * along.conv.weight[:, 0, i] for i in range(4))
    close(along(x), expected + along.conv.bias)
    with pytest.raises(BadSpec, match="size is a positive number, odd on maps and videos, got 4"):
        make("mixer", {"kind": "depthwise_conv", "size": 4}, grid=(6, 5))


def test_mixers_of_a_fixed_number_of_tokens() -> None:
    x = torch.randn(2, 3, 4, DIM)
    flat = x.flatten(1, 2)
    random = make("mixer", "random", grid=(3, 4))
    close(random.matrix.sum(-1), torch.ones(12))
    close(random(x).flatten(1, 2), torch.einsum("nm,bmc->bnc", random.matrix, flat))
    fc = make("mixer", {"kind": "spatial_fc", "bias": True}, grid=(3, 4))
    close(fc(x).flatten(1, 2), torch.einsum("nm,bmc->bnc", fc.mix.weight, flat) + fc.mix.bias[:, None])
    mlp = make("mixer", {"kind": "spatial_mlp", "ratio": 1.5, "activation": "relu"}, grid=(3, 4))
    hidden = (torch.einsum("nm,bmc->bnc", mlp.expand.weight, flat) + mlp.expand.bias[:, None]).relu()
    close(mlp(x).flatten(1, 2), torch.einsum("nm,bmc->bnc", mlp.reduce.weight, hidden) + mlp.reduce.bias[:, None])


def test_gated_deltanet_token_by_token() -> None:
    """Equation 10 of the paper, with convolution, gate and norm around it."""
    options = {"heads": 2, "value_heads": 4, "head_dim": 4, "value_dim": 5, "conv": 3, "negative": True}
    mixer, x = make("mixer", {"kind": "gated_deltanet", **options}), torch.randn(1, 9, DIM)
    mixed, gate, decay, beta = (x @ mixer.project.weight.T)[0].split(mixer.widths, dim=-1)
    past = F.pad(mixed, (0, 0, 2, 0))
    mixed = F.silu(sum(past[i : i + 9] * mixer.conv[:, i] for i in range(3)))
    q, k, v = mixed.split([8, 8, 20], dim=-1)
    S, outputs = torch.zeros(4, 4, 5), []
    for t in range(9):
        heads = []
        for h in range(4):
            key, query = k[t].view(2, 4)[h // 2], q[t].view(2, 4)[h // 2]
            key, query = key / (key.square().sum() + 1e-6).sqrt(), query / (query.square().sum() + 1e-6).sqrt() / 2
            alpha = (-mixer.log_rate[h].exp() * F.softplus(decay[t, h] + mixer.step_bias[h])).exp()
            S[h] = alpha * S[h]
            S[h] = S[h] + torch.outer(key, 2 * beta[t, h].sigmoid() * (v[t].view(4, 5)[h] - S[h].T @ key))
            o = S[h].T @ query
            heads.append(o / (o.square().mean() + 1e-5).sqrt() * mixer.norm)
        outputs.append(torch.cat(heads) * F.silu(gate[t]))
        S = S.clone()
    close(mixer(x)[0], torch.stack(outputs) @ mixer.out.weight.T)


# ------------------------------------------------------------------- positions, stems, merges, heads


def test_sines_and_cosines() -> None:
    along, x = make("position", {"kind": "sincos", "base": 100.0}, grid=(7,)), torch.zeros(1, 7, DIM)
    for place, channel in ((0, 0), (3, 2), (6, 7)):
        rate = 100.0 ** (-channel / 8)
        assert along(x)[0, place, channel].item() == pytest.approx(math.sin(place * rate), abs=1e-6)
        assert along(x)[0, place, 8 + channel].item() == pytest.approx(math.cos(place * rate), abs=1e-6)
    maps = make("position", "sincos", grid=(3, 4))(torch.zeros(1, 3, 4, DIM))
    assert maps[0, 2, 1, 0].item() == pytest.approx(math.sin(2), abs=1e-6)
    assert maps[0, 2, 1, 8].item() == pytest.approx(math.sin(1), abs=1e-6)
    with pytest.raises(BadSpec, match="sincos over 2 axes needs a width that is a multiple of 4, got 6"):
        make("position", "sincos", grid=(3, 4), dim=6)


def test_patches_are_one_dense_layer() -> None:
    stem = moved(build("stem", {"kind": "patches", "dim": 5, "size": 2, "img_size": 6}))
    images = torch.randn(2, 3, 6, 6)
    patches = images.unflatten(2, (3, 2)).unflatten(4, (3, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3)
    close(stem(images, NOTHING)[0], patches @ stem.conv.weight.flatten(1).T + stem.conv.bias)


def test_tokens_are_scaled() -> None:
    stem = moved(build("stem", {"kind": "tokens", "dim": 5, "vocab": 9, "scale": 3.0}))
    close(stem(torch.tensor([[2, 8]]), NOTHING)[0], 3 * stem.embed.weight[[2, 8]][None])


def test_patch_merging_puts_neighbours_side_by_side() -> None:
    merge, x = make("merge", {"kind": "patch_merging", "norm": None}, 20, grid=(5, 4)), torch.randn(2, 5, 4, DIM)
    padded = F.pad(x, (0, 0, 0, 0, 0, 1))
    order = [(0, 0), (1, 0), (0, 1), (1, 1)]  # column by column, as in the authors' code
    for i, j in ((0, 0), (2, 1)):
        together = torch.cat([padded[:, 2 * i + di, 2 * j + dj] for di, dj in order], dim=-1)
        close(merge(x)[:, i, j], together @ merge.reduce.weight.T)
    assert merge.new_grid((5, 4)) == (3, 2)


def test_classes_from_maps() -> None:
    x = torch.randn(2, 3, 4, DIM)
    for order in ("norm_pool", "pool_norm"):
        head = make("head", {"kind": "classes", "num_classes": 3, "order": order})
        pooled = head.norm(x).mean((1, 2)) if order == "norm_pool" else head.norm(x.mean((1, 2)))
        features = Features(head.finish(x, NOTHING))
        close(head(features, NOTHING), pooled @ head.fc.weight.T + head.fc.bias)
    largest = make("head", {"kind": "classes", "num_classes": 0, "pool": "max", "norm": None})
    close(largest(Features(x), NOTHING), x.amax((1, 2)))


# ------------------------------------------------------------------------------------------------ schemes


def written_out(kind: str, x: Tensor, f: Any, g: Any, norms: Any, scales: Any) -> Tensor:
    """One block of two sublayers, as the papers write it."""
    a, b = norms
    s, t = scales
    if kind == "pre":
        y = x + s(f(a(x)))
        return y + t(g(b(y)))
    if kind == "post":
        y = a(x + s(f(x)))
        return b(y + t(g(y)))
    if kind == "reordered":
        y = x + s(a(f(x)))
        return y + t(b(g(y)))
    if kind == "single":
        return x + t(g(b(f(x))))
    assert kind == "ladder"
    y = x + s(f(a(x)))  # what the second sublayer reads is still x
    return y + t(g(b(x)))


@pytest.mark.parametrize("kind", ["pre", "post", "reordered", "single", "ladder"])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_schemes(kind: str, scale: float | None) -> None:
    scheme, x = make("scheme", {"kind": kind, "scale": scale}, 2), torch.randn(2, 5, DIM)
    f, g = torch.tanh, lambda x: torch.roll(x, 1, dims=-1) * 2
    stream = scheme.start(x)
    for index, sublayer in enumerate((f, g)):
        stream = scheme.step(stream, index, sublayer, NOTHING)
    close(scheme.finish(stream), written_out(kind, x, f, g, scheme.norms, scheme.scales))


def test_the_ladder_goes_on_from_block_to_block() -> None:
    """Each sublayer reads the sum of the input and all outputs but the last one's (arXiv 2501.06589, equation 2)."""
    body = {"kind": "stack", "depth": 3, "mixer": {"kind": "attention", "heads": 2}, "scheme": "ladder"}
    stack, x = make("body", body, grid=(5,)), torch.randn(2, 5, DIM)
    outputs: list[Tensor] = []
    for block in stack.blocks:
        for sublayer, norm in zip((block.mixer, block.channel), block.scheme.norms, strict=True):
            read = x + sum(outputs[:-1], torch.zeros_like(x))
            outputs.append(sublayer(norm(read)))
    close(stack(x, NOTHING).x, x + sum(outputs))


def test_blocks_of_different_schemes_follow_each_other() -> None:
    """Where the scheme changes, what is pending is added first."""
    blocks = {"a": {"mixer": None, "scheme": "ladder"}, "b": {"mixer": None, "scheme": "post"}}
    stack, x = make("body", {"kind": "stack", "layout": "a b a", "blocks": blocks}, grid=(5,)), torch.randn(2, 5, DIM)
    expected = x
    for block in stack.blocks:
        expected = block.scheme.finish(block(block.scheme.start(expected), NOTHING))
    close(stack(x, NOTHING).x, expected)


@torch.no_grad()
def test_global_response() -> None:
    """Each channel by its norm over the grid beside the mean norm, by hand; without gradients and with them."""
    from formery.parts.norms.global_response import GlobalResponse

    norm, x = GlobalResponse(5).double(), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    norm.weight.normal_()
    norm.bias.normal_()
    energy = (x**2).sum((1, 2)).sqrt()
    wanted = x + norm.weight * (energy / (energy.mean(-1, keepdim=True) + 1e-6))[:, None, None] * x + norm.bias
    torch.testing.assert_close(norm(x), wanted, rtol=1e-12, atol=1e-12)
    with torch.enable_grad():
        torch.testing.assert_close(norm(x), wanted, rtol=1e-12, atol=1e-12)
        silent = torch.zeros(1, 2, 2, 5, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.grad(norm(silent).sum(), silent)[0].isfinite().all()


# ------------------------------------------------------------------------------------------------ sequence pooling


def test_sequence_pooling() -> None:
    head, x = (
        make("head", {"kind": "classes", "num_classes": 3, "pool": "sequence", "norm": None}),
        torch.randn(2, 5, DIM),
    )
    weights = (x @ head.weigh.weight[0] + head.weigh.bias).softmax(-1)
    expected = head.fc((weights[..., None] * x).sum(1))
    close(head(Features(x), NOTHING), expected)
    close(head(Features(torch.cat([x[:, :2], x], 1), prefix=2), NOTHING), expected)  # a prefix is not the sequence


def test_scheme_between() -> None:
    """The stream itself is normed between the sublayers (the block of CCT's authors)."""
    scheme, x = make("scheme", "between", 2), torch.randn(2, 5, DIM)
    first, second = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
    stream = scheme.step(scheme.start(x), 0, first, NOTHING)
    y = scheme.finish(scheme.step(stream, 1, second, NOTHING))
    middle = scheme.norms[1](x + first(scheme.norms[0](x)))
    close(y, middle + second(middle))


def test_learned_positions_that_begin_as_sines() -> None:
    part = build("position", {"kind": "learned", "init": "sine", "prefix": 1}, DIM, place=Place(grid=(3, 4)))
    rows = torch.cat([part.prefix, part.table.flatten(0, 1)])
    place, channel = torch.arange(13.0)[:, None], torch.arange(DIM)
    angles = place / 10000 ** (2 * (channel // 2) / DIM)
    close(rows, torch.where(channel % 2 == 0, angles.sin(), angles.cos()))
    assert part.table.requires_grad
    frozen = build("position", {"kind": "learned", "init": "sine", "frozen": True}, DIM, place=Place(grid=(12,)))
    assert not frozen.table.requires_grad
    close(frozen.table, rows[:12])
    with pytest.raises(BadSpec, match="std has no effect where the table begins as sines"):
        build("position", {"kind": "learned", "init": "sine", "std": 0.1}, DIM, place=Place(grid=(12,)))


# ------------------------------------------------------------------------------------------------ T2T-ViT's stem


@pytest.mark.parametrize(("shape", "split"), [((9, 14, 3), (7, 4, 2)), ((6, 5, 4), (3, 2, 1)), ((4, 4, 2), (2, 2, 0))])
def test_soft_split(shape: tuple[int, int, int], split: tuple[int, int, int]) -> None:
    x = torch.randn(2, *shape)
    assert torch.equal(soft_split.soft_split(x, *split), soft_split.reference(x, *split))


def test_linear_attention_of_all_tokens() -> None:
    q, k, v = torch.rand(2, 3, 7, 5), torch.rand(2, 3, 7, 5), torch.randn(2, 3, 7, 4)
    close(linear_attention.linear_attention(q, k, v, 1e-3), linear_attention.reference(q, k, v, 1e-3))


def test_random_features() -> None:
    x, draws = torch.randn(3, 7, 5), random_features.gaussian_rows(11, 5).double()
    plain = torch.stack([(x @ w - (x * x).sum(-1) / 2).exp() for w in draws], dim=-1) / 11**0.5
    found, largest = random_features.positive_features(x, draws)
    close(found, plain)
    assert not largest.any()
    for within in ((-1,), (-2, -1)):
        found, largest = random_features.positive_features(x, draws, within=within)
        close(found * largest.exp(), plain)
        assert found.max() <= 11**-0.5
    rows = random_features.orthogonal_rows(11, 5).double()
    torch.testing.assert_close(rows[:5] @ rows[:5].mT, torch.eye(5), atol=1e-6, rtol=0)
    many = random_features.gaussian_rows(20000, 5)
    torch.testing.assert_close((many.mT @ many / 20000), torch.eye(5, dtype=torch.float32), atol=0.05, rtol=0)


def test_random_features_are_wide_inside_autocast() -> None:
    """Exponents as large as 60 come out near what float64 has; half precision would be infinite, bfloat16 far off."""
    x = torch.full((1, 2, 4), 1.5, dtype=torch.float32)
    draws = torch.full((3, 4), 5.0, dtype=torch.float32)
    exact = random_features.positive_features(x.double(), draws.double())[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = random_features.positive_features(x, draws)[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=0)


def test_large_exponents_are_guarded() -> None:
    block, x = TokenPerformer(6, 4, features=8), 40 * torch.randn(2, 9, 6)
    with torch.no_grad():
        block.draws.mul_(20)
    block = block.float()
    block.stabilise = True
    assert block(x.float(), NOTHING).isfinite().all()
    before = block.draws.clone()
    block.redraw(torch.Generator().manual_seed(3))
    assert not torch.equal(before, block.draws)


def test_linear_attention_by_random_features_is_near_softmax() -> None:
    options = {"heads": 2, "feature": "random", "draws": 4096, "causal": False}
    mixer = build("mixer", {"kind": "linear_attention", **options}, DIM)
    x = torch.randn(2, 9, DIM) / 2
    q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in mixer.project(x).chunk(3, dim=-1))
    expected = mixer.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    assert (mixer(x) - expected).norm() < 0.05 * expected.norm()
    for wrong, message in (
        ({"causal": False, "normalise": False}, "set normalise to true"),
        ({"causal": False, "conv": 3}, "conv looks back alone"),
        ({"draws": 3}, "draws has no effect on feature 'elu'"),
    ):
        with pytest.raises(BadSpec, match=message):
            build("mixer", {"kind": "linear_attention", "heads": 2, **wrong}, DIM)
