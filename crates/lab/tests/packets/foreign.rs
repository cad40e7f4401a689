//! Point 12: programs that no ruleset shows.

use anyhow::Result;

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] =
    &[("foreign::a_traffic_control_program_makes_the_answer_unknown", traffic_control)];

fn traffic_control() -> Result<()> {
    let network = router()?;
    // A classic BPF program that returns TC_ACT_SHOT: it drops everything that comes in.
    network.script(
        "tc qdisc add dev eth0 clsact
         tc filter add dev eth0 ingress bpf bytecode '1,6 0 0 2,' direct-action",
    )?;
    shoot(&network, "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53")?
        .ended("dropped")?
        .unknown_because("eth0")?;
    // A packet that doesn't pass the device is answered as ever.
    shoot(&network, "host udp 10.1.0.11:4000 > 10.9.0.5:53")?
        .ended("eth1 10.1.0.11:4000 > 10.9.0.5:53")?
        .foreseen()
}
