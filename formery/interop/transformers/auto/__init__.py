"""Classes for transformers' Auto classes. Only this package needs transformers, at its import."""

from __future__ import annotations

from .cache import StreamCache
from .config import FormeryConfig
from .modeling import FormeryForCausalLM, FormeryModel, FormeryPreTrainedModel

__all__ = ["FormeryConfig", "FormeryForCausalLM", "FormeryModel", "FormeryPreTrainedModel", "StreamCache"]
