"""ImageNet's words and pictures: class names, templates, and validation sets on disk.

No words are copied: English ones come from the installed `open_clip`, Chinese ones from `cn_clip`,
WordNet ids from `timm`, so that whoever has those packages has the same protocol.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cliplab.data import SUFFIXES, shown
from cliplab.runtime import ArgumentError, unknown_name

# ---- the words -----------------------------------------------------------------------------

SETS = ("openai80", "openai7", "one", "bare", "chinese", "chinese183")
ALIASES = {"simple": "openai7"}  # open_clip's word for it
# Classes that everybody knows or that are easily mixed up: both lists must agree on their places.
_ANCHORS = {
    "n01440764": ("tench", "丁鲷"),
    "n02012849": ("crane bird", "鹤"),
    "n02123045": ("tabby cat", "虎斑猫"),
    "n03126707": ("construction crane", "起重机"),
    "n07742313": ("Granny Smith apple", "绿苹果"),
    "n15075141": ("toilet paper", "卫生纸"),
}


@dataclass(frozen=True)
class Prompts:
    """K classes in the order of their index, and the T templates that each is put into."""

    name: str
    wnids: tuple[str, ...]  # WordNet ids, such as "n01440764"
    class_names: tuple[str, ...]
    templates: tuple[str, ...]  # with {} for the name
    language: str
    source: str  # package and version

    def __len__(self) -> int:
        return len(self.class_names)


def read_prompts(*templates: str) -> Prompts:
    """ImageNet's class names with one of the template sets of `SETS`, or with other templates.

    Args:
        templates: the name of a set, default openai80; or texts with {} for the name of a class.

    Raises:
        ValueError: unknown set, or packages whose lists disagree.
        ImportError: the package that carries the words is not installed.
    """
    own = tuple(text for text in templates if "{}" in text)
    given = " ".join(templates) or SETS[0]
    name = "bare" if own else ALIASES.get(given, given)
    if name not in SETS or len(own) not in (0, len(templates)):
        raise ValueError(unknown_name("template set", given, [*SETS, *ALIASES]))
    prompts = _chinese(name) if name.startswith("chinese") else _english(name)
    prompts = replace(prompts, name="own", templates=own) if own else prompts
    place = dict(zip(prompts.wnids, prompts.class_names, strict=True))
    for wnid, words in _ANCHORS.items():  # ids and names come from different packages
        if place.get(wnid) != (word := words[prompts.language == "zh"]):
            raise ValueError(
                f"{prompts.source}: class {wnid} is {place.get(wnid)!r}; expected {word!r}: this "
                "version orders or words the classes differently"
            )
    return prompts


def synsets() -> tuple[str, ...]:
    """The 1,000 WordNet ids of ILSVRC 2012, sorted: the place of each is its class index.

    Read from the file that `timm` carries, without importing timm.

    Raises:
        ImportError: timm is not installed, or is a version without the file.
    """
    spec = find_spec("timm")
    for place in (spec and spec.submodule_search_locations) or ():
        path = Path(place) / "data" / "_info" / "imagenet_synsets.txt"
        if path.is_file():
            return tuple(path.read_text(encoding="utf-8").split())
    raise ImportError('the WordNet ids of ImageNet come with timm; pip install "timm>=1.0"')


def _english(name: str) -> Prompts:
    """open_clip's class names, OpenAI's edited ones, with the templates of a set."""
    words = _import("open_clip.zero_shot_metadata", name, "pip install open-clip-torch")
    templates = {
        "openai80": words.OPENAI_IMAGENET_TEMPLATES,
        "openai7": words.SIMPLE_IMAGENET_TEMPLATES,
        "one": ("a photo of a {}.".format,),
        "bare": ("{}".format,),
    }[name]
    names, source = tuple(words.IMAGENET_CLASSNAMES), _version("open_clip_torch")
    return Prompts(name, synsets(), names, _texts(templates), "en", source)


def _chinese(name: str) -> Prompts:
    """Chinese-CLIP's names and templates, lower-cased as in its own evaluation."""
    remedy = "pip install --no-deps cn_clip (it pins an old lmdb, which this does not need)"
    words = _import("cn_clip.eval.imagenet_zeroshot_templates", name, remedy)
    templates = words.openai_imagenet_template
    if name == "chinese183":
        templates = _import("cn_clip.eval.cvinw_zeroshot_templates", name, remedy).openai_templates
    names = tuple(text.lower() for text in words.imagenet_classnames)
    return Prompts(name, synsets(), names, _texts(templates), "zh", _version("cn_clip"))


