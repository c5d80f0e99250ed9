"""From a stranger's table to a pushed model: runs the four commands and writes what they print.

`python scripts/first_hour.py` writes docs/first-hour.md; a test runs the same commands.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "first-hour.md"

COMMANDS = (
    "fraud-pipeline init --data claims.csv --out claims.yaml --yes",
    "fraud-pipeline run --config claims.yaml",
    "fraud-pipeline schema --config claims.yaml",
    "fraud-pipeline status --config claims.yaml",
)
SHOWN_LINES = 40
"""Of the output of one command."""

HEAD = """# The first hour

An insurer's claims: {rows:,} rows, a column that says which were fraud, no timestamps, and almost
only categories, made up for this page. Four commands lead from the file to a pushed model; nothing
is edited in between. The page is written by `python scripts/first_hour.py`, and a test runs the
same commands. They took {cpu:.0f} seconds of CPU; the clock showed {seconds:.0f} seconds, on 2
cores that others were using, too.
"""

TAIL = """
## And then

- Read `claims.yaml`: every guess has its reason beside it. Columns under *Left out* are not used.
- Review `claims-schema.pbtxt` like code: from now on, a run stops if the data does not fit.
- Open the model card; its path is in the output of `run`.
- Raise the demands in `evaluation` to what you now know is possible.
- Run again when there are new claims. The new model replaces the live one only if it is no worse on
  the same claims.
"""

CATEGORIES = {
    "Quarter": 4,
    "DayOfWeek": 7,
    "CarMake": 15,
    "AccidentArea": 2,
    "DayClaimed": 7,
    "Sex": 2,
    "MaritalStatus": 4,
    "Fault": 2,
    "PolicyType": 9,
    "VehicleCategory": 3,
    "VehiclePrice": 6,
    "DaysPolicyAccident": 5,
    "DaysPolicyClaim": 4,
    "PastClaims": 4,
    "AgeOfVehicle": 8,
    "AgeOfHolder": 9,
    "PoliceReport": 2,
    "WitnessPresent": 2,
    "AgentType": 2,
    "Supplements": 4,
    "AddressChange": 5,
    "NumberOfCars": 5,
    "BasePolicy": 3,
    "RepCode": 16,
    "Garage": 12,
    "Payment": 3,
}


@dataclass(frozen=True)
class Step:
    """A command, what it printed, and how long it took, by the clock and of CPU."""

    command: str
    printed: str
    seconds: float
    cpu: float


def write_claims(path: Path, rows: int) -> None:
    """Writes a table of claims in which a few columns together say something about fraud."""
    random = np.random.default_rng(12)
    codes = {name: random.integers(0, count, rows) for name, count in CATEGORIES.items()}
    risk = (
        -4.6
        + 1.3 * (codes["Fault"] == 0)
        + 1.0 * (codes["BasePolicy"] == 0)
        + 1.6 * (codes["AddressChange"] == 1)
        + 0.9 * (codes["VehicleCategory"] == 2) * (codes["PastClaims"] == 0)
        + 1.2 * (codes["Garage"] == 5)
    )
    fraud = random.random(rows) < 1 / (1 + np.exp(-risk))
    deductible = random.choice([300, 400, 500, 700], rows, p=[0.1, 0.6, 0.2, 0.1])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["PolicyNumber", *CATEGORIES, "Deductible", "Remarks", "FraudFound"])
        for row in range(rows):
            values = [f"{name[:3].lower()}{codes[name][row]}" for name in CATEGORIES]
            # RepCode is a number that means no quantity.
            values[list(CATEGORIES).index("RepCode")] = str(codes["RepCode"][row] + 1)
            label = "Yes" if fraud[row] else "No"
            writer.writerow([f"P{row + 1:06d}", *values, deductible[row], "", label])


def run_all(folder: Path, rows: int) -> list[Step]:
    """Writes the claims into a folder and runs the commands there.

    Raises:
      SystemExit: a command failed; shows what it printed.
    """
    write_claims(folder / "claims.csv", rows)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    steps = []
    for command in COMMANDS:
        started, used = time.monotonic(), _cpu_of_children()
        done = subprocess.run(
            shlex.split(command),
            cwd=folder,
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{command}: exit code {done.returncode}\n{done.stdout}")
        seconds, cpu = time.monotonic() - started, _cpu_of_children() - used
        steps.append(Step(command, done.stdout, seconds, cpu))
    return steps


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def page(steps: list[Step], folder: Path, rows: int) -> str:
    """The steps as a Markdown page, without the paths of this machine."""
    cpu, seconds = sum(step.cpu for step in steps), sum(step.seconds for step in steps)
    parts = [HEAD.format(rows=rows, cpu=cpu, seconds=seconds)]
    for step in steps:
        printed = step.printed.replace(f"{folder}/", "").replace(f"{REPOSITORY}/", "")
        printed = re.sub(r"\S*/bin/tensorboard", ".venv/bin/tensorboard", printed)
        lines = [line.rstrip() for line in printed.rstrip().splitlines()]
        if len(lines) > SHOWN_LINES and " schema " in step.command:
            lines = [*lines[:SHOWN_LINES], f"… and {len(lines) - SHOWN_LINES} more lines"]
        shown = "\n".join([f"$ {step.command}", *lines])
        parts.append(f"```\n{shown}\n```\n")
    return "\n".join(parts) + TAIL


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=6000, help="claims (default %(default)s)")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        text = page(run_all(folder, rows), folder, rows)
    PAGE.write_text(text, encoding="utf-8")
    print(f"{PAGE} is written")


if __name__ == "__main__":
    main()
