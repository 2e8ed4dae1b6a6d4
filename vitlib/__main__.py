"""`python -m vitlib` is the command `vitlib`."""

import sys

from vitlib.cli import main

sys.exit(main())
