#!/usr/bin/env bash
# Builds the kernel objects that the engine embeds, for each architecture.
#
#   ebpf/build.sh            rebuild ebpf/prebuilt/*.o and the hash of their sources
#   ebpf/build.sh --check    rebuild elsewhere and compare the code with what is committed
#   ebpf/build.sh --install  only install what the build needs (Debian 12)
#
# Building the engine needs none of this: it embeds the committed objects.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/probes"

# The BPF target's `core` is built from source, which Debian's rustc-web ships for its compiler.
LLVM_VERSION=22
RUSTC=${AGENTSIGHT_BPF_RUSTC:-/usr/bin/rustc}
CARGO=${AGENTSIGHT_BPF_CARGO:-/usr/bin/cargo}

install_tools() {
  local packages=()
  [ -x /usr/bin/rustc ] || packages+=(rustc-web)
  [ -x /usr/bin/cargo ] || packages+=(cargo-web)
  [ -e /usr/lib/llvm-$LLVM_VERSION/lib/libLLVM.so ] || [ -x /usr/lib/llvm-$LLVM_VERSION/bin/llvm-objdump ] || packages+=(llvm-$LLVM_VERSION-dev)
  dpkg -s rust-web-src >/dev/null 2>&1 || packages+=(rust-web-src)
  dpkg -s llvm-$LLVM_VERSION-dev >/dev/null 2>&1 || packages+=(llvm-$LLVM_VERSION-dev)
  if [ ${#packages[@]} -gt 0 ]; then
    echo "installing ${packages[*]}" >&2
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >&2
  fi
  command -v bpf-linker >/dev/null || PATH=$PATH:$HOME/.cargo/bin command -v bpf-linker >/dev/null || {
    echo "installing bpf-linker (some minutes)" >&2
    LLVM_PREFIX=/usr/lib/llvm-$LLVM_VERSION cargo install -q bpf-linker --locked --no-default-features --features llvm-$LLVM_VERSION
  }
}

# Everything that the objects are made from.
sources_hash() {
  (cd "$here" && find abi/src probes/src probes/Cargo.toml probes/Cargo.lock -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1)
}

build() { # build ARCH OUT
  local arch=$1 out=$2
  PATH=$PATH:$HOME/.cargo/bin RUSTC=$RUSTC RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$here/probes/target/$arch" \
    CARGO_ENCODED_RUSTFLAGS="$(printf '%s\x1f' -Clinker=bpf-linker -Cdebuginfo=2 -Clink-arg=--btf)--cfg=bpf_target_arch=\"$arch\""$'\x1f'"--remap-path-prefix=$here=ebpf"$'\x1f'"--remap-path-prefix=$HOME=home" \
    "$CARGO" build -q --release --locked --ignore-rust-version -Z build-std=core --target bpfel-unknown-none
  cp "$here/probes/target/$arch/bpfel-unknown-none/release/agentsight-probes" "$out"
  # Debug sections name build machines and weigh most of the object; the BTF stays.
  "/usr/lib/llvm-$LLVM_VERSION/bin/llvm-objcopy" --strip-debug "$out"
}

# The instructions and relocations of each program. A crate's hash within symbol names depends on the
# folder that it is built in, so it is left out.
disassemble() {
  "/usr/lib/llvm-$LLVM_VERSION/bin/llvm-objdump" -d -r --no-show-raw-insn --no-leading-addr "$1" \
    | tail -n +3 | sed -E 's/Cs[0-9A-Za-z]+_/Cs_/g'
}

case ${1:-} in
  --install) install_tools ;;
  --check)
    [ "$(cat "$here/prebuilt/sources.sha256")" = "$(sources_hash)" ] || { echo "the kernel objects are older than their sources: run ebpf/build.sh" >&2; exit 1; }
    install_tools
    work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
    for arch in x86_64 aarch64; do
      build $arch "$work/$arch.o"
      if ! diff <(disassemble "$here/prebuilt/$arch.o") <(disassemble "$work/$arch.o") >"$work/$arch.diff"; then
        head -40 "$work/$arch.diff" >&2
        echo "ebpf/prebuilt/$arch.o is not what its sources build" >&2
        exit 1
      fi
      echo "ebpf/prebuilt/$arch.o: same code as a rebuild"
    done ;;
  '')
    install_tools
    mkdir -p "$here/prebuilt"
    for arch in x86_64 aarch64; do build $arch "$here/prebuilt/$arch.o"; done
    sources_hash >"$here/prebuilt/sources.sha256"
    ls -l "$here/prebuilt" ;;
  *) sed -n '2,8p' "$0"; exit 2 ;;
esac
