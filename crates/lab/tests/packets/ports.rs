//! Point 7: a port can change without any rule that asks for it.

use anyhow::{Result, ensure};

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("ports::the_second_of_two_equal_tuples_gets_another_port", masqueraded),
    ("ports::a_clash_without_any_source_rule", without_rule),
];

fn masqueraded() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t { chain post { type nat hook postrouting priority srcnat;
          oifname \"eth1\" counter masquerade comment \"masq\"; }
}",
    )?;
    shoot(&network, "eth0 udp 192.0.2.7:4000 > 10.9.0.5:53")?
        .ended("eth1 10.1.0.11:4000 > 10.9.0.5:53")?
        .foreseen()?;
    // What follows depends on the connection that exists, which the evaluator does not read.
    let second = network.send(&"eth0 udp 192.0.2.8:4000 > 10.9.0.5:53".parse()?)?;
    let flow = second.left[0].flow;
    ensure!(flow.source.ip().to_string() == "10.1.0.11" && flow.source.port() != 4000, "{second}");
    Ok(())
}

fn without_rule() -> Result<()> {
    let network = router()?;
    network.nft(
        "table ip t { chain pre { type nat hook prerouting priority dstnat;
          ip daddr { 203.0.113.1, 203.0.113.2 } counter dnat to 10.9.0.5 comment \"dnat\"; }
}",
    )?;
    shoot(&network, "eth0 udp 192.0.2.7:4000 > 203.0.113.1:53")?
        .ended("eth1 192.0.2.7:4000 > 10.9.0.5:53")?
        .foreseen()?;
    let second = network.send(&"eth0 udp 192.0.2.7:4000 > 203.0.113.2:53".parse()?)?;
    let flow = second.left[0].flow;
    ensure!(flow.source.ip().to_string() == "192.0.2.7" && flow.source.port() != 4000, "{second}");
    Ok(())
}
