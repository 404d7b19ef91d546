"""The scripts in `examples/` and the README's commands for several GPUs, run as they are on two cores."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from launching import TINY, Started, newest
from making import contents, fill, pictures_tar, tiny_tokenizer
from PIL import Image

from imtok.encoding import encode
from imtok.export import ExportOptions, export_tokens
from imtok.tokens import open_tokens, verify_tokens, write_tokens
from imtok.tokens.folder import find_shards

ROOT = Path(__file__).parents[1]
SECTION = re.search(r"^## More than one GPU$(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)
LENGTH = ["--images", "600", "--set", "checkpoint_every=40", "--set", "validate_every=300"]


def command(first: str) -> list[str]:
    """The README's command with this word in it, for a small run, with two processes."""
    assert SECTION
    lines = [
        line for block in re.findall(r"^```sh\n(.*?)^```$", SECTION[1], re.M | re.S) for line in block.splitlines()
    ]
    (line,) = [line for line in lines if first in line]
    line = line.replace("examples/", f"{ROOT}/examples/").replace("--nproc-per-node 8", "--nproc-per-node 2")
    line = re.sub(r"-o \S+", "-o runs/photos", line)
    return [*shlex.split(line), *TINY, *LENGTH]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, and with what a cluster has on its path."""
    place = tmp_path_factory.mktemp("cluster")
    fill(place / "photos", (f"{number}.png" for number in range(20)))
    programs = {
        "python": f'exec {shlex.quote(sys.executable)} "$@"',
        "torchrun": f'exec {shlex.quote(sys.executable)} -m torch.distributed.run "$@"',
        "srun": 'exec "$@"',
        "scontrol": f'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> {place}/scontrol.txt; fi',
        "sbatch": 'while [ "${1#-}" != "$1" ]; do shift 2; done; exec bash "$@"',
    }
    (place / "bin").mkdir()
    for name, text in programs.items():
        (place / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / "bin" / name).chmod(0o755)
    return place


@pytest.fixture
def started(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which commands run."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("PATH", f"{place}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return place


def line_of(text: str, start: str) -> str:
    """The one line of imtok that starts so; no process of imtok printed a traceback."""
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    before = text.split("torch/distributed/elastic")[0].split(" Sending process")[0]
    assert "Traceback" not in before, text
    return line


def test_a_stop_of_one_process_stops_all_with_a_checkpoint(started: Path) -> None:
    run = started / "runs" / "photos"
    job = Started(command("train_one_node.sh"), started / "one.txt", PROCESSES="2")
    job.wait_for(lambda: newest(run) > 0)
    code, seconds = job.signal_and_wait(signal.SIGTERM, rank=1)
    line = line_of(job.text, "stopped:")
    assert code == 1  # torchrun's own
    assert job.text.count("exitcode  : 75") == 2
    assert f"{newest(run)} of 600 training images done and saved; the same command resumes" in line
    assert seconds < 15  # of the 30 that torchrun waits


def test_a_killed_process_ends_the_others_with_a_word(started: Path) -> None:
    run = started / "runs" / "photos"
    before = newest(run)
    job = Started(command("torchrun"), started / "kill.txt")
    job.wait_for(lambda: newest(run) > before)
    code, seconds = job.signal_and_wait(signal.SIGKILL, rank=1)
    assert code == 1
    assert line_of(job.text, "error:") == (
        "error: rank 1 of this training has ended without a word, as by a kill or a lost machine; the same command "
        "resumes"
    )
    assert f"note: resumed after {before} of 600 training images" in job.text
    assert seconds < 60


def test_a_slurm_job_near_its_limit_is_requeued(started: Path) -> None:
    run, queue = started / "runs" / "photos", started / "scontrol.txt"
    before = newest(run)
    slurm = {"SLURM_JOB_ID": str(free_port()), "SLURM_JOB_NODELIST": "node-1", "SLURM_JOB_NUM_NODES": "1"}
    job = Started(command("train_slurm.sh"), started / "slurm.txt", **slurm)
    job.wait_for(lambda: newest(run) > before)
    code, _ = job.signal_and_wait(signal.SIGUSR2)
    assert "the same command resumes" in line_of(job.text, "stopped:")
    assert code == 0
    assert queue.read_text() == f"requeue {slurm['SLURM_JOB_ID']}\n"


def test_tasks_of_an_array_share_an_encode_and_are_requeued(started: Path) -> None:
    queue, tokens = started / "scontrol.txt", started / "tokens"
    fill(started / "many", (f"{number:03d}.png" for number in range(240)))
    tiny_tokenizer(started / "tiny")
    words = ["many", "-o", tokens, "-t", "tiny", "--unit-size", 2, "--workers", 1]

    def task(number: int, **environment: str) -> Started:
        array = {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_MIN": "3"}
        script = f"{ROOT}/examples/encode_slurm.sh"
        return Started(
            ["sbatch", "--array", "3-4", script, *map(str, words)],
            started / f"task{number}.txt",
            SLURM_ARRAY_TASK_COUNT="2",
            **array,
            **environment,
        )

    job = task(3)
    job.wait_for(lambda: len(find_shards(tokens)[0]) > 2)
    assert job.signal_and_wait(signal.SIGUSR2)[0] == 0
    assert "run the same command again to resume" in line_of(job.text, "stopped:")
    assert queue.read_text().splitlines()[-1] == "requeue 77_3"
    assert len(find_shards(tokens)[0]) < 120
    dealt = task(4, DEALT="1")
    assert dealt.process.wait(300) == 0, dealt.text
    assert find_shards(tokens)[0] >= set(range(1, 120, 2))
    last = task(3)
    assert last.process.wait(300) == 0, last.text
    assert verify_tokens(tokens).ok
    assert queue.read_text().splitlines()[-1] == "requeue 77_3"


def test_several_machines_finish_the_run(started: Path) -> None:
    run = started / "runs" / "photos"
    name, *words = command("train_several_nodes.sh")[-(len(TINY + LENGTH) + 5) :]
    environment = {"NODES": "2", "HEAD": "127.0.0.1", "PORT": str(free_port()), "PROCESSES": "1"}
    jobs = [Started([name, *words], started / f"node{node}.txt", **environment) for node in range(2)]
    assert [job.process.wait(400) for job in jobs] == [0, 0], [job.text for job in jobs]
    texts = [job.text for job in jobs]
    assert sum("tokenizer in runs/photos/tokenizer" in text for text in texts) == 1
    assert (run / "tokenizer" / "model.safetensors").exists()


def test_a_finished_slurm_job_leaves_the_queue(started: Path) -> None:
    queue = started / "scontrol.txt"
    before = queue.read_text()
    slurm = {"SLURM_JOB_ID": str(free_port()), "SLURM_JOB_NODELIST": "node-1", "SLURM_JOB_NUM_NODES": "1"}
    job = Started(command("train_slurm.sh"), started / "again.txt", PROCESSES="1", **slurm)
    assert job.process.wait(400) == 0, job.text
    assert "this run is finished" in job.text
    assert queue.read_text() == before


@pytest.mark.slow
def test_ray_makes_the_token_folder_of_one_process(tmp_path: Path) -> None:
    sources = [fill(tmp_path / "photos", [f"{n}.png" for n in range(5)])]
    sources += [pictures_tar(tmp_path / f"{name}.tar", ["0.png", "1.png"]) for name in "abc"]
    tokenizer = tiny_tokenizer(tmp_path / "tokenizer")
    encode(sources, tmp_path / "one", tokenizer)
    words = [*(source.name for source in sources), "-o", "ray", "-t", "tokenizer", "--processes", "2"]
    quiet = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "encode_ray.py", *words],
        cwd=tmp_path,
        env=quiet,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/ray: 11 images\n"
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")


def test_the_gpt_trains_and_its_samples_are_decoded(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    classes = np.arange(60) % 3
    codes = np.where(random.random((60, 4, 4)) < 0.9, classes[:, None, None], random.integers(125, size=(60, 4, 4)))
    tokens = tmp_path / "tokens"
    tokenizer = tiny_tokenizer(tmp_path / "tokenizer")
    keys = [f"{number}.png" for number in range(60)]
    write_tokens(tokens, keys, codes, tokenizer=tokenizer, labels=classes.tolist(), class_names=("a", "b", "c"))
    options = ExportOptions(label="before", val_fraction=0.2)
    export_tokens(tokens, tmp_path / "data", "nanogpt", options)
    small = "--steps 200 --batch-size 16 --layers 1 --width 32 --heads 2 --samples 4 --top-k 5"
    script = [sys.executable, ROOT / "examples" / "gpt.py", tmp_path / "data", tokenizer, "-o", tmp_path / "gpt"]
    subprocess.run([*script, *small.split()], check=True)
    log = [json.loads(line) for line in (tmp_path / "gpt" / "loss.jsonl").read_text().splitlines()]
    assert log[-1]["val"] < 0.5 * log[0]["val"]
    drawn = open_tokens(tmp_path / "gpt" / "tokens")
    assert [drawn.label(number) for number in range(12)] == [0] * 4 + [1] * 4 + [2] * 4
    means = [float((codes == drawn.label(number)).float().mean()) for number, (_, codes) in enumerate(drawn)]
    assert min(np.mean(means[start : start + 4]) for start in (0, 4, 8)) > 0.5
    with Image.open(tmp_path / "gpt" / "samples.png") as sheet:
        assert sheet.size == (2 * 4 * 32, 2 * 3 * 32)
    assert (tmp_path / "gpt" / "loss.png").stat().st_size > 5000


def test_the_gpt_asks_for_an_export_with_labels(tmp_path: Path) -> None:
    script = [sys.executable, ROOT / "examples" / "gpt.py", tmp_path, tmp_path, "-o", tmp_path / "gpt"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "imtok-export.json: no record of an export with --to nanogpt --label before" in done.stderr
    assert not (tmp_path / "gpt").exists()


def test_the_gpt_has_at_most_200_lines() -> None:
    assert len((ROOT / "examples" / "gpt.py").read_text().splitlines()) <= 200
