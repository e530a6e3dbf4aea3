"""Fine-tuning and distillation: layers, frozen bodies, teachers, trained models on other images."""

import tests.tvshim  # noqa: F401

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import formery
from formery.data import open_data
from formery.errors import BadData, BadFile, BadSpec, FormeryError, UnknownName
from formery.model import Model
from formery.tasks import task_of
from formery.tasks.distillation import from_labels
from formery.training import TrainConfig, train
from formery.training.distillation import Distillation
from formery.training.layers import layers_of
from formery.training.optimizer import decay_groups
from formery.training.pretrained import loaded
from formery.training.single import train_one
from formery.training.teacher import open_teacher

SPEC = {
    "stem": {"kind": "patches", "dim": 8, "size": 2, "in_chans": 1, "img_size": 8},
    "body": {
        "kind": "stack",
        "layout": "depthwise_conv heads",
        "blocks": {"heads": {"mixer": {"kind": "attention", "heads": 2}}},
    },
    "head": {"kind": "classes", "num_classes": 10},
}  # fmt: skip
SHORT = {"steps": 4, "batch_size": 16, "eval_every": 2, "quiet": True, "devices": "cpu"}


@pytest.fixture(scope="module")
def data():
    return open_data("digits", augment={"mixup": 0.5, "crop": [0.7, 1.0]})


