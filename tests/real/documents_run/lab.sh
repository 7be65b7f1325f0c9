# Machines to run a page's commands on: m1 to m3 for metad, e1 to e3 for etcd, each a network namespace with folders
# /etc/metad and /var/lib of its own. What such a machine has and this one lacks (ssh, scp, sudo, systemctl, journalctl) is a
# stand-in that does the same to the same real processes. All of it ends with this script, which is process 1 of a
# namespace of processes:
#
#   unshare --net --mount --pid --fork --kill-child --mount-proc bash lab.sh FOLDER PREPARE HOST SESSION
#
# PREPARE: a script that starts what the page presupposes, and breaks it. SESSION: the page's commands, run on HOST.
set -eu
lab=$1 prepare=$2 host=$3 session=$4
export LAB=$lab PATH=$lab/bin:$PATH HOME=$lab/home

# A stand-in: its text comes from standard input.
stand_in() { { echo '#!/bin/bash'; cat; } >"$lab/bin/$1"; chmod +x "$lab/bin/$1"; }

# A machine with an address on the switch.
machine() {
    ip netns add "$1"
    ip link add "$1" type veth peer name eth0 netns "$1"
    ip link set "$1" master switch up
    ip -n "$1" link set lo up
    ip -n "$1" address add "10.0.0.$2/24" dev eth0
    ip -n "$1" link set eth0 up
    echo "10.0.0.$2 $1" >>/etc/hosts
    mkdir -p "$lab/$1/etc" "$lab/$1/var/etcd" "$lab/$1/run"
}

mount -t tmpfs lab "$lab"
mkdir -p "$lab/bin" "$lab/home"
cp -a /etc "$lab/etc"
mount --bind "$lab/etc" /etc
mkdir -p /etc/metad
mount -t tmpfs run /run
mkdir /run/netns
ip link set lo up
ip link add switch type bridge forward_delay 0
ip link set switch up
ip address add 10.0.0.254/24 dev switch
for i in 1 2 3; do
    machine "m$i" "1$i"
    machine "e$i" "2$i"
done

ln -s "$LAB_METAD" "$lab/bin/metad"
ln -s "$LAB_ETCD" "$lab/bin/etcd"
ln -s "$LAB_ETCDCTL" "$lab/bin/etcdctl"

# Runs a command on a machine.
stand_in on <<'EOF'
LAB_HOST=$1 exec ip netns exec "$1" bash -c '
    mount --bind "$LAB/$LAB_HOST/etc" /etc/metad
    mount --bind "$LAB/$LAB_HOST/var" /var/lib
    exec "$@"' on "${@:2}"
