"""Image files to arrays, by Pillow: any mode, any size, upright, within bounds, or an error that names the file."""

from __future__ import annotations

import io
import re
import stat
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadData, BadFile, BadSpec

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
FITS = ("squash", "crop")


def check_regular(path: Path) -> None:
    """BadFile where there is nothing, or a link to nothing; BadData for pipes and devices, which may never end."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink() and not isinstance(error, PermissionError):
            raise BadFile(f"{path} is a link to nothing; mend the link or remove it") from None
        if isinstance(error, FileNotFoundError):
            raise BadFile(f"{path} does not exist") from None
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BadData(f"{path} is a pipe, a socket or a device, no file; remove it")


def read_bytes(path: Path) -> bytes:
    """The content of a regular file; BadFile where there is none, BadData where it cannot be read."""
    check_regular(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def opened(content: bytes | Path, name: str | Path) -> Image:
    """The image, of which only the header has been read; BadData where it is no image or has too many pixels.

    Pillow's own limit on pixels (`PIL.Image.MAX_IMAGE_PIXELS`) holds, as an error from the limit on.
    """
    from PIL import Image

    try:
        image: Image.Image = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)
    except Image.DecompressionBombError:
        raise BadData(
            f"{name} has more than the {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels that can be read safely"
        ) from None
    except Exception as error:  # Pillow's readers raise whatever a malformed header makes them stumble over
        if isinstance(error, OSError) and error.errno is not None:
            raise _unreadable(name, error) from None
        raise _broken(name, error) from None
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise BadData(
            f"{name} has {image.width}x{image.height} pixels, more than the {limit:,} that are read; make it smaller"
        )
    return image


def _unreadable(name: str | Path, error: OSError) -> BadData:
    remedy = "mend its permissions" if isinstance(error, PermissionError) else "replace it"
    return BadData(f"cannot read {name}: {error.strerror or error}; {remedy} or remove it")


def _broken(name: str | Path, error: Exception) -> BadData:
    # Pillow names a buffer by its address, which tells the user nothing.
    reason = re.sub(r"<_io\.\w+[^>]*>", "it", " ".join(str(error).split())) or type(error).__name__
    return BadData(f"{name} is not a readable image ({reason}); replace or remove it")


def header(path: Path) -> tuple[int, int, bool]:
    """(width, height, grey or not) without decoding the pixels."""
    from PIL import Image

    check_regular(path)
    # `opened` makes an error of what Pillow warns about. Not silenced there: it runs in threads, where that is unsafe.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with opened(path, path) as image:
            return image.width, image.height, image.mode in GREY


def decode(content: bytes, name: str | Path, preprocess: Mapping[str, Any]) -> NDArray[np.uint8]:
    """The bytes of an image file -> uint8 (C, H, W), upright, on white where it was transparent, resized.

    preprocess: `size` [H, W], `channels` 1 or 3, `interpolation`, and `fit`: `squash` (the whole image, its sides
    stretched apart if need be) or `crop` (its middle, undistorted). BadData names the broken file.
    """
    from PIL import Image, ImageOps

    height, width = preprocess["size"]
    method = Image.Resampling[preprocess["interpolation"].upper()]
    try:
        with opened(content, name) as image:
            image.load()
            flat = _flat(ImageOps.exif_transpose(image), preprocess["channels"])
            if flat.size != (width, height):
                flat = (
                    ImageOps.fit(flat, (width, height), method)
                    if preprocess["fit"] == "crop"
                    else flat.resize((width, height), method)
                )
            pixels = np.array(flat, dtype=np.uint8)
    except BadData:
        raise
    except Exception as error:  # as above: truncated streams, bad palettes, bad EXIF
        raise _broken(name, error) from None
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _flat(image: Image, channels: int) -> Image:
    """Any mode to L or RGB. Pillow's `convert` clips deep pixels and drops transparency; here neither is lost."""
    from PIL import Image

    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError("its pixels are 32 bits deep: save it with 8 or 16 bits")
        image = Image.fromarray((deep // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: save it with 8 or 16 bits")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("L" if channels == 1 else "RGB")


def check_preprocess(preprocess: Mapping[str, Any]) -> None:
    """BadSpec where a key is missing or has no meaning."""
    missing = {"mean", "std", "size", "channels", "interpolation", "fit"} - preprocess.keys()
    if missing:
        raise BadSpec(
            f"preprocess lacks {', '.join(sorted(missing))}; it should be what `.preprocess` of the training data was"
        )
    check_choice("interpolation", preprocess["interpolation"], INTERPOLATIONS)
    check_choice("fit", preprocess["fit"], FITS)
    check_choice("channels", preprocess["channels"], (1, 3))


def check_choice(option: str, value: object, choices: Sequence[object]) -> None:
    """BadSpec where `value` is none of the choices."""
    if value not in choices:
        raise BadSpec(f"{option}={value!r} must be one of {', '.join(map(str, choices))}")


def load_image(path: str | Path, preprocess: Mapping[str, Any]) -> Tensor:
    """An image file as the model was trained to see it: (C, H, W) float32, normalised.

    preprocess: `.preprocess` of the training data, as saved with the model. BadFile where the file is missing, BadData
    where it is broken or too large.
    """
    import torch

    check_preprocess(preprocess)
    content = read_bytes(Path(path))
    header(Path(path))
    pixels = torch.from_numpy(decode(content, path, preprocess)).float() / 255
    mean = torch.tensor(preprocess["mean"], dtype=torch.float32)[:, None, None]
    std = torch.tensor(preprocess["std"], dtype=torch.float32)[:, None, None]
    return (pixels - mean) / std
