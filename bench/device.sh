#!/usr/bin/env bash
# Everything that needs a GPU, in one command, on a machine with nvcc and a python3 that has torch, cmake, ninja, pybind11,
# scikit-build-core, pytest and pytest-xdist, and with no network: build, tests, compute-sanitizer, CUDA benchmarks.
#
#   bash bench/device.sh                        all stages; logs and JSON under $OUT (default bench/results)
#   STAGES="build smoke" bash bench/device.sh   some; the build is kept in $SCRATCH between calls
#   LIMIT=300 BUDGET=570                        seconds that a stage may take, and all of them together (default: no end)
#   KERNELS="--only pdpgd"                      options of the benchmark of kernels (default: --no-compile)
#
# Stages: build; smoke (every op once, errors where they happen); tests (those that need a GPU); memcheck, racecheck and
# synccheck (smoke under compute-sanitizer); kernels, attacks, training, analysis (benchmarks). After a failed build none
# is run. The table of stages and exit codes comes last ("missing": the tool is not there). Exits 1 where a stage failed.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
out=$(mkdir -p "${OUT:-bench/results}" && cd "${OUT:-bench/results}" && pwd)
scratch=${SCRATCH:-${TMPDIR:-/tmp}/pyrobust-device}
python=${PYTHON:-python3}
stages=${STAGES:-build smoke tests memcheck racecheck synccheck kernels attacks training analysis}
limit=${LIMIT:-540}
budget=${BUDGET:-1000000}
read -ra kernels <<<"${KERNELS---no-compile}"
log=$out/device.log
summary=$out/device-summary.txt
export PYTHONUNBUFFERED=1
PYROBUST_BENCH_COMMIT=${PYROBUST_BENCH_COMMIT:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
export PYROBUST_BENCH_COMMIT
export PATH=$PATH:/usr/local/cuda/bin
mkdir -p "$scratch/site" "$scratch/tree"
: >"$log"
rows=()
failed=0

# stage NAME COMMAND…: run it, keep its output in the log, remember how it ended.
stage() {
  local name=$1 began=$SECONDS seconds=$((budget - SECONDS - 20)) code last
  shift
  [[ " $stages " == *" $name "* ]] || return 0
  ((seconds < limit)) || seconds=$limit
  if ((seconds < 10)); then
    failed=1
    rows+=("$(printf '%-10s %4s %5s   %s' "$name" - 0s 'no time left')")
    return 0
  fi
  printf '=== %s\n' "$name" | tee -a "$log"
  (timeout -k 10 "$seconds" "$@") >"$scratch/$name.log" 2>&1
  code=$?
  cat "$scratch/$name.log" >>"$log"
  ((code == 0)) || { failed=1; tail -n 25 "$scratch/$name.log"; }
  last=$(grep -v '^[[:space:]]*$' "$scratch/$name.log" | tail -n 1 | cut -c 1-90)
  rows+=("$(printf '%-10s %4s %5ss  %s' "$name" "$code" "$((SECONDS - began))" "$last")")
}

# The sanitizer watches one small run; where it is not installed the row says so.
sanitize() {
  local tool=$1
  shift
  [[ " $stages " == *" $tool "* ]] || return 0
  if command -v compute-sanitizer >/dev/null; then
    stage "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all "$python" -m bench.sanitize
  else
    rows+=("$(printf '%-10s %4s %5s   %s' "$tool" missing 0s 'compute-sanitizer is not on PATH')")
  fi
}

# The package is imported from $scratch/site, so the tests and benchmarks run in a copy of the tree without its sources.
build() {
  "$python" -m pip install --no-build-isolation --no-deps --no-index --upgrade --target "$scratch/site" \
    -C build-dir="$scratch/build" -C cmake.define.PYROBUST_WITH_CUDA=ON \
    -C cmake.define.PYROBUST_CUDA_ARCHITECTURES="${ARCHITECTURES:-native}" "$root"
}
export -f build
export python scratch root

for item in bench tests csrc pyproject.toml CMakeLists.txt README.md; do
  if [[ -e $item ]]; then rm -rf "$scratch/tree/$item" && cp -r "$item" "$scratch/tree/"; fi
done
stage build bash -c build
((failed == 0)) || stages=
cd "$scratch/tree" || exit 1
export PYTHONPATH=$scratch/site
gpu=$("$python" -c 'import torch; from bench.environment import processor, slug; print(slug(processor(torch.device("cuda"))))' 2>/dev/null || echo unknown)
stage smoke env CUDA_LAUNCH_BLOCKING=1 "$python" -m bench.sanitize
stage tests "$python" -m pytest -q -rs --tb=short -m cuda -n 6 tests
sanitize memcheck
sanitize racecheck
sanitize synccheck
stage kernels "$python" -m bench kernels --device cuda --out "$out/kernels-cuda-$gpu.json" "${kernels[@]}"
for bench in attacks training analysis; do
  stage "$bench" "$python" -m bench "$bench" --device cuda --out "$out/$bench-cuda-$gpu.json"
done

{
  printf '%s, %s, commit %s\n' "$gpu" "$("$python" -c 'import torch; print("torch", torch.__version__)' 2>&1 | tail -n 1)" "$PYROBUST_BENCH_COMMIT"
  "$python" - "$out"/*-cuda-"$gpu".json <<'PY'
import json, os, sys
for path in sys.argv[1:]:
    if os.path.exists(path):
        with open(path) as file:
            for bar in json.load(file).get("bars", []):
                ok = {True: "yes", False: "NO", None: "-"}[bar["ok"]]
                print(f"{ok:3}  {bar['bar']:7} {bar['measured'] if bar['measured'] is None else round(bar['measured'], 3)!s:8} {bar['what']}")
PY
  printf '%-10s %4s %6s  %s\n' stage exit time 'last line'
  printf '%s\n' "${rows[@]}"
} | tee "$summary"
exit "$failed"
