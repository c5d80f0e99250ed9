#!/usr/bin/env bash
# A run for the delivery: `scripts/train.sh CONFIG DATA ROOT`. Its exit code is that of the run. In
# build/train is then what the run printed (run.json), its outcome, and its report, if it got that far.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/train
mkdir -p "$out"
rm -f "$out"/run.json "$out"/outcome "$out"/report.html

code=0
.venv/bin/fraud-pipeline run --config "$1" --data "$2" --root "$3" --json >"$out/run.json" || code=$?
.venv/bin/python - "$3" "$out" <<'PYTHON'
import json
import shutil
import sys
from pathlib import Path

root, out = map(Path, sys.argv[1:])
if text := (out / "run.json").read_text("utf-8"):
    run = json.loads(text)
    (out / "outcome").write_text(run["outcome"] + "\n", "utf-8")
    print(run["outcome"])
    report = root / "runs" / run["run_id"] / "report.html"
    if report.exists():
        shutil.copy(report, out)
PYTHON
exit "$code"
