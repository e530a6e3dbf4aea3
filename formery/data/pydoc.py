"""English text that comes with Python: the language reference as `help()` shows it (`pydoc_data.topics`), about 465 kB.

Its words differ a little from one Python release to the next; the digest in reports says which were read. Some passages
occur twice, in a topic and in the chapter it was taken from: `baselines` shows what copying alone achieves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .text import TextData


def pydoc(*, seed: int = 0, splits: Sequence[float] = (0.9, 0.05, 0.05)) -> TextData:
    """All topics, in the order of their names, as UTF-8 bytes."""
    from pydoc_data.topics import topics

    from .text import TextData

    text = "\n".join(topics[name] for name in sorted(topics))
    return TextData(text.encode(), name="pydoc", seed=seed, splits=splits)
