"""Which inputs of the champion a run has to compute, and whether its examples contain them.

The champion is judged on the inputs it was trained on: see docs/concepts.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import metadata_store
from tfx.utils import path_utils

from fraud.errors import BadInput
from fraud.models.specification import InputSpecification
from fraud.pipeline import lineage
from fraud.pipeline.data_facts import ExamplesFacts, value


def specification_of(model: Any) -> InputSpecification:
    """What the inputs of a model are computed from, by its Model artifact (TFX's or ML Metadata's).

    Raises:
      BadInput: the model does not say, or no longer exists.
    """
    return InputSpecification.read(Path(path_utils.serving_model_path(model.uri)))


def needed(
    store: metadata_store.MetadataStore,
    champions: Iterable[lineage.Champion],
    ours: InputSpecification,
    fingerprint: str,
) -> InputSpecification | None:
    """The champion's specification if our examples do not contain its inputs.

    Args:
      store: ML Metadata.
      champions: all champions, newest first, as the resolver of the champion considers them.
      ours: what our examples are computed from.
      fingerprint: identifies our data, as a property of its examples.

    Raises:
      BadInput: see `specification_of`.
    """
    for champion in champions:
        (model,) = store.get_artifacts_by_id([champion.model_id])
        theirs = specification_of(model)
        if not ours.provides(theirs):
            return theirs
        examples = lineage.artifacts_of_run(store, champion.run_id, "Examples")
        if all(value(artifact, "input_fingerprint") != fingerprint for artifact in examples):
            return None
        # Trained on our very data, it may be our challenger, which a repeated run takes from the
        # cache. The challenger is then judged against the champion before.
    return None


def are_in(examples: Any, challenger: Any, champion: Any) -> bool:
    """Whether eval examples contain the champion's inputs.

    Args:
      examples: the Examples artifact.
      challenger: the Model artifact that was trained on them.
      champion: the Model artifact of the champion.
    """
    try:
        theirs = specification_of(champion)
        embedded = ExamplesFacts.read(examples).champion_column
        return embedded == theirs.column or specification_of(challenger).provides(theirs)
    except BadInput:
        return False
