"""Any causal model of ours through transformers' Auto classes: what users of transformers do with a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import tests.tvshim  # noqa: F401 # before transformers

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, DynamicCache

import formery
from formery.context import NOTHING
from formery.errors import BadFile, BadSpec, CannotExport, CannotRun
from formery.interop.transformers import load, register, save, save_for_auto, wrap
from formery.interop.transformers.auto import FormeryConfig, FormeryForCausalLM
from formery.interop.transformers.folders import tokenizer_files
from formery.model import Model
from formery.runtime.generate import Bytes, generate

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

PRE = {"kind": "pre", "norm": "rms"}
BLOCKS = {
    "recurrent": {"mixer": {"kind": "gated_deltanet", "heads": 2, "head_dim": 4}},
    "window": {"mixer": {"kind": "attention", "heads": 2, "window": 5, "position": "rope"}},
    "full": {
        "mixer": {"kind": "attention", "heads": 4, "kv_heads": 2, "position": "rope"},
        "scheme": {"kind": "reordered", "norm": "rms"},
    },
}


def spec(vocab: int = 64, *, tie: bool = False) -> dict[str, Any]:
    return {
        "stem": {"kind": "tokens", "dim": 16, "vocab": vocab},
        "body": {
            "kind": "stack",
            "layout": "recurrent window full",
            "blocks": BLOCKS,
            "channel": "swiglu",
            "scheme": PRE,
        },
        "head": {"kind": "next_token", "norm": "rms", "tie": tie},
    }


def moved(model: nn.Module) -> Any:
    """Every number moved off its initial value."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def hybrid(vocab: int = 64, *, tie: bool = False) -> Model:
    return moved(Model(spec(vocab, tie=tie)))


def tokens(*shape: int, vocab: int = 64) -> Tensor:
    return torch.randint(1, vocab, shape)


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


