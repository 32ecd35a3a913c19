"""A trap: a process dies as SIGKILL would have it right after a certain file came into place.

Put this folder first on PYTHONPATH, and a pattern of the file's path into the variable below: Python imports this module by
itself when it starts. So a moment of microseconds, as that between two files, is met each time.
"""

import fnmatch
import os
import signal

TRAP = "MSD_TRAP"
"""The pattern, as `fnmatch` has it; asked at each renaming, since a forked worker is given its variables later."""

_replace = os.replace


def _trapped(source, target, **options):
    _replace(source, target, **options)
    if (pattern := os.environ.get(TRAP)) and fnmatch.fnmatch(os.fspath(target), pattern):
        os.kill(os.getpid(), signal.SIGKILL)


os.replace = _trapped
