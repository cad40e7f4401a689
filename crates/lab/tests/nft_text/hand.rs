//! Rulesets with one form after the other. Each is loaded, and the text means what the JSON does.

use anyhow::{Result, ensure};
use unmasq_model::rule::{Action, Step, Test as Condition};

use super::check;
use super::trials::Test;

pub(crate) const TESTS: [Test; 8] = [
    ("comparisons", || understood(COMPARISONS)),
    ("sets_and_maps", || understood(SETS)),
    ("operators", || understood(OPERATORS)),
    ("nat", || understood(NAT)),
    ("statements", || understood(STATEMENTS)),
    ("tables_and_chains", || understood(TABLES)),
    ("other_families", || check(OTHER_FAMILIES).map(drop)),
    ("what_is_not_understood", || check(NOT_UNDERSTOOD).map(drop)),
];

/// Nothing in it is opaque.
fn understood(ruleset: &str) -> Result<()> {
    let tables = check(ruleset)?;
    let rules = || tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
    ensure!(rules().count() > 0, "no rules");
    for rule in rules() {
        let opaque = rule.steps.iter().any(|step| {
            matches!(step, Step::Do(Action::Opaque(_)) | Step::Test(Condition::Opaque(_)))
        });
        ensure!(!opaque, "{}: {:#?}", rule.text, rule.steps);
    }
    Ok(())
}

const COMPARISONS: &str = r#"
table inet t {
  chain c {
    ip saddr 10.0.0.0/8 ip daddr != 10.1.2.3-10.1.2.9 tcp dport { 80, 443, 8000-8100 } accept
    ip saddr != 10.0.0.1 ip daddr 0.0.0.0/0
    ip6 saddr fd00::/64 ip6 daddr != fd00::1-fd00::9 udp sport != { 53, 123 }
    ip6 nexthdr tcp ip6 hoplimit < 5
    ip protocol icmp icmp type echo-request icmp code 0
    ip ttl >= 3 ip ttl != 7 tcp dport > 1023 tcp sport <= 99
    udp dport 1000-2000
    meta l4proto { tcp, udp, sctp } th dport 53
    meta l4proto 253
    meta l4proto tcp tcp dport 80 ct state new
    sctp dport 7
    dccp sport 8
    udplite dport 9
    icmp type { echo-request, destination-unreachable } icmp code != 3
    icmpv6 type { nd-neighbor-solicit, mld-listener-query, 200 } icmpv6 code 4
    ct state established,related counter accept comment "a # b { c"
    ct state == established,related counter
    ct state != new ct state ! new
    ct state { new, established } ct status dnat,snat ct status ! expected
    ct direction original ct mark 0x10 ct mark != 0x11-0x13 ct protocol tcp
    ct original ip saddr 10.0.0.1 ct reply ip6 daddr fd00::1
    meta l4proto tcp ct original proto-dst 80 ct reply proto-src 1-9
    tcp flags syn
    tcp flags == syn
    tcp flags & (fin | syn | rst | ack) == syn
    tcp flags & (fin | syn) != fin | syn
    tcp flags syn / fin,syn,rst,ack
    tcp flags != syn / syn,ack
    tcp flags { syn, syn | ack }
    iifname "eth0" oifname != "veth*" iif "lo" oif != "lo" iif != 0
    iifname { "eth0", "cali*", "7" } oifname "\*"
    meta nfproto ipv4 meta protocol ip
    meta nfproto { ipv4, ipv6 }
    meta mark 0x5 meta mark 1-9 meta mark { 3, 5 }
    fib daddr type local fib saddr . iif type { unicast, broadcast }
    fib saddr . iif oif missing
    fib saddr . iif . mark oif exists
    fib saddr oif 0 fib daddr oifname "eth0"
    limit rate 10/second
    limit rate over 400/minute burst 20 packets
    limit rate 1 mbytes/second burst 5 kbytes
    quota over 25 mbytes
    quota 3 bytes
    ct count over 20
    numgen inc mod 4 < 2 numgen random mod 3 offset 7 == 8
    jhash ip saddr . tcp dport mod 2 seed 0xdeadbeef == 1
    jhash ip saddr mod 16 offset 3 == 5
    symhash mod 2 == 0
  }
}"#;

