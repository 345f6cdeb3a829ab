#!/usr/bin/env bash
# Refuses machines that Reneg is not built for, before anything is downloaded.
set -eu
python="$1"
if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "Reneg runs on Linux x86-64; this is $(uname -sm)."
  exit 1
fi
if [ -z "$python" ] || ! "$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'; then
  echo "Python 3.11 or 3.12 with venv is needed; found: ${python:-none}. Name one with: make PYTHON=/path/to/python3.11"
  exit 1
fi
