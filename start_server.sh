#!/bin/sh
# Starts this project's MLflow server; it keeps running after this terminal is closed.

# Without `dirname`, and with no CDPATH, so that it works from any folder.
case $0 in */*) CDPATH='' cd -- "${0%/*}" || exit 1 ;; esac

if ! command -v uv >/dev/null 2>&1; then
    echo "uv was not found: install it with 'pip install uv', then run this script again." >&2
    exit 1
fi
exec uv run cnnlab server start "$@"
