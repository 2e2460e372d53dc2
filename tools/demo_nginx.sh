#!/usr/bin/env bash
# The whole chain through nginx: demo_nginx.sh FOLDER, where FOLDER holds bliss-service and libblissffi.so.
#
# Starts the daemon and nginx (two workers, the configuration of examples/nginx) on free ports of the loopback
# interface, in a temporary directory; sends traffic of a few people, a scraper and a scanner; shows their scores and
# the curl line to try. On a terminal it waits for Enter before it stops everything. Nothing is left behind.
set -euo pipefail
cd "$(dirname "$0")/.."
built=$(cd "$1" && pwd)

for needed in nginx curl; do
    command -v "$needed" >/dev/null || { echo "demo-nginx needs $needed: apt-get install nginx libnginx-mod-http-lua curl" >&2; exit 1; }
done
lua_module=/usr/lib/nginx/modules/ngx_http_lua_module.so
[ -e "$lua_module" ] || { echo "demo-nginx needs nginx's Lua module: apt-get install libnginx-mod-http-lua" >&2; exit 1; }

work=$(mktemp -d -p /dev/shm bliss-demo-nginx-XXXXXX 2>/dev/null || mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap stop EXIT

free_port() {
    local port
    while port=$((20000 + RANDOM % 20000)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}
wait_for() { # NAME URL
    for _ in $(seq 200); do
        curl -fso /dev/null --max-time 2 "$2" && return
        sleep 0.1
    done
    echo "$1 did not start; its log:" >&2
    cat "$work"/*.log >&2
    exit 1
}

port=$(free_port)
admin=$(free_port)
mkdir -p "$work"/{html/product,logs,tmp,lib}
for i in $(seq 40); do echo "product $i" > "$work/html/product/$i"; done
for file in index.html site.css site.js logo.png; do echo "$file" > "$work/html/$file"; done
touch "$work/logs/access.log"
ln -s "$built/libblissffi.so" "$work/lib/libblissffi.so.0"
ln -s /usr/lib/nginx/modules "$work/modules"

cat > "$work/bliss.toml" <<TOML
directory = "$work/published"
[publish]
mode = "0644"
readers_mode = "0666"
[admin]
listen = "127.0.0.1:$admin"
[[origin.access_log]]
name = "traffic"
path = "$work/logs/access.log"
[checkpoint]
directory = ""
TOML

# The example's configuration with other paths, the score in a header, and clients told apart by X-Forwarded-For.
user=$([ "$(id -u)" -eq 0 ] && echo "user root;" || true)
sed -e "s|^user .*|$user daemon off;|" \
    -e "s|^worker_processes .*|worker_processes 2;|" \
    -e "s|^pid .*|pid $work/nginx.pid;|" \
    -e "s|^error_log .*|error_log $work/nginx.log warn;|" \
    -e "s|/etc/nginx/bliss.conf|$work/bliss.conf|" \
    -e "s|listen 8080;|listen 127.0.0.1:$port; set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;\
 add_header X-Bot-Score \$bot_score always; add_header X-Bot-Status \$bot_status always;\
 add_header X-Bot-Model \$bot_model always;|" \
    -e "s|root /usr/share/nginx/html;|root $work/html;|" \
    -e "s|access_log /var/log/nginx/.* bot_json;|access_log $work/logs/access.log bot_json;|" \
    -e "s|^http {|http { client_body_temp_path $work/tmp; proxy_temp_path $work/tmp; fastcgi_temp_path $work/tmp;\
 uwsgi_temp_path $work/tmp; scgi_temp_path $work/tmp;|" \
    examples/nginx/nginx.conf > "$work/nginx.conf"
sed -e "s|/usr/local/share/bliss/?.lua|$PWD/examples/nginx/?.lua;$PWD/lua/lib/?.lua|" \
    -e "s|/usr/local/lib/?.so|$work/lib/?.so|" \
    -e "s|/run/bliss|$work/published|" \
    examples/nginx/bliss.conf > "$work/bliss.conf"

echo "starting the daemon and nginx in $work"
"$built/bliss-service" run --config "$work/bliss.toml" 2> "$work/daemon.log" &
pids+=($!)
wait_for bliss-service "http://127.0.0.1:$admin/readyz"
nginx -p "$work" -c "$work/nginx.conf" -e "$work/nginx.log" &
pids+=($!)
wait_for nginx "http://127.0.0.1:$port/"

browser="Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0"
get() { # CLIENT USER-AGENT REFERRER PATH...
    local client=$1 agent=$2 referrer=$3
    shift 3
    local urls=()
    for path in "$@"; do urls+=(-o /dev/null "http://127.0.0.1:$port$path"); done
    curl -s --max-time 20 -H "X-Forwarded-For: $client" -A "$agent" -e "$referrer" "${urls[@]}"
}

echo "sending traffic: five people, a scraper that passes for a browser, a scanner, a crawler that says what it is"
for person in 1 2 3 4 5; do
    for page in $((person * 3)) $((person * 3 + 1)); do
        get "10.0.$person.7" "$browser" "http://shop.example/" "/product/$page" /site.css /site.js /logo.png
    done
done
for _ in 1 2 3; do
    mapfile -t pages < <(seq -f /product/%g 40)
    get 203.0.113.9 "$browser" "" "${pages[@]}"
done
mapfile -t holes < <(seq -f /wp-admin/%g.php 90)
get 198.51.100.66 "$browser" "" "${holes[@]}"
get 192.0.2.10 "ExampleBot/2.1 (+http://search.example/bot.html)" "" /robots.txt "${pages[@]}"
# A publication is made within a second, from what nginx has logged by then.
sleep 2.5

ask() { # WHO CLIENT USER-AGENT
    local head
    head=$(curl -s --max-time 20 -D - -o /dev/null -H "X-Forwarded-For: $2" -A "$3" "http://127.0.0.1:$port/" | tr -d '\r')
    field() { sed -n "s/^$1: //Ip" <<<"$head"; }
    printf '  %-34s %-15s %5s  %s\n' "$1" "$2" "$(field x-bot-score)" "$(field x-bot-status)"
}
printf '\n  %-34s %-15s %5s  %s\n' client address score status
ask "a person" 10.0.3.7 "$browser"
ask "somebody new" 10.9.9.9 "$browser"
ask "the scraper" 203.0.113.9 "$browser"
ask "the scanner" 198.51.100.66 "$browser"
ask "the crawler" 192.0.2.10 "ExampleBot/2.1 (+http://search.example/bot.html)"
printf '\n  1 is certainly automated, 99 certainly human. The default model; models/default.md says what it gives and\n  what it does not see.\n  Try it:\n\n'
echo "    curl -i -H 'X-Forwarded-For: 203.0.113.9' -A 'Mozilla/5.0' http://127.0.0.1:$port/ | grep -i x-bot"
echo "    curl http://127.0.0.1:$admin/status"
if [ -t 0 ]; then
    printf '\nPress Enter to stop everything. '
    read -r _ || true
fi
