#!/bin/sh
# Kernels are compiled once per instruction set. A function that the linker may merge with another object's copy
# (an inline one, a template of the standard library) could carry one set's instructions to a CPU that lacks them.
#   check_merging.sh NM OBJECT...
set -eu
nm=$1
shift
listing=$("$nm" --defined-only "$@")
count=$(printf '%s\n' "$listing" | grep -c ' [TtRrDd] ')
test "$count" -gt 10 || { echo "only $count symbols found in: $*" >&2; exit 1; }
if printf '%s\n' "$listing" | grep -E ' [WwVvu] ' >&2; then
  echo "the linker may merge these: make them static, or keep them out of kernel sources" >&2
  exit 1
fi
echo "$count symbols, none that the linker would merge"
