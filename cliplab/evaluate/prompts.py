"""The words of the ImageNet protocol: 1,000 class names and the templates around them.

Nothing is copied: the English words come from the installed `open_clip`, the Chinese ones from
`cn_clip`, the WordNet ids from `timm`, so that whoever has those packages has the same protocol.
"""

import hashlib
import importlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from cliplab.runtime import unknown_name

# Classes that everybody knows or that are easily mixed up: both lists must agree on their places.
_ANCHORS = {
    "n01440764": ("tench", "丁鲷"),
    "n02012849": ("crane bird", "鹤"),
    "n02123045": ("tabby cat", "虎斑猫"),
    "n03126707": ("construction crane", "起重机"),
    "n07742313": ("Granny Smith apple", "绿苹果"),
    "n15075141": ("toilet paper", "卫生纸"),
}
ALIASES = {"simple": "openai7"}  # open_clip's word for it


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

    def of_class(self, index: int) -> list[str]:
        """The T prompts of one class."""
        return [template.replace("{}", self.class_names[index]) for template in self.templates]

    def subset(self, indices: Sequence[int]) -> "Prompts":
        """The protocol among fewer classes, renumbered 0, 1, ...: for tests and for a first look.

        Figures among fewer classes are higher and can be compared with nothing published.
        """
        return replace(
            self,
            wnids=tuple(self.wnids[i] for i in indices),
            class_names=tuple(self.class_names[i] for i in indices),
        )

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of every word, in order."""
        words = [self.wnids, self.class_names, self.templates]
        return hashlib.sha256(json.dumps(words, ensure_ascii=False).encode()).hexdigest()

    @property
    def same_names(self) -> dict[str, list[int]]:
        """Names that several classes share, whatever their case: only the first of them can win."""
        found: dict[str, list[int]] = {}
        for i, name in enumerate(self.class_names):
            found.setdefault(name.casefold(), []).append(i)
        return {self.class_names[i[0]]: i for i in found.values() if len(i) > 1}


def read_prompts(name: str = "openai80") -> Prompts:
    """ImageNet's class names with one of the template sets of `SETS`.

    Raises:
        ValueError: unknown set, or packages whose lists disagree.
        ImportError: the package that carries the words is not installed.
    """
    name = ALIASES.get(name, name)
    if name not in SETS:
        raise ValueError(unknown_name("template set", name, [*SETS, *ALIASES]))
    prompts = SETS[name](name)
    _check(prompts)
    return prompts


def _check(prompts: Prompts) -> None:
    """Ids and names come from different packages: make sure that they count the classes alike."""
    column = ("en", "zh").index(prompts.language)
    place = dict(zip(prompts.wnids, prompts.class_names, strict=True))
    for wnid, names in _ANCHORS.items():
        if place.get(wnid) != names[column]:
            raise ValueError(
                f"{prompts.source}: class {wnid} is {place.get(wnid)!r}; expected "
                f"{names[column]!r}: this version orders or words the classes differently"
            )


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
            wnids = tuple(path.read_text(encoding="utf-8").split())
            if len(set(wnids)) == 1000 and list(wnids) == sorted(wnids):
                return wnids
            raise ValueError(f"{path.name} of timm: not 1,000 sorted ids; pip install -U timm")
    raise ImportError('the WordNet ids of ImageNet come with timm; pip install "timm>=1.0"')


def _english(pick: Callable[[object], Sequence[str]]) -> Callable[[str], Prompts]:
    """A set with open_clip's class names (OpenAI's edited ones) and the templates that it picks."""

    def read(name: str) -> Prompts:
        try:
            words = importlib.import_module("open_clip.zero_shot_metadata")
        except ImportError as error:
            raise ImportError(
                f"--templates {name}: the words come with open_clip, which cannot be imported "
                f"({error}); pip install open-clip-torch"
            ) from error
        names, source = tuple(words.IMAGENET_CLASSNAMES), _version("open_clip_torch")
        return Prompts(name, synsets(), names, tuple(pick(words)), "en", source)

    return read


def _chinese(name: str) -> Prompts:
    """Chinese-CLIP's translation of both; its own evaluation lower-cases them and so do we."""
    try:
        words = importlib.import_module("cn_clip.eval.imagenet_zeroshot_templates")
    except ImportError as error:
        raise ImportError(
            f"--templates {name}: the words come with cn_clip, which cannot be imported ({error}); "
            "pip install --no-deps cn_clip (its own requirements pin an old lmdb, not needed here)"
        ) from error
    names = tuple(text.lower() for text in words.imagenet_classnames)
    templates = _texts(words.openai_imagenet_template)
    return Prompts(name, synsets(), names, templates, "zh", _version("cn_clip"))


def _texts(functions: Sequence[Callable[[str], str]]) -> tuple[str, ...]:
    """Both packages write templates as functions of the class name."""
    return tuple(function("{}") for function in functions)


def _version(distribution: str) -> str:
    return f"{distribution} {importlib.metadata.version(distribution)}"


# Name -> how to read it. The reader asks for a package only when it is called.
SETS: dict[str, Callable[[str], Prompts]] = {
    "openai80": _english(lambda words: _texts(words.OPENAI_IMAGENET_TEMPLATES)),
    "openai7": _english(lambda words: _texts(words.SIMPLE_IMAGENET_TEMPLATES)),
    "one": _english(lambda words: ("a photo of a {}.",)),
    "bare": _english(lambda words: ("{}",)),
    "chinese": _chinese,
}
