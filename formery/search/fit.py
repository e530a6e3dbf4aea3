"""`fit`: from data and bounds to a trained, shrunk, verified and exported hybrid, with the evidence.

Every result is journalled as it is had; interrupted at any moment and resumed, a fit ends with the same winner and the
same weights, bit for bit, as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..data import baselines, open_data
from ..errors import BadSpec, CannotExport
from ..files import write_json
from ..model import Model
from ..runtime.export import example, export_onnx
from ..runtime.int8 import quantise
from ..runtime.onnx_model import OnnxModel
from ..runtime.ship import calibration, ship_int8
from ..saving import CONFIG, WEIGHTS, formery_version
from ..tasks import task_of
from ..tasks.task import in_words
from ..training import TrainConfig, arithmetic, facts, train
from ..training.plan import seconds_per_step
from ..training.processes import taken
from ..training.start import fresh_model
from . import budget, latency
from .candidates import Candidate, propose
from .journal import Journal, plain
from .race import race
from .report import write_report
from .settings import Settings
from .shrink import shrink_steps

Say = Callable[[str], None]


def fit(
    source: Any,
    out: str | Path,
    settings: Settings | None = None,
    *,
    resume: bool = False,
    say: Say | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Find, train, shrink and export the hybrid that serves `source` best; returns what `report.json` says.

    `out` receives `model/` (saved model), `model.onnx`, `model.int8.onnx` if int8 keeps within the bound,
    `report.html` and `report.json`; `work/` keeps what a resumed fit needs. Errors of data, settings and places are
    FormeryErrors that name the fault; where no candidate is within the bounds nothing is left behind.
    """
    return Fit(source, Path(out), settings or Settings(), say or (lambda line: None), quiet).run(resume)


