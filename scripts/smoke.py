"""Whether a server answers as it should: `python scripts/smoke.py https://fraud.example:8501`.

It is asked whether it is ready, which version answers, and for the score of an example without any
values, which leaves no trace in its state; for a minute, because it may still be starting. The
token comes from the environment, FRAUD_SMOKE_TOKEN; the authority of its certificate from
SSL_CERT_FILE, if it is not one of the system's. Standard library only. Exit code 1: it does not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.request
from typing import Any

SECONDS = 10
SECONDS_TO_WAIT = 60


def ask(url: str, document: Any = None) -> Any:
    """The JSON that a server answers; with a document, to a POST of it."""
    headers = {"authorization": f"Bearer {os.environ.get('FRAUD_SMOKE_TOKEN', '')}"}
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


def problem_of(url: str) -> str:
    """What is wrong with the server; "" if nothing is."""
    try:
        ready = ask(f"{url}/readyz")
        if not ready["ready"]:
            return f"{url} is not ready"
        states = ask(f"{url}/v1/models/fraud")["model_version_status"]
        available = [s["version"] for s in states if s["state"] == "AVAILABLE"]
        if available != [ready["version"]]:
            return f"{url} answers with version {ready['version']}, but has loaded {available}"
        (answer,) = ask(f"{url}/v1/models/fraud:predict", {"instances": [{"b64": ""}]})[
            "predictions"
        ]
    except (OSError, ValueError, KeyError) as error:
        return f"{url}: {error}"
    if not 0 <= answer["score"] <= 1:
        return f"{url} answers with the score {answer['score']}"
    print(f"{url}: version {ready['version']} answers with the score {answer['score']:.4f}")
    return ""


def main() -> int:
    """Asks the server."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", help="address of the server, such as https://localhost:8501")
    url = parser.parse_args().url.rstrip("/")
    end = time.monotonic() + SECONDS_TO_WAIT
    while (problem := problem_of(url)) and time.monotonic() < end:
        time.sleep(1)
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
