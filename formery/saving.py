"""A saved model: `config.json` (spec, resolved spec, plans) and `model.safetensors`. Loading runs no code from it."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from . import registry
from .errors import BadFile, BadSpec, BadWeights, CannotRewrite, UnknownName
from .files import CONFIG as CONFIG
from .files import atomic, read_json, saved_in, sha256, write_json
from .parts.part import Part

if TYPE_CHECKING:
    from .model import Model

FORMAT = 1
WEIGHTS = "model.safetensors"
VOUCHER = "config_sha256"
"""Where the weights' header has the digest of the config."""
PREVIOUS = "previous"
"""Where a config keeps the one before it while the weights are exchanged."""
log = logging.getLogger("formery")
M = TypeVar("M", bound="Model")


class _NoDraws(TorchFunctionMode):
    """Leaves out the initialisations of `torch.nn.init`, and draws."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **kwargs)


@contextmanager
def blank() -> Iterator[None]:
    """Models built inside stand on the meta device: shapes without memory, in milliseconds.

    Nothing is drawn for them; that would take no time on meta either, but makes torch import its compiler, for seconds.
    """
    with torch.device("meta"), _NoDraws():
        yield


def formery_version() -> str:
    """The installed version, or "source"."""
    try:
        return version("formery")
    except PackageNotFoundError:
        return "source"


def tensors_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """The state dict without second names of shared parameters, each tensor in memory of its own."""
    names, seen = tensors_of_names(model), set()
    kept: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name not in names:
            continue
        tensor = tensor.detach().contiguous()
        place = tensor.untyped_storage().data_ptr()
        kept[name] = tensor.clone() if place in seen and not tensor.is_meta else tensor
        seen.add(place)
    return kept


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file; OSError where that cannot be done (a full disk), which safetensors calls its own.

    Others may read it where they may read any new file: safetensors' own are the writer's alone.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(mode)
    _order_header(path)


def _order_header(path: Path) -> None:
    """The header with its metadata in order: safetensors writes them in any, and equal models shall be equal files."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        ordered = json.dumps(
            {"__metadata__": header.pop("__metadata__"), **header}, separators=(",", ":"), ensure_ascii=False
        )
        plain = ordered.encode()
        if len(plain) <= length:
            file.seek(8)
            file.write(plain.ljust(length))


def save(model: Model, folder: Path) -> None:
    """Write the two files; Unwritable where that cannot be done. Each has the digest of the other's content.

    Over a saved model, three renames: a config that knows both weights, the weights, the config that knows the new ones
    alone. Whenever this breaks off, the folder holds the old model or the new one.
    """
    if not isinstance(model.extra, dict):
        raise BadSpec(f"a model's extra is a mapping of plain data, got {type(model.extra).__name__}")
    config: dict[str, Any] = {
        "format": FORMAT,
        "library": "formery",
        "model_type": "formery",
        "version": formery_version(),
        "spec": model.spec,
        "resolved": model.resolved,
        "plans": model.plans,
        "extra": model.extra,
    }
    voucher = digest_of(config)
    with atomic(folder / WEIGHTS) as temporary:
        write_tensors(tensors_of(model), temporary, {"format": "pt", VOUCHER: voucher})
        config["sha256"] = sha256(temporary)
        if before := _saved_before(folder):
            write_json(folder / CONFIG, config | {PREVIOUS: before})
    write_json(folder / CONFIG, config)


def digest_of(config: Mapping[str, Any]) -> str:
    """Digest of a config but for what it says of files; BadSpec where it is no plain data.

    Windows, activations, labels: none of it is seen in the tensors' shapes.
    """
    try:
        content = {key: value for key, value in config.items() if key not in ("sha256", PREVIOUS)}
        plain = json.loads(json.dumps(content))  # as a reader will have it: numbers as keys are texts then
        json.dumps(plain, ensure_ascii=False).encode()  # as it is written: lone surrogates are no text
    except (TypeError, ValueError) as error:
        raise BadSpec(f"a model's spec, plans and extra are plain data: {error}") from None
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _saved_before(folder: Path) -> dict[str, Any] | None:
    """The config of the model that is saved in a folder, where it is whole."""
    try:
        return _vouching(read_config(folder), sha256(folder / WEIGHTS))
    except (BadFile, OSError):
        return None


def _vouching(config: dict[str, Any], digest: str) -> dict[str, Any] | None:
    """The config, or the one before it, that was written with the weights of this digest."""
    before = config.get(PREVIOUS)
    both = [{key: value for key, value in config.items() if key != PREVIOUS}, before]
    return next((one for one in both if isinstance(one, dict) and one.get("sha256") == digest), None)


def fetch(source: str | Path, revision: str | None = None) -> Path:
    """The folder `source`, downloaded first where it is `hf-hub:owner/name`; a path is never looked for elsewhere."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    text = str(source)
    repo = text.removeprefix("hf-hub:").removeprefix("hf_hub:")
    if repo == text:
        what = "is a file" if folder.exists() else "does not exist"
        raise BadFile(
            f"{source} {what}; a saved model is a folder with {CONFIG} and {WEIGHTS}, or hf-hub:owner/name on the hub"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadFile(f"the hub did not give {source}: {first}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a saved model; BadFile where it is none."""
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("library") != "formery":
        raise BadFile(f"{folder / CONFIG} is not a formery model's; for others, create a model and use load_published")
    if config.get("format") != FORMAT:
        raise BadFile(
            f"{folder / CONFIG} has format {config.get('format')!r}, this formery reads {FORMAT}; update formery"
        )
    _check_entries(config, folder)
    return config