class Fit:
    """One fit: its data, task and journal, and the stages in their order."""

    def __init__(self, source: Any, out: Path, settings: Settings, say: Say, quiet: bool) -> None:
        self.settings, self.out, self.say, self.quiet = settings, out, say, quiet
        options = {} if settings.image_size is None else {"image_size": settings.image_size}
        self.data: Any = open_data(source, task=settings.task, seed=settings.seed, **options)
        self.habits = budget.habits(self.data)
        self.task = task_of(self.habits.task(self.data.task) if self.data.task == "language" else {
            "kind": self.data.task, "label_smoothing": self.habits.label_smoothing})  # fmt: skip
        self.journal = Journal(out / "work" / "journal")
        self.candidates: dict[str, Candidate] = {}
        self.specs: dict[str, dict[str, Any]] = {}

    # -------------------------------------------------------------------------------------------- the stages

    def run(self, resume: bool) -> dict[str, Any]:
        """All stages; what is journalled already is taken from there."""
        with taken(self.out / "work"):
            self.journal.begin(self._identity(), resume=resume)
            return self._repeatably()

    def _repeatably(self) -> dict[str, Any]:
        # The same threads and products as at first, so that sums are taken in the same order and round alike.
        threads = self.journal.once("threads", torch.get_num_threads)
        with arithmetic.repeated(threads, self.journal.once("arithmetic", arithmetic.chosen)):
            return self._stages()

    def _stages(self) -> dict[str, Any]:
        self._propose()
        field = self._within_bounds()
        rounds = self._race(field)
        winner = rounds[-1]["kept"][0]
        self.say(f"winner: {winner} ({self.candidates[winner].idea})")
        model, trained = self._train(winner)
        model, steps = self._shrink(model, winner, trained)
        shipped = self._ship(model, steps)
        tested = self.journal.once("test", lambda: self._test(model, shipped))
        report = self._report(rounds, winner, trained, steps, shipped, tested)
        write_json(self.out / "report.json", report)
        write_report(self.out / "report.html", report)
        return report

    def _identity(self) -> dict[str, Any]:
        return {
            "data": {"name": self.data.name, "digest": self.data.digest},
            "settings": self.settings.plain(),
            "versions": {"formery": formery_version(), "torch": torch.__version__},
        }

    def _propose(self) -> None:
        """Candidates as they were first proposed."""

        def make() -> list[dict[str, Any]]:
            found = propose(self.data)
            return [
                {
                    "name": c.name,
                    "spec": {"name": f"fit_{c.name}"} | self.task.fit_spec(c.spec, self.data),
                    "pure": c.pure,
                    "idea": c.idea,
                }
                for c in found
            ]

        for entry in self.journal.once("candidates", make):
            name = entry["name"]
            self.candidates[name] = Candidate(name, entry["spec"], entry["pure"], entry["idea"])
            self.specs[name] = entry["spec"]
        self.say(f"{len(self.specs)} candidates for {self.data.name}: {', '.join(self.specs)}")

    def fresh(self, name: str) -> Model:
        """A candidate with its initial weights, the same each time."""
        return fresh_model(self.specs[name], seed=self.settings.seed)

    def _within_bounds(self) -> list[str]:
        """Candidates within the bounds on parameters and latency, measured once."""
        measured = self.journal.once(
            "latency", lambda: self.timed({name: self.fresh(name).eval() for name in self.specs})
        )
        self.costs = measured
        field = list(self.specs)
        for bound, key, unit in (
            (self.settings.max_params, "params", "parameters"),
            (self.settings.max_latency, "latency_ms", "ms"),
        ):
            if bound is None:
                continue
            least = min(measured[name][key] for name in field)
            field = [name for name in field if measured[name][key] <= bound]
            if not field:
                self.journal.discard()
                said, had = (f"{n:,}" if isinstance(n, int) else f"{n:.4g}" for n in (bound, least))
                raise BadSpec(f"no candidate has at most {said} {unit}; the least is {had}: raise the bound")
        left_out = [name for name in self.specs if name not in field]
        if left_out:
            self.say(f"beyond the bounds: {', '.join(left_out)}")
        return field

    def _length(self) -> int | None:
        return self.habits.length

    def _race(self, field: list[str]) -> list[dict[str, Any]]:
        """Rounds of the race as plain data."""
        seconds = None
        if self.settings.minutes is not None:
            seconds = self.journal.once("step_seconds", lambda: {name: self._seconds_a_step(name) for name in field})
        last = self.journal.once("race_steps", lambda: budget.race_steps(len(field), seconds, self.settings, self.data))
        self.seconds = seconds
        marks = budget.rungs(last, budget.NUM_RUNGS if len(field) > 2 else 1)

        def score(name: str, until: int, rung: int) -> dict[str, Any]:
            result = self.journal.once(f"race/{rung}/{name}", lambda: self._run_up(name, until, last))
            self.say(f"race, {until} steps: {name} {self.shown(result['metrics'])}")
            return result

        rounds = race(field, marks, score)
        return plain([{"steps": r.steps, "results": r.results, "kept": r.kept} for r in rounds])

    def _seconds_a_step(self, name: str) -> float:
        config = TrainConfig.of(self.habits.config(100, self.settings.seed))
        return seconds_per_step(self.fresh(name), self.data, self.task, config)

    def _run_up(self, name: str, until: int, last: int) -> dict[str, Any]:
        model = self.fresh(name)
        config = self.habits.config(last, self.settings.seed) | {"eval_every": last}
        train(
            model, self.data, self.task, config, folder=self.out / "work" / "race" / name, resume=True,
            until=until, quiet=True,
        )  # fmt: skip
        metrics = self.task.evaluate(model, self.data, "validation")
        params = sum(p.numel() for p in model.parameters())
        return {"score": self.task.score(metrics), "metrics": metrics, "params": params}

    def _train(self, winner: str) -> tuple[Model, dict[str, Any]]:
        """The winner, trained from its first weights with all its steps."""
        seconds = None if self.seconds is None else self.seconds[winner]
        steps = self.journal.once("final_steps", lambda: budget.final_steps(seconds, self.settings, self.data))
        place = self.out / "work" / "trained"

        def make() -> dict[str, Any]:
            model = self.fresh(winner)
            result = train(
                model, self.data, self.task, self.habits.config(steps, self.settings.seed, judgements=25),
                folder=self.out / "work" / "training", resume=True, quiet=self.quiet,
            )  # fmt: skip
            model.extra = self.task.extra(self.data)
            model.save_pretrained(place)
            return result.plain() | {"config": result.config.plain()}

        result = self.journal.once("trained", make)
        self.say(f"trained for {result['steps']} steps: {self.shown(result['metrics'])}")
        return Model.from_pretrained(place).eval(), result

    def _shrink(self, model: Model, winner: str, trained: dict[str, Any]) -> tuple[Model, list[dict[str, Any]]]:
        """The model after every step of shrinking that keeps the score within the bound."""
        seconds = None if self.seconds is None else self.seconds[winner]
        heal = self._heal_steps(trained, seconds)
        steps = shrink_steps(self, model, trained["metrics"], heal)

        def timed() -> dict[str, dict[str, Any]]:
            models = {f"candidate {name}": self.fresh(name).eval() for name in self.specs}
            for step in steps:
                models[step["name"]] = Model.from_pretrained(self.out / "work" / step["folder"]).eval()
            return self.timed(models)

        # All in one turn, so that the report compares like with like.
        costs = self.journal.once("costs", timed)
        self.costs = {name: costs[f"candidate {name}"] for name in self.specs}
        steps = [step | costs[step["name"]] for step in steps]
        kept = [step for step in steps if step["kept"]]
        return Model.from_pretrained(self.out / "work" / kept[-1]["folder"]).eval(), steps

    def _heal_steps(self, trained: dict[str, Any], seconds: float | None) -> int:
        if self.settings.minutes is None or seconds is None:
            return max(10, trained["config"]["steps"] // 2)
        return max(10, int(budget.HEAL_SHARE * 60 * self.settings.minutes / seconds))

    def timed(self, models: dict[str, Model]) -> dict[str, dict[str, Any]]:
        """Parameters and latency of models, taking turns."""
        return latency.table(models, lambda m: example(m, 1, self._length()))

    def _ship(self, model: Model, steps: list[dict[str, Any]]) -> dict[str, Any]:
        """The saved model, its ONNX form, and int8 if it keeps within the bound."""

        def make() -> dict[str, Any]:
            model.save_pretrained(self.out / "model")
            report = export_onnx(model, self.out / "model.onnx").as_dict()
            latency_ms = self._onnx_latency(model, self.out / "model.onnx")
            found: dict[str, Any] = {"onnx": report, "onnx_latency_ms": latency_ms}
            before, after = (step["metrics"][self.task.metric] for step in (steps[0], self._kept(steps)))
            lost = self.task.points_lost(before, after)
            try:
                found["int8"] = ship_int8(
                    model,
                    self.out / "model.onnx",
                    self.out / "model.int8.onnx",
                    self.data,
                    self.settings.max_drop - max(0.0, lost),
                )
            except CannotExport as error:
                found["int8"] = {"shipped": False, "reason": str(error)}
            if found["int8"]["shipped"]:
                found["int8"]["latency_ms"] = self._onnx_latency(model, self.out / "model.int8.onnx")
            return found

        shipped = self.journal.once("shipped", make)
        self._restore(model, shipped)
        onnx = shipped["onnx"]
        self.say(f"exported, largest difference {onnx['max_difference']:.2g} at {onnx['checked_shape']}")
        return shipped

    def _restore(self, model: Model, shipped: dict[str, Any]) -> None:
        """Make again what was shipped by an earlier run and is there no longer."""
        folder, onnx, int8 = (self.out / name for name in ("model", "model.onnx", "model.int8.onnx"))
        if not all((folder / name).is_file() for name in (CONFIG, WEIGHTS)):
            model.save_pretrained(folder)
        if not onnx.is_file():
            export_onnx(model, onnx)
        if shipped["int8"]["shipped"] and not int8.is_file():
            quantise(onnx, int8, calibration(self.data, self.task))

    def _kept(self, steps: list[dict[str, Any]]) -> dict[str, Any]:
        return [step for step in steps if step["kept"]][-1]

    def _onnx_latency(self, model: Model, path: Path) -> float:
        return latency.milliseconds(OnnxModel(path), example(model, 1, self._length()))

    def _test(self, model: Model, shipped: dict[str, Any]) -> dict[str, Any]:
        """The only look at the test part: what is shipped, once, and plain baselines beside it."""
        onnx = self.task.evaluate(OnnxModel(self.out / "model.onnx"), self.data, "test")
        found: dict[str, Any] = {f"{self.task.metric}_onnx": onnx[self.task.metric], "onnx": onnx}
        found["torch"] = self.task.evaluate(model, self.data, "test")
        found[self.task.metric] = found["torch"][self.task.metric]
        if shipped["int8"]["shipped"]:
            int8 = self.task.evaluate(OnnxModel(self.out / "model.int8.onnx"), self.data, "test")
            found |= {f"{self.task.metric}_int8": int8[self.task.metric], "int8": int8}
        if self.data.modality == "text":
            found["baselines"] = baselines.text_baselines(self.data)
        else:
            found["baselines"] = {"majority": baselines.majority(self.data)}
        return found

    # -------------------------------------------------------------------------------------------- telling

    def shown(self, metrics: dict[str, Any]) -> str:
        """The metric of the task in words."""
        return f"{self.task.metric} {in_words(metrics[self.task.metric], self.task.unit)}"

    def _report(
        self, rounds: list[dict[str, Any]], winner: str, trained: dict[str, Any], steps: list[dict[str, Any]],
        shipped: dict[str, Any], tested: dict[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        last = self._kept(steps)
        reached = {name: r["results"][name] | {"steps": r["steps"]} for r in rounds for name in r["results"]}
        table = [
            {"name": n, "idea": c.idea, "pure": c.pure, "raced": n in reached, **self.costs[n], **reached.get(n, {})}
            for n, c in self.candidates.items()
        ]
        resolved = self.specs[winner]
        model = {"params": last["params"], "latency_ms": last["latency_ms"], "plans": last["plans"]}
        metric = {"name": self.task.metric, "unit": self.task.unit, "direction": self.task.direction}
        return plain(
            {
                "formery": formery_version(),
                "data": self.data.describe(),
                "task": self.task.describe(),
                "metric": metric,
                "settings": self.settings.plain(),
                "seed": self.settings.seed,
                "machine": facts.machine(),
                "versions": facts.versions(),
                "candidates": table,
                "specs": self.specs,
                "race": rounds,
                "winner": winner,
                "training": trained,
                "shrinking": steps,
                "model": model | {"resolved": resolved, "layout": layout_of(resolved)},
                "validation": last["metrics"],
                "test": tested,
                "export": shipped,
            }
        )


def layout_of(resolved: dict[str, Any]) -> list[dict[str, Any]]:
    """Mixer, channel mixer and scheme of every block in order, for the picture."""
    from ..spec import walk

    def kind(node: dict[str, Any], role: str) -> str | None:
        return node[role]["kind"] if node.get(role) else None

    blocks = [(path, node) for path, role, node in walk(resolved) if role == "block"]
    return [
        {"path": path, "mixer": kind(node, "mixer"), "channel": kind(node, "channel"), "scheme": node["scheme"]["kind"]}
        for path, node in blocks
    ]
