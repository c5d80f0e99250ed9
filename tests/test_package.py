"""What `pip install` would put into site-packages."""

import subprocess
import sys
import zipfile


def test_the_wheel_brings_one_name_and_no_sample(repository, tmp_path):
    steps = ["egg_info", "-e", tmp_path, "build", "-b", tmp_path / "build"]
    steps += ["bdist_wheel", "-d", tmp_path]
    subprocess.run(
        [sys.executable, "setup.py", "-q", *map(str, steps)],
        cwd=repository,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"fraud", "fraud_pipeline"}
    assert {"fraud/schema/schema.pbtxt", "fraud/report/page.css", "fraud/data/spec.py"} <= {*names}
    assert not [name for name in names if name.startswith("fraud/data/sample")]
