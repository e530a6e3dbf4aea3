"""The handwritten digits that come with scikit-learn: 1797 grey images of 8x8 pixels, ten classes.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .images import ImageData


def digits(
    *,
    seed: int = 0,
    image_size: int | Sequence[int] | None = None,
    splits: Sequence[float] = (0.7, 0.15, 0.15),
    split_seed: int = 0,
    shifts: int | None = None,
    zoom: float = 0.0,
    rotation: float = 0.0,
    augment: str | Mapping[str, Any] | None = None,
) -> ImageData:
    """The digits at their own 8x8 pixels, or resized (bilinear) to `image_size`."""
    from sklearn.datasets import load_digits

    from .arrays import ArrayData

    found = load_digits()
    return ArrayData(
        found.images,
        found.target,
        [str(name) for name in found.target_names],
        name="digits",
        white=16.0,
        seed=seed,
        image_size=image_size,
        splits=splits,
        split_seed=split_seed,
        shifts=shifts,
        zoom=zoom,
        rotation=rotation,
        augment=augment,
    )