@pytest.fixture(scope="module")
def saved(tmp_path_factory, data):
    """A trained model, as training saves it."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(3)
    model = formery.Model(SPEC)
    train(model, data, steps=20, batch_size=32, learning_rate=0.01, quiet=True, devices="cpu")
    model.extra = task_of("classify").extra(data)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["poolformer_s12", "convnext_atto", "vit_tiny"])
def test_layers_are_timms(name):
    from timm.optim._param_groups import param_groups_layer_decay

    with torch.device("meta"):
        model = formery.create_model(name)
    ours = {n: g["scale"] for g in decay_groups(model, 0.05, 0.7) for n in g["names"]}
    names = {id(p): n for n, p in model.named_parameters()}
    theirs = {
        names[id(p)]: g["lr_scale"]
        for g in param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.7)
        for p in g["params"]
    }
    assert ours == pytest.approx(theirs)
    depths, top = layers_of(model)
    assert depths["stem.conv.weight"] == 0
    assert [n for n, depth in depths.items() if depth == top] == ["head.fc.weight", "head.fc.bias"]
    assert top == model.body.num_blocks() + 1


def test_layer_decay_slows_the_lower_layers(data):
    model = formery.Model(SPEC)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train(model, data, layer_decay=0.1, warmup=0, weight_decay=0.0, **SHORT | {"steps": 1, "eval_every": 1})
    moved = {n: (p - before[n]).abs().max().item() for n, p in model.named_parameters()}
    assert moved["head.fc.weight"] == pytest.approx(1e-3, rel=0.05)  # Adam's first step is the rate
    assert moved["body.blocks.1.channel.expand.weight"] == pytest.approx(1e-4, rel=0.05)
    assert moved["stem.conv.weight"] == pytest.approx(1e-6, rel=0.1)
    with pytest.raises(BadSpec, match="no group_matcher"):
        decay_groups(nn.Linear(2, 2), 0.1, 0.5)


@pytest.mark.parametrize("alone", [True, False])
def test_the_body_rests_in_the_first_steps(data, alone):
    from formery.training.run import Run

    model = formery.Model(SPEC)
    model.stem.requires_grad_(False)
    config = TrainConfig.of(steps=4, batch_size=8, head_only=2)
    run = Run(model, data, task_of("classify"), config, {}, None)
    run.alone = alone
    run.prepare(None, "")
    changed = []
    for step in range(4):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        run.train_step(data.train_batch(step, 8), lambda loss: loss.backward())
        changed.append({n.partition(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])})
    assert changed == [{"head"}, {"head"}, {"head", "body"}, {"head", "body"}]
    assert not any(p.requires_grad for p in model.stem.parameters())
    with pytest.raises(BadSpec, match="head_only is less than steps"):
        TrainConfig.of(steps=4, head_only=4)


@pytest.mark.parametrize("form", ["soft", "hard"])
def test_a_distilled_training_goes_on_bit_for_bit(data, saved, tmp_path, form):
    options = {"distill": {"teacher": str(saved), "form": form, "alpha": 0.7}, "head_only": 1, "ema": 0.9, **SHORT}
    models = []
    for name, pauses in (("whole", [None]), ("parts", [2, None])):
        torch.manual_seed(0)
        model = formery.Model(SPEC)
        for until in pauses:
            train(model, data, folder=tmp_path / name, resume=True, until=until, layer_decay=0.8, **options)
        models.append(model.state_dict())
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    other = formery.Model.from_pretrained(saved)
    with torch.no_grad():
        other.head.fc.bias += 1
    other.save_pretrained(tmp_path / "other")
    options["distill"] = {**options["distill"], "teacher": str(tmp_path / "other")}
    with pytest.raises(BadSpec, match="distill is"):
        train(formery.Model(SPEC), data, folder=tmp_path / "parts", resume=True, layer_decay=0.8, **options)


def test_the_loss_is_the_papers(data, saved):
    """Equations 2 and 3 of arXiv 2012.12877, by hand; and the teacher sees images as its own training did."""
    images, _ = data.train_batch(0, 8)
    labels = torch.arange(8)
    pupil, teacher = formery.Model(SPEC).eval(), Model.from_pretrained(saved).eval()
    ours, theirs = pupil(images), teacher(images)
    task = task_of({"kind": "classify", "label_smoothing": 0.1})
    soft = open_teacher(Distillation(teacher=str(saved), alpha=0.3, temperature=2.0), data, task)
    p, q = (theirs / 2).softmax(1), (ours / 2).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean() * 4
    wanted = 0.7 * from_labels(ours, labels, 0.1) + 0.3 * divergence
    torch.testing.assert_close(soft.loss(pupil, (images, labels)), wanted)
    hard = open_teacher(Distillation(teacher=str(saved), form="hard", alpha=0.5), data, task)
    wanted = 0.5 * from_labels(ours, labels, 0.1) + 0.5 * F.cross_entropy(ours, theirs.argmax(1))
    torch.testing.assert_close(hard.loss(pupil, (images, labels)), wanted)
    assert not any(p.requires_grad for p in hard.model.parameters())
    other = open_data("digits")
    other.normalise_as({"mean": [0.5], "std": [0.25]})
    again = open_teacher(Distillation(teacher=str(saved)), other, task)
    plain = images * data._std + data._mean
    torch.testing.assert_close(again.scores(other.normalise(plain)), theirs, atol=1e-4, rtol=1e-4)


def test_a_head_of_two_classifiers_learns_from_both(data, saved):
    model, task = formery.Model({**SPEC, "head": {"kind": "distilled", "num_classes": 10}}), task_of("classify")
    images, targets = data.train_batch(0, 8)
    teacher = open_teacher(Distillation(teacher=str(saved), form="hard", alpha=0.5), data, task)
    teacher.loss(model, (images, targets)).backward()
    output = model(images)
    wanted = torch.autograd.grad(0.5 * from_labels(output.scores, targets), model.head.fc.weight, retain_graph=True)[0]
    torch.testing.assert_close(model.head.fc.weight.grad, wanted)
    chosen = F.cross_entropy(output.distilled, teacher.scores(images).argmax(1))
    wanted = torch.autograd.grad(0.5 * chosen, model.head.fc_distilled.weight)[0]
    torch.testing.assert_close(model.head.fc_distilled.weight.grad, wanted)
    assert task.evaluate(model, data)["items"] == len(data.validation())
    result = train(model, data, distill={"teacher": str(saved)}, layer_decay=0.9, head_only=1, **SHORT)
    assert result.steps == 4


def test_teachers_keep_the_pupils_order_of_classes(data, saved, tmp_path):
    teacher = Model.from_pretrained(saved)
    teacher.extra["classes"] = teacher.extra["classes"][::-1]
    teacher.save_pretrained(tmp_path / "turned")
    task = task_of("classify")
    one, other = (open_teacher(Distillation(teacher=str(f)), data, task) for f in (saved, tmp_path / "turned"))
    images, _ = data.train_batch(0, 4)
    torch.testing.assert_close(one.scores(images), other.scores(images).flip(1))
    assert one.digest == other.digest
    teacher.extra["classes"] = ["a", *"123456789"]
    teacher.save_pretrained(tmp_path / "strange")
    with pytest.raises(BadData, match="has not learned the class '0'"):
        open_teacher(Distillation(teacher=str(tmp_path / "strange")), data, task)


def test_timms_models_teach(tmp_path):
    import timm

    shapes = open_data("shapes", num_per_class=6, image_size=32, kinds=["disc", "square"])
    model = timm.create_model("resnet10t", num_classes=2)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    options = {"teacher": "timm/resnet10t", "weights": str(tmp_path / "weights.pth")}
    teacher = open_teacher(Distillation(**options), shapes, task_of("classify"))
    images, _ = shapes.batch_of(shapes.parts.train[:3])
    mean, std = (torch.tensor(model.pretrained_cfg[n])[:, None, None] for n in ("mean", "std"))
    plain = images * shapes._std + shapes._mean
    with torch.no_grad():
        torch.testing.assert_close(teacher.scores(images), model.eval()((plain - mean) / std), atol=1e-4, rtol=1e-3)
    other = open_data("shapes", num_per_class=6, kinds=["disc", "square", "star4"])
    with pytest.raises(BadFile, match="does not fit timm's resnet10t"):
        open_teacher(Distillation(**options), other, task_of("classify"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"teacher": "vit_tiny"}, BadSpec, "nothing to teach; give distill.weights"),
        ({"teacher": "nothing"}, UnknownName, "no model is called 'nothing'.* there is no folder of this name"),
        ({"teacher": "no/such"}, BadFile, "distill.teacher no/such: there is no saved model"),
        ({"teacher": "vit_tinny", "weights": "pretrained"}, UnknownName, "did you mean vit_tiny"),
        ({"teacher": "vit_tiny", "weights": "missing.pth"}, BadFile, "does not exist"),
    ],
)
def test_teachers_that_cannot_be_had_are_refused(data, options, error, message):
    with pytest.raises(error, match=message):
        open_teacher(Distillation(**options), data, task_of("classify"))


def test_wrong_options_of_a_teacher_are_named(data):
    with pytest.raises(BadSpec, match=r"training\.distill\.alpha: .*less than or equal to 1, got 2"):
        TrainConfig.of(steps=4, distill={"teacher": "x", "alpha": 2.0})
    with pytest.raises(BadSpec, match="teachers are for classify"):
        open_teacher(Distillation(teacher="x"), data, task_of("language"))


def folder_of(path, size, kinds=("disc", "star4"), num=8):
    from formery.data.shapes import write_shapes

    return write_shapes(path, num, size=size, kinds=kinds)


def test_a_saved_model_is_tuned_at_another_size(saved, tmp_path):
    images = folder_of(tmp_path / "images", 20)
    found = train_one(
        saved, images, tmp_path / "run", {"steps": 2, "batch_size": 4, "layer_decay": 0.7, "head_only": 1},
        image_size=16, drop_path=0.2, options={"augment": "light"}, quiet=True, pictures=True, devices="cpu",
    )  # fmt: skip
    model = Model.from_pretrained(tmp_path / "run" / "model")
    assert model.extra["classes"] == ["disc", "star4"]
    assert model.resolved["stem"]["img_size"] == 16
    assert model.resolved["body"]["blocks"][1]["scheme"]["drop_path"] == 0.2
    assert found["data"]["preprocess"]["size"] == [16, 16]
    assert found["data"]["augmentation"]["jitter"] == 0.2
    torch.testing.assert_close(model.stem.conv.weight, Model.from_pretrained(saved).stem.conv.weight, atol=0.01, rtol=0)
    for name in ("augmented", "curves", "predictions"):
        with Image.open(tmp_path / "run" / "pictures" / f"{name}.png") as picture:
            assert min(picture.size) > 100
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_published_weights_are_tuned_on_a_folder(tmp_path):
    """Weights under timm's names: another head, another size, images normalised as the card says (by halves)."""
    torch.manual_seed(0)
    source = formery.create_model("vit_tiny", num_classes=7)
    torch.save(source.to_published("timm"), tmp_path / "vit.pth")
    images = folder_of(tmp_path / "images", 24)
    spec = formery.cards.spec_of("vit_tiny")
    train_one(
        spec, images, tmp_path / "run", {"steps": 1, "batch_size": 2, "learning_rate": 1e-6},
        weights=str(tmp_path / "vit.pth"), image_size=32, epochs=None, quiet=True, devices="cpu",
    )  # fmt: skip
    model = Model.from_pretrained(tmp_path / "run" / "model")
    assert model.extra["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    assert model.resolved["stem"]["img_size"] == 32
    assert model.num_classes == 2
    torch.testing.assert_close(model.stem.conv.weight, source.stem.conv.weight, atol=1e-4, rtol=0)
    with pytest.raises(FormeryError):
        loaded(spec, weights=str(tmp_path / "none.pth"))


def test_epochs_are_steps(saved, tmp_path):
    images = folder_of(tmp_path / "images", 8)
    found = train_one(saved, images, tmp_path / "run", {"batch_size": 3}, epochs=2, quiet=True, devices="cpu")
    assert found["steps"] == 2 * -(-found["data"]["splits"]["train"] // 3)
    with pytest.raises(BadSpec, match="steps and epochs"):
        train_one(saved, images, tmp_path / "other", {"steps": 3}, epochs=2, quiet=True)


def test_large_folders_are_known_by_names(tmp_path):
    images = folder_of(tmp_path / "images", 24)
    (images / "disc" / "broken.png").write_bytes(b"none")
    with pytest.raises(BadData, match=r"broken\.png"):
        open_data(images)
    (images / "disc" / "broken.png").unlink()
    data = open_data(images, known_by="names", image_size=16, in_chans=3, crop_from=20, augment="light")
    assert data.train_batch(0, 4)[0].shape == (4, 3, 16, 16)
    assert data.larger.shape == (3, 20, 20)
    assert sum(data.parts.sizes().values()) == 16
    again = open_data(images, known_by="names", image_size=16, in_chans=3, augment="light")
    assert np.array_equal(again.parts.train, data.parts.train)
    with pytest.raises(BadSpec, match="give image_size and in_chans"):
        open_data(images, known_by="names")
    with pytest.raises(BadSpec, match="crop_from is the size"):
        open_data(images, image_size=8, crop_from=16)
    with pytest.raises(BadSpec, match="must be at least the image_size"):
        open_data(images, image_size=16, crop_from=8, augment="light")


def test_the_legend_of_the_curves_covers_nothing(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    from formery.training.loop import TrainResult
    from formery.training.pictures import curves

    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1])
    entries = [
        {"step": step, "loss": 1 - step / 20, "rate": 0.1, "metrics": {"accuracy": step / 20}} for step in range(1, 20)
    ]
    result = TrainResult(
        status="finished", steps=19, best_step=19, score=0.95, metrics={}, metric="accuracy", curve=entries,
        seconds=1.0, folder=None, config=TrainConfig(steps=19),
    )  # fmt: skip
    curves(result, task_of("classify"), tmp_path / "curves.png")
    (figure,) = drawn
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 3
    for axes in figure.axes:
        assert axes.get_legend() is None
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())
