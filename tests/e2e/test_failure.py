"""What happens at 3 a.m.: damaged data, a killed process, two runs at once."""

import shutil
import signal
import subprocess
import time

import pytest

from fraud.pipeline import lineage
from fraud.pipeline.config import Metadata
from fraud.pipeline.root import Root
from tests.e2e.conftest import REPOSITORY, SAMPLE

pytestmark = pytest.mark.e2e

AS_OF = "2026-03-20"
# Killed a moment after the node before it has ended: in the middle of the one named.
KILLED_IN = {
    "TransactionExampleGen": "loading TFX",
    "StatisticsGen": "TransactionExampleGen",
    "Transform": "DataGate",
    "Trainer": "Transform",
    "Evaluator": "Trainer",
}


@pytest.fixture(scope="module")
def bank(new_bank):
    bank = new_bank()
    text = (bank.folder / "fraud.yaml").read_text()
    (bank.folder / "fraud.yaml").write_text(text.replace("paths: {schema: schema.pbtxt}", ""))
    return bank


def start(bank):
    command = bank.command("run", "--data", SAMPLE, "--as-of", AS_OF, "--json")
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    )


def wait_for(process, name):
    """Reads progress until the node `name` has ended."""
    for line in process.stderr:
        if f" {name} " in line:
            return
    pytest.fail(f"the run ended before {name} did")


def test_damaged_data_is_told_and_the_root_stays_usable(bank, tmp_path):
    days = tmp_path / "days"
    shutil.copytree(SAMPLE, days)
    damaged = days / "date=2026-03-02" / "transactions.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-5000])
    done = bank.call("run", "--data", days, "--as-of", AS_OF)
    assert done.returncode == 2
    assert "date=2026-03-02" in done.stderr
    assert "Traceback" not in done.stderr
    assert bank.versions() == []


@pytest.mark.parametrize("node", KILLED_IN)
def test_a_killed_run_leaves_nothing_half_done(bank, node):
    process = start(bank)
    wait_for(process, KILLED_IN[node])
    time.sleep(0.7)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert bank.versions() == []
    if node == "TransactionExampleGen":
        return  # ML Metadata may not be there yet
    store = lineage.find_store(Metadata(), Root(bank.root))
    states = {
        record.state
        for run_id in lineage.runs(store)
        for record in lineage.nodes(store, run_id).values()
    }
    assert states <= {"COMPLETE", "CACHED", "RUNNING", "CANCELED"}


def test_after_all_that_a_run_succeeds_and_a_second_one_at_once_is_refused(bank):
    process = start(bank)
    wait_for(process, "loading TFX")
    second = bank.call("run", "--data", SAMPLE, "--as-of", AS_OF)
    assert second.returncode == 2
    assert f"process {process.pid}" in second.stderr
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    (version,) = bank.versions()
    assert f'"pushed_version": "{version}"' in stdout
    assert (bank.root / "pushed" / version / "saved_model.pb").exists()

    store = lineage.find_store(Metadata(), Root(bank.root))
    records = [r for run_id in lineage.runs(store) for r in lineage.nodes(store, run_id).values()]
    assert not [r.name for r in records if r.state == "RUNNING"]
