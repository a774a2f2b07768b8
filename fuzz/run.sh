#!/usr/bin/env bash
# Coverage-guided fuzzing with a stable toolchain: builds every target with libFuzzer and runs one after the other.
#
#   fuzz/run.sh SECONDS [TARGET...]
#
# What is found is in fuzz/artifacts/TARGET, and the inputs that reached something new in fuzz/corpus/TARGET. It fails if
# a target does, after the others had their turn.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
host=$(rustc -vV | sed -n 's/^host: //p')

# What cargo-fuzz passes, without a sanitizer: there is next to no unsafe code here, and assertions are on.
coverage=sanitizer-coverage
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-$coverage-level=4
  -Cllvm-args=-$coverage-inline-8bit-counters -Cllvm-args=-$coverage-pc-table -Cllvm-args=-$coverage-trace-compares
  -Cllvm-args=-$coverage-stack-depth -Cdebug-assertions -Coverflow-checks -Cforce-frame-pointers"
# With a target, so that build scripts are built as they always are.
cargo build --release --target "$host" --bins

failed=()
if [ $# -eq 0 ]; then
  for target in fuzz_targets/*.rs; do set -- "$@" "$(basename "$target" .rs)"; done
fi
for target in "$@"; do
  mkdir -p "corpus/$target" "artifacts/$target"
  echo "== $target"
  # With assertions and coverage, an input of this length that takes longer is a finding too.
  "target/$host/release/$target" "corpus/$target" "seeds/$target" -max_total_time="$seconds" -timeout=10 \
    -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 -artifact_prefix="artifacts/$target/" \
    >"artifacts/$target.log" 2>&1 || failed+=("$target")
  grep -E 'panicked|SUMMARY|ERROR|Test unit|stat::|DONE' "artifacts/$target.log" || true
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
