"""`python -m mixup_hf`, and the `mixup-hf` script: the command line, if its packages are there."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say which packages it lacks."""
    try:
        from mixup_hf.cli.main import main as run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "yaml"):
            raise
        sys.stderr.write(  # rich, which shows other errors, may be what is missing
            f"error: The command line needs {error.name}, which is not installed: "
            "`pip install 'mixup_hf[cli]'`.\n"
        )
        sys.exit(2)  # as for every error that the user can mend
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
