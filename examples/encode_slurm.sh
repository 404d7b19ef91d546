#!/bin/bash
# Encodes in a SLURM array, whose tasks share the units and go back into the queue until all are committed.
#
#     sbatch --array 0-63 --gpus-per-task 1 examples/encode_slurm.sh SOURCE... -o TOKENS [options of imtok encode]
#
# Each task takes units that nobody holds, so tasks may begin late, end early, or never run. A minute before the time
# limit SLURM sends USR2 to this script. The script sends TERM to the step, which drops the unit in its hands and ends
# with 75, and the task is put into the queue again. Tasks that fail otherwise are not.
#   DEALT   set to 1 where the file system has no locks: each task does every N-th unit then
#SBATCH --job-name=imtok-encode
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@60
set -u

: "${SLURM_ARRAY_JOB_ID:?is missing: submit this script by sbatch --array}"
if [ -n "${DEALT:-}" ]; then
    set -- "$@" --shard "$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))/$SLURM_ARRAY_TASK_COUNT"
fi

srun python -m imtok encode "$@" &
step=$!
trap 'kill -TERM "$step"' USR2 TERM
wait "$step"
code=$?
while kill -0 "$step" 2>/dev/null; do  # a signal ended the wait, and not the step
    wait "$step"
    code=$?
done

if [ "$code" = 75 ]; then
    echo "not finished yet: the task goes back into the queue"
    exec scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
