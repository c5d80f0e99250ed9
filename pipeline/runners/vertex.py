"""Compiles the graph for Vertex AI Pipelines with TFX's own compiler.

Unlike the other runners, Vertex runs only the executors, without TFX's launcher and drivers, and
keeps its own metadata. So lineage is in Vertex, and which model was pushed, which only our ML
Metadata records, is not known there. See docs/orchestrators.md.
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
      config, data, out: see `compiled.write`.
      root: where runs keep artifacts and models, as seen from the containers.
      image: the container image, with the pipeline installed.

    Returns:
      The path of the pipeline job.

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
