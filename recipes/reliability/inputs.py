"""Nasty inputs through the commands and the Python entry points.

Every trial ends with a result that is checked, or with an error of the package that says what to
change. A traceback of another kind, a hang, or a row that is not what was given is a fault.
"""

from __future__ import annotations

import inputs_commands
import inputs_files
import inputs_python
from trials import Trial

KINDS: dict[str, Trial] = {
    each.__name__: each
    for each in (*inputs_files.TRIALS, *inputs_python.TRIALS, *inputs_commands.TRIALS)
}