def _import(module: str, name: str, remedy: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"template set {name}: the words come with {module.partition('.')[0]}, which cannot be "
            f"imported ({error}); {remedy}"
        ) from error


def _texts(functions: Sequence[Callable[[str], str]]) -> tuple[str, ...]:
    """Both packages write templates as functions of the class name."""
    return tuple(function("{}") for function in functions)


def _version(distribution: str) -> str:
    return f"{distribution} {importlib.metadata.version(distribution)}"


# ---- the pictures --------------------------------------------------------------------------

_LAYOUT = (
    "DIR/{split}/n01440764/*.JPEG, one folder per WordNet id, or DIR/0 ... DIR/999 (ImageNetV2)"
)


@dataclass(frozen=True)
class ValidationSet:
    """N pictures with their class, sorted by class and name; nothing is opened to find them."""

    root: Path
    files: tuple[str, ...]  # relative to root, with /
    labels: tuple[int, ...]  # class index, 0 to K - 1
    notes: tuple[str, ...] = ()  # what differs from the whole set

    def __len__(self) -> int:
        return len(self.files)

    def spread(self, limit: int | None) -> ValidationSet:
        """At most `limit` pictures, evenly spread, so that every class keeps its share.

        Raises:
            ValueError: a limit below 1.
        """
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise ArgumentError("limit", f"got {limit}; expected 1 or more images")
        kept = [i * len(self) // limit for i in range(limit)]
        files, labels = tuple(self.files[i] for i in kept), tuple(self.labels[i] for i in kept)
        note = f"{limit:,} of {len(self):,} images, evenly spread"
        return ValidationSet(self.root, files, labels, (*self.notes, note))


def read_validation(data: Path, wnids: Sequence[str], *, split: str = "val") -> ValidationSet:
    """The pictures below `data`, sorted by class as torchvision and the benchmarks have them.

    Args:
        data: the folder above the split, or the split itself.
        wnids: WordNet ids in the order of the class index.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder.
        ValueError: no pictures, or a folder of no known class.
    """
    root = _root(data, split)
    folders = sorted(path.name for path in _visible(root) if path.is_dir())
    v2 = bool(folders) and all(name.isdigit() for name in folders)
    classes = {str(i) if v2 else wnid: i for i, wnid in enumerate(wnids)}
    if unknown := [name for name in folders if name not in classes]:
        raise ValueError(
            f"{shown(root / unknown[0])}: {len(unknown)} of {len(folders)} folders are no class of "
            "ImageNet's 1,000; expected WordNet ids such as n01440764, or 0 to 999: move the others"
        )
    found = sorted((classes[f], f"{f}/{name}") for f in folders for name in _images(root / f))
    if not found:
        expected = _LAYOUT.format(split=split)
        raise ValueError(f"{shown(root)}: no images of ImageNet; expected {expected}")
    labels, files = zip(*found, strict=True)
    notes = []
    if empty := sorted(set(folders) - {f.partition("/")[0] for f in files}):
        notes.append(f"{len(empty)} class folders hold no image: {', '.join(empty[:5])}")
    present, whole = len(set(labels)), 10_000 if v2 else 50_000
    if present < len(wnids):
        notes.append(f"pictures of {present:,} classes only, judged among all {len(wnids):,}")
    elif len(files) != whole:
        notes.append(f"{len(files):,} images, where the whole set has {whole:,}")
    return ValidationSet(root, files, labels, tuple(notes))


def _root(data: Path, split: str) -> Path:
    if not data.exists():
        raise FileNotFoundError(f"{shown(data)}: no such folder; expected ImageNet's")
    if not data.is_dir():
        raise NotADirectoryError(f"{shown(data)}: a file; expected the folder of the images")
    for place in (data / split, data / "ILSVRC" / "Data" / "CLS-LOC" / split):
        if place.is_dir():
            return place
    if any(re.fullmatch(r"n\d{8}|\d+", path.name) for path in _visible(data)):
        return data
    raise FileNotFoundError(
        f"{shown(data)}: no folder {split!r} in it and no classes either; expected "
        + _LAYOUT.format(split=split)
    )


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _images(folder: Path) -> list[str]:
    """Names of the image files directly in one folder."""
    images = (path for path in _visible(folder) if path.name.lower().endswith(SUFFIXES))
    return sorted(path.name for path in images if path.is_file())
