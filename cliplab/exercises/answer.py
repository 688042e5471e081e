"""A student's function under examination: called on copies, in limited time, and its faults named.

Every way of going wrong has a `kind` and a sentence of its own; decisions are taken by kind.
"""

import _thread
import contextlib
import copy
import io
import math
import numbers
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from cliplab import pasture

TIME_LIMIT = 1.5  # seconds of one check
_TICK = 0.02  # seconds between two looks at the time
TOLERANCE = 1e-4  # relative, and absolute near 0


class Wrong(Exception):
    """What is wrong with an answer.

    Args:
        kind: "not yet", "raises", "endless", "prints", "nothing", "changes", "type", "shape",
            "dtype", "device", "nan", "value" or "mistake" (a known one, which is named).
        text: a sentence for the student.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind, self.text = kind, text


class Draw:
    """Inputs of one examination, all from one seed.

    Args:
        seed: of all that is drawn.
        split: of the pasture, from which scenes are drawn; "hidden" is shipped in no data set.
    """

    def __init__(self, seed: int, split: str = "val") -> None:
        self.split, self.generator = split, torch.Generator().manual_seed(seed)

    def integer(self, least: int, most: int) -> int:
        """A whole number, least and most included."""
        return int(torch.randint(least, most + 1, (), generator=self.generator))

    def number(self, least: float, most: float) -> float:
        """A number between two others."""
        return least + (most - least) * torch.rand((), generator=self.generator).item()

    def normal(self, *shape: int) -> Tensor:
        """Normal numbers, float32."""
        return torch.randn(*shape, generator=self.generator)

    def unit_rows(self, *shape: int) -> Tensor:
        """Vectors of length 1, float32."""
        return torch.nn.functional.normalize(self.normal(*shape), dim=-1)

    def herd(self, **options: Any) -> pasture.Scene:
        """A herd of the pasture."""
        return pasture.herd(self.integer(0, 9_999_999), split=self.split, **options)

    def portrait(self, **options: Any) -> pasture.Scene:
        """A portrait of the pasture."""
        return pasture.portrait(self.integer(0, 9_999_999), split=self.split, **options)


class Answer:
    """A student's function; calling it gives what it returns, or raises `Wrong`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", "your function")
        self.given: tuple[Any, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it on copies of the arguments, kept in `given`; they must stay as they are."""
        given = copy.deepcopy((args, kwargs))
        self.given = given[0]  # a leaf among them has the gradient after a backward pass
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                got = self.function(*given[0], **given[1])
            except NotImplementedError as error:
                raise Wrong("not yet", f"{self.name} is not written yet") from error
            except Wrong:  # of a function that it was given
                raise
            except Exception as error:
                raise Wrong("raises", self._raised(error, args, kwargs)) from error
        call = self.shown(args, kwargs)
        if got is None and printed.getvalue():
            raise Wrong("prints", f"{call} prints its result; `return` it instead")
        if got is None or got is ...:
            raise Wrong("nothing", f"{call} returns nothing; is there a `return`?")
        if not _same(given, (args, kwargs)):
            raise Wrong("changes", f"{call} changes its arguments; work on new tensors")
        return got

    def expect(
        self,
        expected: Any,
        *args: Any,
        mistakes: Mapping[str, Any] | None = None,
        tolerance: float = TOLERANCE,
        **kwargs: Any,
    ) -> Any:
        """Call it, and require what it returns to be near `expected`.

        Args:
            expected: a tensor, a number, a text, or a tuple or list of them.
            mistakes: what known mistakes return, by the sentence that names the mistake.
            tolerance: relative, and absolute near 0.
        """
        got, call = self(*args, **kwargs), self.shown(args, kwargs)
        _alike(got, expected, call)
        if _near(got, expected, tolerance):
            return got
        for sentence, wrong in (mistakes or {}).items():
            if _near(got, wrong, tolerance) and not _near(wrong, expected, tolerance):
                raise Wrong("mistake", f"{call}: {sentence}")
        raise Wrong("value", f"{call} returns {_told_apart(got, expected)}")

    def require(self, holds: bool, sentence: str, kind: str = "mistake") -> None:
        """A property that must hold of what it returned."""
        if not holds:
            raise Wrong(kind, sentence)

    def require_error(self, kind: type[Exception], sentence: str, *args: Any) -> None:
        """Call it with arguments that it must refuse with an error of that kind."""
        try:
            self(*args)
        except Wrong as wrong:
            if isinstance(wrong.__cause__, kind):
                return
            if wrong.kind == "raises":
                sentence += f"; this raises {type(wrong.__cause__).__name__}"
        raise Wrong("mistake", sentence)

    def shown(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The call as a student would write it."""
        parts = [shown(a) for a in args] + [f"{k}={shown(v)}" for k, v in kwargs.items()]
        return f"{self.name}({', '.join(parts)})"

    def _raised(self, error: Exception, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        where = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in where[1:] if frame.name == self.name] or where[1:2]
        line = f" in the line `{own[-1].line}`" if own and own[-1].line else ""
        return f"{self.shown(args, kwargs)} raises {type(error).__name__}: {error}{line}"


class _TooLong(BaseException):
    """Not an Exception, so that a student's `except Exception` does not catch it."""


@contextlib.contextmanager
def time_limit(seconds: float = TIME_LIMIT) -> Iterator[None]:
    """End what takes longer with `Wrong`; only the main thread can be interrupted.

    Imports do not count: a library that is loaded for the first time may take longer than that.
    """
    main = threading.main_thread().ident or 0
    if threading.get_ident() != main:
        yield
        return
    number = getattr(signal, "SIGALRM", signal.SIGINT)  # Windows has no SIGALRM
    around, done = _imports(main), threading.Event()

    def watch() -> None:
        left, last = seconds, time.monotonic()
        while left > 0:
            if done.wait(_TICK):
                return
            passed, last = time.monotonic() - last, time.monotonic()
            left -= passed * (_imports(main) <= around)
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main, number)  # also out of a sleep
        else:
            _thread.interrupt_main(number)

    def end(*_: object) -> None:
        if not done.is_set():
            raise _TooLong

    before, thread = signal.signal(number, end), threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    except _TooLong:
        raise Wrong(
            "endless",
            f"no answer after {seconds:g} seconds; is there a loop that never ends, or one over "
            "single numbers where a tensor operation would do?",
        ) from None
    finally:
        done.set()
        thread.join()  # a signal that comes later would end Python
        signal.signal(number, before)