@pytest.mark.parametrize("tie", [False, True])
def test_a_saved_folder_opens(tie: bool, tmp_path: Path) -> None:
    model = hybrid(tie=tie)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, FormeryConfig)
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (64, 16, 3)
    assert config.tie_word_embeddings is tie
    opened, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    ids = tokens(2, 9)
    with torch.no_grad():
        assert torch.equal(opened(ids).logits, model(ids))
        base = AutoModel.from_pretrained(tmp_path)
        close(base(ids).last_hidden_state @ model.head.scores.weight.T, model(ids))
    assert (opened.get_output_embeddings().weight is opened.get_input_embeddings().weight) is tie
    assert AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_rewritten_models_open(tmp_path: Path) -> None:
    """Their plans are replayed: nothing else is needed."""
    from formery import rewrites

    model = hybrid()
    rewrites.apply(model, "drop", tokens(2, 12), unit="mixer", count=1)
    ids = tokens(2, 9)
    with torch.no_grad():
        wanted = model(ids)
    model.save_pretrained(tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(opened(ids).logits, wanted)
    assert opened.generate(ids, max_new_tokens=3, do_sample=False).shape == (2, 12)
    opened.save_pretrained(tmp_path / "again")
    assert formery.Model.from_pretrained(tmp_path / "again").plans == model.plans


def test_generation_is_ours() -> None:
    model = hybrid()
    peer = wrap(model)
    ids = tokens(3, 10)
    mask = torch.ones_like(ids)
    mask[1, :4] = mask[2, :9] = 0
    prompts = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
    ours = [one.tokens for one in generate(model, prompts, max_new_tokens=9)]
    for options in ({}, {"use_cache": False}, {"prefill_chunk_size": 4}):
        theirs = peer.generate(ids, attention_mask=mask, max_new_tokens=9, do_sample=False, **options)
        assert theirs[:, 10:].tolist() == ours, options


def test_beams_and_draws_do_not_depend_on_the_cache() -> None:
    peer = wrap(hybrid())
    ids = tokens(2, 6)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    for options in (
        {"num_beams": 3, "do_sample": False},
        {"num_beams": 4, "num_return_sequences": 2, "do_sample": False, "length_penalty": 0.3},
        {"do_sample": True, "temperature": 0.8, "num_return_sequences": 2},
    ):
        found = []
        for use_cache in (True, False):
            torch.manual_seed(0)
            more: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": 8, "use_cache": use_cache}
            found.append(peer.generate(ids, **more, **options))
        assert torch.equal(*found), options


def test_losses(tmp_path: Path) -> None:
    model = hybrid()
    peer = wrap(model)
    ids = tokens(2, 9)
    labels = ids.clone()
    labels[0, :4] = -100
    wanted = nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    found = peer(ids, labels=labels).loss
    close(found, wanted)
    found.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    last = peer(ids, labels=labels, return_dict=False)
    close(last[0], wanted)
    summed = peer(ids, labels=labels, num_items_in_batch=torch.tensor(4)).loss
    close(summed, wanted * (labels[:, 1:] != -100).sum() / 4)
    whole = peer(ids).logits
    close(peer(ids, logits_to_keep=2).logits, whole[:, -2:])
    close(peer(ids, logits_to_keep=torch.tensor([0, 5])).logits, whole[:, [0, 5]])


def test_training_moves_the_model_around_which_it_is() -> None:
    model = hybrid().train()
    peer = wrap(model)
    assert peer.training
    ids = tokens(4, 9)
    optimizer = torch.optim.SGD(peer.parameters(), 0.1)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        out = peer(ids, labels=ids)
        assert out.past_key_values is None
        out.loss.backward()
        optimizer.step()
        losses.append(float(out.loss.detach()))
    assert losses[-1] < losses[0]
    with torch.no_grad():
        assert torch.equal(model.eval()(ids), peer.eval()(ids).logits)


def test_hidden_states() -> None:
    model = hybrid()
    peer = wrap(model)
    ids = tokens(2, 7)
    out = peer(ids, output_hidden_states=True)
    states = out.hidden_states
    assert len(states) == peer.config.num_hidden_layers + 1
    assert torch.equal(states[0], model.stem.embed(ids))
    x = states[0]
    for block, after in zip(model.body.blocks, states[1:-1], strict=False):
        x = block(x, NOTHING.but(causal=True))
        close(x, after)
    assert torch.equal(model.head.scores(states[-1]), out.logits)
    states[0].retain_grad()
    out.logits.sum().backward()
    assert states[0].grad is not None
    by_vectors = peer(inputs_embeds=model.stem.embed(ids))
    assert torch.equal(by_vectors.logits, out.logits)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    model = hybrid().train()
    peer = wrap(model)
    ids, grads = tokens(2, 9), []
    for enabled in (False, True):
        if enabled:
            peer.activation_checkpointing_enable()
        assert peer.is_activation_checkpointing is enabled
        peer.zero_grad()
        peer(ids, labels=ids, use_cache=False).loss.backward()
        grads.append([parameter.grad.clone() for parameter in peer.parameters()])
    for one, other in zip(*grads, strict=True):
        close(one, other)
    peer.activation_checkpointing_disable()
    assert not model.grad_checkpointing


@pytest.mark.parametrize("sizes", [[3, 1, 1, 6], [1] * 11, [11]])
def test_any_split_through_caches(sizes: list[int]) -> None:
    model = hybrid()
    peer = wrap(model)
    ids = tokens(2, 11)
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    cache, parts, end = None, [], 0
    with torch.no_grad():
        for chunk in ids.split(sizes, dim=1):
            end += chunk.shape[1]
            out = peer(chunk, attention_mask=mask[:, :end], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            assert cache.get_seq_length() == end
            parts.append(out.logits)
        whole = peer(ids, attention_mask=mask, use_cache=False).logits
    real = mask.bool()
    close(torch.cat(parts, dim=1)[real], whole[real])


def test_states_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far beyond the room that was taken, over windows that were not yet full, and then row by row."""
    from formery.interop.transformers.auto import cache as caches
    from formery.interop.transformers.auto import modeling

    for module in (caches, modeling):
        monkeypatch.setattr(module, "MARGIN", 0)
    model = hybrid()
    peer = wrap(model)
    ids = tokens(2, 40)
    with torch.no_grad():
        out = peer(ids[:, :3], use_cache=True)
        rooms = {out.past_key_values.stream.capacity}
        parts = [out.logits]
        for chunk in ids[:, 3:].split([1, 1, 5, 30], dim=1):
            out = peer(chunk, past_key_values=out.past_key_values)
            rooms.add(out.past_key_values.stream.capacity)
            parts.append(out.logits)
        close(torch.cat(parts, dim=1), model(ids))
        assert rooms == {3, 8, 20, 80}
        cache = out.past_key_values
        cache.batch_repeat_interleave(2)
        cache.reorder_cache(torch.tensor([3, 0, 1]))
        more = tokens(3, 2)
        close(
            peer(more, past_key_values=cache).logits,
            model(torch.cat([ids[[1, 0, 0]], more], dim=1))[:, -2:],
        )
        cache.reset()
        assert cache.get_seq_length() == 0
        close(peer(ids[[0, 1, 0]], past_key_values=cache).logits, model(ids[[0, 1, 0]]))


def test_positions_that_end() -> None:
    learned = {
        "stem": {"kind": "tokens", "dim": 16, "vocab": 8, "length": 10},
        "body": {"kind": "stack", "depth": 1, "mixer": {"kind": "attention", "heads": 2}, "position": "learned"},
        "head": "next_token",
    }
    model = moved(Model(learned))
    peer = wrap(model)
    assert peer.config.max_position_embeddings == 10
    ids = tokens(2, 6, vocab=8)
    ours = [one.tokens for one in generate(model, ids, max_new_tokens=4)]
    assert peer.generate(ids, max_new_tokens=4, do_sample=False)[:, 6:].tolist() == ours
    out = peer(ids)
    assert peer(tokens(2, 4, vocab=8), past_key_values=out.past_key_values).logits.shape == (2, 4, 8)
    with pytest.raises(CannotRun, match="the positions end at 10"):
        peer(tokens(2, 1, vocab=8), past_key_values=out.past_key_values)
    with pytest.raises(CannotRun, match="the positions end at 10"):
        peer.generate(ids, max_new_tokens=20, do_sample=False)


@pytest.mark.parametrize("tie", [False, True])
def test_new_tokens(tie: bool, tmp_path: Path) -> None:
    model = hybrid(tie=tie)
    peer = wrap(model)
    ids = tokens(2, 7)
    with torch.no_grad():
        before = model(ids)
        peer.resize_token_embeddings(70)
        after = peer(ids).logits
        close(after[..., :64], before)
        assert after.shape[-1] == model.num_classes == peer.config.vocab_size == 70
        peer.save_pretrained(tmp_path)
        ours = Model.from_pretrained(tmp_path).eval()
        assert ours.resolved["stem"]["vocab"] == ours.resolved["head"]["vocab"] == 70
        assert torch.equal(ours(ids), after)
        assert (ours.head.scores.weight is ours.stem.embed.weight) is tie
        again = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.equal(again(ids).logits, after)
        again.resize_token_embeddings(60, mean_resizing=False)
        again.resize_token_embeddings(64, mean_resizing=False)
        assert again(tokens(2, 3, vocab=60)).logits.isfinite().all()
        assert not again.get_input_embeddings().weight[60:].eq(0).all()


def test_settings_of_config_and_generation_survive(tmp_path: Path) -> None:
    peer = FormeryForCausalLM(FormeryConfig(spec=spec(), pad_token_id=3, eos_token_id=[5, 6], summary="of mine"))
    peer.generation_config.temperature = 0.3
    peer.generation_config.do_sample = True
    peer.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (again.config.pad_token_id, again.config.eos_token_id) == (3, [5, 6])
    assert again.config.summary == "of mine"
    assert again.generation_config.temperature == 0.3
    assert Model.from_pretrained(tmp_path).resolved == peer.net.resolved
    bare = FormeryConfig.from_dict(again.config.to_dict())
    assert bare.resolved == again.config.resolved
    changed = again.state_dict()
    changed["model.head.scores.weight"] = torch.zeros(64, 16)
    again.save_pretrained(tmp_path / "given", state_dict=changed)
    assert not Model.from_pretrained(tmp_path / "given").head.scores.weight.any()
    again.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("tie", [False, True])
def test_the_tensors_of_a_folder_as_a_state_dict(tie: bool, tmp_path: Path) -> None:
    """As trainers load them when they go on from a checkpoint."""
    from safetensors.torch import load_file

    trained, fresh = hybrid(tie=tie), wrap(Model(spec(tie=tie)))
    wrap(trained).save_pretrained(tmp_path)
    found = fresh.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    assert found.unexpected_keys == []
    assert found.missing_keys == (["model.head.scores.weight"] if tie else [])
    ids = tokens(2, 7)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(ids).logits, trained(ids))
    fresh.load_state_dict(fresh.state_dict())


def test_a_tokenizer_of_bytes(tmp_path: Path) -> None:
    model = hybrid(256)
    model.extra["tokens"] = "bytes"
    save_for_auto(model, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("plain", "ünïcödé Ā ġ Ġ\n\t 漢字 😀", "a\0b", "<|end|>", "".join(map(chr, range(1, 300)))):
        assert tokenizer(text).input_ids == Bytes().encode(text)
        assert tokenizer.decode(Bytes().encode(text)) == text
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 0
    batch = tokenizer(["one", "three"], padding=True, padding_side="left", return_tensors="pt")
    peer = AutoModelForCausalLM.from_pretrained(tmp_path)
    found = peer.generate(**batch, max_new_tokens=5, do_sample=False)
    ours = generate(model, ["one", "three"], max_new_tokens=5, end=[0])
    for row, one in zip(found, ours, strict=True):
        assert row[5 : 5 + len(one.tokens)].tolist() == one.tokens
    pipe = transformers.pipeline("text-generation", model=str(tmp_path))
    said = pipe("one", max_new_tokens=5, do_sample=False, return_full_text=False)[0]["generated_text"]
    assert said == tokenizer.decode(ours[0].tokens, skip_special_tokens=True)


def test_tokenizers_and_chat_templates_travel(tmp_path: Path) -> None:
    from tests.unit.test_runtime_generate import word_pieces

    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    word_pieces(theirs)
    (theirs / "chat_template.jinja").write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    (theirs / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, "temperature": 0.5}))
    model = hybrid(300)
    save_for_auto(model, ours, tokenizer=theirs)
    tokenizer = AutoTokenizer.from_pretrained(ours)
    talk = [{"role": "user", "content": "the fox"}]
    assert tokenizer.apply_chat_template(talk, tokenize=False) == "<user>the fox"
    opened = AutoModelForCausalLM.from_pretrained(ours)
    assert opened.generation_config.temperature == 0.5
    opened.save_pretrained(ours)
    save_for_auto(model, ours, tokenizer=ours)
    assert AutoTokenizer.from_pretrained(ours).apply_chat_template(talk, tokenize=False) == "<user>the fox"
    assert {path.name for path in tokenizer_files(ours)} >= {"tokenizer.json", "chat_template.jinja"}
    with pytest.raises(BadFile, match="holds no tokenizer"):
        save_for_auto(model, ours, tokenizer=tmp_path)
    as_llama = formery.create_model("decoder_tiny", override={"stem.vocab": 300, "head.vocab": 300})
    save(as_llama, tmp_path / "llama", tokenizer=theirs)
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "llama").apply_chat_template(talk, tokenize=False) == "<user>the fox"
    )
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "llama")) is transformers.LlamaForCausalLM


def test_the_calls_of_an_evaluation_harness() -> None:
    """Log-likelihoods: rows filled up at their ends, no mask, scores of the continuation; then batches of texts."""
    model = hybrid()
    peer = wrap(model)
    rows = [tokens(n).tolist() for n in (9, 5, 7)]
    continuations = (3, 1, 4)
    with torch.no_grad():
        filled = torch.tensor([row + [0] * (9 - len(row)) for row in rows])
        scores = peer(filled[:, :-1]).logits.log_softmax(-1)
        for i, (row, size) in enumerate(zip(rows, continuations, strict=True)):
            inside = scores[i, len(row) - 1 - size : len(row) - 1]
            total = inside.gather(1, torch.tensor(row[-size:])[:, None]).sum()
            alone = model(torch.tensor([row[:-1]])).log_softmax(-1)[0]
            wanted = alone[-size:].gather(1, torch.tensor(row[-size:])[:, None]).sum()
            close(total, wanted)
            masked = torch.arange(9)[None] < torch.tensor([len(r) for r in rows])[:, None]
            close(peer(filled, attention_mask=masked.long()).logits[i, : len(row) - 1].log_softmax(-1), alone)
    assert not hasattr(peer.config, "max_position_embeddings")  # so that a harness takes its own
    peer.tie_weights()
    assert peer.device == torch.device("cpu")


def test_models_that_keep_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """They read everything anew: slower, and the same."""
    model = hybrid()
    peer = wrap(model)
    ids = tokens(2, 6)
    wanted = peer.generate(ids, max_new_tokens=5, do_sample=False)
    monkeypatch.setattr(Model, "streams", False)
    assert torch.equal(peer.generate(ids, max_new_tokens=5, do_sample=False), wanted)
    assert peer(ids).past_key_values is None
    with pytest.raises(CannotRun, match="give use_cache=False"):
        peer(ids, use_cache=True)


def test_mistakes(tmp_path: Path) -> None:
    peer = wrap(hybrid())
    ids = tokens(2, 4)
    with pytest.raises(CannotRun, match="input_ids, inputs_embeds: give one of them, got neither"):
        peer()
    with pytest.raises(CannotRun, match="input_ids, inputs_embeds: give one of them, got both"):
        peer(ids, inputs_embeds=torch.zeros(2, 4, 16))
    with pytest.raises(CannotRun, match="gives no weights"):
        peer(ids, output_attentions=True)
    with pytest.raises(CannotRun, match="pixel_values: formery's models take no such argument; leave it out"):
        peer(ids, pixel_values=ids)
    with pytest.raises(CannotRun, match="got DynamicCache"):
        peer(ids, past_key_values=DynamicCache())
    with pytest.raises(CannotRun, match="holds 2 texts, 3 are given"):
        peer(tokens(3, 1), past_key_values=peer(ids).past_key_values)
    with pytest.raises(CannotRun, match="attention_mask is"):
        peer(ids, attention_mask=torch.ones(2, 1, 4, 4))
    with pytest.raises(CannotRun, match="leave it out"):
        peer.generate(ids, cache_implementation="static", max_new_tokens=2)
    with pytest.raises(CannotRun, match="no past to go back to"):
        peer(ids).past_key_values.crop(1)
    with pytest.raises(CannotExport, match="push_to_hub"):
        peer.save_pretrained(tmp_path, push_to_hub=True)
    image = formery.create_model("vit_tiny", img_size=32)
    with pytest.raises(CannotExport, match="predicts no next token"):
        save_for_auto(image, tmp_path)
    image.save_pretrained(tmp_path)
    with pytest.raises(BadFile, match=r"saved by formery itself; formery\.Model\.from_pretrained opens it"):
        load(tmp_path)
    with pytest.raises(BadSpec, match="this one has the head classes"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(BadSpec, match="needs the spec of a model"):
        FormeryForCausalLM(FormeryConfig())
    with pytest.raises(BadFile, match="update formery"):
        FormeryConfig(format=99)


def test_wrong_tokens_are_named() -> None:
    wrapped = wrap(hybrid())
    with pytest.raises(CannotRun, match="0 to 63 here, got 99 to 99"):
        wrapped(torch.tensor([[99]]))
    with pytest.raises(CannotRun, match=r"\(batch, length\), got \(3,\)"):
        wrapped(torch.tensor([1, 2, 3]))


def test_without_transformers() -> None:
    """Configs are read, and registering says what is missing. Registering again is as good as once."""
    register()
    script = """
import sys
sys.modules["transformers"] = None
import formery.interop.transformers as interop
from formery.errors import MissingExtra
print(len(interop.model_types()) > 3)
try:
    interop.register()
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["True", "transformers is not installed; pip install 'formery[hf]'"]
