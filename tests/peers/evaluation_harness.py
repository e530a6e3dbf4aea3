"""lm-eval on a model of ours, by its own `hf` adapter, beside the same numbers worked out here.

    pip install lm-eval accelerate
    python -m tests.peers.evaluation_harness

Three tasks on a dozen lines: choices, a text as a whole, and generation. Nothing is downloaded.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import tests.tvshim  # noqa: F401 # before transformers

import torch

import formery
import formery.interop.transformers as interop  # registers
from formery.model import Model
from formery.runtime.generate import generate

QUESTIONS = [(f"The number {i} plus one is", [f"{i + 1}", f"{i + 7}", "many"]) for i in range(12)]
TASKS: dict[str, dict[str, Any]] = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
    "whole": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "further": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["\n", "e"], "max_gen_toks": 8, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
}


def main() -> int:
    import lm_eval  # type: ignore[import-not-found]
    from lm_eval.tasks import TaskManager  # type: ignore[import-not-found]

    torch.manual_seed(0)
    model = formery.create_model("olmo_hybrid_tiny").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        interop.save_for_auto(model, folder / "model")
        rows = [{"question": question, "choices": choices, "answer": 0} for question, choices in QUESTIONS]
        (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        for task, settings in TASKS.items():
            data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
            (folder / f"{task}.yaml").write_text(json.dumps({"task": task, "test_split": "test", **data, **settings}))
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args=f"pretrained={folder / 'model'},dtype=float32",
            tasks=list(TASKS),
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            batch_size=4,
            device="cpu",
            bootstrap_iters=0,
            log_samples=True,
        )
    worst = max(_choices(model, found["samples"]["choice"]))
    bits = abs(found["results"]["whole"]["bits_per_byte,none"] - _bits_per_byte(model))
    same = all(_further(model, sample) for sample in found["samples"]["further"])
    print(
        f"log-likelihoods differ by {worst:.1e}, bits a byte by {bits:.1e}; texts are {'' if same else 'not '}the same"
    )
    return int(worst > 1e-4 or bits > 1e-5 or not same)


def _log_likelihood(model: Model, before: bytes, text: bytes) -> float:
    ids = torch.tensor([list(before + text)])
    with torch.no_grad():
        scores = model(ids[:, :-1]).log_softmax(-1)[0, len(before) - 1 :]
    return float(scores.gather(1, ids[0, len(before) :, None]).double().sum())


def _choices(model: Model, samples: list[dict[str, Any]]) -> list[float]:
    """The harness puts a space in front of a choice."""
    return [
        abs(float(said) - _log_likelihood(model, sample["doc"]["question"].encode(), f" {choice}".encode()))
        for sample in samples
        for choice, (said, _) in zip(sample["doc"]["choices"], sample["filtered_resps"], strict=True)
    ]


def _bits_per_byte(model: Model) -> float:
    """A text begins behind the token that ends texts."""
    texts = [question.encode() for question, _ in QUESTIONS]
    nats = -sum(_log_likelihood(model, b"\0", text) for text in texts)
    return nats / sum(map(len, texts)) / math.log(2)


def _further(model: Model, sample: dict[str, Any]) -> bool:
    (one,) = generate(model, sample["doc"]["question"], max_new_tokens=8, stop=["\n", "e"], end=[0])
    return bool(one.text == sample["resps"][0][0])


if __name__ == "__main__":
    sys.exit(main())
