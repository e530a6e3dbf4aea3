"""A saved model's `config.json` as a config of transformers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from .... import spec as specs
from ....errors import BadFile, BadSpec
from ....model import Model
from ....saving import FORMAT, PREVIOUS
from ....tasks.language import THEIRS


class FormeryConfig(PreTrainedConfig):
    """What formery saves (`spec`, `resolved`, `plans`, `extra`), and the sizes that transformers looks for.

    `spec` alone is enough: `FormeryConfig(spec=...)`. `vocab_size` and `tie_word_embeddings` may be changed; the model
    is built with them. Other sizes follow from the spec.
    """

    model_type = "formery"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    format: int = FORMAT
    library: str = "formery"
    version: str | None = None
    sha256: str | None = None
    spec: dict[str, Any] | None = None
    resolved: dict[str, Any] | None = None
    plans: list[dict[str, Any]] | None = None
    extra: dict[str, Any] | None = None

    vocab_size: int | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    tie_word_embeddings: bool | None = None
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop(PREVIOUS, None)
        if self.format != FORMAT or self.library != "formery":
            raise BadFile(f"the config has format {self.format!r}, this formery reads {FORMAT}; update formery")
        self.plans, self.extra = self.plans or [], self.extra or {}
        for key, value in self.extra.get(THEIRS, {}).items():
            if key not in _DEFAULTS:
                kwargs.setdefault(key, value)
            elif getattr(self, key) == _DEFAULTS[key]:
                setattr(self, key, value)
        if self.resolved is None and self.spec is not None:
            self.resolved = specs.resolve(self.spec)
        if self.resolved is not None:
            self._take_sizes(self.resolved)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    def _take_sizes(self, resolved: dict[str, Any]) -> None:
        stem, head = resolved["stem"], resolved["head"]
        heads = [node["heads"] for _, role, node in specs.walk(resolved) if role == "mixer" and node.get("heads")]
        if self.vocab_size is None:
            self.vocab_size = stem.get("vocab")
        if self.tie_word_embeddings is None:
            self.tie_word_embeddings = bool(head.get("tie", False))
        self.hidden_size = stem.get("dim")
        self.num_hidden_layers = specs.count("body", "block", resolved["body"])
        self.num_attention_heads = heads[0] if heads else 1
        if stem.get("length"):  # others have no end, and tools take a missing entry for that
            self.max_position_embeddings = stem["length"]

    def described(self) -> dict[str, Any]:
        """The resolved spec that a model of this config is built from; BadSpec where it predicts no tokens."""
        if self.resolved is None:
            raise BadSpec("a FormeryConfig needs the spec of a model: FormeryConfig(spec=...)")
        head = self.resolved["head"]
        if "tie" not in head or "vocab" not in self.resolved["stem"]:
            raise BadSpec(
                f"transformers generates with models that predict tokens; this one has the head {head['kind']}"
            )
        wanted = {"stem.vocab": self.vocab_size, "head.vocab": self.vocab_size, "head.tie": self.tie_word_embeddings}
        changes = {path: value for path, value in wanted.items() if _at(self.resolved, path) != value}
        return specs.override(self.resolved, changes) if changes else self.resolved

    def settings(self) -> dict[str, Any]:
        """What is set here and follows from no spec, as plain data: what `extra` has to keep."""
        known = {*_DERIVED, *_SAVED, "architectures", "dtype", "model_type", "transformers_version", "_name_or_path"}
        return {key: value for key, value in self.to_diff_dict().items() if key not in known}

    @classmethod
    def of(cls, model: Model) -> FormeryConfig:
        """The config of a model as it is."""
        return cls(spec=model.spec, resolved=model.resolved, plans=model.plans, extra=model.extra)


_SAVED = ("format", "library", "version", "sha256", "spec", "resolved", "plans", "extra")
_DERIVED = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"),
    "tie_word_embeddings",
)
_DEFAULTS = {field.name: field.default for field in fields(FormeryConfig)}


def _at(resolved: dict[str, Any], path: str) -> Any:
    part, _, option = path.partition(".")
    return resolved[part].get(option)
