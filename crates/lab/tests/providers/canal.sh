#!/bin/sh
# A node of a canal cluster (flannel for networking, Calico for policy) whose Calico still has its
# default IP pool 192.168.0.0/16 with natOutgoing. Nobody takes addresses from that pool, but a
# client of the office network 192.168.7.0/24 is inside it. Loads addresses, routes, sets and rules
# into the network namespace that it is run in; the devices must be there.
#
#   client 192.168.7.20 ── 10.0.0.1 ── eth0 10.0.0.11 [n1] cali6f2c9d1b3a7 ── web 10.42.0.7
#                                      flannel.1 10.42.0.0  cali1e0d4c8a552 ── shell 10.42.0.8
set -eu

web=cali6f2c9d1b3a7
shell=cali1e0d4c8a552

sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
    net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
ip link set lo up
ip addr add 10.0.0.11/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.0.1 dev eth0

# flannel: a VXLAN device, and a route, a neighbour and a forwarding entry for the other node.
ip link add flannel.1 address 02:42:0a:2a:00:00 type vxlan id 1 local 10.0.0.11 dev eth0 \
    dstport 8472 nolearning
ip addr add 10.42.0.0/32 dev flannel.1
ip link set flannel.1 up
ip route add 10.42.1.0/24 via 10.42.1.0 dev flannel.1 onlink
ip neigh add 10.42.1.0 lladdr 02:42:0a:2a:01:00 dev flannel.1 nud permanent
bridge fdb add 02:42:0a:2a:01:00 dev flannel.1 dst 10.0.0.12 self permanent

# Calico: a route to each pod's device, no address on it.
ip link set "$web" up
ip link set "$shell" up
ip route add 10.42.0.7 dev "$web" scope link
ip route add 10.42.0.8 dev "$shell" scope link
sysctl -qw "net.ipv4.conf.$web.rp_filter=1" "net.ipv4.conf.$shell.rp_filter=1"

