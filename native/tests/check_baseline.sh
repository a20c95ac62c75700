#!/bin/sh
# What runs on every x86-64 CPU holds no instruction that only newer ones have: check_baseline.sh OBJDUMP OBJECT...
# Looks for what AVX and later encode (VEX, EVEX): names with v in front, mask registers, BMI. The digest's own instructions
# (sha256.cpp asks the CPU for them) are encoded as those of SSE are.
set -eu
objdump=$1
shift
tab=$(printf '\t')
bmi='andn|bextr|blsi|blsmsk|blsr|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx'
masks='k(add|and|andn|mov|not|or|ortest|shiftl|shiftr|test|unpck|xnor|xor)[bwdq]+'
newer="$tab(v[a-z0-9]+|$masks|($bmi)[lq]?)( |\$)|%[yz]mm[0-9]|%xmm(1[6-9]|2[0-9]|3[01])"
listing=$("$objdump" -d --no-show-raw-insn "$@")
count=$(printf '%s\n' "$listing" | grep -c "$tab")
test "$count" -gt 10000 || { echo "only $count instructions found in: $*" >&2; exit 1; }
if printf '%s\n' "$listing" | grep -E "^[0-9a-f]+ <|$newer" | grep -E -B1 "$newer" >&2; then
  echo "instructions that not every x86-64 CPU has: see above" >&2
  exit 1
fi
echo "$count instructions, all of the baseline"
