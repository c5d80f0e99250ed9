"""Whether a run can judge the champion, and which of its inputs the run has to compute for that.

The champion is judged on the inputs it was trained on, and on days that it was not trained on: see
docs/concepts.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import metadata_store
from tfx.utils import path_utils

from fraud.errors import BadInput
from fraud.models.specification import InputSpecification, changed_features
from fraud.pipeline import lineage
from fraud.pipeline.data_facts import ExamplesFacts, value
from fraud.time import parse_day

UNCOMPUTABLE = "its inputs cannot be computed: "
"""How a reason begins why a champion cannot be judged."""

Days = tuple[str, str]
"""First and last day, YYYY-MM-DD."""


def specification_of(model: Any) -> InputSpecification:
    """What the inputs of a model are computed from, by its Model artifact (TFX's or ML Metadata's).

    Raises:
      BadInput: the model does not say, or no longer exists; or today's code computes other values
        of its features.
    """
    folder = Path(path_utils.serving_model_path(model.uri))
    inputs = InputSpecification.read(folder)
    if changed := changed_features(folder, inputs):
        others = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise BadInput(
            f"the code of its features has changed, which are now other values: "
            f"{', '.join(changed[:3])}{others}"
        )
    return inputs


def check_unseen(
    store: metadata_store.MetadataStore, champion: lineage.Champion, evaluated: Days | None
) -> None:
    """Checks that a champion was trained on none of the days on which it is to be judged.

    It may have been if windows have changed since, or if it is of a later day.

    Args:
      store: ML Metadata.
      champion: the champion.
      evaluated: the eval window; None if the data has no timestamp.

    Raises:
      BadInput: it was trained on some of them.
    """
    for examples in lineage.artifacts_of_run(store, champion.run_id, "Examples"):
        trained = ExamplesFacts.read(examples).windows.get("train")
        if trained and evaluated and trained[0] <= evaluated[1] and evaluated[0] <= trained[1]:
            first, last = max(trained[0], evaluated[0]), min(trained[1], evaluated[1])
            days, of = _days(first, last), _days(*evaluated)
            raise BadInput(f"it was trained on {days} of the {of} eval days, {first} … {last}")


def _days(first: str, last: str) -> int:
    return (parse_day(last) - parse_day(first)).days + 1


def needed(
    store: metadata_store.MetadataStore,
    champions: Iterable[lineage.Champion],
    ours: InputSpecification,
    fingerprint: str,
    evaluated: Days | None,
) -> InputSpecification | None:
    """The champion's specification if our examples do not contain its inputs.

    Args:
      store: ML Metadata.
      champions: all champions, newest first, as the resolver of the champion considers them.
      ours: what our examples are computed from.
      fingerprint: identifies our data, as a property of its examples.
      evaluated: our eval window; None if the data has no timestamp.

    Raises:
      BadInput: the champion cannot be judged; the message says why, as the rest of a sentence.
    """
    for champion in champions:
        check_unseen(store, champion, evaluated)
        (model,) = store.get_artifacts_by_id([champion.model_id])
        try:
            theirs = specification_of(model)
        except BadInput as error:
            raise BadInput(f"{UNCOMPUTABLE}{error}") from None
        if not ours.provides(theirs):
            return theirs
        examples = lineage.artifacts_of_run(store, champion.run_id, "Examples")
        if all(value(artifact, "input_fingerprint") != fingerprint for artifact in examples):
            return None
        # Trained on our very data, it may be our challenger, which a repeated run takes from the
        # cache. The challenger is then judged against the champion before.
    return None


def can_judge(
    store: metadata_store.MetadataStore,
    examples: Any,
    challenger: Any,
    champion: lineage.Champion,
    model: Any,
) -> bool:
    """Whether eval examples contain the champion's inputs, and no day that it was trained on.

    Args:
      store: ML Metadata.
      examples: the Examples artifact.
      challenger: the Model artifact that was trained on them.
      champion: the champion.
      model: its Model artifact.
    """
    facts = ExamplesFacts.read(examples)
    try:
        check_unseen(store, champion, facts.windows.get("eval"))
        theirs = specification_of(model)
        is_embedded = facts.champion_column == theirs.column
        return is_embedded or specification_of(challenger).provides(theirs)
    except BadInput:
        return False