EOF
stand_in ssh <<'EOF'
exec env -u METAD_META on "$1" bash -c "${*:2}"
EOF
stand_in scp <<'EOF'
cp "$1" "$LAB/${2%%:/var/lib/*}/var/${2#*:/var/lib/}"
EOF
stand_in sudo <<'EOF'
exec "$@"
EOF
stand_in journalctl <<'EOF'
[ "$1" = -u ] && exec cat "$LAB/$LAB_HOST/run/$2.log"
echo "journalctl -u UNIT is all that is known here" >&2; exit 1
EOF
# The unit's own command and rules: config/systemd/metad.service says what is restarted.
stand_in unit <<'EOF'
run=$LAB/$LAB_HOST/run
echo $$ >"$run/$1.supervisor"
rule() { sed -n "s/^$1=//p" "$LAB_ROOT/config/systemd/metad.service"; }
command=$(rule ExecStart)
drop_in=$(sed -n 's/^ExecStart=//p' /run/systemd/system/metad.service.d/*.conf 2>/dev/null | tail -1)
command=${drop_in:-$command}
command=${command//'${STATE_DIRECTORY}'//var/lib/metad}
if [ "$1" = etcd ]; then command="etcd --config-file $LAB/$LAB_HOST/etcd.yml"; fi
while :; do
    ${command#/usr/bin/} >>"$run/$1.log" 2>&1 </dev/null &
    echo $! >"$run/$1.pid"
    wait $! && code=0 || code=$?
    rm -f "$run/$1.pid"
    echo "$1: exit $code" >>"$run/$1.exits"
    [ ! -e "$run/$1.stopped" ] || exit 0
    case " 0 $(rule RestartPreventExitStatus) " in *" $code "*) exit 0 ;; esac
    sleep 2
done
EOF
stand_in systemctl <<'EOF'
case $1 in daemon-reload) exit ;; enable) shift; set -- start "${@: -1}" ;; esac
run=$LAB/$LAB_HOST/run unit=$2
main() { cat "$run/$unit.pid" 2>/dev/null; }
stop() {
    touch "$run/$unit.stopped"
    # It may be waiting to start the unit again.
    pid=$(main) || { kill "$(cat "$run/$unit.supervisor" 2>/dev/null)" 2>/dev/null; return 0; }
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    while [ -e "$run/$unit.pid" ]; do sleep 0.05; done
}
start() {
    [ ! -e "$run/$unit.pid" ] || return 0
    rm -f "$run/$unit.stopped"
    : >>"$run/$unit.log"
    before=$(stat -c %s "$run/$unit.log")
    setsid unit "$unit" </dev/null >/dev/null 2>&1 &
    supervisor=$!
    # Type=notify: started once it listens; failed if it ends before that.
    while sleep 0.05; do
        said=$(tail -c "+$((before + 1))" "$run/$unit.log")
        case $unit,$said in etcd,* | metad,*listening*) return 0 ;; esac
        kill -0 "$supervisor" 2>/dev/null || { echo "Job for $unit.service failed." >&2; return 1; }
    done
}
case $1 in
start) start ;;
stop) stop ;;
restart) stop; start ;;
reload) kill -HUP "$(main)" ;;
is-active) main >/dev/null && echo active || { echo inactive; exit 3; } ;;
kill) kill -KILL "$(main)" ;;
*) echo "systemctl $1 is not known here" >&2; exit 1 ;;
esac
EOF

# === for PREPARE ===

# Starts so many members of etcd, and waits until they are healthy.
start_etcd() {
    local count=$1 peers='' i
    members=$count
    for i in $(seq "$count"); do peers=$peers${peers:+,}e$i=http://e$i:2380; done
    for i in $(seq "$count"); do
        etcd_config "e$i" "$peers" "${@:2}"
        on "e$i" systemctl start etcd
    done
    for i in $(seq "$count"); do until curl -sf "http://e$i:2379/health" | grep -q '"true"'; do sleep 0.1; done; done
}

etcd_config() {
    cat >"$lab/$1/etcd.yml" <<EOF
name: $1
data-dir: /var/lib/etcd
listen-client-urls: http://0.0.0.0:2379
advertise-client-urls: http://$1:2379
listen-peer-urls: http://0.0.0.0:2380
initial-advertise-peer-urls: http://$1:2380
initial-cluster: $2
logger: zap
pre-vote: true
EOF
    printf '%s\n' "${@:3}" >>"$lab/$1/etcd.yml"
}

# metad.toml of a node, with more lines from standard input.
config() {
    local endpoints='' i
    for i in $(seq "$members"); do endpoints=$endpoints${endpoints:+, }\"e$i:2379\"; done
    cat >"$lab/$1/etc/metad.toml" <<EOF
node.id = "$1"
node.advertise_addr = "$1:5690"
rpc.listen_addr = "0.0.0.0:5690"
http.listen_addr = "0.0.0.0:5691"
auth.insecure = true
store.etcd.endpoints = [$endpoints]
log.format = "text"
meta.meta_leader_lease_secs = ${LEASE:-5}
checks.interval_secs = ${EVERY:-60}
$(cat)
EOF
}

# Starts so many nodes; m1 leads.
start_metad() {
    local i
    for i in $(seq "$1"); do
        config "m$i" <<<"${EXTRA:-}"
        on "m$i" systemctl start metad
        on "m$i" metad wait leader >/dev/null
    done
    for i in $(seq "$1"); do on "m$i" metad wait ready >/dev/null; done
}

pids() { for i in "$@"; do cat "$lab/$i/run/"*.pid; done; }
pause() { kill -STOP $(pids "$@"); }
resume() { kill -CONT $(pids "$@"); }
# Waits until a log has this line.
until_logged() { until grep -q "$2" "$lab/$1/run/metad.log"; do sleep 0.1; done; }
until_led_by() { until on "$1" metad leader 2>&1 | grep -q "^ $2 "; do sleep 0.1; done; }
# The node of a machine is killed, and stays away.
die() {
    touch "$lab/$1/run/metad.stopped"
    on "$1" systemctl kill metad
}
# Puts a snapshot in the place of what etcd's only member has.
restore_etcd() {
    on e1 systemctl stop etcd
    mv "$lab/e1/var/etcd" "$lab/e1/var/etcd.old"
    etcdctl snapshot restore "$1" --data-dir "$lab/e1/var/etcd" --name e1 \
        --initial-cluster e1=http://e1:2380 --initial-advertise-peer-urls http://e1:2380 >/dev/null 2>&1
    on e1 systemctl start etcd
    until curl -sf http://e1:2379/health | grep -q '"true"'; do sleep 0.1; done
}
until_led() { until on "$1" metad leader >/dev/null 2>&1; do sleep 0.1; done; }

export lab
. "$prepare"
export members
export -f $(declare -F | cut -d' ' -f3)
cd "$lab/home"
printf '\001\n'
on "$host" timeout -k 1 60 bash "$session" </dev/null || :
printf '\001logs\n'
cat "$lab"/m?/run/*.log "$lab"/m?/run/*.exits 2>/dev/null || :
