#!/bin/sh
# Trains on one machine, with a process for each of its GPUs, or two processes on a machine without one.
#
#     sh examples/train_one_node.sh SOURCE... -o RUN [options of imtok train]
#
# The same command resumes a run that was stopped, on any number of processes.
#   PROCESSES   another number of processes
set -eu

: "${PROCESSES:=$(python -c 'import torch; print(torch.cuda.device_count() or 2)')}"
exec python -m torch.distributed.run --standalone --nproc-per-node "$PROCESSES" -m imtok train "$@"
