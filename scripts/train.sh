#!/usr/bin/env bash
# A run for the delivery: `scripts/train.sh CONFIG DATA [ROOT]`. Its exit code is that of the run. In
# build/train is then what the run printed (run.json), its outcome, and its report, if it got that far.
# Without ROOT, it is build/train/root, which starts empty: with the model of the build before as its
# champion, the same data would push nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/train
root=${3:-$out/root}
mkdir -p "$out"
[ -n "${3:-}" ] || rm -rf "$root"
rm -f "$out"/run.json "$out"/outcome "$out"/report.html

code=0
.venv/bin/fraud-pipeline run --config "$1" --data "$2" --root "$root" --json >"$out/run.json" || code=$?
.venv/bin/python - "$root" "$out" <<'PYTHON'
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
