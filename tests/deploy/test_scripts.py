"""Tests of the shell scripts of deploy/, with stand-ins for the programs that they call."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest
from ray.scripts.scripts import cli

from tests.deploy.shared import DEPLOY, parses, program

SCRIPTS = [*sorted(DEPLOY.glob("slurm/*.sbatch")), DEPLOY / "aws-spot-notice.sh"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_sound(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "set -euo pipefail" in path.read_text()
    if shellcheck := program("shellcheck"):
        done = subprocess.run([shellcheck, "-s", "bash", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.fixture
def fakes(tmp_path):
    """Return a function that makes programs which note their arguments, and runs a script with them."""
    programs, notes = tmp_path / "bin", tmp_path / "notes"
    programs.mkdir()

    def run(script, words, programs_and_bodies, **variables):
        for name, body in programs_and_bodies.items():
            (programs / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {notes}\n{body}\n')
            (programs / name).chmod(0o755)
        environment = {"PATH": f"{programs}:/usr/bin:/bin", **variables}
        done = subprocess.run(
            ["bash", script, *words], env=environment, capture_output=True, text=True, timeout=60
        )
        return done, notes.read_text().splitlines() if notes.exists() else []

    return run


def test_a_task_of_a_slurm_array_does_its_shard(fakes):
    done, notes = fakes(
        DEPLOY / "slurm/array.sbatch",
        ["/shared/m", "/shared/o", "--model", "RN50/openai"],
        {"iqa": "exit 3"},
        SLURM_JOB_ID="17",
        SLURM_ARRAY_TASK_ID="2",
        SLURM_ARRAY_TASK_COUNT="8",
    )
    assert done.returncode == 3, done.stderr
    (command,) = notes
    assert (
        command
        == "iqa score --manifest /shared/m --output /shared/o --shard 2/8 --model RN50/openai"
    )
    assert parses(command.split()[1:])
    shutil.rmtree("/tmp/ray-17")


def test_a_ray_cluster_in_a_slurm_allocation(fakes):
    notes_of = '"$(dirname "$0")/../notes"'
    done, notes = fakes(
        DEPLOY / "slurm/cluster.sbatch",
        ["train", "--features", "/shared/f", "--output", "/shared/p.safetensors"],
        {
            "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"',
            "scontrol": "printf 'n1\\nn2\\nn3\\n'",
            "hostname": "echo 10.0.0.1 fe80::1",
            # The head answers once it has started; nodes stay until they are ended.
            "ray": f"""[ "$1" = health-check ] && exec grep -q "^ray start --head" {notes_of}
                exec sleep 20""",
            "iqa": f"""echo "token ${{#RAY_AUTH_TOKEN}} $RAY_AUTH_MODE" >> {notes_of}
                until [ "$(grep -c "^ray start --block" {notes_of})" = 2 ]; do sleep 0.05; done
                exit 3""",
        },
        SLURM_JOB_ID="10007",
        SLURM_JOB_NODELIST="n[1-3]",
        POLL_SECONDS="0.1",
    )
    assert done.returncode == 3, done.stderr  # the driver's
    rays = [shlex.split(note)[1:] for note in notes if note.startswith("ray ")]
    for words in rays:
        assert ray_parses(words)
    (head,) = [words for words in rays if "--head" in words]
    assert {"--block", "--node-ip-address=10.0.0.1", "--port=20007"} <= set(head)
    workers = [words for words in rays if words[0] == "start" and "--head" not in words]
    assert [words[2] for words in workers] == ["--address=10.0.0.1:20007"] * 2
    (driver,) = [note for note in notes if note.startswith("iqa ")]
    words = driver.split()[1:]
    assert words[:3] == ["train", "--address", "10.0.0.1:20007"]
    assert parses(words)
    assert "token 64 token" in notes  # only this job can use its cluster
    placed = [note.partition("--nodelist=")[2].split()[0] for note in notes if "--nodelist" in note]
    assert sorted(placed) == ["n1", "n1", "n2", "n3"]  # the first also says its address


def ray_parses(words):
    """Return whether `ray WORDS...` is a command line of Ray's."""
    command = cli.commands[words[0]]
    command.make_context(words[0], list(words[1:]))
    return True


def test_a_spot_notice_drains_the_node(fakes, tmp_path):
    curl = """case "$*" in
    *api/token*) echo token ;;
    *instance-action*) [ -e "$ASKED" ] && echo '{"action": "terminate"}' || { touch "$ASKED"; exit 22; } ;;
    esac"""
    done, notes = fakes(
        DEPLOY / "aws-spot-notice.sh",
        [],
        {"curl": curl, "ray": "", "python": "echo 0123abcd"},
        POLL_SECONDS="0.05",
        ASKED=str(tmp_path / "asked"),
    )
    assert done.returncode == 0, done.stderr
    assert sum("instance-action" in note for note in notes) == 2  # without a notice it waits
    words = notes[-1].split()[1:]
    assert words[:3] == ["drain-node", "--node-id", "0123abcd"]
    assert words[3:5] == ["--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command = cli.commands["drain-node"]
    options = ["--node-id", "0123abcd", "--reason", words[4], "--reason-message", "x"]
    command.make_context("drain-node", [*options, "--deadline-remaining-seconds", "110"])
