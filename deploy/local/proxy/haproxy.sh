# Ray starts this script in place of HAProxy on every change, and stops the old process (-sf) after the takeover (-x).
# haproxy.py sets `binary`, `seconds` (limit for the headers to arrive), `public_bind` (public address, certificate), and
# `proof`, a secret where clients have certificates.
#
# A spare HAProxy accepts connections on the same socket, so that a crash of either rejects no request. When Ray then
# starts a new one, which knows no application yet, it starts with the configuration of the one that crashed.
for given in "$@"; do
  case "$given" in *.cfg) main="$given" ;; -sf) follows=1 ;; esac
done
[ -n "$main" ] || exec "$binary" "$@"
here="${main%/*}"

# Print the process id in a file, if that process is still one of Raypath's.
alive() {
  { read -r pid < "$1" && grep -q "$here" "/proc/$pid/cmdline" && echo "$pid"; } 2> /dev/null
}

# Errors of HAProxy, and Ray's in plain text, get the format of the service (RFC 9457) and echo nothing of the request.
# Invalid HTTP, headers beyond 64 KiB or 255 fields, and slow headers are rejected by the parser (400, 408) with built-in
# pages, which neither errorfile nor http-error can replace, in defaults or in a frontend (2.8.25).
errorfiles="" denials="" safe="cache-control: no-store\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r
content-security-policy: default-src 'none'; frame-ancestors 'none'"
problem() { # statuses that it replaces, its own, title, detail, seconds for Retry-After
  body="{\"type\":\"about:blank\",\"title\":\"$3\",\"status\":$2,\"detail\":\"$4\"}"
  printf "HTTP/1.1 $2 $3\r\n${5:+retry-after: $5\r\n}$safe\r\ncontent-type: application/problem+json\r
content-length: ${#body}\r\n\r\n%s" "$body" > "$here/$2.http"
  for status in $1; do
    errorfiles="$errorfiles\n    errorfile $status $here/$2.http"
    denials="$denials\n    http-response deny deny_status $status if { status $status } from_ray"
  done
}
problem 400 400 "Bad Request" "no valid HTTP request"
problem 404 404 "Not Found" "nothing is served at this address"
problem 408 408 "Request Timeout" "the request did not arrive, or got no response, in time"
problem 429 429 "Too Many Requests" "too much is waiting; try again" 1
problem 500 500 "Internal Server Error" "unexpected error; the service's log has it"
problem "502 503 504" 503 "Service Unavailable" "no replica responds; try again" 2

# Requests beyond the capacity of the replicas are rejected here, at almost no cost; rejecting them in the replicas would
# take their time. A replica takes serve.max_ongoing requests, stored in NAME.ongoing, or 256 without that file.
ongoing=256

# Bodies are received here, up to 64 KiB, so that one that never ends takes nothing of a replica. An application with
# another serve.body_timeout than 10 seconds stores it in NAME.body; the longest counts.
body_seconds=$seconds
for file in "$here"/*.body; do
  { read -r most < "$file"; } 2> /dev/null
  case "$most" in "" | *[!0-9]*) continue ;; esac
  [ "$most" -gt "$body_seconds" ] && body_seconds=$most
done

# Ray sends each request line, with the client's address, to 127.0.0.1:514. The system's log has no use for them, and where
# programs may listen on low ports, as in containers, any user gets them. A target of your own (RAY_SERVE_HAPROXY_LOG_TARGET)
# is kept.
#
# Streams of language models pass a relay in Lua, which ends one whose replica dies with an error event. It sends the
# request to HAProxy's own listener `inner`. Larger bodies go the direct way: the relay keeps a body in memory.
streams="METH_POST { path_end \\/v1\\/chat\\/completions \\/v1\\/completions \\/v1\\/responses } { req.hdr_cnt(content-length) eq 1 }\
 { req.hdr_val(content-length) le 8388608 } !{ so_name inner }"

# Listen on this machine only, where Ray would listen on every network interface, and limit the time for headers.
# The service rejects headers beyond its own limits with 431, so HAProxy has to accept more than those.
# Headers that only Ray reads, before authentication, are removed: clients could change its timeouts, and an invalid byte
# would be a 500. Request ids are limited to what the request log accepts.
sed -i -E -e 's/^( *bind )(\*)?:/\1127.0.0.1:/' -e "s/^( *)timeout client .*/&\n\1timeout http-request ${seconds}s/" \
  -e '/^ *log 127\.0\.0\.1:514 /d' -e 's/^( *)tune.bufsize .*/&\n\1tune.http.maxhdr 256/' \
  -e '/^ *errorfile /d' -e "s|^defaults|&$errorfiles|" \
  -e 's/^( *)http-request return status 404 .* lf-string .*/\1http-request deny deny_status 404/' \
  -e "s|^( *)http-reuse always|&\n\1http-request set-var(txn.capacity) nbsrv,mul($ongoing)\n\
\1http-request deny deny_status 429 if { nbsrv gt 0 } { be_conn,sub(txn.capacity) gt 0 }\n\1acl from_ray \
res.hdr(content-type) -m beg text/plain$denials|" \
  -e '/^frontend http_frontend/,/^backend/ s/^( *)acl healthcheck path .*/&\
\1http-after-response set-header x-content-type-options nosniff\
\1http-request deny deny_status 400 if { req.fhdr(trailer) -m found }\
\1http-request deny deny_status 400 if { path -m reg -i %([01][0-9a-f]|7f) }\
\1http-request del-header ^(x-request-timeout-seconds|x-request-disconnect-disabled)$ -m reg\
\1http-request del-header ^(x[-_]session[-_]id|serve[-_]multiplexed[-_]model[-_]id)$ -m reg\
\1http-request del-header x-request-id if { req.fhdr_cnt(x-request-id) gt 1 }\
\1http-request del-header x-request-id unless { req.fhdr(x-request-id) -m reg ^[A-Za-z0-9._-]{1,64}$ }\
\1http-request wait-for-body time '"$body_seconds"'s\
\1http-request use-service lua.relay_events if '"$streams"'/' \
  -e "s|^( *)nbthread .*|&\n\1lua-load ${0%/*}/event_relay.lua unix@$here/i.sock\n\1tune.lua.service-timeout 1h|" \
  -e "/^frontend http_frontend/,/^backend/ s|^( *)bind .*|&\n\1bind unix@$here/i.sock name inner mode 600|" "$main"

for file in "$here"/*.ongoing; do
  { read -r most < "$file"; } 2> /dev/null
  case "$most" in "" | *[!0-9]*) continue ;; esac
  name=$(basename "$file" .ongoing | sed 's/[.]/[.]/g')
  sed -i -E "/^backend http-$name\$/,/^backend / s/nbsrv,mul\($ongoing\)/nbsrv,mul($most)/" "$main"
  most=
done

# What a client's certificate says reaches the replica in headers, with a secret that no client knows. They are removed from
# requests, but not from those that the relay sends again.
#
# TLS 1.2 and later, with the ciphers of Mozilla's "intermediate" configuration. Sessions are not resumed where clients have
# certificates: a resumed one would not be compared with the revocation list again. Each HAProxy has a command socket of its
# own, by which it takes up changed certificates (certificate_reload.lua).
tls="${0%/*}/tls"
if [ -n "$public_bind" ]; then
  suites="ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305 \
ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256 curves X25519:prime256v1:secp384r1"
  certified="\1http-request del-header x-raypath- -m beg unless { so_name inner }"
  if [ -n "$proof" ]; then
    suites="$suites no-tls-tickets"
    sed -i -E "s/^( *)nbthread .*/&\n\1tune.ssl.cachesize 0/" "$main"
    certified="$certified\n\1http-request set-header x-raypath-client-certificate %[ssl_c_der,base64] if { ssl_c_used }\n\
\1http-request set-header x-raypath-proof $proof if { ssl_c_used }"
  fi
  sed -i -E -e "s|^( *)nbthread .*|&\n\1lua-load $tls/certificate_reload.lua unix@$here/tm$$.sock $tls\n\
\1stats socket $here/tm$$.sock mode 600 level admin|" -e "/^frontend http_frontend/,/^backend/ {
    /name inner/! s|^( *)bind .*|&\n\1bind $public_bind alpn h2,http/1.1 ssl-min-ver TLSv1.2 $suites|
    s|^( *)acl routes path .*|&\n\1http-request deny deny_status 404 if { ssl_fc } { path,url_dec -m beg -i /-/ } !healthcheck|
    s|^( *)acl healthcheck path .*|&\n$certified\n\
\1stick-table type ipv6 size 10k expire 1m store conn_cur\n\1http-request track-sc0 src \
if { ssl_fc }\n\1http-request deny deny_status 429 if { ssl_fc } { sc0_conn_cur gt $per_client }|
    s|^( *)acl healthcheck path .*|&\n\1http-after-response set-header strict-transport-security max-age=31536000 if { ssl_fc }|
  }" "$main"
fi

spare=$(alive "$here/spare.pid")
if [ -n "$follows" ]; then
  cp "$main" "$here/last.cfg"
  rm -f "$here"/t[ms][0-9]*.sock
  # The same configuration without statistics pages, and with its own socket, which passes on the listening one.
  sed -E -e '/^(frontend prometheus|listen stats)/,/^(frontend http|backend)/ { /^(frontend http|backend)/! d }' \
    -e "s|^( *stats socket )[^ ]*/tm[0-9]+[.]sock.*|\1$here/ts$$.sock mode 600 level admin|; s|^( *lua-load .*)/tm[0-9]+|\1/ts$$|" \
    -e "s|^( *stats socket ).*expose-fd.*|\1$here/spare.sock mode 600 level admin expose-fd listeners|" \
    "$main" > "$here/spare.cfg"
  "$binary" -D -f "$here/spare.cfg" -dR -p "$here/spare.pid" -x "$here/a.sock" ${spare:+-sf $spare} \
    >> "$here/spare.log" 2>&1
else
  [ -f "$here/last.cfg" ] && sed -E "s|/tm[0-9]+[.]sock|/tm$$.sock|" "$here/last.cfg" > "$main"
  if old=$(alive "$here/main.pid"); then
    set -- "$@" -sf "$old" -x "$here/a.sock"
  elif [ -n "$spare" ]; then
    set -- "$@" -x "$here/spare.sock"
  fi
fi
echo $$ > "$here/main.pid"
exec "$binary" "$@"
