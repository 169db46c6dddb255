"""The ``pushfleet`` command. It belongs to the fleet; the light SDK only says how to get it."""

from __future__ import annotations

import importlib
import sys

__all__ = ["main"]


def main() -> object:
    """Run the fleet's command line; exits with 2 and one sentence where the fleet is not installed."""
    try:
        # By name: the SDK must not depend on the fleet, not even for a type checker.
        cli = importlib.import_module("pushfleet_workers.cli")
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.startswith(("pushfleet.", "pushfleet_workers.")):
            raise
        sys.stderr.write(f"The pushfleet command needs the fleet: pip install 'pushfleet[fleet]' ({missing}).\n")
        sys.exit(2)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())  # type: ignore[arg-type]
