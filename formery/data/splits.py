"""Which items train, which choose, which judge.

Items are dealt by the hash of their content, class by class: the same items always land in the same part, whatever
their names, order or the training seed. Copies of one item stay together, and an item that stands in two classes stays
in the training part, so that nothing in the validation or test part has been trained on.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadData, BadSpec

PARTS = ("train", "validation", "test")
SPELLINGS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Parts:
    """Indices of the items of each part (int64), disjoint, in an order that depends on their content only."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def sizes(self) -> dict[str, int]:
        """Number of items by part."""
        return {name: len(getattr(self, name)) for name in PARTS}


def fractions_of(splits: Sequence[float]) -> tuple[float, float, float]:
    """Checks three positive shares that sum to 1; BadSpec otherwise."""
    if len(splits) != 3 or any(not share > 0 for share in splits) or abs(sum(splits) - 1) > 1e-6:
        raise BadSpec(
            f"splits={list(splits)} must be three positive shares of training, validation and test that sum to 1"
        )
    return float(splits[0]), float(splits[1]), float(splits[2])


def given_parts(names: Iterable[str]) -> dict[str, str] | None:
    """{name: part} where all names are spellings of parts, no part twice, training among them; else None."""
    found = {name: SPELLINGS.get(name.lower()) for name in names}
    parts = [part for part in found.values() if part is not None]
    if len(parts) != len(found) or "train" not in parts or len(set(parts)) != len(parts) or len(parts) < 2:
        return None
    return {name: part for name, part in found.items() if part is not None}


def by_content(
    contents: Sequence[bytes],
    labels: Sequence[int],
    classes: Sequence[str],
    splits: Sequence[float],
    *,
    seed: int = 0,
    given: Mapping[str, Sequence[int]] | None = None,
) -> Parts:
    """Deals the items into parts, stratified by class.

    contents: digest of each item; labels: class of each item, an index into `classes`; splits: shares of (training,
    validation, test); given: items whose part is known, where parts that it lacks are dealt out of its training items.
    BadData where all items are the same, or a class has too few different ones.
    """
    shares = dict(zip(PARTS, fractions_of(splits), strict=True))
    parts: dict[str, list[int]] = {name: list((given or {}).get(name, [])) for name in PARTS}
    wanted = [name for name in ("validation", "test") if not parts[name]]
    pool = parts["train"] if given else range(len(contents))
    parts["train"] = []
    keys = {content: hashlib.sha256(f"{seed}:".encode() + content).digest() for content in contents}

    if len(contents) > 1 and len(keys) == 1:
        raise BadData(f"all {len(contents)} items are identical; there is nothing to learn from them")
    copies: dict[bytes, list[int]] = defaultdict(list)
    for item in pool:
        copies[contents[item]].append(item)
    of_class: dict[int, list[bytes]] = {label: [] for label in range(len(classes))}
    for content, items in copies.items():
        owners = {labels[item] for item in items}
        if len(owners) == 1:
            of_class[owners.pop()].append(content)
        else:
            parts["train"] += items

    for label, found in of_class.items():
        if len(found) < 1 + len(wanted):
            raise BadData(
                f"class {classes[label]!r} has {len(found)} different items of its own; {1 + len(wanted)} are needed "
                f"for {', '.join(['train', *wanted])}; add items or remove the class"
            )
        found.sort(key=keys.__getitem__)
        for place, name in enumerate(wanted):
            still = len(wanted) - place
            num = max(1, min(round(shares[name] * len(of_class[label])), len(found) - still))
            parts[name] += [item for content in found[:num] for item in copies[content]]
            found = found[num:]
        parts["train"] += [item for content in found for item in copies[content]]

    ordered = {
        name: sorted(items, key=lambda item: (keys[contents[item]], labels[item], item))
        for name, items in parts.items()
    }
    return Parts(**{name: np.array(items, dtype=np.int64) for name, items in ordered.items()})


def repeats(contents: Sequence[bytes], labels: Sequence[int], parts: Parts) -> dict[str, int]:
    """What a reader of scores should know: further copies, items in two classes, held-out items that are trained on."""
    owners: dict[bytes, set[int]] = defaultdict(set)
    for content, label in zip(contents, labels, strict=True):
        owners[content].add(label)
    trained = {contents[item] for item in parts.train}
    held = [*parts.validation, *parts.test]
    return {
        "copies": sum(count - 1 for count in Counter(contents).values()),
        "in_two_classes": sum(len(found) > 1 for found in owners.values()),
        "held_out_in_training": sum(contents[item] in trained for item in held),
    }


def check_names(classes: Iterable[str]) -> None:
    """BadData for a name that is no text: files of a folder may have such names, JSON may not."""
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise BadData(f"the name of class {name!r} is no text in UTF-8; rename it, or its folder") from None


def digest_of(contents: Sequence[bytes], labels: Sequence[int], classes: Sequence[str]) -> str:
    """sha256 over the sorted pairs (class, content digest): independent of file names and order."""
    check_names(classes)
    total = hashlib.sha256()
    for label, content in sorted(zip(labels, contents, strict=True), key=lambda pair: (classes[pair[0]], pair[1])):
        total.update(classes[label].encode() + b"\0" + content)
    return total.hexdigest()


def plain(parts: Parts) -> dict[str, Any]:
    """The indices as lists, for tests and reports."""
    return {name: getattr(parts, name).tolist() for name in PARTS}
