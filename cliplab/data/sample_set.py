"""Samples of one source, the names of their classes, their splits, and what was wrong."""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cliplab.data.files import printable, shown
from cliplab.data.reading import COLUMNS
from cliplab.data.samples import SPLITS, Ids, Problem, Sample
from cliplab.data.splits import deal
from cliplab.runtime import atomic_write, unknown_name


@dataclass(frozen=True)
class SampleSet:
    """Samples in a fixed order, the names of their classes, and what was wrong with the source."""

    samples: tuple[Sample, ...]
    root: Path
    class_names: tuple[str, ...] = ()  # sorted; none if nothing is labelled
    problems: tuple[Problem, ...] = ()  # what was clipped, skipped or guessed, and why
    are_answers: bool = False  # its boxes or masks have scores: a model drew them, no truth
    ids: Ids = field(default_factory=Ids)  # of a COCO file

    @classmethod
    def of(
        cls, samples: Iterable[Sample], root: Path, problems: Iterable[Problem] = ()
    ) -> "SampleSet":
        """A set whose classes are the labels that occur, of samples and of their regions."""
        samples = tuple(samples)
        labels = {label for one in samples for label in (one.label, *one.labels)}
        names = sorted(label for label in labels if label is not None)
        return cls(samples, root, tuple(names), tuple(problems))

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __getitem__(self, i: int) -> Sample:
        return self.samples[i]

    @property
    def labels(self) -> list[int | None]:
        """For each sample the index of its class in `class_names`, None if it is not labelled."""
        index = {name: i for i, name in enumerate(self.class_names)}
        return [None if p.label is None else index[p.label] for p in self.samples]

    @property
    def splits(self) -> dict[str, int]:
        """How many samples each split has; {} if there are no splits."""
        found = Counter(sample.split for sample in self.samples)
        return {split: found[split] for split in SPLITS if found[split]}

    def select(self, split: str) -> "SampleSet":
        """The samples of one split, maybe none; the classes stay those of the whole set."""
        if split not in SPLITS:
            raise ValueError(unknown_name("split", split, SPLITS))
        return replace(self, samples=tuple(p for p in self.samples if p.split == split))

    def with_splits(
        self,
        fractions: Mapping[str, float] | None = None,
        *,
        seed: int = 0,
        previous: "SampleSet | None" = None,
    ) -> "SampleSet":
        """The same samples, each in train, val or test; splits that are there already stay.

        How, and what it promises, says `cliplab.data.splits`. Every picture is looked at (0.06 s
        for a JPEG of 12 megapixels), so that copies stay together.

        Args:
            fractions: share of train, val and test; default 0.6, 0.2 and 0.2.
            seed: another one gives other splits.
            previous: pictures of this set keep the split that they have there.

        Raises:
            ValueError: fractions of other splits or with another sum than 1; or so few groups
                that a split would be empty.
        """
        dealt, problems = deal(self.samples, fractions, seed, previous or ())
        said = tuple(dict.fromkeys([*self.problems, *problems]))
        return replace(self, samples=tuple(dealt), problems=said)

    def write_manifest(self, target: str | Path, force: bool = False) -> Path:
        """Write these samples as a CSV table that `read_photos` reads back as the same set.

        It fixes labels, boxes, groups and splits for good; paths are relative to the table. A file
        that is there already is overwritten only if `force` is given.
        """
        path = Path(target)
        if path.exists() and not force:
            raise FileExistsError(
                f"{shown(path)}: exists already; choose another or give force=True"
            )
        columns = COLUMNS if any(one.box_xyxy for one in self) else COLUMNS[:4]
        with atomic_write(path, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            for one in self:
                edges = [repr(value).removesuffix(".0") for value in one.box_xyxy or ()] or [""] * 4
                cells = [_path_from(one, path.parent), one.label, one.group, one.split, *edges]
                writer.writerow(cells[: len(columns)])
        return path


def _path_from(sample: Sample, folder: Path) -> str:
    """Path of a picture from `folder`, with /."""
    try:
        path = Path(os.path.relpath(sample.path, folder)).as_posix()
    except ValueError:  # Windows: on another drive
        path = sample.path.absolute().as_posix()
    if printable(path) != path:
        raise ValueError(f"{sample.name}: its path is not text in UTF-8; rename the file")
    return path
