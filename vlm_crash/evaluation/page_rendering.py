"""A template and its values -> the text of a page that needs no network and no file beside it.

Styles, script and data are inside, and the page's content-security policy forbids anything else, any script but this
one included. Texts are escaped by jinja2, or reach the page as JSON and textContent.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

STYLES = ("report.css", "browser.css")


def render(
    template: str, context: dict[str, Any], scripts: Sequence[str] = (), data: str = "{}", clips: Sequence[str] = ()
) -> str:
    """The page.

    Args:
        template: its name in templates/.
        context: its values.
        scripts: names in templates/, run one after the other as one script; none: the page has no script.
        data: JSON that the script reads at once, as `script_json` makes it.
        clips: JSON of each clip, which the script reads when it is opened.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = lambda value: f"{100 * min(max(value, 0.0), 1.0):.2f}%"
    script = "".join(map(_file, scripts))
    # The style and the script are ours; the JSON is made safe by script_json. All else is escaped.
    return environment.get_template(template).render(
        **context,
        css=Markup("".join(map(_file, STYLES))),
        js=Markup(script),
        script_source=Markup(f"'sha256-{_hash(script)}'" if script else "'none'"),
        data_json=Markup(data),
        clip_json=[Markup(clip) for clip in clips],
    )


def script_json(data: Any) -> str:
    """JSON that may stand inside a <script>: no character of it can end the element or open a comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _file(name: str) -> str:
    return (resources.files("vlm_crash.evaluation") / "templates" / name).read_text(encoding="utf-8")
