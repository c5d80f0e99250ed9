"""DistributionValidator's executor: drift as `fraud.pipeline.drift` measures it.

TFX's own compares windows as a whole by TFDV's comparators, with fixed thresholds: a column whose
values are doubled has a smaller divergence there than one with a few odd rows may have by chance.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.components.distribution_validator import executor
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.io import fileio
from tfx.proto import distribution_validator_pb2
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import artifact_utils
from tfx.types import standard_component_specs as specs
from tfx.utils import json_utils, writer_utils

from fraud.errors import BadInput
from fraud.pipeline import drift
from fraud.pipeline.components.daily_counts import profile

BASELINE, NOT_JUDGED, UNJUDGED = "baseline", "not_judged", "unjudged"
"""Custom properties of the anomalies: the baseline's URI; what kind of baseline is lacking; what
could not be judged although there is one (pair of splits → column → why, in JSON)."""

WHOLE = "(whole window)"
"""Stands for all columns in `UNJUDGED`."""

_Reason = anomalies_pb2.AnomalyInfo
_REASONS = {
    drift.DISTRIBUTION: _Reason.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH,
    drift.UNSEEN: _Reason.ENUM_TYPE_UNEXPECTED_STRING_VALUES,
    drift.NEW: _Reason.ENUM_TYPE_UNEXPECTED_STRING_VALUES,
}


class DistributionValidatorExecutor(executor.Executor):
    """Writes the anomalies of each pair of splits, as TFX's executor does."""

    def Do(  # noqa: N802 - the name is TFX's
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> execution_result_pb2.ExecutorOutput:
        """Compares the statistics with those of the baseline.

        Raises:
          BadInput: the statistics of the baseline have been deleted.
        """
        anomalies = artifact_utils.get_single_instance(output_dict["anomalies"])
        if not input_dict["baseline_statistics"]:
            anomalies.set_string_custom_property(NOT_JUDGED, "from other data yet")
            return super().Do(input_dict, output_dict, exec_properties)
        (statistics,), (baseline,) = input_dict["statistics"], input_dict["baseline_statistics"]
        pairs = json_utils.loads(exec_properties[specs.INCLUDE_SPLIT_PAIRS_KEY])
        configured = thresholds(exec_properties[specs.DISTRIBUTION_VALIDATOR_CONFIG_KEY])
        anomalies.set_string_custom_property(BASELINE, baseline.uri)
        anomalies.span = statistics.span
        anomalies.split_names = artifact_utils.encode_split_names([f"{a}_{b}" for a, b in pairs])
        blessed, unjudged = {}, {}
        for split, baseline_split in pairs:
            current, before = _profile(statistics, split), _profile(baseline, baseline_split)
            found = []
            pair = f"{split}_{baseline_split}"
            if before is None:
                why = "with counts by day, which earlier versions did not make"
                anomalies.set_string_custom_property(NOT_JUDGED, why)
            elif current is None:
                unjudged[pair] = {WHOLE: "it has no counts by day, or no transactions"}
            else:
                found = drift.compare(current, before, configured)
                unjudged[pair] = _unjudged(found)
            blessed[pair] = int(not any(m.drifted for m in found))
            path = os.path.join(anomalies.uri, f"SplitPair-{pair}", executor.DEFAULT_FILE_NAME)
            writer_utils.write_anomalies(path, anomalies_of(found))
        anomalies.set_json_value_custom_property(executor.ARTIFACT_PROPERTY_BLESSED_KEY, blessed)
        anomalies.set_string_custom_property(UNJUDGED, json.dumps(unjudged))
        output = execution_result_pb2.ExecutorOutput()
        output.output_artifacts["anomalies"].artifacts.append(anomalies.mlmd_artifact)
        return output


def thresholds(
    config: distribution_validator_pb2.DistributionValidatorConfig,
) -> dict[str, float]:
    """The configured thresholds: column, or `drift.ROWS`, → threshold of each of its measures."""
    return {
        f.path.step[0]: f.distribution_comparator.jensen_shannon_divergence.threshold
        for f in config.default_slice_config.feature
    }


def anomalies_of(measurements: list[drift.Measurement]) -> anomalies_pb2.Anomalies:
    """TFDV's record of a comparison, with every divergence and the reasons of each anomaly."""
    result = anomalies_pb2.Anomalies(
        anomaly_name_format=anomalies_pb2.Anomalies.AnomalyNameFormat.SERIALIZED_PATH
    )
    for measured in measurements:
        if measured.measure == drift.DISTRIBUTION and not measured.unjudged:
            skew = result.drift_skew_info.add()
            skew.path.step.append(measured.column)
            skew.drift_measurements.add(
                type=anomalies_pb2.DriftSkewInfo.Measurement.JENSEN_SHANNON_DIVERGENCE,
                value=measured.value,
                threshold=measured.threshold,
            )
        if not measured.drifted:
            continue
        if measured.column == drift.ROWS:
            info = result.dataset_anomaly_info
        else:
            info = result.anomaly_info[measured.column]
        info.path.step[:] = [measured.column]
        info.severity = anomalies_pb2.AnomalyInfo.ERROR
        reason = info.reason.add(
            type=_REASONS.get(measured.measure, _Reason.CUSTOM_VALIDATION),
            short_description=f"drift of the {measured.measure}",
            description=measured.description,
        )
        several = len(info.reason) > 1
        info.short_description = "Multiple drifts" if several else reason.short_description
        info.description = " ".join(r.description for r in info.reason)
    return result


def _unjudged(measurements: Iterable[drift.Measurement]) -> dict[str, str]:
    """Column → why it, or one of its measures, could not be judged."""
    whys: dict[str, list[str]] = {}
    for measured in measurements:
        if measured.unjudged:
            whys.setdefault(measured.column, []).append(measured.unjudged)
    return {column: "; ".join(of) for column, of in whys.items()}


def _profile(statistics: types.Artifact, split: str) -> drift.Profile | None:
    if not fileio.exists(artifact_utils.get_split_uri([statistics], split)):
        raise BadInput(
            f"{statistics.uri}: the statistics that drift is measured against have been deleted; "
            "name a run that still has some as data_gate.reference_run"
        )
    return profile(stats_artifact_utils.load_statistics(statistics, split).proto().datasets[0])
