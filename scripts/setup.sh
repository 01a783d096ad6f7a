# Sourced by the scripts beside it: makes .venv beside the project and installs what is needed, once per pyproject.toml.
# Two runs at the same time take turns.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
venv=${MESHTLS_VENV:-$here/.venv}
python=
for candidate in python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || { echo "meshtls needs Python 3.11 or newer: install it, or put it on PATH" >&2; exit 2; }
mkdir -p "$venv" 2>/dev/null || { echo "cannot write $venv: run in a clone of your own, or set MESHTLS_VENV" >&2; exit 2; }
exec 9>"$venv/.lock"
"$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
wanted=$("$python" -c 'import hashlib, sys; print(sys.version_info[:2], hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$here/pyproject.toml")
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$wanted" ]; then
    echo "setting up $venv (once)..." >&2
    "$python" -m venv "$venv" || { echo "cannot make a virtual environment: install the python3-venv package" >&2; exit 2; }
    "$venv/bin/pip" install --quiet --disable-pip-version-check -e "${here}[lab,test]" >&2
    echo "$wanted" >"$venv/.installed"
fi
exec 9>&-
export PATH="$venv/bin:$PATH"
