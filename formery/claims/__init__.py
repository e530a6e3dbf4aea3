"""Claims: published statements with a bar and a check that can fail.

A card lists its claims; each names a function here that measures, and says whether the bar is met. `verify` runs them;
`formery verify` prints what was published beside what was measured.
"""

from __future__ import annotations

from .check import Measured, Progress, check
from .verifying import Verdict, verify

__all__ = ["Measured", "Progress", "Verdict", "check", "verify"]
