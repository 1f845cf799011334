"""The files that the page consists of."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from wamsim.errors import WamsimError

PAGE = Path(__file__).parent / "page"


def page_files() -> Mapping[str, Path]:
    """List the page's files by their addresses."""
    found = {p.relative_to(PAGE).as_posix(): p for p in PAGE.rglob("*") if p.is_file()}
    return {name: path for name, path in found.items() if not path.name.startswith(".")}


def plotly_script() -> Path:
    """Find Plotly's script in its installed package.

    Raises:
        WamsimError: It is not installed.
    """
    spec = find_spec("plotly")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        script = Path(place) / "package_data" / "plotly.min.js"
        if script.exists():
            return script
    raise WamsimError("Plotly's script is not installed; `pip install plotly` brings it")
