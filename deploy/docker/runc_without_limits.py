#!/usr/bin/env python3
"""runc, but processes keep the limits of the caller: `podman --runtime …/runc_without_limits.py`.

Podman sets the numbers of files and processes that a container may have, which a machine may not
allow, as ours does not (it lacks CAP_SYS_RESOURCE). Everything else stays as podman asked for it.
"""

import json
import os
import sys
from pathlib import Path

arguments = sys.argv[1:]
if "create" in arguments:
    file = Path(arguments[arguments.index("--bundle") + 1], "config.json")
elif "exec" in arguments:
    file = Path(arguments[arguments.index("--process") + 1])
else:
    file = None
if file:
    config = json.loads(file.read_text(encoding="utf-8"))
    config.get("process", config).pop("rlimits", None)
    file.write_text(json.dumps(config), encoding="utf-8")
os.execvp("runc", ["runc", *arguments])
