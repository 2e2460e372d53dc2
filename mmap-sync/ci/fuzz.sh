#!/usr/bin/env bash
# The fuzz target of damaged files, for a minute or as the libFuzzer options say.
exec "$(dirname "$0")/../../tools/fuzz.sh" mmap-sync damaged_files "$@"
