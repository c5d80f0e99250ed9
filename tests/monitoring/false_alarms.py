"""How often checks ask to act though nothing is wrong.

python -m tests.monitoring.false_alarms 80
"""

from __future__ import annotations

import sys
from collections import Counter

from fraud.monitoring.checks import Verdict
from fraud.monitoring.observe import observe
from tests.monitoring import world


def main(banks: int) -> None:
    """Looks once at each of so many banks in which nothing changes, and counts the verdicts."""
    verdicts: Counter[str] = Counter()
    acting: Counter[str] = Counter()
    alarmed = 0
    for seed in range(100, 100 + banks):
        of = world.world(seed=seed)
        seen = observe(world.production(of), world.live(of), world.CONFIG, world.AS_OF)
        verdicts.update(check.verdict.value for check in seen.checks)
        acts = [check.name for check in seen.checks if check.verdict is Verdict.ACT]
        acting.update(acts)
        alarmed += bool(acts)
    print(f"{banks} banks, {alarmed} with a check that asks to act")
    print(f"verdicts: {dict(verdicts)}")
    print(f"acting:   {dict(acting)}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
