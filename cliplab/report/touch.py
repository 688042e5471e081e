"""What a reader changes in a notebook: controls above a picture, and guesses before the answer."""

from collections.abc import Callable, Mapping
from typing import Any

from cliplab.runtime import ArgumentError, somebody_is_there


def touch(draw: Callable[..., object], **controls: Any) -> None:
    """Call `draw` with the value of every control, again whenever one is moved.

    Where nobody can move anything (papermill, nbval, a page), only the first picture is left.

    Args:
        draw: shows something for its keyword arguments. A ValueError is a value that makes no
            sense: its message stands in place of the picture.
        controls: by argument of `draw`: a text, a number with its range and step (value, least,
            most, step), or choices as a list, the first of which is the first shown.
    """
    if not somebody_is_there():
        _told(draw, controls)(**{name: _first(control) for name, control in controls.items()})
        return
    from IPython.display import display
    from ipywidgets import VBox, interactive_output

    widgets = {name: _widget(name, control) for name, control in controls.items()}
    display(VBox(list(widgets.values())), interactive_output(_told(draw, controls), widgets))


def _told(draw: Callable[..., object], controls: Mapping[str, Any]) -> Callable[..., None]:
    """`draw`, whose ValueError becomes a sentence, about a control: the text if there is one."""
    from IPython.display import Pretty, display

    def tell(**values: object) -> None:
        try:
            draw(**values)
        except ArgumentError as error:  # its name is the library's, which the reader does not see
            typed = (name for name, control in controls.items() if isinstance(control, str))
            name = error.name if error.name in controls else next(typed, error.name)
            display(Pretty(f"{_description(name)}: {error.what}"))
        except ValueError as error:
            display(Pretty(str(error)))

    return tell


def _description(name: str) -> str:
    return name.replace("_", " ")


def _first(control: Any) -> Any:
    return control if isinstance(control, str) else control[0]


def _widget(name: str, control: Any) -> Any:
    import ipywidgets

    about = {"description": _description(name), "style": {"description_width": "initial"}}
    if isinstance(control, str):
        wide = ipywidgets.Layout(width="40em")
        return ipywidgets.Text(control, continuous_update=False, layout=wide, **about)
    if isinstance(control, list):
        return ipywidgets.Dropdown(options=control, value=control[0], **about)
    value, least, most, step = control
    kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    return kind(value, min=least, max=most, step=step, continuous_update=False, **about)


def beside(guess: object, measured: float | str) -> str:
    """A guess made before the answer, beside what was measured, as a sentence.

    >>> beside(None, 0.31)
    'measured: 0.31 (no guess)'
    >>> beside(0.5, 0.31)
    'your guess: 0.5; measured: 0.31, 0.19 below it'
    >>> beside("left", "right")
    "your guess: 'left'; measured: 'right'"
    """
    shown = repr(measured) if isinstance(measured, str) else f"{measured:.3g}"
    if guess is None:
        return f"measured: {shown} (no guess)"
    if isinstance(measured, str):
        right = guess == measured
        return f"your guess: {guess!r}; measured: {shown}{', as you said' if right else ''}"
    if not isinstance(guess, int | float) or isinstance(guess, bool):
        return f"measured: {shown}; a guess is a number here, such as 0.5, not {guess!r}"
    off = measured - guess
    side = f"{abs(off):.3g} {'above' if off > 0 else 'below'} it" if off else "as you said"
    return f"your guess: {guess:g}; measured: {shown}, {side}"
