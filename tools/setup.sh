#!/usr/bin/env bash
# Create .venv in the checkout and install everything: called by `make setup`.
# Environment: PYTHON (interpreter), VENV (folder), EXTRAS (default sim,ros,vision,subgoals,encoders,viz,view,export,lerobot,docs,dev), PIP_* (pip's own).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
extras=${EXTRAS:-sim,ros,vision,subgoals,encoders,viz,view,export,lerobot,docs,dev}
begin=$SECONDS

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: error: %s\n' "$*" >&2
  exit 1
}

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    usable "$PYTHON" || fail "PYTHON=$PYTHON: not a Python >= 3.10"
    echo "$PYTHON"
    return
  fi
  for candidate in python3.11 python3.12 python3.13 python3.10 python3; do
    if usable "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "no Python >= 3.10 found; apt install python3 python3-venv python3-dev"
}

# Install Debian packages where we may; otherwise say which are missing and go on.
apt_packages() {
  [ $# -gt 0 ] || return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 && return 0
    apt-get update >/dev/null && apt-get install -y --no-install-recommends "$@" >/dev/null && return 0
  fi
  say "missing: $*; as root: apt-get install $*"
}

# The dynamic linker's own list; what it does not know no program finds.
has_library() { { ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } | grep -F "$1" >/dev/null; }

python=$(find_python)
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
say "$python ($version) -> $venv"

needed=()
has_library libGL.so.1 || needed+=(libgl1)
has_library libgthread-2.0.so.0 || needed+=(libglib2.0-0)
has_library libEGL.so.1 || needed+=(libegl1)
# the tests look at the live page with it
[[ ,$extras, != *,dev,* ]] || command -v chromium >/dev/null || needed+=(chromium)
command -v g++ >/dev/null || needed+=(g++)
"$python" -c 'import ensurepip, venv' 2>/dev/null || needed+=("python$version-venv")
"$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
  needed+=("python$version-dev")
apt_packages "${needed[@]}"

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# shellcheck disable=SC1091
. "$venv/bin/activate"
unset PYTHONPATH

# Without build isolation the interfaces are compiled against the very wheels they run with, and
# nothing is downloaded twice.
mapfile -t build_requires < <(python - <<'PY'
try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

with open("pyproject.toml", "rb") as file:
    print("\n".join(tomllib.load(file)["build-system"]["requires"]))
PY
)
say "installing build tools"
# Debian's pip is old: its resolver needs minutes where today's needs seconds
pip install -q --upgrade pip wheel
pip install -q -c constraints.txt "${build_requires[@]}"
say "installing wm-mpc[$extras] and building its interfaces"
PYTHONWARNINGS=ignore pip install -q -c constraints.txt --no-build-isolation -e ".[$extras]"
# of ogbench only models and meshes are read, by the simulated arms: its own requirements, a second
# simulator among them, stay out
[[ ,$extras, != *,sim,* ]] || pip install -q -c constraints.txt --no-deps ogbench
python -c 'import wm_mpc.msg, cv2, torch' || fail "the installation is not usable; see above"
say "done in $((SECONDS - begin)) s"