def _check_entries(config: Mapping[str, Any], folder: Path) -> None:
    for key, kind in (("spec", dict), ("resolved", dict), ("plans", list), ("extra", dict), ("sha256", str)):
        if not isinstance(config.get(key), kind):
            raise BadFile(f"{folder / CONFIG} lacks {key!r}; it was edited or is damaged")


def load(cls: type[M], source: str | Path, *, revision: str | None = None) -> M:
    """Build the spec without memory, replay the plans, take the weights over. BadFile says what is damaged."""
    folder = saved_in(fetch(source, revision))
    newest, weights = read_config(folder), folder / WEIGHTS
    if not weights.is_file():
        raise BadFile(f"{weights} does not exist")
    config = _vouching(newest, sha256(weights))
    if config is None:
        raise BadFile(f"{weights} is not the file that {CONFIG} was saved with: truncated, altered or exchanged")
    if read_metadata(weights).get(VOUCHER) != digest_of(config):
        raise BadFile(
            f"{folder / CONFIG} was edited after saving; put it back, load the model, change that "
            "(model.extra has its labels) and call save_pretrained"
        )
    _check_entries(config, folder)
    try:
        with blank():
            model = cls(config["resolved"])
            replay(model, config["plans"])
    except (BadSpec, UnknownName, CannotRewrite) as error:
        raise BadFile(f"{folder / CONFIG}: {error}") from None
    model.spec, model.extra = config["spec"], config["extra"]
    tensors = read_tensors(weights)
    tell_broken(str(folder), tensors)
    put(model, tensors, str(weights))
    return model


def replay(model: Model, plans: list[dict[str, Any]]) -> None:
    """Perform the plans in order, as structure alone."""
    for plan in plans:
        if not isinstance(plan, dict) or not isinstance(plan.get("kind"), str):
            raise BadFile(f"a plan names its kind, got {plan!r}")
        registry.find("rewrite", plan["kind"]).perform(model, plan)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; BadFile where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise BadFile(f"{path} does not exist") from None
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise BadFile(f"{path} cannot be read as safetensors ({error}); it is truncated or damaged") from None


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file; BadFile where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise BadFile(f"{path} cannot be read as safetensors ({error}); it is truncated or damaged") from None


def put(model: Model, tensors: Mapping[str, Tensor], source: str) -> None:
    """Make `tensors` the model's own, exactly; BadWeights lists what is missing, unknown or of another shape."""
    ours = model.state_dict()
    shared = {name for name in ours if name not in tensors_of_names(model)}
    missing = [name for name in ours if name not in tensors and name not in shared]
    unknown = [name for name in tensors if name not in ours]
    wrong = [
        f"{name} is {list(tensors[name].shape)}, expected {list(ours[name].shape)}"
        for name in ours
        if name in tensors and tensors[name].shape != ours[name].shape
    ]
    if missing or unknown or wrong:
        parts = [("missing", missing), ("unknown", unknown), ("of another shape", wrong)]
        text = "; ".join(f"{len(names)} {what}: {', '.join(names[:4])}" for what, names in parts if names)
        raise BadWeights(f"{source} does not fit {model.name}: {text}")
    laid = {name: _laid_out(tensor, ours[name]) for name, tensor in tensors.items()}
    model.load_state_dict(laid, strict=False, assign=True)
    model._tie()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    for part in model.modules():
        for name in part.frozen if isinstance(part, Part) else ():
            part.get_parameter(name).requires_grad_(False)
    model.head.set_apart(model.head.apart)
    model.reset_derived()


def tell_broken(what: str, tensors: Mapping[str, Tensor]) -> None:
    """A line of the log that names the tensors with infinite numbers or with what is no number."""
    broken = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and tensor.itemsize > 1 and tensor.numel() and not tensor.is_meta
        if not torch.stack(tensor.detach().aminmax()).isfinite().all()
    ]
    if broken:
        more = f" and {len(broken) - 4} more" if len(broken) > 4 else ""
        log.warning("%s has weights that are infinite or no numbers: %s%s", what, ", ".join(broken[:4]), more)


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor in the order of `like` and in aligned memory: otherwise products round differently."""
    if tensor.stride() == like.stride() and tensor.data_ptr() % 64 == 0:
        return tensor
    return torch.empty_strided(tensor.shape, like.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def tensors_of_names(model: torch.nn.Module) -> set[str]:
    """Names under which shared tensors are saved (each once)."""
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first.setdefault(id(parameter), name)
    return {*first.values(), *(name for name, _ in model.named_buffers())}


def push(model: Model, repo_id: str, *, private: bool, message: str) -> str:
    """Upload the two files; returns the address of the commit."""
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder))
        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message))


def loads_as_model(folder: str | Path) -> bool:
    """Whether a folder holds a formery model's config."""
    try:
        return json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8")).get("library") == "formery"
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
