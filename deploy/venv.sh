#!/bin/sh
# Makes a virtual environment: deploy/venv.sh FOLDER. Debian and Ubuntu ship Python without the means to do so
# (the package python3-venv); as root it is installed, otherwise the command to type is printed.
set -eu
folder=$1
python=${PYTHON:-python3}

if ! command -v "$python" >/dev/null; then
    echo "Python 3.11 or later is needed, and '$python' is not there. On Debian or Ubuntu: sudo apt-get install python3 python3-venv" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or later is needed; $python is $("$python" --version). Try: make PYTHON=python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print(f"python3.{sys.version_info.minor}-venv")')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "$package"
    else
        echo "$python cannot make virtual environments. Install it: sudo apt-get install $package" >&2
        exit 1
    fi
fi
exec "$python" -m venv "$folder"
