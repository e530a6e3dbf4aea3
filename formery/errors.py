"""What users can get wrong. Every message is one line that names the fault and the remedy."""

from __future__ import annotations


class FormeryError(Exception):
    """A mistake that its message tells how to mend; the command line prints it without a traceback and exits with 2."""


class UnknownName(FormeryError):
    """No part, system, variant, task or file format of that name."""


class BadSpec(FormeryError):
    """A spec, layout or override that no model can be built from."""


class BadData(FormeryError):
    """Data that cannot be learned from, or predicted on, as they are."""


class BadWeights(FormeryError):
    """A checkpoint whose tensors do not fit the model."""


class BadFile(FormeryError):
    """A file or folder that is missing, truncated, altered or of another kind than it should be."""


class CannotRewrite(FormeryError):
    """A rewrite that this model, or this order of rewrites, does not allow."""


class CannotExport(FormeryError):
    """A model that does not survive its export within the promised difference."""


class CannotRun(FormeryError):
    """A model asked for something that its parts do not do: streaming, another resolution, packed sequences."""


class MissingExtra(FormeryError):
    """A library that belongs to an extra which is not installed."""


class Unwritable(FormeryError):
    """An output that cannot be written where it was asked for."""
