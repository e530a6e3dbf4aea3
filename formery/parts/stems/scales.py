"""One image at several sizes, each with a stem of its own (CrossViT, arXiv 2103.14899, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ... import registry
from ...context import Context
from ...errors import BadSpec
from ...spec import Place, StemSpec, build, resolve_part
from .stem import Stem, check_images, image_size

Size = int | Annotated[list[int], Field(min_length=2, max_length=2)]
Positive = Annotated[int, Field(gt=0)]
Stems = Annotated[list[StemSpec], Field(min_length=1)]
Ratios = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]


class Scales(Stem):
    """The image of `img_size` times each of `ratios` (to whole patches of the stem there), through each of `stems`.

    Tokens are a tuple, one tensor a stem. An image of another size is resized to the same sizes, bicubically and
    without antialiasing, so that every image gives these grids. `img_size` and `in_chans` of the stems follow from
    those here. (B, in_chans, H, W) in.
    """

    EXAMPLES = (
        {"stems": [{"kind": "patches", "dim": 8, "size": 4}, {"kind": "patches", "dim": 12, "size": 2}]},
        {
            "stems": [{"kind": "patches", "dim": 8, "size": 4}, {"kind": "convs", "widths": [4, 6], "norm": None}],
            "ratios": [1.0, 0.7],
        },
    )
    modality = "image"
    fixed_grid = True

    def __init__(
        self,
        *,
        stems: Stems,
        ratios: Ratios | None = None,
        in_chans: Positive = 3,
        img_size: Size = 224,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place, sized = place or Place("stem"), _sized(stems, ratios, in_chans, img_size)
        members = [build("stem", stem, place=place.at(f"stems.{i}")) for i, stem in enumerate(sized)]
        self.stems, self.channels_in = nn.ModuleList(members), in_chans
        self.sides = [image_size(stem["img_size"]) for stem in sized]
        self.first = tuple(f"stems.{i}.{member.first}" for i, member in enumerate(members))
        self.dim = tuple(member.dim for member in members)
        self.grid = tuple(member.grid for member in members)
        self.stride = tuple(image_size(img_size)[0] / member.grid[0] for member in members)

    @classmethod
    def is_full(cls, given: Mapping[str, Any]) -> bool:
        """Never known without working out the stems' sizes."""
        return False

    @classmethod
    def shorthand(
        cls, *, stems: Stems, ratios: Ratios | None = None, in_chans: Positive = 3, img_size: Size = 224
    ) -> dict[str, Any]:
        """The same, with the size of the image that each stem sees."""
        sized = _sized(stems, ratios, in_chans, img_size)
        return {"stems": sized, "ratios": ratios, "in_chans": in_chans, "img_size": img_size}

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[tuple[Tensor, ...], Context]:
        check_images(inputs, self.channels_in)
        return tuple(
            stem(_resized(inputs, side), ctx)[0] for stem, side in zip(self.stems, self.sides, strict=True)
        ), ctx


def _resized(images: Tensor, side: tuple[int, int]) -> Tensor:
    """The images at this size. Where an exporter leaves theirs open they always pass the resize, which changes nothing
    of an image that has the size already."""
    size = images.shape[-2:]
    same = all(isinstance(n, int) for n in size) and tuple(size) == side
    return images if same else F.interpolate(images, side, mode="bicubic")


def _sized(
    stems: Sequence[Any], ratios: Sequence[float] | None, in_chans: int, img_size: int | list[int]
) -> list[dict[str, Any]]:
    """The stems' options with the size of the image that each sees, to whole patches of it."""
    ratios = [1.0] * len(stems) if ratios is None else ratios
    if len(ratios) != len(stems):
        raise BadSpec(f"ratios: one for each of the {len(stems)} stems, got {len(ratios)}")
    found = []
    for i, (stem, ratio) in enumerate(zip(stems, ratios, strict=True)):
        node = resolve_part("stem", stem, f"stems.{i}")
        if "img_size" not in node:
            raise BadSpec(f"stems.{i}: {node['kind']!r} takes no images; scales are of images")
        multiple = registry.find("stem", node["kind"]).multiple(node)
        sides = [max(1, round(side * ratio / multiple)) * multiple for side in image_size(img_size)]
        found.append(node | {"img_size": sides[0] if sides[0] == sides[1] else sides, "in_chans": in_chans})
    return found
