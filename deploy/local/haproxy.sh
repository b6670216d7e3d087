# Ray starts this in place of HAProxy, for each change anew, and has the old one end (-sf) once it has taken over (-x).
# `binary` and `seconds`, in which a head has to arrive, are set by haproxy.py, and `outside` where other machines may ask: an address and a certificate.
#
# Beside Ray's HAProxy a spare one accepts on the same socket, so that a kill of either refuses nobody. When Ray then
# starts a fresh one, which knows no application yet, it begins with the configuration of the one that was killed.
for given in "$@"; do
  case "$given" in *.cfg) main="$given" ;; -sf) follows=1 ;; esac
done
[ -n "$main" ] || exec "$binary" "$@"
here="${main%/*}"

# The process that a file names, if it is still one of these.
alive() {
  { read -r pid < "$1" && grep -q "$here" "/proc/$pid/cmdline" && echo "$pid"; } 2> /dev/null
}

# What is refused here, or by Ray in plain text, is told as the service tells it (RFC 9457) and repeats nothing. What is
# no HTTP, has a head beyond 64 KiB or 255 headers, or one that does not come in time, its parser refuses (400, 408) by pages
# that are part of the program: neither errorfile nor http-error reaches them, in defaults or in a frontend (2.8.25).
refusals="" denials="" safe="cache-control: no-store\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r
content-security-policy: default-src 'none'; frame-ancestors 'none'"
problem() { # statuses that it stands for, its own, title, detail, seconds after which to come again
  body="{\"type\":\"about:blank\",\"title\":\"$3\",\"status\":$2,\"detail\":\"$4\"}"
  printf "HTTP/1.1 $2 $3\r\n${5:+retry-after: $5\r\n}$safe\r\ncontent-type: application/problem+json\r
content-length: ${#body}\r\n\r\n%s" "$body" > "$here/$2.http"
  for status in $1; do
    refusals="$refusals\n    errorfile $status $here/$2.http"
    denials="$denials\n    http-response deny deny_status $status if { status $status } from_ray"
  done
}
problem 400 400 "Bad Request" "no valid HTTP request"
problem 404 404 "Not Found" "nothing is served at this address"
problem 408 408 "Request Timeout" "the request did not arrive, or was not answered, in time"
problem 429 429 "Too Many Requests" "too much is waiting; try again" 1
problem 500 500 "Internal Server Error" "an unforeseen error; the service's log has it"
problem "502 503 504" 503 "Service Unavailable" "no replica answers; try again" 2

# What is more than the replicas take is refused here, where that costs next to nothing: a flood of refusals would leave
# them no time to answer. Each takes serve.max_ongoing, which stands in NAME.ongoing, or 256 where there is no such file.
ongoing=256

# To this machine only, where Ray opens pages to every network card; and no connection is kept for a head that dribbles.
# The service refuses a head beyond its own bounds with 431, so more than those has to get by here.
# Headers that Ray alone reads, and decodes before a key is asked for, do not: a client would steer its timeouts, and one
# odd byte is a 500. An id goes on as observing.py takes it.
sed -i -E -e 's/^( *bind )(\*)?:/\1127.0.0.1:/' -e "s/^( *)timeout client .*/&\n\1timeout http-request ${seconds}s/" \
  -e 's/^( *)tune.bufsize .*/&\n\1tune.http.maxhdr 256/' \
  -e '/^ *errorfile /d' -e "s|^defaults|&$refusals|" \
  -e 's/^( *)http-request return status 404 .* lf-string .*/\1http-request deny deny_status 404/' \
  -e "s|^( *)http-reuse always|&\n\1http-request set-var(txn.room) nbsrv,mul($ongoing)\n\
\1http-request deny deny_status 429 if { nbsrv gt 0 } { be_conn,sub(txn.room) gt 0 }\n\1acl from_ray \
res.hdr(content-type) -m beg text/plain$denials|" \
  -e '/^frontend http_frontend/,/^backend/ s/^( *)acl healthcheck path .*/&\
\1http-after-response set-header x-content-type-options nosniff\
\1http-request del-header ^(x-request-timeout-seconds|x-request-disconnect-disabled)$ -m reg\
\1http-request del-header ^(x[-_]session[-_]id|serve[-_]multiplexed[-_]model[-_]id)$ -m reg\
\1http-request del-header x-request-id if { req.fhdr_cnt(x-request-id) gt 1 }\
\1http-request del-header x-request-id unless { req.fhdr(x-request-id) -m reg ^[A-Za-z0-9._-]{1,64}$ }/' "$main"

for file in "$here"/*.ongoing; do
  { read -r most < "$file"; } 2> /dev/null
  case "$most" in "" | *[!0-9]*) continue ;; esac
  name=$(basename "$file" .ongoing | sed 's/[.]/[.]/g')
  sed -i -E "/^backend http-$name\$/,/^backend / s/nbsrv,mul\($ongoing\)/nbsrv,mul($most)/" "$main"
  most=
done

if [ -n "$outside" ]; then
  sed -i -E -e "/^frontend http_frontend/,/^backend/ {
    s|^( *)bind .*|&\n\1bind $outside alpn h2,http/1.1 ssl-min-ver TLSv1.2|
    s|^( *)acl routes path .*|&\n\1http-request deny deny_status 404 if routes { ssl_fc }|
    s|^( *)acl healthcheck path .*|&\n\1http-after-response set-header strict-transport-security max-age=31536000 if { ssl_fc }|
  }" "$main"
fi

spare=$(alive "$here/spare.pid")
if [ -n "$follows" ]; then
  cp "$main" "$here/last.cfg"
  # The same without pages of its own, and with a socket of its own by which it hands on the one that listens.
  sed -E -e '/^(frontend prometheus|listen stats)/,/^(frontend http|backend)/ { /^(frontend http|backend)/! d }' \
    -e "s|^( *stats socket ).*|\1$here/spare.sock mode 600 level admin expose-fd listeners|" "$main" > "$here/spare.cfg"
  "$binary" -D -f "$here/spare.cfg" -dR -p "$here/spare.pid" -x "$here/a.sock" ${spare:+-sf $spare} \
    >> "$here/spare.log" 2>&1
else
  [ -f "$here/last.cfg" ] && cp "$here/last.cfg" "$main"
  if old=$(alive "$here/main.pid"); then
    set -- "$@" -sf "$old" -x "$here/a.sock"
  elif [ -n "$spare" ]; then
    set -- "$@" -x "$here/spare.sock"
  fi
fi
echo $$ > "$here/main.pid"
exec "$binary" "$@"
