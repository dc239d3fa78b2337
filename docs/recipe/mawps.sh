#!/usr/bin/env bash
# The recipe of docs/recipe.md: SmolLM2-135M-Instruct learns on MAWPS and GSM8K to
# answer or to ask, beside a model tuned without a cloud, on a CPU. It needs, in the
# directory in which it is run, updraft, equations.py, smollm2.gguf, mawps.jsonl and
# gsm8k_train.jsonl, and writes runs/. A phase that is finished is not done again, one
# that was interrupted goes on from its checkpoint. runs/times.tsv gets the seconds of
# each: user, system, elapsed.
set -euo pipefail
ask=(--task questions --instruction "End with #### and the number." --help-instruction "You may ask for help." --max-completion-length 48)
held=(--eval-split 0.4) # of MAWPS: measured, and never learnt from
small=(--micro-batch-tokens 1024 --save-total-limit 1)
mkdir -p runs

phase() { # name, what it leaves when it is finished, command of updraft, its flags
  local name=$1 last=$2 resume=() TIMEFORMAT=$1$'\t%U\t%S\t%R'
  shift 2
  [ ! -e "runs/$name/$last" ] || return 0
  if ls "runs/$name" 2>/dev/null | grep -q '^checkpoint-'; then
    resume=(--resume-from-checkpoint)
  else
    rm -rf "runs/$name"
  fi
  { time ./updraft "$@" --output-dir "runs/$name" "${resume[@]}" >"runs/$name.out" 2>>"runs/$name.log"; } 2>>runs/times.tsv
}

# 1. To compute in steps and to mark the answer: GSM8K's short solutions, then
# MAWPS's own problems, with what its numbers say of the way to the answer.
phase solutions final sft --from-solutions --model smollm2.gguf --dataset gsm8k_train.jsonl "${ask[@]}" \
  --per-device-train-batch-size 16 --max-steps 32 --learning-rate 5e-5 --save-steps 8 "${small[@]}"
[ -s mawps_worked.jsonl ] || python3 equations.py <mawps.jsonl >mawps_worked.jsonl
phase equations final sft --from-solutions --model runs/solutions --dataset mawps_worked.jsonl "${ask[@]}" "${held[@]}" \
  --per-device-train-batch-size 16 --max-steps 40 --learning-rate 1e-4 --save-steps 10 "${small[@]}"

# 2. To ask: its own right responses, and failed ones that end in the marker.
phase warm final sft --from-rollouts --model runs/equations --dataset mawps.jsonl "${ask[@]}" "${held[@]}" \
  --train-prompts 300 --per-device-train-batch-size 16 --learning-rate 2e-5 --save-steps 10 "${small[@]}"

# 3. When to ask: GAPG; and beside it, from the same model and on the same prompts,
# task tuning, in which nobody is asked.
learn=(--model runs/warm --dataset mawps.jsonl "${ask[@]}" "${held[@]}" --num-generations 8 --prompts-per-step 8
  --max-steps 80 --learning-rate 2e-5 --lr-scheduler-type linear --warmup-steps 3 --adam-beta2 0.95
  --eval-steps 20 --eval-prompts 100 --save-steps 10 "${small[@]}" --threads 1)
phase gapg final train "${learn[@]}" --cloud simulated:0.938 --cloud-budget 0.30 &
phase tuned final train "${learn[@]}" --cloud none --cloud-budget 0 --reward accuracy-only --no-filter &
wait %1
wait %2
# The same with more for asking: see the page.
phase eager final train "${learn[@]}" --max-steps 40 --alpha-c 1 --cloud simulated:0.938 --cloud-budget 0.30

# 4. All of it on what was held out.
phase eval report.html eval --model runs/gapg --task-tuned runs/tuned --base runs/warm --dataset mawps.jsonl "${ask[@]}" "${held[@]}" \
  --validation-split 0.25 --router-prompts 600 --cloud simulated:0.938 --cloud-budget 0.30 --json
phase eval-eager report.html eval --model runs/eager --dataset mawps.jsonl "${ask[@]}" "${held[@]}" \
  --validation-split 0.25 --cloud simulated:0.938 --cloud-budget 0.30 --json
