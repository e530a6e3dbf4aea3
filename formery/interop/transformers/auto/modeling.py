"""Our causal models as `PreTrainedModel`s: `generate`, losses, caches, resizing, saving.

The modules and their names are those of the model itself (`stem`, `body`, `head`), so that transformers' loader finds
the tensors of a saved folder under their own names, and `save_pretrained` writes a folder that opens on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from .... import saving
from ....context import NOTHING, Context, Stream
from ....errors import CannotExport, CannotRun
from ....model import Model
from ....parts.dense import Dense
from ....parts.heads.head import Features
from ....parts.heads.next_token import NextToken
from ....parts.stems.tokens import Tokens, looked_up
from ....spec import override
from ....tasks.language import THEIRS
from .cache import MARGIN, StreamCache, longest
from .config import FormeryConfig

PREFIX, NODES = "model.", ("stem", "body", "head")
UNUSED = ("cache_position", "token_type_ids", "output_router_logits")
"""Arguments that tokenizers and trainers hand to every model, and that change nothing here."""
OF_LOSS = ("num_items_in_batch", "shift_labels")
"""Arguments that trainers hand on to the loss."""
KNOWN = (*UNUSED, *OF_LOSS, "output_attentions")


class FormeryPreTrainedModel(PreTrainedModel):
    """What the two classes share; `net` is formery's own model, whose modules these are."""

    config_class = FormeryConfig
    base_model_prefix = PREFIX[:-1]
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _is_stateful = True
    _no_split_modules = ["Block", "Sequence"]  # noqa: RUF012 # transformers' own name and type
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012

    net: Model

    @classmethod
    def around(cls, net: Model) -> Any:
        """The model around an existing one, of the same tensors."""
        with saving.blank():
            wrapped = cls(FormeryConfig.of(net))
        wrapped._own(net)
        return wrapped.train(net.training)

    def _own(self, net: Model) -> None:
        raise NotImplementedError

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As transformers loads; buffers that follow from the options are made again."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.net.reset_derived()
        return loaded

    def save_pretrained(  # type: ignore[override]  # what it says of shards goes to the rest
        self,
        save_directory: Any,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write formery's two files, and `generation_config.json`; what else is in the folder stays.

        What was set on the config travels in `extra`. `state_dict` are the tensors to write instead of the model's own.
        The file is always one: `max_shard_size` changes nothing. CannotExport where it should be pushed to the hub.
        """
        if push_to_hub:
            raise CannotExport("push_to_hub: save to a folder and upload it, or use net.push_to_hub(...)")
        if not is_main_process:
            return
        net, folder = self.net, Path(save_directory)
        net.extra[THEIRS] = self.config.settings() | {"dtype": str(self.dtype).removeprefix("torch.")}
        if state_dict is not None:
            net = _with(net, {name.removeprefix(PREFIX): tensor for name, tensor in state_dict.items()})
        net.save_pretrained(folder)
        if self.can_generate():
            self.generation_config.save_pretrained(folder)

    def get_input_embeddings(self) -> nn.Embedding:
        return self._stem().embed

    def set_input_embeddings(self, value: Any) -> None:
        self._stem().embed = value
        self._stem().vocab = value.num_embeddings

    def get_output_embeddings(self) -> nn.Linear:
        return self._head().scores

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        dense = Dense(new_embeddings.in_features, new_embeddings.out_features, bias=False, device="meta")
        dense.weight, dense.bias = new_embeddings.weight, new_embeddings.bias
        self._head().scores, self._head().num_classes = dense, dense.out_features

    def _stem(self) -> Tokens:
        assert isinstance(self.net.stem, Tokens)
        return self.net.stem

    def _head(self) -> NextToken:
        assert isinstance(self.net.head, NextToken)
        return self.net.head

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """As transformers does it; the spec follows."""
        found = super().resize_token_embeddings(*args, **kwargs)
        net, size = self.net, self.get_input_embeddings().num_embeddings
        net.resolved = override(net.resolved, {"stem.vocab": size, "head.vocab": size})
        net.spec = net.resolved
        self.config.spec = self.config.resolved = net.resolved
        return found

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Any = None, every_n_layers: int = 1
    ) -> None:
        if every_n_layers != 1:
            raise CannotRun("every_n_layers: all blocks are worked out again, or none; leave it out")
        self.net.set_grad_checkpointing(enable)

    @property
    def is_activation_checkpointing(self) -> bool:
        return self.net.grad_checkpointing

    @property
    def is_gradient_checkpointing(self) -> bool:
        return self.is_activation_checkpointing

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Parts draw their own first values. Only tensors that a checkpoint lacks, and layers for new tokens, are left.

        transformers calls this for every module; values are drawn anew for the whole model, in its own order.
        """
        if isinstance(module, FormeryModel) and module.hollow:
            fresh = Model(module.net.resolved)
            saving.replay(fresh, module.net.plans)
            drawn = fresh.state_dict()
            for name, tensor in module.net.state_dict(keep_vars=True).items():
                if not getattr(tensor, "_is_hf_initialized", False) and not tensor.is_meta:
                    tensor.copy_(drawn[name])
        elif type(module) in (nn.Linear, nn.Embedding) and module not in set(self.modules()):
            for name, tensor in module.named_parameters():
                nn.init.zeros_(tensor) if name == "bias" else nn.init.normal_(tensor, std=0.02)


class FormeryModel(FormeryPreTrainedModel):
    """Tokens to features; the layer that scores is there (`head.scores`) and not used."""

    _tied_weights_keys = {"head.scores.weight": "stem.embed.weight"}  # noqa: RUF012

    def __init__(self, config: FormeryConfig) -> None:
        super().__init__(config)
        net = Model(config.described())
        saving.replay(net, config.plans or [])
        net.extra = dict(config.extra or {})
        if config.spec is not None and net.resolved == config.resolved:
            net.spec = config.spec
        self.hollow = net._is_meta
        self._own(net)
        self.post_init()  # type: ignore[no-untyped-call]

    def _own(self, net: Model) -> None:
        object.__setattr__(self, "net", net)  # not one more name of the same modules
        self.stem, self.body, self.head = net.stem, net.body, net.head

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: StreamCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Features (B, L, C) of tokens (B, L), after the head's norm.

        `attention_mask` (B, past + L) is 0 for padding, at either end. With `use_cache` (the config's unless given; not
        in training) `past_key_values` comes back, for the tokens that follow. The hidden states asked for are the
        embeddings, then each block's output, the last one normed.
        """
        if (input_ids is None) == (inputs_embeds is None):
            given = "neither" if input_ids is None else "both"
            raise CannotRun(f"input_ids, inputs_embeds: give one of them, got {given}")
        _refuse(kwargs)
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = looked_up(input_ids, self.config.vocab_size, self.get_input_embeddings())
        net, (batch, length) = self.net, inputs_embeds.shape[:2]
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training and _can_stream(net)
        if use_cache and past_key_values is None:
            if not _can_stream(net):
                raise CannotRun(
                    "this model keeps no state: a layer does not stream, or is offloaded; give use_cache=False"
                )
            past_key_values = StreamCache(net, batch, max(length, min(length + MARGIN, longest(net))))
        stream = _stream(past_key_values, batch, length)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        taps = tuple(range(len(net.body.feature_info()))) if wanted else ()
        features, ctx = net._run(inputs_embeds, _context(attention_mask, position_ids, batch, length), stream, taps)
        last = net.head.finish(features.x, ctx)
        maps = [features.maps[i] for i in taps][:-1]
        return BaseModelOutputWithPast(
            last_hidden_state=last,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=(inputs_embeds, *maps, last) if wanted else None,
        )


class FormeryForCausalLM(FormeryPreTrainedModel, GenerationMixin):
    """Tokens to scores of the next one, with `generate`."""

    _tied_weights_keys = {"model.head.scores.weight": "model.stem.embed.weight"}  # noqa: RUF012

    def __init__(self, config: FormeryConfig) -> None:
        super().__init__(config)
        self.model = FormeryModel(config)
        self.vocab_size = config.vocab_size
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def net(self) -> Model:  # type: ignore[override]
        return self.model.net

    def _own(self, net: Model) -> None:
        self.model._own(net)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: StreamCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Scores (B, L, vocab), of the last `logits_to_keep` tokens where it is a number above 0, or of those it names.

        `labels` (B, L) are the tokens themselves, -100 where nothing is to be predicted; the loss is the mean cross
        entropy of each next one. The rest as in `FormeryModel`.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **kwargs,
        )
        last = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.net.head(Features(last[:, kept]), NOTHING)
        loss = None
        if labels is not None:
            more = {key: kwargs[key] for key in OF_LOSS if kwargs.get(key) is not None}
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1], **more)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
        )

    def _prepare_cache_for_generation(  # type: ignore[override]  # whose result nobody reads
        self,
        generation_config: Any,
        model_kwargs: dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        """Room for all tokens, taken once. Models that keep no state read everything anew each step."""
        if generation_config.cache_implementation is not None:
            raise CannotRun("cache_implementation: formery's own state is the cache; leave it out")
        if not _can_stream(self.net):
            generation_config.use_cache = model_kwargs["use_cache"] = False
        if model_kwargs.get("past_key_values") is not None or generation_config.use_cache is False:
            return
        rows = batch_size * max(generation_config.num_beams or 1, generation_config.num_return_sequences or 1)
        model_kwargs["past_key_values"] = StreamCache(self.net, rows, max_cache_length)


def _with_prefix(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Tensors of a saved folder, whose names have no outer prefix, under the module's: trainers that resume hand them
    to `load_state_dict` as they are."""
    for name in [name for name in state_dict if name.startswith(prefix)]:
        inner = name.removeprefix(prefix)
        if inner.partition(".")[0] in NODES:
            state_dict[f"{prefix}{PREFIX}{inner}"] = state_dict.pop(name)


def _can_stream(net: Model) -> bool:
    """Whether layers can carry a state, beside weights that are there and not offloaded."""
    return net.streams and not any(parameter.is_meta for parameter in net.parameters())


def _refuse(given: Mapping[str, Any]) -> None:
    """CannotRun for what formery's models do not give or take."""
    if given.get("output_attentions"):
        raise CannotRun("output_attentions: attention is fused and gives no weights; leave it out")
    unknown = [key for key, value in given.items() if value is not None and key not in KNOWN]
    if unknown:
        raise CannotRun(f"{unknown[0]}: formery's models take no such argument; leave it out")


def _stream(cache: Any, batch: int, length: int) -> Stream | None:
    if cache is None:
        return None
    if not isinstance(cache, StreamCache):
        raise CannotRun(f"past_key_values is what this model returned or nothing, got {type(cache).__name__}")
    if cache.batch_size != batch:
        raise CannotRun(f"past_key_values holds {cache.batch_size} texts, {batch} are given")
    return cache.ready(length)


def _context(mask: Tensor | None, positions: Tensor | None, batch: int, length: int) -> Context:
    """Padding and positions of the tokens given now."""
    padding = None
    if mask is not None:
        if mask.dim() != 2 or mask.shape[0] != batch or mask.shape[1] < length:
            raise CannotRun(
                f"attention_mask is (batch, past + length), here ({batch}, >= {length}), got {[*mask.shape]}"
            )
        padding = mask[:, mask.shape[1] - length :] == 0
        padding = padding if padding.any() else None
    if positions is not None:
        positions = positions.expand(batch, length)
    return NOTHING.but(padding=padding, positions=positions)


def _with(net: Model, tensors: Mapping[str, Tensor]) -> Model:
    """A model like `net` of other tensors."""
    with saving.blank():
        other = Model(net.resolved)
        saving.replay(other, net.plans)
    other.spec, other.plans, other.extra = net.spec, net.plans, net.extra
    saving.put(other, dict(tensors), "the state dict")
    return other
