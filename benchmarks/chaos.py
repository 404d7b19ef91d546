"""An encode under random kills, stops, full disks, damaged inputs and lost servers, which must end as if undisturbed.

The script encodes a small set once in peace. Then it gives the same command again and again, as one process or as
several, as shares of `--shard`, as ranks, below torchrun, or as a mixture. It disturbs each start at random moments:

- SIGKILL, SIGTERM and SIGINT to any process; SIGSTOP, while another process goes on, and then SIGCONT or SIGKILL;
- a disk without bytes or without inodes, for a while or until all have ended;
- tars that are cut, inputs that change or vanish, and that are mended after all have ended;
- connections that break, and servers that are away for a while: of some tars, and of tokens that are objects.

After each start, every committed shard must have the bytes of the undisturbed one. Once the set is complete, all of
its files outside `journal/` must, `imtok verify` must accept it, and its images and skips must be as many as the
inputs. Then it is exported under kills, and the export must have the bytes of one in peace. Then another folder is
begun, until there were enough starts.

    python benchmarks/chaos.py
    python benchmarks/chaos.py --restarts 30 --seed 7 --scale 3 --in-bucket 0

A small disk is mounted where the system lets it (`unshare`, as root or not). Otherwise the disturbed processes may not
let a file grow beyond some bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from chaos_places import Bucket, bucket_served
from chaos_rounds import Choices, Rounds
from chaos_world import Disk, folder_served
from machine import machine

_OWN_DISKS = ["unshare", "--user", "--map-root-user", "--mount"]
_INSIDE = "CHAOS_HAS_OWN_DISKS"
_DISK_MEGABYTES = 24
# All but those whose trainers need a label for each image.
_FORMATS = (
    *("megatron", "nanogpt", "llmc", "automodel", "torchtitan", "datatrove", "olmo", "litdata", "mds", "parquet"),
    *("webdataset", "npy", "4m", "emu3"),
)


def main() -> None:
    args = parse()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=args.scratch)))
        disk = Disk(scratch / "disk", _DISK_MEGABYTES if os.environ.get(_INSIDE) else None)
        stack.callback(disk.close)
        links = {}
        if args.served:
            links["source"] = stack.enter_context(folder_served(scratch / "inputs" / "served", scratch / "server.txt"))
        bucket = None
        if args.in_bucket:
            links["store"], client = stack.enter_context(bucket_served(scratch / "store.txt"))
            bucket = partial(Bucket, client)
        names = ("restarts", "seed", "scale", "torchrun", "fresh", "in_bucket", "formats")
        choices = Choices(**{name: getattr(args, name) for name in names})
        started = time.monotonic()
        rounds = Rounds(choices, scratch, disk, links, bucket)
        rounds.run()
        report(rounds, disk, choices, time.monotonic() - started)


def report(rounds: Rounds, disk: Disk, choices: Choices, seconds: float) -> None:
    """Print the counts as a table, and as one line."""
    tally, events = rounds.tally, rounds.disturbances.events
    print("| event | times |")
    print("|---|---|")
    for name, times in sorted(events.items()):
        print(f"| {name} | {times} |")
    print("| processes of a start | starts |")
    print("|---|---|")
    for name, times in sorted(tally.layouts.items()):
        print(f"| {name} | {times} |")
    rounds_said = f"{tally.rounds} rounds, {tally.rounds_in_bucket} of them on S3"
    print(f"{tally.restarts} restarts with {tally.processes} processes in {rounds_said}, in {seconds:.0f} s")
    print(f"{tally.bytes_compared:,} bytes and {tally.exports} exports compared, all equal to the undisturbed ones")
    record = {"benchmark": "chaos", **vars(choices), **vars(tally), "events": events, "small_disk": disk.mounted}
    print(json.dumps(record | {"seconds": round(seconds, 1)} | machine(torch.device("cpu"))))


def with_own_disks() -> None:
    """Start this script anew as a process that may mount disks which only it sees, where the system lets it."""
    if _INSIDE in os.environ or not parse().small_disk:
        return
    try:
        allowed = subprocess.run([*_OWN_DISKS, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if allowed:
        os.environ[_INSIDE] = "1"
        os.execvp(_OWN_DISKS[0], [*_OWN_DISKS, sys.executable, *sys.argv])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=int, default=8, help="size of the set: 12 pictures and 3 tars for each")
    parser.add_argument("--torchrun", type=float, default=0.05, help="share of the starts that torchrun does")
    parser.add_argument("--fresh", type=float, default=0.1, help="share of the other starts without loaded packages")
    parser.add_argument("--in-bucket", type=float, default=0.2, help="share of the rounds with tokens on an S3 server")
    parser.add_argument("--formats", nargs="*", default=_FORMATS, help="formats of the exports")
    parser.add_argument("--small-disk", action=argparse.BooleanOptionalAction, default=True, help="one to fill")
    parser.add_argument("--served", action=argparse.BooleanOptionalAction, default=True, help="some tars by HTTP")
    parser.add_argument("--scratch", default=None, help="folder for temporary files")
    return parser.parse_args()


if __name__ == "__main__":
    with_own_disks()
    main()
