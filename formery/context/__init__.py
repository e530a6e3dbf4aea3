"""What layers know beyond their input.

`Context` is shared by all layers of one forward. `Slot`, `Cache` and `Window` are what one causal layer carries from
chunk to chunk; a `State` is the tree of them that mirrors the modules, and a `Stream` is a model's state with the count
of its tokens.
"""

from __future__ import annotations

from .caches import Cache, Seen
from .shared import NOTHING, Context
from .slot import Slot
from .state import Leaf, State
from .stream import Stream
from .window import Window

__all__ = ["NOTHING", "Cache", "Context", "Leaf", "Seen", "Slot", "State", "Stream", "Window"]
