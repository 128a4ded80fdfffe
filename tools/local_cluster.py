"""A Ray cluster of several nodes on this machine, to test and to try what needs more than one.

    python -m tools.local_cluster cpus=0 cpus=2 cpus=2 cpus=2,gpus=1 cpus=2,gpus=1,zone=a

starts a head, two nodes with CPUs and two with GPUs, prints their addresses, and ends with Ctrl-C. GPUs are
logical: Ray schedules by them, and nothing is on a device. Each node has a loopback address of its own, a
folder for its runtime and its temporary files, and can be killed as a machine is lost. Its nodes share the
filesystem, CPUs and memory of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LocalCluster", "LocalNode", "NodeSpec"]

_START_SECONDS = 120.0
_STOP_SECONDS = 15.0
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
#: What Ray reads of every configuration, and a provider of processes has no use for.
_COMMANDS = (
    "cluster_synced_files",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
#: How soon a node that was killed is noticed; Ray's own values are for networks of many machines.
_HEALTH = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}


@dataclass(frozen=True)
class NodeSpec:
    """What a node has.

    Attributes:
        cpus: Logical CPUs.
        gpus: Logical GPUs.
        labels: Labels.
        resources: Custom resources.
    """

    cpus: int = 2
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> NodeSpec:
        """Return the node of a text such as ``cpus=2,gpus=1,zone=a``; other names are labels."""
        pairs = dict(word.split("=", 1) for word in text.split(",") if word)
        return cls(int(pairs.pop("cpus", 2)), int(pairs.pop("gpus", 0)), pairs)

    def options(self) -> list[str]:
        """Return the options of ``ray start``."""
        words = [f"--num-cpus={self.cpus}", f"--num-gpus={self.gpus}"]
        if self.labels:
            words.append(
                "--labels=" + ",".join(f"{key}={value}" for key, value in self.labels.items())
            )
        if self.resources:
            words.append(f"--resources={json.dumps(dict(self.resources))}")
        return words


@dataclass
class LocalNode:
    """A running node.

    Attributes:
        spec: What it has.
        address: Its loopback address.
        folder: Its runtime folder.
        process: Its ``ray start``.
    """

    spec: NodeSpec
    address: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> Path:
        """What ``ray start`` printed."""
        return self.folder / "start.log"

    def is_up(self) -> bool:
        """Return whether it has joined the cluster."""
        return b"Ray runtime started" in self.log.read_bytes()

    def stop(self) -> None:
        """End it as an autoscaler does: its workers may finish nothing."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a machine is lost: all of its processes at once."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        processes = self._processes()
        for process in processes if number == signal.SIGKILL else processes[:1]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_SECONDS)
        for process in {*processes, *self._processes()}:  # those that did not follow
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def _processes(self) -> list[psutil.Process]:
        """Return ``ray start`` and all that it started; some may have lost their parent."""
        found: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            found = [parent, *parent.children(recursive=True)]
        for process in psutil.process_iter(["cmdline"]):
            if any(f"{self.folder}/" in word for word in process.info["cmdline"] or ()):
                found.append(process)
        return found