def _imports(thread: int) -> int:
    """How many imports a thread is in, one inside another."""
    frames = traceback.walk_stack(sys._current_frames()[thread])
    return sum(f.f_code.co_filename == "<frozen importlib._bootstrap>" for f, _ in frames)


# ---- comparing -----------------------------------------------------------------------------


def shown(value: Any) -> str:
    """A value in a few characters: small ones whole, large tensors by their shape."""
    if isinstance(value, Tensor):
        if value.numel() <= 6 and value.ndim <= 2:
            inside = value.detach().cpu()
            return str(
                inside.double().numpy().round(4).tolist()
                if inside.is_floating_point()
                else inside.tolist()
            )
        return f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple) and len(value) <= 6:
        inner = ", ".join(map(shown, value))
        comma = "," if len(value) == 1 else ""  # (1,) is a tuple
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{comma})"
    text = getattr(value, "__name__", repr(value))  # of a function its name
    return text if len(text) <= 60 else f"{type(value).__name__}"


def _alike(got: Any, expected: Any, call: str) -> None:
    """Type, shape, dtype and device, before any number is looked at."""
    if isinstance(expected, Tensor) and expected.ndim:
        if not isinstance(got, Tensor):
            raise Wrong("type", f"{call} returns {_kind(got)}; expected a tensor")
        for kind in ("shape", "device", "dtype"):
            one, other = getattr(got, kind), getattr(expected, kind)
            if one != other:
                one, other = (tuple(x) if kind == "shape" else str(x) for x in (one, other))
                raise Wrong(kind, f"{call} returns a tensor of {kind} {one}; expected {other}")
    elif isinstance(expected, Tensor | numbers.Number):
        _number(got, call)
    elif isinstance(expected, list | tuple):
        if not isinstance(got, list | tuple):
            raise Wrong("type", f"{call} returns {_kind(got)}; expected {len(expected)} values")
        if len(got) != len(expected):
            raise Wrong("shape", f"{call} returns {len(got)} values; expected {len(expected)}")
        for one, other in zip(got, expected, strict=True):
            _alike(one, other, call)
    elif not isinstance(got, type(expected)):
        raise Wrong("type", f"{call} returns {_kind(got)}; expected {_kind(expected)}")
    if isinstance(got, Tensor | float) and not torch.isfinite(torch.as_tensor(got)).all():
        raise Wrong("nan", f"{call} returns numbers that are not finite (NaN or infinity)")


def _number(got: Any, call: str) -> None:
    """One number: of Python, of numpy, or a tensor without dimensions."""
    if isinstance(got, Tensor) and got.numel() != 1:
        raise Wrong("shape", f"{call} returns {tuple(got.shape)} numbers; expected a single one")
    if not isinstance(got, Tensor | numbers.Number) and not hasattr(got, "item"):
        raise Wrong("type", f"{call} returns {_kind(got)}; expected a number")


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _near(got: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, list | tuple):
        return len(got) == len(expected) and all(
            _near(a, b, tolerance) for a, b in zip(got, expected, strict=True)
        )
    if isinstance(expected, Tensor) and expected.ndim:
        if not isinstance(got, Tensor) or got.shape != expected.shape:
            return False
        pair = got.detach().double(), expected.detach().double()
        return bool(torch.allclose(*pair, rtol=tolerance, atol=tolerance))
    if isinstance(expected, Tensor | numbers.Number):
        one, other = torch.as_tensor(got).item(), torch.as_tensor(expected).item()
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return bool(got == expected)


def _told_apart(got: Any, expected: Any) -> str:
    """What was returned and expected; of large tensors the number that is most off."""
    if isinstance(expected, Tensor) and expected.numel() > 6:
        off = (got.detach().double() - expected.detach().double()).abs()
        place = [int(i) for i in torch.unravel_index(off.argmax(), off.shape)]
        return f"{got[tuple(place)].item():.5g} at {place}; expected {expected[tuple(place)]:.5g}"
    return f"{shown(got)}; expected {shown(expected)}"


def _same(one: Any, other: Any) -> bool:
    """Whether copies of arguments are still equal; what cannot be compared is not looked at."""
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.equal(
            one.detach().nan_to_num(), other.detach().nan_to_num()
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, str | numbers.Number):
        return one == other
    return True
