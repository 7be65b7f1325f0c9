//! What the sections of the pages presuppose: scripts in the words of `lab.sh`.

use super::Scene;

const fn at(section: &'static str, prepare: &'static str) -> Scene {
    Scene { section, host: "m1", prepare, meanwhile: &[] }
}

impl Scene {
    const fn on(self, host: &'static str) -> Self {
        Self { host, ..self }
    }

    const fn meanwhile(self, meanwhile: &'static [(usize, &'static str)]) -> Self {
        Self { meanwhile, ..self }
    }
}

pub const TROUBLESHOOT: [Scene; 18] = [
    at("Troubleshooting", "start_etcd 1; start_metad 1; until_logged m1 check_changed"),
    at(
        "The lease timed out",
        "start_etcd 3; start_metad 2; pause e1 e2 e3; until_logged m1 'stopped event=\"stopped\"'",
    )
    .meanwhile(&[(1, "resume e1 e2 e3; until_led m1; until metad history | grep -q renew_deadline; do sleep 0.2; done")]),
    at(
        "etcd has lost its quorum",
        "start_etcd 3; start_metad 2; on e2 systemctl stop etcd; on e3 systemctl stop etcd
         until_logged m1 'stopped event=\"stopped\"'; until on m2 metad status | grep -q unknown; do sleep 0.2; done",
    )
    .on("m2"),
    at("One member of etcd is down or hangs", "start_etcd 3; start_metad 2; pause e2; until_logged m1 verdict"),
    at(
        "A node is cut off",
        "start_etcd 1; start_metad 2; ip link set m1 down; until_logged m1 'stopped event=\"stopped\"'
         until on m1 metad status | grep -q unknown; do sleep 0.2; done",
    ),
    at(
        "Nodes start before etcd",
        "members=1; config m1 <<<'store.etcd.start_timeout_secs = 2'; on m1 systemctl start metad
         until_logged m1 'stopped event=\"stopped\"'",
    ),
    at(
        "The leader changes again and again",
        "start_etcd 1; EVERY=1 start_metad 3
         for i in 1 2; do die m$i; until_led_by m3 m$((i + 1)); done
         until on m3 metad check leader-flapping -o nagios | grep -q WARNING; do sleep 0.2; done",
    )
    .on("m3"),
    at("Who leads, and why it changed", "start_etcd 1; start_metad 2; die m1; until_led_by m2 m2").on("m2"),
    at("Move the leader, or pin it", "start_etcd 1; start_metad 2")
        .meanwhile(&[(1, "until on m1 metad wait ready; do sleep 0.2; done; sleep 1")]),
    at(
        "A node is killed at the end of its lease",
        "start_etcd 1; start_metad 2; pause m1; until_led_by m2 m2
         until on m2 metad history | grep -q kernel_timer; do sleep 0.2; done",
    )
    .on("m2"),
    at(
        "A crash costs a whole lease",
        "start_etcd 1; EXTRA='node.guardian = false' start_metad 2; die m1; until_led_by m2 m2",
    )
    .on("m2"),
    at(
        "Nobody takes over",
        "start_etcd 1; start_metad 2
         etcdctl --endpoints e1:2379 put /metad/default/election/meta/test hello
         die m1; until on m2 metad status | grep -q 'no leader'; do sleep 0.2; done",
    )
    .on("m2"),
    at(
        "etcd is full",
        "start_etcd 1 'quota-backend-bytes: 1048576'; start_metad 2
         head -c 60000 /dev/urandom | base64 -w0 >$lab/big; n=0
         while etcdctl --endpoints e1:2379 put big$((n += 1)) <$lab/big; do :; done >/dev/null 2>&1
         etcdctl --endpoints e1:2379 del --prefix big >/dev/null
         die m1; until_logged m2 claim_refused",
    )
    .on("m2"),
    at(
        "A dead machine keeps the leader record",
        "start_etcd 1; LEASE=86400 start_metad 2; ip link set m1 down; die m1; ip netns pids m1 | xargs -r kill -KILL || :",
    )
    .on("m2"),
    at(
        "etcd was restored",
        "start_etcd 1; start_metad 1
         etcdctl --endpoints e1:2379 snapshot save $lab/snapshot.db >/dev/null 2>&1
         for i in 1 2 3; do etcdctl --endpoints e1:2379 put key $i >/dev/null; done
         on m1 systemctl restart metad; on m1 metad wait leader; on m1 systemctl stop metad
         restore_etcd $lab/snapshot.db; on m1 systemctl start metad || :; until_logged m1 code=78",
    ),
    at("A node does not start", "start_etcd 1; start_metad 1"),
    at(
        "etcd refuses the node",
        "start_etcd 1
         user() { etcdctl --endpoints e1:2379 \"$@\" >/dev/null; }
         user role add metad; user role grant-permission metad --prefix=true read /metad/default/
         user user add metad:secret; user user grant-role metad metad
         user user add root:root; user user grant-role root root; user auth enable
         echo wrong >$lab/m1/etc/etcd-password; chmod 600 $lab/m1/etc/etcd-password
         printf '%s\n' 'store.etcd.username = \"metad\"' 'store.etcd.password_file = \"/etc/metad/etcd-password\"' | config m1
         on m1 systemctl start metad; until_logged m1 code=77",
    ),
    at(
        "A command gets no answer",
        "start_etcd 1; metad tls init $lab/m1/etc/certs --members m1 --hosts m1 >/dev/null
         c=/etc/metad/certs
         printf 'tls.%s\n' \"ca_file = '$c/ca.pem'\" \"cert_file = '$c/m1.pem'\" \"key_file = '$c/m1.key'\" | config m1
         on m1 systemctl start metad; until_logged m1 main_loop_started",
    ),
];

pub const INSTALL: [Scene; 1] = [at("The first configuration", "start_etcd 3")];

pub const MONITOR: [Scene; 1] = [at("What to scrape", "start_etcd 1; start_metad 3")];

pub const UPGRADE: [Scene; 1] =
    // What is written after the snapshot is lost with it.
    [at("Upgrading and changing", "start_etcd 3; start_metad 3")
        .meanwhile(&[(7, "for i in 1 2; do ssh m1 'systemctl restart metad; metad wait ready'; done")])];
