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
from typing import Any

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


def read_prompts(*templates: str, class_names: Path | None = None) -> Prompts:
    """ImageNet's class names with one of the template sets of `SETS`, or with other templates.

    Args:
        templates: the name of a set, default openai80; or texts with {} for the name of a class.
        class_names: file with other names, one a line in the order of the index, such as the
            label_cn.txt of Chinese-CLIP's repository, which is not the list in its package.

    Raises:
        ValueError: unknown set, packages whose lists disagree, or another number of names.
        ImportError: the package that carries the words is not installed.
    """
    own = tuple(text for text in templates if "{}" in text)
    name = "bare" if own else ALIASES.get(" ".join(templates), " ".join(templates) or "openai80")
    if name not in SETS or len(own) not in (0, len(templates)):
        raise ValueError(unknown_name("template set", " ".join(templates), [*SETS, *ALIASES]))
    prompts = SETS[name](name)
    prompts = replace(prompts, name="own", templates=own) if own else prompts
    _check(prompts)
    return prompts if class_names is None else _renamed(prompts, class_names)


def _renamed(prompts: Prompts, path: Path) -> Prompts:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != len(prompts):
        raise ValueError(
            f"{path}: got {len(names)} class names; expected {len(prompts):,}, one a line"
        )
    names = tuple(name.lower() for name in names) if prompts.language == "zh" else names
    return replace(prompts, class_names=names, source=f"{prompts.source}, names of {path.name}")


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


Pick = Callable[[Any], Sequence[str]]


def _english(pick: Pick) -> Callable[[str], Prompts]:
    """A set with open_clip's class names (OpenAI's edited ones) and the templates that it picks."""

    def read(name: str) -> Prompts:
        words = _import("open_clip.zero_shot_metadata", name, "pip install open-clip-torch")
        names, source = tuple(words.IMAGENET_CLASSNAMES), _version("open_clip_torch")
        return Prompts(name, synsets(), names, tuple(pick(words)), "en", source)

    return read


def _chinese(module: str, attribute: str) -> Callable[[str], Prompts]:
    """Chinese-CLIP's names and templates, lower-cased as in its own evaluation."""
    remedy = "pip install --no-deps cn_clip (it pins an old lmdb, which this does not need)"

    def read(name: str) -> Prompts:
        words = _import("cn_clip.eval.imagenet_zeroshot_templates", name, remedy)
        templates = getattr(_import(f"cn_clip.eval.{module}", name, remedy), attribute)
        names = tuple(text.lower() for text in words.imagenet_classnames)
        return Prompts(name, synsets(), names, _texts(templates), "zh", _version("cn_clip"))

    return read


def _import(module: str, name: str, remedy: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"template set {name}: the words come with {package}, which cannot be imported "
            f"({error}); {remedy}"
        ) from error


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
    "chinese": _chinese("imagenet_zeroshot_templates", "openai_imagenet_template"),
    "chinese183": _chinese("cvinw_zeroshot_templates", "openai_templates"),
}
