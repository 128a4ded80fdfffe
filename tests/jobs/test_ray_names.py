"""Names that Ray has for itself and that jobs/ uses: pyproject.toml allows only versions tried."""

from __future__ import annotations

import importlib
import inspect
from operator import attrgetter

import pytest

_LOCAL_DATA = "scoring/local_data.py: a local Ray without actors that it does not need"
#: Module, name in it, and the file of jobs/ that uses it for want of a public one.
PRIVATE = [
    (
        "ray._private.ray_constants",
        "ENABLE_RAY_CLUSTER",
        "local_ray.py: a local Ray on loopback only",
    ),
    ("ray._private.ray_constants", "ENABLE_RAY_CLUSTERS_ENV_VAR", "local_ray.py: likewise"),
    (
        "ray._private.state",
        "state.get_cluster_config",
        "node_types.py: nodes that the autoscaler could bring",
    ),
    *(
        ("ray._private.node", f"Node.{name}", "local_ray.py: a local Ray without unused services")
        for name in ("start_monitor", "start_log_monitor", "start_api_server")
    ),
    ("ray._private.services", "start_ray_process", "local_ray.py: likewise"),
    ("ray._private.utils", "set_sigterm_handler", "local_ray.py: signals while Ray starts"),
    ("ray.util.accelerators", "NVIDIA_TESLA_A10G", "placement.py: labels of nodes with GPUs"),
    ("ray._private.worker", "global_worker.connected", "isolation.py: attempts of a task"),
    ("ray.train.v2.api.config", "LoggingConfig", "jobs/training: quiet workers"),
    (
        "ray.data._internal.execution.streaming_executor",
        "StreamingExecutor.shutdown",
        "feed.py: ends an execution that yields nothing",
    ),
    ("ray.data._internal.logging", "SessionFileHandler", "dataset.py: Ray Data's log files"),
    *(
        ("ray.data._internal.stats", f"_StatsManager.{name}", _LOCAL_DATA)
        for name in (
            "gen_dataset_id_from_stats_actor",
            "register_dataset_to_stats_actor",
            "update_execution_metrics",
            "update_iteration_metrics",
        )
    ),
    *(
        (f"ray.data._internal.{module}", name, _LOCAL_DATA)
        for module, name in (
            (
                "cluster_autoscaler.rate_based_cluster_autoscaler",
                "DefaultAutoscalingCoordinator",
            ),
            (
                "execution.operators.actor_pool_map_operator",
                "get_or_create_actor_location_tracker",
            ),
            ("execution.operators.actor_pool_map_operator", "get_actor_locations"),
        )
    ),
]


@pytest.mark.parametrize(("module", "name", "use"), PRIVATE)
def test_ray_still_has_the_name(module, name, use):
    try:
        attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        pytest.fail(f"this version of Ray has no {module}.{name} ({error}); it is used in {use}")


def test_a_repartition_still_has_what_is_set_on_it():
    """Otherwise its tasks would wait for a CPU that the actors never give back."""
    from ray.data._internal.logical.operators import StreamingRepartition

    assert {"ray_remote_args", "compute"} <= StreamingRepartition.__dataclass_fields__.keys()


def test_ray_still_takes_the_option():
    from ray.train import FailureConfig

    assert "controller_failure_limit" in inspect.signature(FailureConfig).parameters, (
        "jobs/training waits for a growing cluster by FailureConfig(controller_failure_limit=...)"
    )


def test_ray_data_still_has_the_settings():
    from ray.data import DataContext

    context = DataContext.get_current()
    for name in ("execution_no_progress_timeout_s", "raise_original_map_exception"):
        assert hasattr(context, name), f"dataset.py sets DataContext.{name}"
