"""``python -m hand_tracking_ros.cli``: the same as the command `hand-tracking`."""

import sys

from hand_tracking_ros.cli import main

sys.exit(main())
