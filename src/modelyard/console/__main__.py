"""`python -m modelyard.console [HOME]`: the control process of the home that the environment names. `modelyard up` starts it.

HOME is for who looks at the list of processes: it tells one home's from another's.
"""

from __future__ import annotations

import logging
import signal
import sys

from modelyard import config
from modelyard.errors import ModelyardError


def main() -> int:
    """Run until told to stop; failures become one line on stderr."""
    from modelyard.console.process import serve

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve(config.load())
    except ModelyardError as error:
        sys.stderr.write(f"modelyard: {error.message}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
