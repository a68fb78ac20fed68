#!/bin/bash
# A build on Slurm: `sbatch infra/cluster/slurm.sh recipe.yaml s3://bucket/corpus`. Submitted again, it goes on.
#SBATCH --job-name=brickyard
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
recipe=$1
out=$2
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(head -n 1 <<< "$nodes")
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000))

# The token of this job: in the environment of its own processes, in no file and in no log.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap --export=ALL \
  ray start --head --node-ip-address="$address" --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" \
  --include-dashboard=false --block &
sleep 15
others=$((SLURM_JOB_NUM_NODES - 1))
if ((others)); then
  srun --nodes="$others" --ntasks="$others" --exclude="$head" --overlap --export=ALL \
    ray start --address="$address:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
fi
sleep 15
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap --export=ALL \
  brickyard build "$recipe" --out "$out" --address "$address:$port"
