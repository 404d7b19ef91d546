"""Encodes on a Ray cluster: Ray starts the processes and restarts lost ones, and imtok commits whole units.

    python examples/encode_ray.py SOURCE... -o TOKENS [-t TOKENIZER] [--processes N] [--gpus] [--address ADDRESS]

The processes are those of one job of `imtok encode`, as under torchrun. A unit is committed by the process that has
encoded all of it, and the token folder is the one that a single process makes, byte for byte. When a machine is lost,
Ray starts its processes again elsewhere, and only the units in their hands are encoded again. The same command resumes
a stopped job. SOURCE and TOKENS have to be reachable under the same names from every machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from imtok.encoding import EncodeReport
from imtok.errors import ImtokError


def encode_share(sources: list[str], tokens: str, rank: int, processes: int, options: dict[str, Any]) -> EncodeReport:
    """Encode units until none is left for this process."""
    from imtok.encoding import encode

    return encode(sources, tokens, rank=rank, world_size=processes, workers=1, **options)


def main() -> None:
    """Start one task for each process and wait for all of them."""
    arguments = parse()
    ray.init(address=arguments.address, log_to_driver=False)
    kind = "GPU" if arguments.gpus else "CPU"
    processes = arguments.processes or max(1, int(ray.cluster_resources().get(kind, 0)))
    # A lost process is started again, and finds what it had committed. Errors of imtok are not repeated.
    task = ray.remote(num_cpus=1, num_gpus=int(arguments.gpus), max_retries=-1, retry_exceptions=False)(encode_share)
    sources, tokens = [everywhere(source) for source in arguments.sources], everywhere(arguments.tokens)
    options = {"tokenizer_path": arguments.tokenizer and everywhere(arguments.tokenizer)}
    waiting = [task.remote(sources, tokens, rank, processes, options) for rank in range(processes)]
    reports: list[EncodeReport] = []
    while waiting:
        (done,), waiting = ray.wait(waiting)
        reports.append(ray.get(done))
        print(f"{len(reports)} of {processes} processes done", file=sys.stderr)
    for unit in (unit for report in reports for unit in report.failed):
        print(f"failed: {unit.name}: {unit.reason}", file=sys.stderr)
    if not any(report.complete for report in reports):
        sys.exit(f"error: {tokens} is not complete; mend what is named above, and run the same command again")
    print(f"{tokens}: {next(report.images for report in reports if report.complete)} images")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Encode images on a Ray cluster.")
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="as `imtok encode` takes them")
    parser.add_argument("-o", "--output", dest="tokens", required=True, metavar="TOKENS", help="folder for the tokens")
    parser.add_argument("-t", "--tokenizer", help="folder or hf:// address (default: imtok-f8)")
    parser.add_argument("--processes", type=int, help="(default: one for each CPU or GPU of the cluster)")
    parser.add_argument("--gpus", action="store_true", help="give each process a GPU")
    parser.add_argument("--address", help="of a running cluster, or auto (default: start Ray on this machine)")
    return parser.parse_args()


def everywhere(name: str) -> str:
    """Return a name that is valid in every process: those of Ray run in other folders."""
    return name if "://" in name or name.startswith("imtok-") else str(Path(name).absolute())


if __name__ == "__main__":
    try:
        main()
    except RayTaskError as error:
        if not isinstance(error.cause, ImtokError):
            raise
        sys.exit(f"error: {error.cause}")
