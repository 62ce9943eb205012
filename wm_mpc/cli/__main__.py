"""``python -m wm_mpc.cli`` is ``wm-mpc``."""

import sys

from wm_mpc.cli.main import main

sys.exit(main())
