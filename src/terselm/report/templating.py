"""How the templates of reports are read, and the filters that they share."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from terselm.report import search_reading as reading
from terselm.report.sizes import human_bytes, human_number, human_share


def template_environment(*, autoescape: bool) -> Environment:
    """Return an environment in which a name that is missing is an error.

    Parameters
    ----------
    autoescape : bool
        Whether strings are escaped for HTML.
    """
    environment = Environment(
        loader=PackageLoader("terselm.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "bytes": human_bytes,
        "number": human_number,
        "share": human_share,
        "microseconds": reading.microseconds,
        "interval": reading.interval,
        "yaml": reading.recipe_yaml,
    }
    return environment
