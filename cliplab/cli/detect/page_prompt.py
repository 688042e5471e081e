"""The sentence that a model was asked, its phrases marked in the colours of their boxes."""

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from cliplab.models.glip import Prompt
from cliplab.viz.boxes import box_colour

PROMPT_STYLE = """
.asked { margin: 16px 0 2px; padding: 12px 18px 14px; border-radius: 12px; background: var(--card);
  border: 1px solid var(--line); }
.asked h2 { margin: 0 0 2px; font-size: 14px; font-weight: 600; color: var(--muted); }
.prompt { margin: 0; font-size: 19px; line-height: 2.1; white-space: pre-wrap;
  overflow-wrap: anywhere; max-height: 9.5em; overflow: auto; color: var(--muted); }
.prompt .phrase { padding: 2px 0 1px; color: var(--ink);
  background: color-mix(in srgb, var(--c) 20%, transparent); }
.prompt label.phrase { cursor: pointer; }
.prompt label.phrase:hover { background: color-mix(in srgb, var(--c) 45%, transparent); }
.prompt .as { font-size: 13px; color: var(--muted); }
"""
_LINE, _GAP = 3, 2  # pixels of an underline, and between those of phrases that overlap


def prompt_html(prompt: Prompt, names: Sequence[str], chosen: int) -> str:
    """A section with the prompt.

    Args:
        prompt: phrases may overlap; a part of several has the ground of the shortest, and an
            underline of each.
        names: K, what the boxes of each phrase are called; one that is not its phrase stands
            behind it.
        chosen: phrases that a click can choose, as their chips do.
    """
    edges = {0, len(prompt.caption)}
    edges |= {edge for spans in prompt.spans for span in spans for edge in span}
    parts = []
    for start, end in pairwise(sorted(edges)):
        held = _held(prompt, start, end)
        text = escape(prompt.caption[start:end])
        parts.append(_marked(text, held, names, chosen) if held else text)
        parts += [
            f' <span class="as">({escape(names[k])})</span>'
            for k in held
            if names[k] != prompt.phrases[k] and end == prompt.spans[k][0][1]
        ]
    return (
        '<section class="asked"><h2>What was asked</h2>'
        f'<p class="prompt">{"".join(parts)}</p></section>'
    )


def _held(prompt: Prompt, start: int, end: int) -> list[int]:
    """Phrases with a span over these characters, the shortest span first."""
    found = [
        (b - a, k)
        for k, spans in enumerate(prompt.spans)
        for a, b in spans
        if a <= start and end <= b
    ]
    return list(dict.fromkeys(k for _, k in sorted(found)))


def _marked(text: str, held: Sequence[int], names: Sequence[str], chosen: int) -> str:
    lines, below = [], 0
    for k in held:
        lines.append(f"0 {below + _LINE}px 0 {box_colour(k)}")
        lines.append(f"0 {below + _LINE + _GAP}px 0 var(--card)")
        below += _LINE + _GAP
    style = f"--c:{box_colour(held[0])};box-shadow:{','.join(lines[:-1])}"
    title = escape(" and ".join(names[k] for k in held))
    tag, target = ("label", f' for="c-{held[0]}"') if held[0] < chosen else ("span", "")
    return f'<{tag} class="phrase" style="{style}" title="{title}"{target}>{text}</{tag}>'
