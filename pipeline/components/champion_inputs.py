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
from fraud.models.specification import InputSpecification, check_code
from fraud.pipeline import lineage
from fraud.pipeline.data_facts import ExamplesFacts, HeldOut, value
from fraud.time import parse_day

UNCOMPUTABLE = "its inputs cannot be computed: "
"""How a reason begins why a champion cannot be judged."""

Days = tuple[str, str]
"""First and last day, YYYY-MM-DD."""

Evaluated = Days | HeldOut | None
"""What a run evaluates on: its eval window or, if its data has no timestamp, the rows that it holds
out. None if an earlier release made the examples and did not say.
"""


def specification_of(model: Any) -> InputSpecification:
    """What the inputs of a model are computed from, by its Model artifact (TFX's or ML Metadata's).

    Raises:
      BadInput: the model does not say, or no longer exists; or today's code computes other values
        of its features.
    """
    folder = Path(path_utils.serving_model_path(model.uri))
    inputs = InputSpecification.read(folder)
    check_code(folder, inputs)
    return inputs


def check_unseen(
    store: metadata_store.MetadataStore, champion: lineage.Champion, evaluated: Evaluated
) -> None:
    """Checks that a champion was trained on none of the days or rows on which it is to be judged.

    It may have been if the configuration of the windows has changed since, or if it is of a later
    day.

    Args:
      store: ML Metadata.
      champion: the champion.
      evaluated: what it is to be judged on.

    Raises:
      BadInput: it was, or may have been, trained on some of them.
    """
    for examples in lineage.artifacts_of_run(store, champion.run_id, "Examples"):
        theirs = ExamplesFacts.read(examples)
        trained = theirs.windows.get("train")
        if isinstance(evaluated, HeldOut):
            if trained or (theirs.held_out and not theirs.held_out.contains(evaluated)):
                raise BadInput(
                    "it may have been trained on eval rows, because train and eval were split by "
                    "another rule then (timestamp, id, columns or windows.hash_eval_percent)"
                )
        elif evaluated and theirs.held_out:
            raise BadInput(
                "it may have been trained on eval days, because its train rows were chosen "
                "without timestamps"
            )
        elif trained and evaluated and trained[0] <= evaluated[1] and evaluated[0] <= trained[1]:
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
    evaluated: Evaluated,
) -> InputSpecification | None:
    """The champion's specification if our examples do not contain its inputs.

    Args:
      store: ML Metadata.
      champions: all champions, newest first, as the resolver of the champion considers them.
      ours: what our examples are computed from.
      fingerprint: identifies our data, as a property of its examples.
      evaluated: what we evaluate on.

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
    """Whether eval examples contain the champion's inputs, and nothing that it was trained on.

    Args:
      store: ML Metadata.
      examples: the Examples artifact.
      challenger: the Model artifact that was trained on them.
      champion: the champion.
      model: its Model artifact.
    """
    facts = ExamplesFacts.read(examples)
    try:
        check_unseen(store, champion, facts.windows.get("eval") or facts.held_out)
        theirs = specification_of(model)
        is_embedded = facts.champion_column == theirs.column
        return is_embedded or specification_of(challenger).provides(theirs)
    except BadInput:
        return False
