"""``python -m lit_backdoor``."""

import sys

from lit_backdoor.cli import main

if __name__ == "__main__":
    sys.exit(main())
