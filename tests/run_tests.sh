#!/bin/sh
# The key features of a running system, with curl alone. For another one than that of `make start-project`:
# HTTPS_URL=https://host HTTP_URL=http://host CACERT=ca.crt CREDENTIALS=user:password tests/run_tests.sh
set -u
https=${HTTPS_URL:-https://localhost:${HTTPS_PORT:-443}} http=${HTTP_URL:-http://localhost:${HTTP_PORT:-80}}
cacert=${CACERT:-$(dirname "$0")/../certs/ca.crt} credentials=${CREDENTIALS:-admin:admin}
failed=0

check() { # WHAT PATTERN ANSWER
    if printf '%s' "$3" | grep -q -E "$2"; then
        echo "ok      $1"
    else
        echo "FAILED  $1: got '$3', not $2"
        failed=1
    fi
}
ask() { curl --silent --show-error --max-time 10 --cacert "$cacert" "$@" 2>&1; }
# Not to /dev/null: before a retry curl empties the file, and fails on one that cannot be emptied.
status() { ask --write-out '\n%{http_code}' "$@" | tail -n 1; }
# Its limit is part of what is tested: whoever asks too fast is told when to come again.
sentence='{"sentence": "I love this"}'
predict() { ask --retry 5 --user "$credentials" -H 'Content-Type: application/json' -d "${body:-$sentence}" "$@" "$https/predict"; }

check "a prediction" '"prediction":"love"' "$(predict)"
check "v1 says no more than that" '^[^,]*,"model_version":"[^"]*"}$' "$(predict)"
check "the debug version has the probabilities" '"prediction_proba_dict":\{' "$(predict -H 'X-Experiment-Group: debug')"
check "any other group is served by v1" '^[^,]*,"model_version":"[^"]*"}$' "$(predict -H 'X-Experiment-Group: Debug')"
check "a body that is wrong: which field, and why" '"field":"sentence","reason":"[^"]+"' "$(body='{}' predict)"
check "a request id in every answer" '^[0-9a-f]{32}$' "$(predict --write-out '\n%header{x-request-id}' | tail -n 1)"
check "no password" '^401$' "$(status -d '{}' "$https/predict")"
check "a wrong password" '^401$' "$(status --retry 5 --user "${credentials%%:*}:no" -d '{}' "$https/predict")"
check "HTTP is redirected" '^308 https://' "$(ask --output /dev/null --write-out '%{http_code} %{redirect_url}' "$http/predict")"
check "the metrics are not for everybody" '^40[134]$' "$(status "$https/metrics")"

set --
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
    set -- "$@" --output /dev/null "$https/predict"
done
codes=$(ask --parallel --parallel-immediate --user "$credentials" --write-out '%{http_code} ' -H 'Content-Type: application/json' \
    -d "$sentence" "$@")
check "30 at once: some are answered" '200' "$codes"
check "30 at once: the rest are too many" '429' "$codes"
check "30 at once: nothing else" '^((200|429) )+$' "$codes"
check "an answer again after a pause" '"prediction"' "$(predict)"
exit $failed
