"""The lines of docs/serving.md, as a reader would paste them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_every_curl_line_is_answered(server, repository):
    text = (repository / "docs" / "serving.md").read_text(encoding="utf-8")
    lines = re.findall(r"^```sh\n(curl .*?)\n```$", text, re.MULTILINE | re.DOTALL)
    assert len(lines) >= 6
    for line in lines:
        command = line.replace("localhost:8501", server.http).replace("curl -s", "curl -sS -f", 1)
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (line, done.stderr)
        if not line.endswith("/metrics"):
            json.loads(done.stdout)
