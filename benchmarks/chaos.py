"""An encode under random kills, stops, full disks, damaged inputs and lost servers, which must end as if undisturbed.

The script encodes a small set once in peace. Then it gives the same command again and again, as one process or as
several, as shares of `--shard`, as ranks, below torchrun, or as a mixture, into a folder or into objects of an S3
server. It disturbs each start at random moments:

- SIGKILL, SIGTERM and SIGINT to any process; SIGSTOP, while another process goes on, and then SIGCONT or SIGKILL;
- a disk without bytes or without inodes, for a while or until all have ended; a journal that is removed;
- archives that are cut, inputs that change or vanish, and that are mended after all have ended;
- connections that break, and servers that are away for a while: those of some inputs, and that of the tokens.

After each start, every shard that was committed before must still be there, with the bytes of the undisturbed one,
every process must have ended with an exit code and a message that its disturbances explain, and only what was damaged
may have failed. Once the set is complete, all of its files outside `journal/` must be those of the undisturbed one,
`imtok verify` must accept it, and its images and skips must be as many as the inputs. Then it is exported under kills,
stops and full disks, and the export must have the bytes of one in peace, which `imtok verify --against` has read back.
Then another folder is begun, until there were enough starts. An event counts where it took effect: a signal to a
process that was alive, a connection that was open, a disk that was full.

    python benchmarks/chaos.py -o chaos.json
    python benchmarks/chaos.py --minutes 15 -o chaos.json
    python benchmarks/chaos.py --restarts 30 --seed 7 --scale 3 --in-bucket 0

The last line printed is one of JSON, also written to `-o`; the exit code is 1 where anything differed. It needs Linux
and `pip install -e '.[dev]'`. A small disk is mounted where the system lets it (`unshare`, as root or not). Otherwise
the disturbed processes may not let a file grow beyond some bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from chaos_places import Bucket, bucket_served
from chaos_processes import BROKEN_BY
from chaos_rounds import Choices, Rounds
from chaos_world import Disk, folder_served
from machine import machine

from imtok.counted import counted

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
    if args.broken_by:
        os.environ[BROKEN_BY] = args.broken_by
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
        names = ("restarts", "minutes", "seed", "scale", "torchrun", "fresh", "in_bucket", "formats", "exports_each")
        choices = Choices(**{name: getattr(args, name) for name in names})
        started = time.monotonic()
        rounds = Rounds(choices, scratch, disk, links, bucket)
        stack.callback(rounds.end)
        rounds.run()
        report(rounds, disk, choices, time.monotonic() - started, args.output)
    sys.exit(1 if rounds.tally.differences else 0)


def report(rounds: Rounds, disk: Disk, choices: Choices, seconds: float, output: Path | None) -> None:
    """Print the counts as tables, then all of them as one line, which goes into `output` too."""
    tally = rounds.tally
    events, ends = (dict(sorted((+each).items())) for each in (rounds.disturbances.events, tally.ends))
    for title, counts in (("event", events), ("processes of a start", tally.layouts), ("end", ends)):
        print(f"| {title} | times |")
        print("|---|---|")
        for name, times in sorted(counts.items()):
            print(f"| {name} | {times:,} |")
        print()
    print(f"{tally.restarts} restarts with {tally.processes} processes in {tally.rounds} rounds, {seconds:.0f} s")
    print(
        f"{tally.files_compared:,} files with {tally.bytes_compared:,} bytes, {tally.images:,} images and "
        f"{tally.exports} exports compared with the undisturbed ones: {counted(len(tally.differences), 'difference')}"
    )
    for difference in tally.differences:
        print(f"difference: {difference}")
    chosen = {name: value for name, value in vars(choices).items() if name != "minutes"}
    record = {"benchmark": "chaos", **chosen, **vars(tally), "events": events, "ends": ends}
    record |= {
        "inputs": rounds.inputs,
        "small_disk": disk.mounted,
        "seconds": round(seconds, 1),
    }
    line = json.dumps(record | machine(torch.device("cpu")))
    print(line)
    if output is not None:
        output.write_text(f"{line}\n")


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
    parser.add_argument("--restarts", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no further round after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=int, default=4, help="size of the set: 12 pictures and 3 tars for each")
    parser.add_argument("--torchrun", type=float, default=0.03, help="share of the starts that torchrun does")
    parser.add_argument("--fresh", type=float, default=0.04, help="share of the other starts without loaded packages")
    parser.add_argument("--in-bucket", type=float, default=0.2, help="share of the rounds with tokens on an S3 server")
    parser.add_argument("--exports", dest="exports_each", type=int, default=1, help="exports of each round")
    parser.add_argument("--formats", nargs="*", default=_FORMATS, help="formats of the exports")
    parser.add_argument("--small-disk", action=argparse.BooleanOptionalAction, default=True, help="one to fill")
    parser.add_argument("--served", action=argparse.BooleanOptionalAction, default=True, help="some tars by HTTP")
    parser.add_argument("--scratch", default=None, help="folder for temporary files")
    parser.add_argument("--broken-by", default=None, help="module that breaks imtok on purpose, in forked processes")
    parser.add_argument("-o", "--output", type=Path, default=None, help="file for the last line")
    return parser.parse_args()


if __name__ == "__main__":
    with_own_disks()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))  # so that servers end and folders are cleared away
    main()
