#!/usr/bin/env bash
# Regenerate every figure and table of the study, or test it. See usage below.
set -euo pipefail
# Notebooks run in notebooks/: make folders that the caller gave relative to here absolute.
for variable in TEXTNORM_ARTIFACTS TEXTNORM_TIA2_DIR TEXTNORM_WEIGHTS TEXTNORM_REFERENCE_ENVS; do
  case ${!variable:-/} in /*) ;; *) export "$variable=$PWD/${!variable}" ;; esac
done
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$PWD

usage() {
  cat <<'TEXT'
./run_all.sh [PROFILE] [--only NN] [--force] [--list]
    compute the study, run the notebooks with papermill, collect papers_figures/, say how much of results/ came out again
    PROFILE    smoke, mini (default), full, paper or paper-toy: see textnorm_lib/study/profiles/
    --only NN  only the notebook whose name starts with NN, e.g. 02 (may be repeated)
    --force    compute every step again, also those that an earlier run stored
    --list     say what would be run, and run nothing
./run_all.sh lab      open JupyterLab on the notebooks
./run_all.sh html [PROFILE]
    write the notebooks as they were run (default: mini) as pages for a browser: artifacts/html/PROFILE/index.html
./run_all.sh docs     write the library's documentation as pages: artifacts/docs/textnorm_lib.html
./run_all.sh verify [--share .02]
    compute a random share of results/ again and compare: images, votes and scores of some prompts, and some steps
./run_all.sh check    check that papers_figures/ is complete and up to date (default profile)
./run_all.sh test     run all tests: style, house, modules, notebooks, the smoke profile
./run_all.sh refresh  after a run of the profile that the notebooks have: these in place, and results/ if it is mini
TEXT
}

fail() { echo "run_all.sh: $*" >&2; exit 2; }

# One line of progress while pip works: a counter in a terminal, a line for every 25 packages in a log.
show_progress() {
  local total=$1 count=0 line
  while IFS= read -r line; do
    case $line in
      Collecting*|Requirement\ already*)
        count=$((count + 1))
        if [ -t 2 ]; then printf '\rset-up: package %d of about %d ' "$count" "$total" >&2
        elif [ $((count % 25)) -eq 0 ]; then echo "set-up: package $count of about $total" >&2; fi ;;
      Downloading*|Installing\ collected*)
        if [ -t 2 ]; then printf '\r\033[Kset-up: %.70s' "$line" >&2; fi ;;
      ERROR*) printf '\n%s\n' "$line" >&2 ;;
    esac
  done
  if [ -t 2 ]; then printf '\r\033[K' >&2; fi
}

find_python() {
  local candidate
  for candidate in python3.11 python3 python3.12 python3.13 python; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"; return
    fi
  done
  fail "needs Python 3.11 or newer; install it, or activate an environment that has it"
}

# An active environment (conda, venv) is used as it is; else .venv is made from requirements.lock, once.
prepare() {
  export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} JUPYTER_PREFER_ENV_PATH=1
  if [ -n "${VIRTUAL_ENV:-}" ] || [ -n "${CONDA_PREFIX:-}" ]; then
    local missing
    missing=$(python - <<'PY'
import importlib.util, sys
needed = "papermill jupyterlab nbval anywidget pandas seaborn scipy sklearn statsmodels krippendorff pooch torch diffusers ruff"
print(" ".join(name for name in needed.split() if importlib.util.find_spec(name) is None))
PY
    ) || fail "the active environment ${VIRTUAL_ENV:-$CONDA_PREFIX} has no working python"
    [ -z "$missing" ] || fail "the active environment ${VIRTUAL_ENV:-$CONDA_PREFIX} lacks: $missing; run: pip install -r requirements.lock (or deactivate it, and .venv is made for you)"
    return
  fi
  local stamp=.venv/requirements.cksum wanted
  wanted=$(cksum < requirements.lock)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    local python; python=$(find_python)
    echo "set-up: making .venv from requirements.lock (once; some minutes)" >&2
    "$python" -m venv .venv || fail "cannot make .venv here; is the folder writable, is Python's venv module installed?"
    .venv/bin/python -m pip install --no-input --disable-pip-version-check -r requirements.lock 2>&1 \
      | tee .venv/install.log | show_progress "$(grep -c == requirements.lock)" \
      || fail "installing failed; .venv/install.log says why; run the same command again to go on"
    .venv/bin/python -m pip install --no-input --disable-pip-version-check --no-deps --no-build-isolation -q -e . >> .venv/install.log 2>&1 \
      || fail "installing failed; .venv/install.log says why; run the same command again to go on"
    echo "$wanted" > "$stamp"
    echo "set-up: done" >&2
  fi
  VIRTUAL_ENV=$root/.venv; export VIRTUAL_ENV PATH=$root/.venv/bin:$PATH
}

run_one() {  # NOTEBOOK PROFILE FOLDER
  local name started=$SECONDS; name=$(basename "$1")
  echo "== $name ($2)" >&2
  # At level WARNING papermill logs what cells write to standard error, steps and progress bars, and not the tables.
  papermill "$1" "$3/$name" --cwd notebooks -k python3 --log-output --log-level WARNING --no-progress-bar -p profile "$2" \
    || { echo "$name" > "$3/stopped"; exit 255; }  # at 255 xargs begins no other
  echo "== $name: $((SECONDS - started)) s" >&2
}
export -f run_one

run_notebooks() {
  local profile=$1 list=$2 notebook chosen only runs; shift 2
  [[ $profile != */* && -f textnorm_lib/study/profiles/$profile.yaml ]] || fail "unknown profile '$profile'; known are $(cd textnorm_lib/study/profiles && echo *.yaml | sed 's/\.yaml//g')"
  local notebooks=()
  for notebook in notebooks/[0-9]*.ipynb; do
    chosen=$([ $# -eq 0 ] && echo yes || echo no)
    for only in "$@"; do case $(basename "$notebook") in "$only"*) chosen=yes ;; esac; done
    [ "$chosen" = no ] || notebooks+=("$notebook")
  done
  [ ${#notebooks[@]} -gt 0 ] || fail "no notebook starts with: $*"
  if [ "$list" = yes ]; then printf '%s\n' "${notebooks[@]}"; return; fi
  prepare
  local -x TEXTNORM_ANEW=${TEXTNORM_ANEW:-0}  # these notebooks do not read results/, nor steps stored before this second
  runs=${TEXTNORM_ARTIFACTS:-$root/artifacts}/runs/$profile
  mkdir -p "$runs" 2>/dev/null || fail "$runs: cannot be written; make it writable, or point TEXTNORM_ARTIFACTS elsewhere"
  if [ $# -eq 0 ]; then
    python -m textnorm_lib preflight "$profile" || fail "nothing was started: mend what is above (or run single notebooks with --only)"
    python -m textnorm_lib compute "$profile" || fail "computing stopped (above); mend it and run ./run_all.sh $profile again: finished steps are kept"
  fi
  rm -f "$runs/stopped"
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # of each of the two
  for chosen in '[^8]*' '8*'; do  # two at a time; 08 reads the others' tables
    for notebook in "${notebooks[@]}"; do case $notebook in notebooks/0$chosen) echo "$notebook" ;; esac; done \
      | xargs -r -P 2 -I {} bash -c 'run_one "$@"' _ {} "$profile" "$runs" \
      || fail "$(cat "$runs/stopped") stopped with an error (above, and in $runs); mend it and run ./run_all.sh $profile again: finished steps are kept"
  done
  python -m textnorm_lib report "$profile"
  if [ "$profile" = mini ] && [ $# -eq 0 ]; then python -m textnorm_lib results compare; fi
}

# nbval compares with the committed outputs, and only where execution counts are kept.
refresh() {
  prepare
  printf '%s\n' notebooks/0[0-7]*.ipynb notebooks/A1*.ipynb | TEXTNORM_ANEW=0 xargs -P 2 -n 1 jupyter nbconvert --to notebook --execute --inplace
  TEXTNORM_ANEW=0 jupyter nbconvert --to notebook --execute --inplace notebooks/08*.ipynb
  nbstripout --keep-output --keep-count --keep-id --extra-keys "cell.metadata.execution" notebooks/[0-9A]*.ipynb
  if grep -q 'profile = \\"mini\\"' notebooks/04*.ipynb; then python -m textnorm_lib results collect; fi
}

run_tests() {
  prepare
  export OMP_NUM_THREADS=1  # two processes of one thread each get in each other's way less than two of two
  ruff check .
  ruff format --check .
  lint-imports
  run_notebooks smoke no
  python -m textnorm_lib report smoke --check
  python -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/whole/test_exercises.py
  python -m pytest --nbval notebooks -n 2 --dist loadfile -p no:cacheprovider
  python -m pytest tests/whole/test_exercises.py -n 2  # the notebooks once more, with what the smoke run stored
  run_paper_toy
  python -m textnorm_lib report --check
}

# The profile paper with everything small: models with random weights in the real ones' formats, written anew.
run_paper_toy() {
  local toys artifacts=${TEXTNORM_ARTIFACTS:-$root/artifacts}/paper-toy; toys=$(mktemp -d)
  python -m benchmarks.stand_ins --toy --to "$toys"
  TEXTNORM_WEIGHTS=$toys TEXTNORM_ARTIFACTS=$artifacts run_notebooks paper-toy no
  TEXTNORM_ARTIFACTS=$artifacts python -m textnorm_lib report paper-toy --check
  rm -r "$toys"
}

case ${1:-} in
  -h|--help) usage ;;
  lab) prepare; exec jupyter lab --ServerApp.root_dir="$root" --LabApp.default_url=/lab/tree/notebooks "${@:2}" ;;
  html) [ $# -le 2 ] || fail "html takes a profile and no options"; prepare; python -m textnorm_lib pages "${@:2}" ;;
  docs) prepare; python -m pdoc -o artifacts/docs textnorm_lib ;;
  check) prepare; python -m textnorm_lib report --check ;;
  verify) prepare; python -m textnorm_lib verify "${@:2}" ;;
  refresh) refresh ;;
  test) [ $# -eq 1 ] || fail "test takes no options"; run_tests ;;
  *)
    profile=mini list=no only=()
    if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then profile=$1; shift; fi
    while [ $# -gt 0 ]; do
      case $1 in
        --only) [ $# -ge 2 ] || fail "--only needs a number, e.g. --only 02"; only+=("$2"); shift ;;
        --force) TEXTNORM_ANEW=$(date +%s) ;;
        --list) list=yes ;;
        *) usage >&2; fail "unknown option '$1'" ;;
      esac
      shift
    done
    run_notebooks "$profile" "$list" ${only[@]+"${only[@]}"} ;;
esac
