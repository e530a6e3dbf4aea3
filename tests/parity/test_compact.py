"""Compact Transformers and T2T-ViT under published weights compute what their authors' code computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import formery
from formery import published
from formery.context import NOTHING
from formery.model import Model
from formery.parts.positions.learned import Learned
from formery.parts.resize import resize_grid
from formery.parts.stems.token_blocks import TokenPerformer, TokenTransformer
from formery.systems.vision import t2tvit
from formery.weights import Dialect, to_ours, to_theirs
from tests import goldens
from tests.parity.agreement import assert_same

WANTED = 1e-5
"""Of the output's scale."""


def loaded(
    golden: str, variant: str, leave: tuple[str, ...] = (), **options: object
) -> tuple[Model, dict[str, Tensor]]:
    """The variant with the golden's weights, of which those to `leave` are the model's own."""
    facts = goldens.facts(golden)
    model = formery.create_model(variant, **options).eval()  # type: ignore[arg-type]
    theirs = goldens.state_from(facts["tensors"])
    own = published.under_names(model, "authors")
    theirs |= {name: own[name] for name in leave}
    with torch.device("meta"):
        model = formery.create_model(variant, **options).eval()  # type: ignore[arg-type]
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    assert_same(model.to_published("authors"), theirs)
    return model, theirs


CASES = [  # golden, variant, tensors that are not filled by the rule
    ("cct_2_3x2_32", "cct_2_3x2", ()),
    ("cct_7_3x1_32_sine", "cct_7_3x1_sine", ()),
    ("cct_2_3x2_32_true_sine", "cct_2_3x2_sine", ("classifier.positional_emb",)),
    ("cvt_4_4_32", "cvt_4_4", ()),
    ("vit_lite_4_4_32", "vit_lite_4_4", ()),
]


@torch.no_grad()
@pytest.mark.parametrize(("golden", "variant", "own"), CASES, ids=[case[0] for case in CASES])
def test_compact_transformers(golden: str, variant: str, own: tuple[str, ...]) -> None:
    model, _ = loaded(golden, variant, own)
    images = goldens.normal((1, 3, 32, 32))
    outputs = {"logits": model(images)}
    if golden == "cct_2_3x2_32":  # recorded with the positions that are added in place
        tokens = model.stem(images, NOTHING)[0]
        assert isinstance(model.body.position, Learned)
        outputs["tokenizer"] = model.body.position(tokens).flatten(1, 2)
    assert goldens.worst_error(golden, outputs) < WANTED


def test_sine_table_of_texts() -> None:
    """The authors' table for texts has a row of zeros in front, for padding, which needs none here."""
    table = Learned(32, init="sine", frozen=True, grid=(16,)).table
    rows = torch.cat([torch.zeros(1, 32), table.detach()])[None]
    assert goldens.worst_error("cct_text_sine_table", {"pe": rows}) < 1e-6


def test_tables_are_resized_as_by_the_authors() -> None:
    model = formery.create_model("cct_2_3x2").eval()
    theirs = model.to_published("authors")
    larger = formery.create_model("cct_2_3x2", img_size=48)
    larger.load_published(theirs, img_size=48)
    table = theirs["classifier.positional_emb"].reshape(1, 8, 8, 128).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(table, size=(12, 12), mode="bilinear").permute(0, 2, 3, 1)[0]
    assert isinstance(larger.body.position, Learned)
    assert torch.equal(larger.body.position.table, wanted)
    assert torch.equal(
        resize_grid(table[0].permute(1, 2, 0), (8, 8), (12, 12), antialias=False, mode="bilinear"), wanted
    )
    images = torch.randn(1, 3, 48, 48)
    with torch.no_grad():  # the same at a size that the model was not built for
        torch.testing.assert_close(model(images), larger.eval()(images))


def test_another_number_of_channels_and_classes() -> None:
    theirs = formery.create_model("cct_2_3x2", in_chans=1, num_classes=7).to_published("authors")
    model = formery.create_model("cct_2_3x2")
    assert model.load_published(theirs) == []
    assert (model.resolved["stem"]["in_chans"], model.num_classes) == (1, 7)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)


# ------------------------------------------------------------------------------------------------ T2T-ViT


@torch.no_grad()
def test_t2t_vit_with_the_usual_scale() -> None:
    """As built by the authors' code from scratch; released files, under the same names, have another scale."""
    model, _ = loaded("t2t_vit_7", "t2t_vit_7")
    weights = model.state_dict()
    model = formery.create_model("t2t_vit_7", num_classes=10).eval()
    assert model.resolved["body"]["blocks"][0]["mixer"]["scale"] is None
    model.load_state_dict(weights)
    images = goldens.normal((1, 3, 224, 224))
    outputs = {"logits": model(images), "tokens": model.stem(images, NOTHING)[0].flatten(1, 2)}
    assert goldens.worst_error("t2t_vit_7", outputs) < WANTED


@torch.no_grad()
def test_t2t_vit_with_the_scale_of_released_checkpoints() -> None:
    model, theirs = loaded("t2t_vit_7_img64_qkscale", "t2t_vit_7", img_size=64)
    assert {block["mixer"]["scale"] for block in model.resolved["body"]["blocks"]} == {256**-0.5}
    golden = "t2t_vit_7_img64_qkscale"
    assert goldens.worst_error(golden, {"logits": model(goldens.normal((1, 3, 64, 64)))}) < WANTED
    wrapped = formery.create_model("t2t_vit_7")  # its size follows from the table
    assert wrapped.load_published({"state_dict_ema": theirs}) == []
    assert wrapped.resolved["stem"]["img_size"] == 64
    frozen = [name for name, p in wrapped.named_parameters() if not p.requires_grad]
    places = ["stem.blocks.0.draws", "stem.blocks.1.draws", "body.position.table", "body.position.prefix"]
    assert sorted(frozen) == sorted(places)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["performer", "transformer"])
def test_blocks_between_splits(kind: str) -> None:
    golden = f"t2t_token_{kind}"
    facts = goldens.facts(golden)
    block = TokenTransformer(27, 16) if kind == "transformer" else TokenPerformer(27, 16, features=8)
    theirs = {f"tokens_to_token.attention1.{n}": t for n, t in goldens.state_from(facts["tensors"]).items()}
    shapes = {f"stem.blocks.0.{name}": tensor.shape for name, tensor in block.state_dict().items()}
    dialect = Dialect("authors", t2tvit._tokens(kind == "transformer", 16))
    state, wrong = to_ours(theirs, shapes, dialect)
    assert wrong == []
    assert_same(to_theirs(state, dialect), theirs)
    block.load_state_dict({name.removeprefix("stem.blocks.0."): tensor for name, tensor in state.items()})
    assert sum(p.numel() for p in block.parameters()) == facts["params"]
    x = goldens.normal((1, 30, 27))
    outputs = {"y": block.eval()(x, NOTHING)}
    assert goldens.worst_error(golden, outputs) < WANTED
    if isinstance(block, TokenPerformer):  # the guard of the exponents changes rounding alone
        block.stabilise = True
        assert goldens.worst_error(golden, {"y": block(x, NOTHING)}) < WANTED


def test_sine_table_of_t2t_vit() -> None:
    part = Learned(32, prefix=1, init="sine", grid=(4, 4))
    assert part.prefix is not None
    rows = torch.cat([part.prefix, part.table.flatten(0, 1)]).detach()[None]
    assert goldens.worst_error("t2t_sine_table", {"pe": rows}) < 1e-6