const SETS: &str = r#"
table ip t {
  counter hits { }
  counter misses { }
  set empty { type ipv4_addr; comment "there is nothing"; }
  set addresses { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/8, 192.168.1.1-192.168.1.9, 1.1.1.1 } }
  set timed { type ipv4_addr; flags timeout; timeout 3h; gc-interval 1m; elements = { 10.0.0.1, 10.0.0.2 timeout 1h comment "a } b, # c" } }
  set seen { type ipv4_addr . inet_service; size 999; flags dynamic,timeout; timeout 1m30s; }
  set counted { type inet_service; counter; elements = { 80, 443 counter packets 3 bytes 180 comment "x" } }
  set limited { type ipv4_addr; size 8; flags dynamic; limit rate 3/minute burst 9 packets; }
  set names { type ifname; flags interval; elements = { "eth0", "veth*" } }
  set marks { type mark; elements = { 0x10, 7 } }
  set protocols { type inet_proto; elements = { tcp, 143 } }
  set boxes { type ipv4_addr . inet_proto . inet_service; flags interval; elements = { 10.0.0.0/8 . tcp . 80-90, 10.1.1.1-10.1.1.9 . udp . 53 } }
  set typed { typeof ip saddr . meta mark . iifname; elements = { 10.0.0.1 . 0x7 . "eth0" } }
  set states { type ct_state; elements = { new, established } }
  set icmps { type icmp_type; elements = { echo-request, 42 } }
  map verdicts { type ipv4_addr . inet_proto . inet_service : verdict; comment "x"; elements = { 10.96.0.1 . tcp . 443 comment "a/b:https" : goto d, 10.96.0.2 . udp . 53 : jump d, 10.96.0.3 . tcp . 1 : drop } }
  map ranges { type inet_service : verdict; flags interval; elements = { 1-9 : accept, 10 : return, * : continue } }
  map to { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.0.0.1 . 8080 } }
  map typedmap { typeof ip saddr : meta mark; elements = { 10.0.0.1 : 0x7 } }
  map objects { type ipv4_addr : counter; elements = { 10.0.0.1 : "hits", 10.0.0.2 : "misses" } }
  map written { type ipv4_addr : inet_service; flags dynamic,timeout; size 99; }
  chain c {
    ip saddr @addresses ip daddr != @timed tcp dport @counted
    iifname @names oifname != @names meta mark @marks meta l4proto @protocols ct state @states
    ip saddr . meta l4proto . th dport @boxes
    ip saddr . meta mark . iifname @typed
    icmp type @icmps
    ip daddr . meta l4proto . th dport vmap @verdicts
    tcp dport vmap @ranges
    ip saddr . tcp dport { 10.0.0.1 . 80, 10.0.0.0/24 . 90-99 }
    ip saddr . tcp dport vmap { 10.0.0.1 . 80 : accept, 10.0.0.2 . 81 : goto d }
    ct state vmap { established : accept, related : accept, invalid : drop }
    meta mark set ip saddr map @typedmap
    meta mark set tcp dport map { 80 : 0x1, 81-90 : 0x2 }
    counter name ip saddr map @objects
    counter name "hits"
    update @seen { ip saddr . tcp dport }
    add @seen { ip saddr . tcp dport timeout 5m }
    delete @seen { ip saddr . tcp dport }
    update @limited { ip saddr limit rate 3/minute burst 9 packets }
    update @written { ip saddr : tcp dport }
    update @written { ip saddr timeout 1h : tcp dport }
    meter m size 128 { ip saddr limit rate 10/second }
    numgen random mod 3 vmap { 0 : goto d, 1 : goto d, 2 : goto d }
  }
  chain d { }
}"#;

