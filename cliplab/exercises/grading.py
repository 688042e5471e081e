"""What nbgrader does to a hand-in of a cliplab course, beyond its own steps.

A hand-in is the whole lesson. Executed are its exercises and whatever they need of the rest: cells
that bind a name which they read, and so on. So grading takes seconds, and what a student tried
elsewhere, an endless loop perhaps, does not matter. Whatever a hand-in does, the batch goes on.
"""

import builtins
import symtable
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert.preprocessors import ClearMetadataPreprocessor, CSSHTMLHeaderPreprocessor
from nbformat import v4
from nbgrader import preprocessors as nbgrader
from nbgrader.api import Gradebook
from nbgrader.utils import is_grade, is_solution

from cliplab.exercises.masters import STUB, nbgrader_metadata

SKIP = "skip-execution"  # nbclient's tag
_LONGEST = 20_000  # characters of one output as text


def configure(config: Any) -> None:
    """Set what `nbgrader_config.py` of a course needs."""
    config.ClearSolutions.code_stub = {"python": STUB}
    config.Autograde.pre_convert_hook = name_notebook
    config.Autograde.sanitize_preprocessors = [
        nbgrader.ClearOutput, Mend, nbgrader.OverwriteKernelspec, nbgrader.CheckCellMetadata
    ]  # fmt: skip
    config.Autograde.autograde_preprocessors = [
        Select, Run, nbgrader.IgnorePattern, ClearMetadataPreprocessor, nbgrader.LimitOutput,
        nbgrader.SaveAutoGrades, nbgrader.AssignLatePenalties, nbgrader.CheckCellMetadata,
    ]  # fmt: skip
    config.IgnorePattern.enabled = True  # a warning on stderr costs no points
    config.IgnorePattern.pattern = r"[\s\S]"
    config.GenerateFeedback.preprocessors = [
        nbgrader.GetGrades, HideTests, CSSHTMLHeaderPreprocessor
    ]  # fmt: skip


def name_notebook(notebooks: list[str], **_: Any) -> None:
    """Give the only notebook of a hand-in the name of its assignment, whatever it is called."""
    if len(notebooks) == 1:
        path = Path(notebooks[0])
        wanted = path.with_name(f"{path.parent.name}.ipynb")
        notebooks[:] = [str(path.rename(wanted))]


class Mend(nbgrader.NbGraderPreprocessor):
    """Make the cells of exercises what they must be: tests as they were, functions as written.

    Of cells with the same id the last one counts; the others, and those with an id that is not
    known, are cells like any other. Tests that are missing come last.
    """

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        """Mend one hand-in."""
        about = resources["nbgrader"]
        with Gradebook(about["db_url"]) as gradebook:
            source = gradebook.find_notebook(about["notebook"], about["assignment"])
            points = {cell.name: cell.max_score for cell in source.grade_cells}
            missing = {cell.name: cell for cell in source.source_cells}
            for i in reversed(range(len(nb.cells))):
                cell, name = nb.cells[i], _grade_id(nb.cells[i])
                cell.metadata.pop("nbgrader", None)
                if name in missing:
                    nb.cells[i] = _mended(missing.pop(name), points.get(name), cell.source)
            for name, cell in missing.items():
                if name in points:
                    nb.cells.append(_mended(cell, points[name], ""))
        return nb, resources


def _grade_id(cell: Any) -> str:
    """Of the metadata; where an editor dropped them the cell's own id, which is the same."""
    about = cell.metadata.get("nbgrader")
    return str(about.get("grade_id") if isinstance(about, dict) else cell.get("id"))


def _mended(known: Any, points: float | None, written: str) -> Any:
    """A cell as the gradebook knows it; a function as it was written."""
    cell = v4.new_code_cell(written if points is None else known.source)
    about = nbgrader_metadata(known.name, points)
    cell.metadata["nbgrader"] = about | {"cell_type": "code", "checksum": known.checksum}
    return cell


class Select(nbgrader.NbGraderPreprocessor):
    """Tag the cells that need not be executed; the others are told to be quick."""

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        """Look at one hand-in."""
        sources = [cell.source if cell.cell_type == "code" else "" for cell in nb.cells]
        roots = {i for i, cell in enumerate(nb.cells) if is_grade(cell) or is_solution(cell)}
        wanted = needed(sources, roots)
        for i, cell in enumerate(nb.cells):
            if "parameters" in cell.metadata.get("tags", []):
                cell.source += "\nQUICK = True"
            cell.metadata["tags"] = [] if i in wanted else [SKIP]
        return nb, resources


def needed(sources: Sequence[str], roots: set[int]) -> set[int]:
    """`roots` and the cells that they need: the last above that bind a name they read, and so on.

    A name that none above binds is looked for below: functions find it when they are called.
    """
    names = [_names(source) for source in sources]

    def binders(name: str, reader: int) -> list[int]:
        found = [i for i in range(max(roots)) if name in names[i][0] and i != reader]
        return [i for i in found if i < reader][-1:] or found

    wanted: set[int] = set()
    more = set(roots)
    while more:
        wanted |= more
        more = {j for i in more for name in names[i][1] for j in binders(name, i)} - wanted
    return wanted


def _names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell binds, and those it reads from outside; none if it has no syntax."""
    try:
        top = symtable.symtable(source, "cell", "exec")
    except (SyntaxError, ValueError):
        return set(), set()
    made = {s.get_name() for s in top.get_symbols() if s.is_imported() or s.is_namespace()}
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned()} | made
    read = {
        symbol.get_name()
        for table in _tables(top)
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (table is top or symbol.is_global())
    }
    return bound, read - made - set(dir(builtins))


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


class Run(nbgrader.Execute):
    """Execute, and outlive the kernel: a cell that ends it or never ends is marked and left out.

    The others are executed again in a new kernel, for what they had defined is lost.
    """

    at = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.interrupt_on_timeout = False  # a cell may swallow that
        self.shutdown_kernel = "immediate"
        self.iopub_timeout = 30  # of a machine that is busy
        # bounds on print and memory: they stand in a module that loads no nbgrader in the kernel
        self.extra_arguments = ["--InteractiveShellApp.extra_extensions=cliplab.exercises.course"]

    def preprocess(self, nb: Any, resources: Any, km: Any = None) -> tuple[Any, Any]:
        """Execute the cells of one hand-in."""
        while True:
            try:
                return super().preprocess(nb, resources, km)
            except (DeadKernelError, CellTimeoutError) as error:
                died, kind = isinstance(error, DeadKernelError), type(error).__name__
                text = "this cell ended Python" if died else "this cell took too long"
                failed = v4.new_output("error", ename=kind, evalue=text, traceback=[text])
                nb.cells[self.at].outputs = [failed]
                nb.cells[self.at].metadata["tags"] = [SKIP]

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """Execute one cell, and cut what is very long."""
        self.at = index
        cell, resources = super().preprocess_cell(cell, resources, index)
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = output.text[:_LONGEST]
            elif output.output_type == "error":
                output.evalue = output.evalue[:_LONGEST]
                output.traceback = ["\n".join(output.traceback)[-_LONGEST:]]
        return cell, resources


class HideTests(nbgrader.ClearHiddenTests):
    """Feedback says which kind of fault a test found, and shows neither the test nor its seed."""

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """Hide what is hidden in one cell."""
        if not is_grade(cell):
            return cell, resources
        for output in cell.outputs:
            if output.output_type == "error":
                output.traceback = [f"{output.ename}: {output.evalue}"]
        return super().preprocess_cell(cell, resources, index)
