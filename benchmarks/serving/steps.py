"""What the steps of scoring one raw transaction take, in a process that does nothing else.

    python -m benchmarks.serving.steps MODEL FOLDER

FOLDER has a state and rows.json, a list of transactions. Prints one JSON document: the seconds of
each step for each transaction.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from pathlib import Path

from fraud.serving.models import LoadedModel
from fraud.serving.state import open_state
from fraud.serving.transactions import parse_transactions

_WARM_UP = 100


def main(model_folder: Path, folder: Path) -> dict[str, list[float]]:
    """Does what `Scorer.score` does, step by step."""
    model = LoadedModel(model_folder)
    model.warm_up()
    specification = model.specification
    assert specification is not None
    state = open_state(str(folder / "state"))
    state.check(specification)
    seconds: dict[str, list[float]] = defaultdict(list)
    for row in json.loads((folder / "rows.json").read_text(encoding="utf-8")):
        moments = [time.perf_counter()]
        raw = parse_transactions([row], specification.dataset)
        moments.append(time.perf_counter())
        seen = state.record(raw.for_state())
        moments.append(time.perf_counter())
        columns = raw.inputs() | seen.features(specification)
        moments.append(time.perf_counter())
        model.score(columns)
        moments.append(time.perf_counter())
        for name, start, end in zip(
            ("checks", "state", "features", "score"), moments[:-1], moments[1:], strict=True
        ):
            seconds[name].append(end - start)
    state.close()
    return {name: values[_WARM_UP:] for name, values in seconds.items()}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