ipset restore <<SETS
create cali40all-ipam-pools hash:net family inet hashsize 1024 maxelem 1048576
add cali40all-ipam-pools 192.168.0.0/16
create cali40masq-ipam-pools hash:net family inet hashsize 1024 maxelem 1048576
add cali40masq-ipam-pools 192.168.0.0/16
create cali40this-host hash:ip family inet hashsize 1024 maxelem 1048576
add cali40this-host 10.0.0.11
add cali40this-host 10.42.0.0
add cali40this-host 127.0.0.1
SETS
iptables-nft-restore <<RULES
*raw
:cali-OUTPUT - [0:0]
:cali-PREROUTING - [0:0]
:cali-from-host-endpoint - [0:0]
:cali-to-host-endpoint - [0:0]
-A PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING
-A OUTPUT -m comment --comment "cali:tVnHkvAo15HuiPy0" -j cali-OUTPUT
-A cali-OUTPUT -m comment --comment "cali:njdnLwYeGqBJyMxW" -j MARK --set-xmark 0x0/0xf0000
-A cali-OUTPUT -m comment --comment "cali:rz86uTUcEZAfFsh7" -j cali-to-host-endpoint
-A cali-OUTPUT -m comment --comment "cali:pN0F5zD0b8yf9W1Z" -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-PREROUTING -m comment --comment "cali:XFX5xbM8B9qR10JG" -j MARK --set-xmark 0x0/0xf0000
-A cali-PREROUTING -i cali+ -m comment --comment "cali:EWMPb0zVROM-woQp" -j MARK --set-xmark 0x40000/0x40000
-A cali-PREROUTING -m comment --comment "cali:ImU0-4Rl2WoOI9Ou" -m mark --mark 0x0/0x40000 -j cali-from-host-endpoint
-A cali-PREROUTING -m comment --comment "cali:lV4V2MPoMBf0hl9T" -m mark --mark 0x10000/0x10000 -j ACCEPT
COMMIT
*nat
:FLANNEL-POSTRTG - [0:0]
:KUBE-EXT-CDGGSHYLG3RE2FKL - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SEP-3FWA6LFCTDAZWIQJ - [0:0]
:KUBE-SEP-52ACFF6RFAIQASRR - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-CDGGSHYLG3RE2FKL - [0:0]
:KUBE-SVL-CDGGSHYLG3RE2FKL - [0:0]
:cali-OUTPUT - [0:0]
:cali-POSTROUTING - [0:0]
:cali-PREROUTING - [0:0]
:cali-fip-dnat - [0:0]
:cali-fip-snat - [0:0]
:cali-nat-outgoing - [0:0]
-A PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "cali:tVnHkvAo15HuiPy0" -j cali-OUTPUT
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.0.0/24 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.0.0/16 -d 10.42.0.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.0.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A KUBE-EXT-CDGGSHYLG3RE2FKL -s 10.42.0.0/16 -m comment --comment "pod traffic for default/web:http external destinations" -j KUBE-SVC-CDGGSHYLG3RE2FKL
-A KUBE-EXT-CDGGSHYLG3RE2FKL -m comment --comment "masquerade LOCAL traffic for default/web:http external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
-A KUBE-EXT-CDGGSHYLG3RE2FKL -m comment --comment "route LOCAL traffic for default/web:http external destinations" -m addrtype --src-type LOCAL -j KUBE-SVC-CDGGSHYLG3RE2FKL
-A KUBE-EXT-CDGGSHYLG3RE2FKL -j KUBE-SVL-CDGGSHYLG3RE2FKL
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/web:http" -m tcp --dport 30080 -j KUBE-EXT-CDGGSHYLG3RE2FKL
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SEP-3FWA6LFCTDAZWIQJ -s 10.42.0.7/32 -m comment --comment "default/web:http" -j KUBE-MARK-MASQ
-A KUBE-SEP-3FWA6LFCTDAZWIQJ -p tcp -m comment --comment "default/web:http" -m tcp -j DNAT --to-destination 10.42.0.7:8080
-A KUBE-SEP-52ACFF6RFAIQASRR -s 10.42.1.9/32 -m comment --comment "default/web:http" -j KUBE-MARK-MASQ
-A KUBE-SEP-52ACFF6RFAIQASRR -p tcp -m comment --comment "default/web:http" -m tcp -j DNAT --to-destination 10.42.1.9:8080
-A KUBE-SERVICES -d 10.43.100.80/32 -p tcp -m comment --comment "default/web:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-CDGGSHYLG3RE2FKL
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-CDGGSHYLG3RE2FKL ! -s 10.42.0.0/16 -d 10.43.100.80/32 -p tcp -m comment --comment "default/web:http cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-CDGGSHYLG3RE2FKL -m comment --comment "default/web:http -> 10.42.0.7:8080" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-3FWA6LFCTDAZWIQJ
-A KUBE-SVC-CDGGSHYLG3RE2FKL -m comment --comment "default/web:http -> 10.42.1.9:8080" -j KUBE-SEP-52ACFF6RFAIQASRR
-A KUBE-SVL-CDGGSHYLG3RE2FKL -m comment --comment "default/web:http -> 10.42.0.7:8080" -j KUBE-SEP-3FWA6LFCTDAZWIQJ
-A cali-OUTPUT -m comment --comment "cali:GBTAv2p5CwevEyJm" -j cali-fip-dnat
-A cali-POSTROUTING -m comment --comment "cali:Z-c7XtVd2Bq7s_hA" -j cali-fip-snat
-A cali-POSTROUTING -m comment --comment "cali:nYKhEzDlr11Jccal" -j cali-nat-outgoing
-A cali-PREROUTING -m comment --comment "cali:r6XmIziWUJsdOK6Z" -j cali-fip-dnat
-A cali-nat-outgoing -m comment --comment "cali:flqWnvo8yq4ULQLa" -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:cali-FORWARD - [0:0]
:cali-from-wl-dispatch - [0:0]
:cali-fw-$shell - [0:0]
:cali-fw-$web - [0:0]
:cali-to-wl-dispatch - [0:0]
:cali-tw-$shell - [0:0]
:cali-tw-$web - [0:0]
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m comment --comment "Policy explicitly accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
-A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000
-A FLANNEL-FWD -s 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-FORWARD -m comment --comment "cali:vjrMJCRpqwy5oRoX" -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -i cali+ -m comment --comment "cali:8ZoYfO5HKXWbB3pk" -j cali-from-wl-dispatch
-A cali-FORWARD -o cali+ -m comment --comment "cali:jdEuaPBe14V2hutn" -j cali-to-wl-dispatch
-A cali-from-wl-dispatch -i $shell -m comment --comment "cali:3u7RmV2nQz0cXk1L" -g cali-fw-$shell
-A cali-from-wl-dispatch -i $web -m comment --comment "cali:Jp5Wd8sYb4eTq9Ho" -g cali-fw-$web
-A cali-from-wl-dispatch -m comment --comment "cali:zTj6P2FxUv1mRk8A" -m comment --comment "Unknown interface" -j DROP
-A cali-fw-$shell -m comment --comment "cali:aB2cD3eF4gH5iJ6k" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-fw-$shell -m comment --comment "cali:lM7nO8pQ9rS0tU1v" -m conntrack --ctstate INVALID -j DROP
-A cali-fw-$shell -m comment --comment "cali:wX2yZ3aB4cD5eF6g" -j MARK --set-xmark 0x10000/0x10000
-A cali-fw-$web -m comment --comment "cali:hI7jK8lM9nO0pQ1r" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-fw-$web -m comment --comment "cali:sT2uV3wX4yZ5aB6c" -m conntrack --ctstate INVALID -j DROP
-A cali-fw-$web -m comment --comment "cali:dE7fG8hI9jK0lM1n" -j MARK --set-xmark 0x10000/0x10000
-A cali-to-wl-dispatch -o $shell -m comment --comment "cali:oP2qR3sT4uV5wX6y" -g cali-tw-$shell
-A cali-to-wl-dispatch -o $web -m comment --comment "cali:zA7bC8dE9fG0hI1j" -g cali-tw-$web
-A cali-to-wl-dispatch -m comment --comment "cali:kL2mN3oP4qR5sT6u" -m comment --comment "Unknown interface" -j DROP
-A cali-tw-$shell -m comment --comment "cali:vW7xY8zA9bC0dE1f" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-tw-$shell -m comment --comment "cali:gH2iJ3kL4mN5oP6q" -m conntrack --ctstate INVALID -j DROP
-A cali-tw-$shell -m comment --comment "cali:rS7tU8vW9xY0zA1b" -j MARK --set-xmark 0x10000/0x10000
-A cali-tw-$web -m comment --comment "cali:cD2eF3gH4iJ5kL6m" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-tw-$web -m comment --comment "cali:nO7pQ8rS9tU0vW1x" -m conntrack --ctstate INVALID -j DROP
-A cali-tw-$web -m comment --comment "cali:yZ2aB3cD4eF5gH6i" -j MARK --set-xmark 0x10000/0x10000
COMMIT
RULES
