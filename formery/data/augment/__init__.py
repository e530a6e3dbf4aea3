"""Augmentation of batches of images, as pure functions of (seed, step): what is drawn never depends on what ran before.

Whatever computes the pixels, every random choice is drawn here, by `formery.data.chance`. The order is that of the
field: random resized crop or shifts, zoom and rotation; flip; a policy of operations or colour jitter; normalisation;
random erasing; mixup or cutmix.
"""

from .augmentation import Augmentation, augmentation_of, default_shifts

__all__ = ["Augmentation", "augmentation_of", "default_shifts"]
