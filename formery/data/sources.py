"""One way in: an embedded name, a path, or arrays -> data."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadData, BadFile, BadSpec, UnknownName
from ..registry import find, index, nearest

if TYPE_CHECKING:
    from .contract import Data

SHOWING = ("image_size", "in_chans", "interpolation", "fit", "crop_from", "memory", "augment", "shifts", "flips",
           "zoom", "rotation")  # fmt: skip
"""Options that say how items are shown; the others decide which there are, and the part of each."""


def open_data(source: Any, *, task: str | None = None, seed: int = 0, **options: Any) -> Data:
    """Data to train on and to be judged by.

    source: an embedded name (`digits`, `pydoc`, ...; a path that happens to be called so is written `./digits`), a
    folder of images by class, a text file, a folder of text files, a pair (images, labels), or data that are open
    already. task: `classify` or `language` where the source must be for that; seed: of order, windows and augmentation;
    options: those of the source's opener (`image_size`, `splits`, ...). UnknownName for a name that is neither embedded
    nor a path, BadFile for a missing path, BadSpec for an unknown option, BadData for content that cannot be learned
    from.
    """
    if task is not None and task not in index("task"):
        raise UnknownName(f"no task is called {task!r}; {nearest(task, index('task'))}")
    opener, arguments = opener_of(source, task)
    if opener is None:
        if options:
            raise BadSpec(f"{source.name} is open already; give {', '.join(options)} when opening it")
        data: Data = source
    else:
        check_options(opener, len(arguments), str(source) if isinstance(source, (str, Path)) else "arrays", options)
        data = opener(*arguments, seed=seed, **options)
        if hasattr(data, "options"):
            data.options = {name: value for name, value in options.items() if name not in SHOWING}
    if task is not None and data.task != task:
        raise BadData(f"{data.name} is {data.modality} data for the task {data.task}, not {task}")
    return data


def opener_of(source: Any, task: str | None) -> tuple[Callable[..., Any] | None, tuple[Any, ...]]:
    """(what opens this source, its arguments); None for data that are open already."""
    if isinstance(source, str) and source in index("data"):
        return find("data", source), ()
    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        if not path.exists():
            raise missing(source, path)
        return opener_of_path(path, task), (path,)
    if isinstance(source, (tuple, list)) and len(source) == 2:
        from .arrays import ArrayData

        return ArrayData, tuple(source)
    if hasattr(source, "modality") and hasattr(source, "digest"):
        return None, ()
    raise BadData(f"{type(source).__name__} is no source of data; give a name, a path, or a pair (images, labels)")


def opener_of_path(path: Path, task: str | None) -> Callable[..., Any]:
    """What the content of a path calls for: images anywhere below a folder make it image data."""
    from .folders import image_folder, is_image, walk
    from .texts import text_file, text_folder

    if path.is_file():
        if is_image(path):
            raise BadData(f"{path} is one image; give a folder with sub-folders of images, one for each class")
        return text_file
    if not path.is_dir():
        raise BadData(f"{path} is neither a file nor a folder")
    if task is not None:
        return image_folder if task == "classify" else text_folder
    files = list(walk(path))
    folders = any(entry.is_dir() and not entry.name.startswith(".") for entry in path.iterdir())
    if not files:
        what = "has sub-folders, but no files in them" if folders else "is empty"
        raise BadData(f"{path} {what}; put images in one sub-folder for each class, or text files in it")
    return image_folder if any(map(is_image, files)) else text_folder


def missing(source: str | Path, path: Path) -> UnknownName | BadFile:
    """The error for a source that is not there: of a path if it looks like one, else of a name."""
    if isinstance(source, Path) or path.suffix or len(path.parts) > 1 or str(source) != path.name:
        return BadFile(f"{source} does not exist; give a file, a folder, or one of: {', '.join(index('data'))}")
    return UnknownName(
        f"no data are called {source!r}, and there is no such file or folder; {nearest(source, index('data'))}"
    )


def check_options(opener: Callable[..., Any], num_given: int, what: str, options: dict[str, Any]) -> None:
    """BadSpec for an option that the opener does not take after `num_given` arguments, with the nearest one."""
    known = [name for name in list(inspect.signature(opener).parameters)[num_given:] if name != "seed"]
    for name in options:
        if name not in known:
            raise BadSpec(f"{what} takes no option {name!r}; {nearest(name, known)}")
