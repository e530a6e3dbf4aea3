"""Which module is at work while a model runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from torch import nn


class Visitor(Protocol):
    """Told of every call of a module that it watches."""

    def enter(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None: ...

    def leave(self, path: str, module: nn.Module, output: Any) -> None: ...


@contextmanager
def watched(modules: Mapping[str, nn.Module], visitor: Visitor) -> Iterator[None]:
    """Tell `visitor` of calls of `modules` (by path) inside the block; the model is left as it was."""
    handles = []

    def watch(path: str, module: nn.Module) -> None:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            visitor.enter(path, module, args, kwargs)

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            visitor.leave(path, module, output)

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True, always_call=True))

    try:
        for path, module in modules.items():
            watch(path, module)
        yield
    finally:
        for handle in handles:
            handle.remove()
