"""Formulas as pictures: a notebook's LaTeX, drawn by Matplotlib, so that a page shows it without a script or a font.

Matplotlib's own typesetter knows most of LaTeX's mathematics but not all of its spellings; what it lacks and the
notebooks use is respelt here first. Sizes are in em, so that a formula grows with the text that it stands in.
"""

import base64
import html
import io
import re
import sys
from functools import cache

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser

SIZE = 50  # points an em: the typesetter rounds lengths to whole points
PADDING = 2  # points around a formula: slanted letters lean out of their boxes
_DISPLAYED = (r"\\frac(?![a-zA-Z])", r"\\dfrac")
_RESPELT = (
    (r"\\tfrac\s*(\w)\s*(\w)", r"\\frac{\1}{\2}"),
    (r"\\tfrac(?![a-zA-Z])", r"\\frac"),
    (r"\\xrightarrow\{((?:[^{}]|\{[^{}]*\})*)\}", r"\\overset{\1}{\\longrightarrow}"),
    (r"\\(?:big|Big|bigg|Bigg)[lrm]?(?![a-zA-Z])", ""),
    (r"\\(?:text|display)style(?![a-zA-Z])", ""),
    (r"\\(le|ge)(?![a-zA-Z])", r"\\\1q"),
    (r"\\[lr]Vert(?![a-zA-Z])", r"\\Vert"),
    (r"(?<=[\w)}])\s*(\\(?:log|exp|cos))(?![a-zA-Z])", r"\\,\1"),  # it sets no space before these
    (r"(?<!\d)\.(?=\d)", r".\\!"),  # and one too many in .05
)


@cache
def formula(tex: str, *, display: bool) -> str:
    """An ``<img>`` of a formula (its source without the dollars), with that source as its alt text.

    ``display``: set large, on a line of its own. What cannot be drawn is shown as it is written, and said so.
    """
    try:
        picture, width, depth = _draw(_respelt(tex, display))
    except ValueError:
        print(f"pages: this formula cannot be drawn and is shown as it is written: {tex.strip()}", file=sys.stderr)
        return f"<code>{html.escape(tex.strip())}</code>"
    source = f"data:image/svg+xml;base64,{base64.b64encode(picture).decode()}"
    style = f"width: {width:.2f}em; vertical-align: {-depth:.2f}em"
    image = f'<img class="formula" alt="{html.escape(" ".join(tex.split()))}" style="{style}" src="{source}" />'
    return f'<span class="display">{image}</span>' if display else image


def _respelt(tex: str, display: bool) -> str:
    tex = " ".join(tex.split())
    for pattern, replacement in (_DISPLAYED, *_RESPELT) if display else _RESPELT:
        tex = re.sub(pattern, replacement, tex)
    return tex


def _draw(tex: str) -> tuple[bytes, float, float]:
    """An SVG, its width and its depth below the line of text, in em. Raises ``ValueError`` for what is not known."""
    font = FontProperties(size=SIZE, math_fontfamily="cm")
    width, height, depth, _, _ = MathTextParser("path").parse(f"${tex}$", dpi=72, prop=font)
    width, height, depth = width + 2 * PADDING, height + 2 * PADDING, depth + PADDING
    figure = Figure(figsize=(width / 72, height / 72))
    figure.text(PADDING / width, depth / height, f"${tex}$", fontproperties=font)
    written = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return written.getvalue(), width / SIZE, depth / SIZE
