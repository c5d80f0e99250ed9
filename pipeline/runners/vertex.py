"""The graph for Vertex AI Pipelines, by TFX's own compiler for it.

Vertex keeps ML Metadata itself and runs the executors alone, without TFX's launcher, so this is not
the way of the other runners: lineage is Vertex's, and what only ML Metadata of ours can tell, which
model was pushed, is not known there. See docs/orchestrators.md.
"""

from __future__ import annotations

from pathlib import Path

from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

from fraud.pipeline import graph
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root
from fraud.pipeline.runners import compiled

FILE = "vertex.json"


def write(config: Config, root: Root, data: str, image: str, out: Path) -> Path:
    """Writes the pipeline job to submit to Vertex AI.

    Args:
      config: everything a run depends on.
      root: where the runs will leave everything, as containers see it.
      data: what runs read unless they are told otherwise.
      image: the container image; has the pipeline installed.
      out: the folder to write into.

    Returns:
      The file.

    Raises:
      BadInput: see `compiled.with_schema_by_content`.
    """
    config = compiled.with_schema_by_content(config, out)
    pipeline = graph.create_pipeline(config, root, data, latest=True)
    settings = kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
        default_image=image, use_pipeline_spec_2_1=True
    )
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(settings, str(out), FILE)
    runner.run(pipeline, write_out=True)
    return out / FILE
