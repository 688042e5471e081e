"""``python -m cliplab COMMAND``."""

import sys

from cliplab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
