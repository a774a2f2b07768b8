#!/usr/bin/env bash
# The official SDKs against a mock, under a running `agentsight trace`: what the spans say has to be
# what the SDKs told their callers. Needs root, python3, node with npm, openssl, iproute2, unshare, and
# PyPI and npm once.
#
#   tests/sdk/run.sh [AGENTSIGHT]     the program; by default cargo builds it
#
# SDKs, mock and names live in a network and a mount namespace of their own, where /etc/hosts sends
# every API's real host to the mock: so the SDKs run as they are, with their own base URLs, and reach
# nothing else. In Python all of them speak TLS by the ssl module and so by the system's libssl; in Node
# by the OpenSSL that is a part of it. The mock is Python's, so that its side has spans too.
set -euo pipefail
cd "$(dirname "$0")"

SDKS=(openai anthropic google cohere mistral ollama boto3 node)
HOSTS=(api.openai.com example.openai.azure.com api.anthropic.com generativelanguage.googleapis.com
  aiplatform.googleapis.com api.cohere.com api.mistral.ai ollama.com bedrock-runtime.us-east-1.amazonaws.com)
ARRIVAL_SECONDS_MAX=15

fail() {
  echo "tests/sdk: $*" >&2
  exit 1
}

for need in python3 node npm openssl ip unshare; do
  command -v "$need" >/dev/null || fail "$need is not installed"
done
[ "$(id -u)" = 0 ] || fail "this needs root, for probes and namespaces"

target=${CARGO_TARGET_DIR:-$(cd ../.. && pwd)/target}
agentsight=${1:-}
if [ -z "$agentsight" ]; then
  (cd ../.. && cargo build --quiet --locked --workspace --bin agentsight)
  agentsight=$target/debug/agentsight
fi

# What is pinned is installed once, and again when it changes.
cache=$target/sdk
mkdir -p "$cache"
install() {
  local name=$1 pins=$2 sum
  shift 2
  # shellcheck disable=SC2086
  sum=$(cat $pins | sha256sum)
  if [ "$(cat "$cache/$name.sum" 2>/dev/null)" != "$sum" ]; then
    "$@" >"$cache/$name.log" 2>&1 || fail "$name can't be installed, see $cache/$name.log: $(tail -n 3 "$cache/$name.log")"
    echo "$sum" >"$cache/$name.sum"
  fi
}
python_sdks() {
  rm -rf "$cache/venv"
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/pip" install --quiet --requirement requirements.txt
}
node_sdks() {
  cp package.json package-lock.json "$cache/"
  npm ci --prefix "$cache" --no-audit --no-fund
}
install python-sdks requirements.txt python_sdks
install node-sdks "package.json package-lock.json" node_sdks
# Modules are looked for beside the script.
cp calls/node_calls.mjs "$cache/"

work=$(mktemp -d)
engine=
cleanup() {
  [ -z "$engine" ] || kill -INT "$engine" 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap cleanup EXIT

names=$(printf ',DNS:%s' "${HOSTS[@]}")
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=mock" \
  -addext "subjectAltName=${names#,}" -keyout "$work/key.pem" -out "$work/cert.pem" 2>"$work/openssl.log" ||
  fail "openssl makes no certificate: $(cat "$work/openssl.log")"
printf '127.0.0.1 localhost %s\n' "${HOSTS[*]}" >"$work/hosts"

"$agentsight" trace --json --role both >"$work/spans" 2>"$work/engine.log" &
engine=$!
for _ in $(seq 300); do
  grep -q '^agentsight: ready' "$work/engine.log" && break
  kill -0 "$engine" 2>/dev/null || fail "agentsight ended: $(cat "$work/engine.log")"
  sleep 0.1
done
grep -q '^agentsight: ready' "$work/engine.log" || fail "agentsight is not ready in 30 s: $(cat "$work/engine.log")"

# The parts of the run that happen inside the namespaces.
inside() {
  ip link set lo up
  mount --bind "$work/hosts" /etc/hosts
  export SSL_CERT_FILE=$work/cert.pem AWS_CA_BUNDLE=$work/cert.pem NODE_EXTRA_CA_CERTS=$work/cert.pem
  export PYTHONPATH= PYTHONDONTWRITEBYTECODE=1 COHERE_API_KEY=none
  unset HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy OPENAI_BASE_URL ANTHROPIC_BASE_URL
  python3 mock/serve.py "$work/cert.pem" "$work/key.pem" >"$work/mock.out" 2>"$work/mock.log" &
  local mock=$! status=0 running=()
  for _ in $(seq 100); do
    grep -q ready "$work/mock.out" && break
    sleep 0.1
  done
  for sdk in "${SDKS[@]}"; do
    if [ "$sdk" = node ]; then
      timeout 120 node "$cache/node_calls.mjs" >"$work/$sdk.told" 2>"$work/$sdk.log" &
    else
      timeout 120 "$cache/venv/bin/python" "calls/${sdk}_calls.py" >"$work/$sdk.told" 2>"$work/$sdk.log" &
    fi
    running+=("$!")
  done
  for index in "${!running[@]}"; do
    if ! wait "${running[$index]}"; then
      status=1
      echo "tests/sdk: the calls of ${SDKS[$index]} failed:" >&2
      tail -n 20 "$work/${SDKS[$index]}.log" >&2
    fi
  done
  kill "$mock"
  cat "$work/mock.log" >&2
  return "$status"
}
export -f inside
export work cache
SDKS_TEXT=${SDKS[*]} unshare --net --mount bash -euo pipefail -c 'read -ra SDKS <<<"$SDKS_TEXT"; inside' ||
  fail "not every SDK came to its end"

told=("${SDKS[@]/%/.told}")
told=("${told[@]/#/$work/}")
for _ in $(seq $((ARRIVAL_SECONDS_MAX * 5))); do
  status=0
  python3 judge.py --arrived "$work/spans" "${told[@]}" || status=$?
  [ "$status" = 2 ] || break
  sleep 0.2
done
kill -INT "$engine"
wait "$engine" || fail "agentsight ended with $?: $(cat "$work/engine.log")"
engine=
python3 judge.py "$work/spans" "${told[@]}" || { [ -z "${KEEP:-}" ] || cp -r "$work" "$KEEP"; exit 1; }
