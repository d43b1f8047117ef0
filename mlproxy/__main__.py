"""``python -m mlproxy``, and the console script ``mlproxy``."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from mlproxy.cli import app

        app()
    except KeyboardInterrupt:  # while it loads, for half a second; from then on the commands see to it
        sys.exit(130)


if __name__ == "__main__":
    main()
