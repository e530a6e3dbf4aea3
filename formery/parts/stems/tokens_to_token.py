"""Tokens to token: an image split softly again and again, with a small block between (T2T-ViT, arXiv 2101.11986)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from ...context import Context
from ...errors import BadSpec
from ...ops.soft_split import soft_split, split_size
from ..convolution import check_kernel
from ..dense import Dense
from ..part import idle
from .stem import Stem, check_images, image_size
from .token_blocks import TokenBlock, TokenPerformer, TokenTransformer

Split = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=3, max_length=3)]


class TokensToToken(Stem):
    """`splits`, each (size, stride, padding): a map's overlapping patches become its next tokens. Between them stands a
    block that narrows tokens to `inner` channels and lets all see all; behind the last a dense layer to the width.

    The block's attention is by `features` random features (performer, linear in the pixels; `stabilise` guards its
    exponents) or softmax. One split alone is a convolution. (B, in_chans, H, W) in, any size.
    """

    EXAMPLES = (
        {"dim": 8, "inner": 4, "features": 3},
        {"dim": 8, "inner": 4, "attention": "softmax", "splits": [[5, 4, 1], [3, 2, 1]]},
        {"dim": 8, "inner": 4, "features": 6, "stabilise": True, "splits": [[3, 2, 1], [3, 2, 1]]},
    )
    modality = "image"
    first = None
    writes = ("project",)

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        attention: Literal["performer", "softmax"] = "performer",
        inner: Annotated[int, Field(gt=0)] = 64,
        features: Annotated[int, Field(gt=0)] = 32,
        stabilise: bool = False,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        splits: Annotated[list[Split], Field(min_length=1)] = [[7, 4, 2], [3, 2, 1], [3, 2, 1]],  # noqa: B006
        in_chans: Annotated[int, Field(gt=0)] = 3,
        img_size: int | Annotated[list[int], Field(min_length=2, max_length=2)] = 224,
    ) -> None:
        super().__init__()
        if attention == "softmax":
            idle(TokensToToken, "with softmax attention", features=features, stabilise=stabilise)
        self.dim, self.channels_in, self.splits = dim, in_chans, [tuple(split) for split in splits]
        self.grid = image_size(img_size)
        for size, stride, padding in self.splits:
            if size < 1 or stride < 1:
                raise BadSpec(f"splits: size and stride are at least 1, got {[size, stride, padding]}")
            self.stride *= stride
            self.grid = tuple(split_size(n, size, stride, padding) for n in self.grid)
            if min(self.grid) < 1:
                raise BadSpec(f"img_size {img_size} is too small for these splits; take a larger one")
        widths = [size * size * (inner if i else in_chans) for i, (size, _, _) in enumerate(self.splits)]

        def block(wide: int) -> TokenBlock:
            if attention == "softmax":
                return TokenTransformer(wide, inner, dropout=dropout)
            return TokenPerformer(wide, inner, features=features, stabilise=stabilise, dropout=dropout)

        self.blocks = nn.ModuleList(block(wide) for wide in widths[:-1])
        self.project = Dense(widths[-1], dim)

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        check_images(inputs, self.channels_in)
        x = _split(inputs.movedim(1, -1), *self.splits[0])
        for block, split in zip(self.blocks, self.splits[1:], strict=True):
            grid = x.shape[1:3]
            x = _split(block(x.flatten(1, 2), ctx).unflatten(1, grid), *split)
        return self.project(x), ctx


def _split(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
    check_kernel(x.shape[1:3], (size, size), (padding, padding))
    return soft_split(x, size, stride, padding)
