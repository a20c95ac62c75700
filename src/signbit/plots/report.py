"""The demo's report: one HTML file with its pictures inside, to be opened or mailed as it is."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2329; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.lead { color: #57606a; margin-top: .2rem; }
table { border-collapse: collapse; } td, th { padding: .3rem .9rem .3rem 0; text-align: left;
       border-bottom: 1px solid #e3e6ea; vertical-align: top; }
td:nth-child(2) { font-variant-numeric: tabular-nums; font-weight: 600; }
td:nth-child(3) { color: #57606a; }
img { max-width: 100%; height: auto; }
"""


def render_report(
    title: str,
    lead: str,
    numbers: Sequence[tuple[str, str, str]],
    pictures: Mapping[str, tuple[bytes, str]],
) -> str:
    """A self-contained HTML page.

    Args:
        title: the heading.
        lead: a sentence below it.
        numbers: rows of (what, value, remark).
        pictures: heading -> (PNG bytes, caption), in order.

    Returns:
        The page's text; everything given is escaped.
    """
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in numbers
    )
    figures = "\n".join(
        f"<h2>{html.escape(heading)}</h2>\n<p>{html.escape(caption)}</p>\n"
        f'<img alt="{html.escape(heading)}" src="data:image/png;base64,'
        f'{base64.b64encode(png).decode("ascii")}">'
        for heading, (png, caption) in pictures.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style></head>
<body>
<h1>{html.escape(title)}</h1>
<p class="lead">{html.escape(lead)}</p>
<table>
{rows}
</table>
{figures}
</body>
</html>
"""
