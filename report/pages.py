"""Pages from templates: self-contained, and with everything in them as text unless it is ours."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fraud.codec import to_json

FOLDER = Path(__file__).parent


def render_page(template: str, **content: Any) -> str:
    """A page that loads nothing. All content is escaped, except what `Markup` marks as ours."""
    return _environment().get_template(template).render(style=style(), **content)


@lru_cache
def style() -> Markup:
    """The style sheet of all pages."""
    return Markup((FOLDER / "page.css").read_text(encoding="utf-8"))


@lru_cache
def _environment() -> Any:
    import jinja2  # only pages need it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["as_json"] = partial(to_json, indent=1)
    environment.filters["moment"] = moment
    environment.filters["unix_moment"] = unix_moment
    return environment


def moment(iso: str) -> str:
    """A moment in UTC, to the minute."""
    return f"{iso[:10]} {iso[11:16]} UTC"


def unix_moment(seconds: float) -> str:
    """A moment in UTC, to the minute, given as seconds since 1970."""
    return moment(datetime.fromtimestamp(seconds, timezone.utc).isoformat())
