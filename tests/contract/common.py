"""Checks that several roles share, as plain functions of a module and its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from formery.spec import options

Forward = Callable[[Tensor], Tensor]


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Equal but for rounding, relative to the size of what is expected."""
    assert actual.shape == expected.shape
    assert actual.isfinite().all()
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * max(1.0, expected.abs().max().item()))


def differ(actual: Tensor, expected: Tensor) -> bool:
    """Whether there is more than rounding between two tensors."""
    return bool((actual - expected).abs().max() > 1e-7 * expected.abs().max())


def joined(x: Any) -> Tensor:
    """Tokens as one tensor: themselves, or (B, all numbers of several tensors)."""
    return torch.cat([t.flatten(1) for t in x], dim=1) if isinstance(x, tuple) else x


def weighted(y: Tensor) -> Tensor:
    """A scalar that depends on every number of y, each in its own way."""
    weights = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return (y * weights.to(y)).sum()


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Its parameters by name, those apart that parts declare to be frozen; no others are without gradient."""
    frozen = {id(m.get_parameter(n)) for m in module.modules() for n in getattr(m, "frozen", ())}
    assert frozen == {id(p) for p in module.parameters() if not p.requires_grad}
    return {name: p for name, p in module.named_parameters() if id(p) not in frozen}


def check_gradients(module: nn.Module, forward: Forward, x: Tensor, *, slopes: bool = True) -> None:
    """A gradient for the input and every parameter; with `slopes`, along one direction, that which differences show."""
    x = x.clone().requires_grad_()
    parameters = trainable(module)
    tensors = [x, *parameters.values()]
    gradients = torch.autograd.grad(weighted(forward(x)), tensors, allow_unused=True)
    names = ["input", *parameters]
    without = [name for name, g in zip(names, gradients, strict=True) if g is None or not g.any()]
    assert not without, f"no gradient reaches {without}"
    if not slopes:
        return
    draw = torch.Generator().manual_seed(5)
    directions = [torch.randn(t.shape, dtype=t.dtype, generator=draw) for t in tensors]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
    assert isinstance(slope, Tensor)
    torch.testing.assert_close(_difference(forward, tensors, directions), slope, rtol=2e-5, atol=1e-6)


@torch.no_grad()
def _difference(forward: Forward, tensors: list[Tensor], directions: list[Tensor], step: float = 1e-6) -> Tensor:
    """The slope of `weighted(forward(x))` where input and parameters move along `directions`."""
    x, *parameters = tensors
    values = []
    for sign in (1, -1):
        for parameter, direction in zip(parameters, directions[1:], strict=True):
            parameter.add_(direction, alpha=sign * step)
        values.append(weighted(forward(x + sign * step * directions[0])))
        for parameter, direction in zip(parameters, directions[1:], strict=True):
            parameter.sub_(direction, alpha=sign * step)
    return (values[0] - values[1]) / (2 * step)


def check_batch(module: nn.Module, forward: Forward, x: Tensor) -> None:
    """Items of a batch do not see each other, in evaluation and in training."""
    close(forward(x)[:1], forward(x[:1]))
    close(forward(x)[1:], forward(x[1:]))
    assert not leaks(module, forward, x)


def leaks(module: nn.Module, forward: Forward, x: Tensor) -> bool:
    """Whether, in training, the first item's output depends on the other items."""
    module.train()
    x = x.clone().requires_grad_()
    gradient = torch.autograd.grad(weighted(forward(x)[:1]), x)[0]
    module.eval()
    return bool(gradient[1:].any())


def check_left_alone(module: nn.Module, forward: Callable[[], Any]) -> None:
    """A forward in evaluation stores nothing on modules and changes no tensor of theirs."""
    before = {path: set(vars(m)) for path, m in module.named_modules()}
    tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    forward()
    assert {path: set(vars(m)) for path, m in module.named_modules()} == before
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in module.state_dict().items())


