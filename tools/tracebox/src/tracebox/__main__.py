"""Run tracebox alone: ``python -m tracebox [--help]``."""

import sys

from pydantic import ValidationError
from pydantic_settings import CliApp

from tracebox.app import AddressTakenError, run
from tracebox.settings import Settings, explain


def main() -> int:
    """Serve until a signal; the exit status is 0, or 1 when the settings or an address cannot be used."""
    try:
        run(CliApp.run(Settings))
    except ValidationError as error:
        print(explain(error), file=sys.stderr)
        return 1
    except AddressTakenError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
