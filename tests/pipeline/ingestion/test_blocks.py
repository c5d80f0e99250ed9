import numpy as np
import pyarrow as pa

from fraud.pipeline.ingestion.blocks import store


def test_temporary_files_are_compressed_and_give_back_what_they_got(tmp_path) -> None:
    random = np.random.default_rng(0)
    columns = {
        "time": pa.array(np.sort(random.integers(0, 86_400, 20_000)).astype("datetime64[us]")),
        "count": pa.array(random.integers(0, 5, 20_000).astype(np.float32)),
        "label": pa.array(random.random(20_000), mask=random.random(20_000) < 0.5),
    }
    whole = pa.RecordBatch.from_pydict(columns)
    parts = [whole.slice(0, 15_000), whole.slice(15_000)]
    stored = store(parts, str(tmp_path))
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size < 0.75 * whole.nbytes
    assert [each.rows for each in stored] == [15_000, 5_000]
    for each, part in zip(stored, parts, strict=True):
        assert each.load().equals(part)