const OPERATORS: &str = r#"
table inet t {
  chain c {
    meta mark & 0x4000 == 0x4000 meta mark & 0x8000 != 0
    meta mark set meta mark | 0x4000
    meta mark set meta mark & 0xffff00ff | 0x0300
    meta mark set (meta mark & 0xff) << 8
    meta mark set meta mark >> 16
    meta mark set meta mark ^ 0x4000
    meta mark set (meta mark ^ 0x1) & 0x3 | 0x70
    meta mark set ct mark & 0xff
    ct mark set meta mark
    ct mark set ct mark | 0x1
    ct mark set 0x7
    ct mark & 0xf0 != 0x10
    ip saddr & 255.255.0.255 == 10.0.0.1
    ip6 saddr & ffff::ffff == fd00::1
    tcp dport & 1 == 0
    meta mark & 0x3 . tcp dport { 0x1 . 80 }
    meta mark & 0x3 vmap { 0x1 : accept }
  }
}"#;

const NAT: &str = r#"
table ip four {
  map balance { type inet_service : ipv4_addr; elements = { 80 : 10.0.0.1 } }
  chain pre {
    type nat hook prerouting priority dstnat; policy accept;
    tcp dport 80 dnat to 10.0.0.1
    tcp dport 81 dnat to 10.0.0.1:8080
    tcp dport 82 dnat to 10.0.0.1-10.0.0.9:8080-8090 random,persistent
    tcp dport 83 dnat to :8080
    tcp dport 84 dnat to tcp dport map @balance
    tcp dport 85 dnat to numgen random mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }
    meta l4proto tcp dnat to numgen random mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 81 }
    meta l4proto tcp dnat to ip daddr . tcp dport map { 1.1.1.1 . 80 : 10.0.0.1 . 8080 }
    tcp dport 86 dnat to 10.0.0.1:tcp dport map { 86 : 8086 }
    tcp dport 87 dnat to ip saddr map { 10.0.0.7 : 10.0.0.8 }:8087 fully-random
    tcp dport 88 redirect
    tcp dport 89 redirect to :8080
    tcp dport 90 redirect to :8080-8090 random
    tcp dport 91 redirect to :tcp dport map { 91 : 8091 }
  }
  chain post {
    type nat hook postrouting priority srcnat + 5; policy accept;
    masquerade
    masquerade random
    masquerade fully-random,persistent
    meta l4proto tcp masquerade to :1024-65535 fully-random
    snat to 10.0.0.1
    snat to 10.0.0.0/24
    snat to 10.0.0.1-10.0.0.9 persistent
    ip saddr 10.3.0.0/16 snat prefix to 10.4.0.0/16
    meta l4proto udp snat to 10.0.0.1:1024-2048
  }
}
table ip6 six {
  chain pre {
    type nat hook prerouting priority -110; policy accept;
    tcp dport 80 dnat to fd00::1
    tcp dport 81 dnat to [fd00::1]:80
    tcp dport 82 dnat to fd00::1-fd00::9
    tcp dport 83 dnat to [fd00::1]-[fd00::9]:80-90
    meta l4proto tcp dnat to numgen inc mod 2 map { 0 : fd00::1 . 80, 1 : fd00::2 . 81 }
  }
}
table inet both {
  chain pre {
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto tcp dnat ip to 10.0.0.1:80
    meta l4proto tcp dnat ip6 to [fd00::1]:80
    meta l4proto tcp dnat ip to tcp dport map { 80 : 10.0.0.1 . 81 }
    tcp dport 3 redirect to :4
  }
}"#;