def check_half(make: Callable[[torch.dtype], nn.Module], x: Tensor, run: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """In bfloat16 the output is bfloat16, and near that of the same weights in float32."""
    half = make(torch.bfloat16)
    x = x.to(torch.bfloat16)
    with torch.no_grad():
        y = run(half, x)
        exact = run(make(torch.bfloat16).float(), x.float())
    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()
    error = (y.float() - exact).norm() / exact.norm()
    assert error < 0.03, f"bfloat16 is {error:.1%} off"


def check_compiles(module: nn.Module, xs: list[Tensor], run: Callable[[Tensor], Tensor]) -> None:
    """`torch.compile` finds one graph for each size, with the same values and gradients."""
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    for x in xs:
        x = x.clone().requires_grad_()
        (ours,) = torch.autograd.grad(weighted(compiled(x)), x)
        (plain,) = torch.autograd.grad(weighted(run(x)), x)
        close(compiled(x), run(x))
        close(ours, plain)


class _Alone(nn.Module):
    """A module whose forward takes tensors only."""

    def __init__(self, module: nn.Module, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def check_exports(module: nn.Module, xs: list[Tensor], run: Callable[[Tensor], Tensor], free: list[int]) -> None:
    """One exported program, traced on the first input, serves all; the axes `free` are free in it."""
    sizes = dict.fromkeys(free, torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        program = torch.export.export(_Alone(module, run), (xs[0],), dynamic_shapes=(sizes,)).module()
        for x in xs:
            close(program(x), run(x))


def check_names(part: Any) -> None:
    """What a part declares by name is there."""
    for name in (*part.reads, *part.writes, *(n for pair in part.neighbours for n in pair)):
        found = part
        for step in name.split("."):
            found = getattr(found, step)
        assert found is None or isinstance(found, nn.Module | nn.Parameter), name
    tensors = {**dict(part.named_parameters()), **dict(part.named_buffers())}
    absent = {name for name in part.undecayed if not _optional(part, name)}
    assert absent <= tensors.keys()
    assert set(part.resizes) <= tensors.keys()
    assert set(part.unseen) <= options(type(part).__init__).keys()


def _optional(part: nn.Module, name: str) -> bool:
    """Whether the options left this tensor out."""
    owner, _, last = name.rpartition(".")
    return getattr(part.get_submodule(owner), last) is None


def linears(part: Any, names: tuple[str, ...]) -> list[nn.Module] | None:
    """The named linears and convolutions; None where there are none, or others among them."""
    modules = [part.get_submodule(name) if name in dict(part.named_modules()) else None for name in names]
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    return [m for m in modules if m is not None] if modules and all(isinstance(m, kinds) for m in modules) else None


def check_scales_fold(make: Callable[[], Any], run: Callable[[Any, Tensor], Tensor], x: Tensor) -> None:
    """Factors a channel of the input go into what `reads`, those of the output into what `writes`, where these are
    dense layers or convolutions: nothing else reads the tokens, nothing else writes them."""
    factors = torch.rand(x.shape[-1], dtype=x.dtype, generator=torch.Generator().manual_seed(9)) + 0.5
    with torch.no_grad():
        part = make()
        expected = run(part, x)
        readers = linears(part, part.reads)
        for module in readers or ():
            weight, groups = module.weight, getattr(module, "groups", 1)
            of_group = factors.view(groups, 1, -1, *(1,) * (weight.dim() - 2))
            weight.copy_((weight.unflatten(0, (groups, -1)) / of_group).flatten(0, 1))
        if readers:
            close(run(part, x * factors), expected)
        part = make()
        writers = linears(part, part.writes)
        for module in writers or ():
            module.weight.mul_(factors.view(-1, *(1,) * (module.weight.dim() - 1)))
            if module.bias is not None:
                module.bias.mul_(factors)
        if writers:
            close(run(part, x), expected * factors)
