"""The picture of `make bench`: a bar for each variant, as SVG."""

from __future__ import annotations

from html import escape
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.load import Burst

ROW_HEIGHT, LABEL_WIDTH, BAR_WIDTH = 26, 190, 430
COLOURS = {"traced": "#2f6fdb", "untraced": "#7aa5ec"}
OTHER_COLOUR = "#9aa0a6"


def picture(title: str, variants: Mapping[str, Sequence[Burst]]) -> str:
    """Bars of the CPU of one request, the median of each variant."""
    totals = {name: median(burst.total for burst in bursts) for name, bursts in variants.items()}
    scale = BAR_WIDTH / max(totals.values())
    bars = "".join(_bar(number, name, total, scale) for number, (name, total) in enumerate(totals.items()))
    height = ROW_HEIGHT * (len(totals) + 1) + 10
    width = LABEL_WIDTH + BAR_WIDTH + 70
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="13" fill="#777">\n'
        f'<text x="8" y="18" font-weight="bold">CPU of one request, all processes, µs ({escape(title)})</text>\n'
        f"{bars}</svg>\n"
    )


def _bar(number: int, name: str, total: float, scale: float) -> str:
    top = ROW_HEIGHT * (number + 1)
    colour = COLOURS.get(name, OTHER_COLOUR)
    return (
        f'<text x="8" y="{top + 18}">{escape(name)}</text>'
        f'<rect x="{LABEL_WIDTH}" y="{top + 4}" width="{total * scale:.1f}" height="18" rx="2" fill="{colour}"/>'
        f'<text x="{LABEL_WIDTH + total * scale + 6:.1f}" y="{top + 18}">{total:.0f}</text>\n'
    )
