"""A hook of `make docs`: Mermaid fences become drawings, so that a page loads no script."""

import re
from html import unescape
from typing import Any

import mermaidx

# No word is cut off where a font is wider than Mermaid thought.
STYLE = "<style>.diagram foreignObject {overflow: visible}</style>"
FENCE = re.compile(r'<pre><code class="language-mermaid">(.*?)</code></pre>', re.DOTALL)


def on_page_content(html: str, **_: Any) -> str:
    """The page's HTML with each Mermaid block as inline SVG; mkdocs calls it once a page.

    Raises whatever Mermaid says of a diagram that it cannot read: the build fails.
    """
    return FENCE.sub(lambda fence: _figure(unescape(fence[1])), html)


def _figure(source: str) -> str:
    return f'<figure class="diagram">{STYLE}{mermaidx.render(source).svg()}</figure>'
