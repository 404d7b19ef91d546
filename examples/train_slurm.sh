#!/bin/bash
# Trains in a SLURM job, which goes back into the queue until the run is finished.
#
#     sbatch --nodes 2 --gpus-per-node 8 examples/train_slurm.sh SOURCE... -o RUN [options of imtok train]
#
# Five minutes before the time limit SLURM sends USR2 to this script. The script sends TERM to the step, the processes
# write a checkpoint and end, and the job is put into the queue again. A job that fails without a new checkpoint is not.
#   PROCESSES   processes on each machine: one for each GPU of it, or two without a GPU
#SBATCH --job-name=imtok
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@300
set -u

: "${SLURM_JOB_ID:?is missing: submit this script by sbatch}"
: "${PROCESSES:=${SLURM_GPUS_ON_NODE:-2}}"
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 20000))

RUN=
for ((i = 1; i < $#; i++)); do
    case ${!i} in -o | --output) next=$((i + 1)) RUN=${!next} ;; esac
done
[ -n "$RUN" ] || { echo "error: give the folder of the run by -o RUN" >&2; exit 2; }
newest() { ls "$RUN/checkpoints" 2>/dev/null | sort | tail -n 1; }
before=$(newest)

srun python -m torch.distributed.run --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$PROCESSES" \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD:$PORT" --rdzv-id "$SLURM_JOB_ID" \
    -m imtok train "$@" &
step=$!
trap 'kill -TERM "$step"' USR2 TERM
wait "$step"
code=$?
while kill -0 "$step" 2>/dev/null; do  # a signal ended the wait, and not the step
    wait "$step"
    code=$?
done

[ -d "$RUN/tokenizer" ] && exit "$code"
if [ "$(newest)" != "$before" ]; then
    echo "not finished yet: the job goes back into the queue"
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