const STATEMENTS: &str = r#"
table inet t {
  ct helper ftp { type "ftp" protocol tcp; l3proto inet; }
  ct timeout quick { protocol tcp; l3proto ip; policy = { established : 100, close : 4 }; }
  limit slow { rate 3/hour }
  quota much { over 25 mbytes }
  counter hits { packets 7 bytes 99 }
  chain c {
    type filter hook prerouting priority raw; policy accept;
    counter
    counter packets 5 bytes 60
    counter name "hits"
    log
    log prefix "a, \" group 5 snaplen 64 queue-threshold 3
    log prefix "x: " level warn
    log level debug flags all
    log flags tcp sequence,options
    log flags ip options accept
    log flags skuid drop
    limit name "slow"
    quota name "much"
    notrack
    accept
    continue
    return
    jump e
    goto e
    ct zone set 5
    ct zone set 1 drop
    meta nftrace set 1
    meta priority set 1:2
    ct event set new,destroy
    tcp option maxseg size set 1400
    ct timeout set "quick"
    iifname "a" counter accept comment "it's a \ comment, with: # { } ; things"
  }
  chain e {
  }
  chain d {
    type filter hook forward priority 0;
    tcp flags syn tcp option maxseg size set rt mtu
    ct helper set "ftp"
    reject
    ip saddr 10.0.0.1 reject
    reject with icmp host-prohibited
    reject with icmpv6 admin-prohibited
    reject with icmpx admin-prohibited
    reject with icmpx port-unreachable
    reject with icmp port-unreachable
    reject with tcp reset
    tcp dport 80 reject with tcp reset
  }
}
table ip four {
  chain c { type filter hook input priority 0; reject; reject with icmp net-unreachable; reject with tcp reset; }
}
table ip6 six {
  chain c { type filter hook input priority 0; reject; reject with icmpv6 no-route; reject with icmpv6 port-unreachable; }
}
"#;

const TABLES: &str = r#"
table ip a {
  comment "a # table {"
  flags dormant
  chain c { accept; }
}
table ip6 b {
}
table inet c {
  chain pre {
    type filter hook prerouting priority dstnat - 10; policy drop; comment "one; two"
    accept
  }
  chain mangle { type filter hook prerouting priority mangle + 3; }
  chain route { type route hook output priority mangle; policy accept; }
  chain security { type filter hook input priority security; }
  chain output { type filter hook output priority -110; policy drop; }
  chain out2 { type nat hook postrouting priority srcnat - 1; }
  chain far { type filter hook forward priority 2147483647; }
  chain low { type filter hook forward priority -2147483648; }
  chain with-dashes_and.dots/slash { accept; }
  chain x { jump with-dashes_and.dots/slash; }
}
"#;

const OTHER_FAMILIES: &str = r#"
table arp a {
  chain c { type filter hook input priority filter; arp operation request drop; }
}
table bridge b {
  set s { type ether_addr; }
  chain c { type filter hook prerouting priority dstnat; ether saddr @s drop; }
  chain d { type filter hook forward priority filter + 1; }
}
table netdev n {
  chain c { type filter hook ingress device "lo" priority filter; policy accept; ip saddr 10.0.0.1 drop; }
}
table inet i {
  chain c { type filter hook ingress device "lo" priority filter; policy drop; }
}
"#;

/// Kept, in its place: what comes before and after is read.
const NOT_UNDERSTOOD: &str = r#"
table inet t {
  chain c {
    meta random < 5 accept
    meta skuid 1000 meta cpu 3 drop
    meta time > "2020-01-01" counter
    ip dscp cs1 ip version 4 ip id 7 counter accept
    ip dscp set cs3 accept
    @th,16,16 53 drop
    @nh,96,32 0x0a000001 accept
    ct helper "ftp" accept
    ct bytes > 5000 accept
    ct original packets 3 accept
    ct expiration 3s accept
    rt classid 5 accept
    tcp option sack-perm exists drop
    tcp option maxseg size 1-500 drop
    frag more-fragments 1 drop
    exthdr frag exists drop
    socket transparent 1 accept
    ether saddr 00:11:22:33:44:55 accept
    vlan id 5 accept
    meta day "Saturday" accept
    meta hour "12:00"-"13:00" accept
    ip saddr @absent2 accept
    tcp flags syn synproxy mss 1460 wscale 7 timestamp sack-perm
    meta l4proto tcp tproxy ip to 127.0.0.1:1080 meta mark set 1 accept
    meta l4proto tcp tproxy to :1080 accept
    ip saddr 10.0.0.1 jump { tcp dport 5 accept; drop; }
    ip saddr 10.0.0.2 accept
  }
  set absent2 { type ipv4_addr; }
}
table ip n {
  chain c {
    type nat hook prerouting priority dstnat;
    dnat ip prefix to ip daddr map { 10.1.0.0/16 : 10.2.0.0/16 }
    ip saddr 10.0.0.1 accept
  }
}"#;
