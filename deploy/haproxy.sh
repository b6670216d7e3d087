# Ray starts this in place of HAProxy, for each change anew, and has the old one end (-sf) once it has taken over (-x).
# `binary` is set by ingress.py, and `outside` where other machines may ask: an address and a certificate.
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

# To this machine only, where Ray opens pages to every network card; and no connection is kept for a head that dribbles.
sed -i -E -e 's/^( *bind )(\*)?:/\1127.0.0.1:/' -e 's/^( *)timeout client .*/&\n\1timeout http-request 10s/' "$main"
# More at a time than replicas take is refused here, where that costs next to nothing.
full='{\\"type\\":\\"about:blank\\",\\"title\\":\\"Too Many Requests\\",\\"status\\":429,\\"detail\\":\\"too much is waiting; try again\\"}'
sed -i -E "s|^( *)http-reuse always|&\n\1http-request return status 429 \
content-type application/problem+json hdr retry-after 1 string \"$full\" if { be_conn gt 2048 }|" "$main"

if [ -n "$outside" ]; then
  sed -i -E -e "/^frontend http_frontend/,/^backend/ {
    s|^( *)bind .*|&\n\1bind $outside alpn h2,http/1.1 ssl-min-ver TLSv1.2|
    s|^( *)acl routes path .*|&\n\1http-request deny deny_status 404 if routes { ssl_fc }|
    s|^( *)acl healthcheck path .*|&\n\1http-response set-header strict-transport-security max-age=31536000 if { ssl_fc }|
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
