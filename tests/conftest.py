"""What tests share: photographs that come with packages, and one local Ray."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"  # read when Ray Data is imported
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.pop("RAY_ADDRESS", None)
for _name in ("no_proxy", "NO_PROXY"):  # the tests' own servers are behind no proxy
    os.environ[_name] = f"127.0.0.0/8,127.0.0.1,localhost,{os.environ.get(_name, '')}".rstrip(",")


def pytest_addoption(parser):
    parser.addoption("--chaos", action="store_true", help="run the tests that kill clusters, too")


def pytest_collection_modifyitems(config, items):
    """Leave chaos tests out unless they are asked for by an option of their own, whatever -m says."""
    if config.getoption("--chaos"):
        return
    chaos = [item for item in items if item.get_closest_marker("chaos")]
    config.hook.pytest_deselected(items=chaos)
    items[:] = [item for item in items if item not in chaos]


@pytest.fixture(scope="session")
def photos() -> dict[str, np.ndarray]:
    """Held-out photographs by name, (H, W, 3) uint8, of five different sizes; nothing is fetched."""
    import skimage.data
    import sklearn.datasets
    from PIL import Image

    folder = Path(sklearn.datasets.__file__).parent / "images"
    read = {name: np.asarray(Image.open(folder / f"{name}.jpg")) for name in ("china", "flower")}
    bundled = ("astronaut", "chelsea", "coffee", "rocket")
    return {name: getattr(skimage.data, name)() for name in bundled} | read


def _start_ray():
    import ray

    ray.init(
        "local",  # not a cluster that happens to run on this machine
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )


@pytest.fixture(scope="session")
def ray_cluster():
    """One local Ray for all tests that need one: starting it takes seconds."""
    import ray

    _start_ray()
    yield ray
    ray.shutdown()


@pytest.fixture(autouse=True)
def after_failures(request):
    """After a failed test, start Ray anew where something still holds CPUs: no other test waits for it."""
    if not request.session.testsfailed or "ray_cluster" not in request.fixturenames:
        return
    import ray

    last = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0.0) < ray.cluster_resources()["CPU"] - 0.01:
        if time.monotonic() > last:
            ray.shutdown()
            _start_ray()
            return
        time.sleep(0.5)