class LocalCluster:
    """Several Ray nodes on this machine (a context manager).

    Args:
        nodes: The nodes beside the head.
        head: The head, on which nothing runs by default but what is submitted.
        autoscaler: Node types by name, as in cluster.yaml: they are started when they are needed.
        idle_minutes: Minutes after which an idle node of the autoscaler is ended.

    Attributes:
        address: For ``--address`` and ``ray.init``.
        jobs: For ``ray job submit --address``.
        environment: For processes that use it.
        nodes: The running nodes, the head first.
    """

    def __init__(
        self,
        *nodes: NodeSpec,
        head: NodeSpec | None = None,
        autoscaler: Mapping[str, Any] | None = None,
        idle_minutes: float = 0.2,
    ) -> None:
        self._root = Path(tempfile.mkdtemp(dir="/tmp", prefix="iqa"))  # sockets need a short path
        self._port, dashboard, client = (_free_port() for _ in range(3))
        self.address = f"127.0.0.1:{self._port}"
        self.jobs = f"http://127.0.0.1:{dashboard}"
        self.nodes: list[LocalNode] = []
        self._head, self._specs = head or NodeSpec(cpus=0), nodes
        self._number = 0
        self._head_options = [
            "--head",
            f"--port={self._port}",
            f"--dashboard-port={dashboard}",
            "--dashboard-host=127.0.0.1",
            f"--ray-client-server-port={client}",
        ]
        self.environment = self._environment()
        self._of_head: dict[str, str] = {}
        if autoscaler is not None:
            self._write_autoscaler(autoscaler, idle_minutes)

    def _environment(self) -> dict[str, str]:
        environment = os.environ | _HEALTH
        environment |= {
            "HOME": str(self._root),  # for the configuration of an autoscaler
            "RAY_AUTH_MODE": "disabled",  # all of it is on loopback
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_JOB_STOP_WAIT_TIME_S": "60",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        for name in ("RAY_ADDRESS", "RAY_TMPDIR"):
            environment.pop(name, None)
        return environment

    def _write_autoscaler(self, types: Mapping[str, Any], idle_minutes: float) -> None:
        """Write a configuration of Ray's fake provider, whose nodes are processes of this machine."""
        from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

        head = {"resources": {"CPU": self._head.cpus, "GPU": self._head.gpus}, "node_config": {}}
        workers = {name: {"node_config": {}, **kind} for name, kind in types.items()}
        config = {
            "cluster_name": "local",
            "max_workers": sum(kind["max_workers"] for kind in types.values()),
            "idle_timeout_minutes": idle_minutes,
            "provider": {
                # Under its own type Ray would read an example that its wheels lack.
                "type": "external",
                "module": _PROVIDER,
                "gcs_address": self.address,
                "head_node_id": FAKE_HEAD_NODE_ID,
                "launch_multiple": True,
            },
            # The provider knows the head by this name.
            "available_node_types": {"ray.head.default": {**head, "max_workers": 0}, **workers},
            "head_node_type": "ray.head.default",
            **{key: [] for key in _COMMANDS},
            "file_mounts": {},
            "auth": {},
        }
        path = self._root / "ray_bootstrap_config.yaml"  # where `ray up` leaves it
        path.write_text(json.dumps(config), encoding="utf-8")
        self._head_options.append(f"--autoscaling-config={path}")
        self._of_head = {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_enable_autoscaler_v2": "1",  # as `ray up` has it
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }

    def __enter__(self) -> LocalCluster:
        try:
            self._start(self._head, self._head_options)
            self._wait()
            for spec in self._specs:
                self.add(spec, wait=False)
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self.nodes):
            node.kill()
        for process in psutil.process_iter(["cmdline"]):  # such as nodes of the autoscaler
            if any(f"{self._root}/" in word for word in process.info["cmdline"] or ()):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        shutil.rmtree(self._root, ignore_errors=True)

    def add(self, spec: NodeSpec, *, wait: bool = True) -> LocalNode:
        """Start a further node.

        Args:
            spec: What it has.
            wait: Whether to return only once it has joined.
        """
        node = self._start(spec, [f"--address={self.address}"])
        if wait:
            self._wait()
        return node

    def remove(self, node: LocalNode, *, kill: bool = True) -> None:
        """End a node, by default as a machine is lost."""
        self.nodes.remove(node)
        if kill:
            node.kill()
        else:
            node.stop()

    def _start(self, spec: NodeSpec, options: Sequence[str]) -> LocalNode:
        self._number += 1
        folder, address = self._root / f"n{self._number}", f"127.0.0.{self._number}"
        (folder / "tmp").mkdir(parents=True)
        words = ["ray", "start", "--block", *options, *spec.options(), "--disable-usage-stats"]
        words += [f"--node-ip-address={address}", f"--temp-dir={folder}"]
        words += ["--dashboard-agent-listen-port=0", "--object-store-memory=150000000"]
        environment = self.environment if self.nodes else self.environment | self._of_head
        with (folder / "start.log").open("wb") as log:
            process = subprocess.Popen(
                words,
                env=environment | {"TMPDIR": str(folder / "tmp")},
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.nodes.append(LocalNode(spec, address, folder, process))
        return self.nodes[-1]

    def _wait(self) -> None:
        """Return once all nodes have joined."""
        deadline = time.monotonic() + _START_SECONDS
        for node in self.nodes:
            while not node.is_up():
                if node.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"a node did not start:\n{node.log.read_text()}")
                time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a cluster, and end it with Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tools.local_cluster", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "nodes",
        nargs="+",
        type=NodeSpec.of,
        metavar="NODE",
        help="such as cpus=2,gpus=1,LABEL=VALUE; the first is the head",
    )
    parsed = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        suppress(KeyboardInterrupt),
        LocalCluster(*parsed.nodes[1:], head=parsed.nodes[0]) as cluster,
    ):
        print(f"export RAY_AUTH_MODE=disabled RAY_ADDRESS={cluster.address}")
        print(
            f"ray job submit --address {cluster.jobs} --working-dir . -- python -m jobs ...",
            flush=True,
        )
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
