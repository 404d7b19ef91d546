#!/bin/sh
# Trains on several machines. Start it on each of them with the same words, in any order, within five minutes.
#
#     NODES=2 HEAD=first-machine sh examples/train_several_nodes.sh SOURCE... -o RUN [options of imtok train]
#
# Each machine needs SOURCE under the same name. The first process alone writes RUN, on a machine that torchrun chooses
# anew at each start, so give a folder that all machines share.
#   NODES       the number of machines
#   HEAD        a name or address of one of them, which all can reach
#   PORT        a free port there (29400)
#   PROCESSES   processes on this machine: one for each GPU, or two without a GPU
set -eu

: "${NODES:?is missing: give the number of machines, as in NODES=2}"
: "${HEAD:?is missing: give the name of one machine, as in HEAD=first-machine}"
: "${PROCESSES:=$(python -c 'import torch; print(torch.cuda.device_count() or 2)')}"
exec python -m torch.distributed.run --nnodes "$NODES" --nproc-per-node "$PROCESSES" \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD:${PORT:-29400}" --rdzv-id "${RUN_ID:-imtok}" \
    -m imtok train "$@"
