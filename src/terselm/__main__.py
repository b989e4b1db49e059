"""The command line as a module, for launchers: `accelerate launch -m terselm train ...`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; without its libraries, say in one line how to get them."""
    try:
        from terselm.cli.main import main as run
    except ModuleNotFoundError as error:
        if (error.name or "terselm").partition(".")[0] == "terselm":
            raise
        sys.exit(f"terselm: the command line needs {error.name}; pip install 'terselm[train]'")
    run()


if __name__ == "__main__":
    main()
