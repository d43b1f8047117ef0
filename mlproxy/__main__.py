"""``python -m mlproxy``, and the console script ``mlproxy``."""

from mlproxy.cli import app


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
