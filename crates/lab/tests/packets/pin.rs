//! Point 8: translating a source to itself keeps it, whatever later chains say.

use anyhow::Result;

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("pin::identity_snat_keeps_the_source_v4", v4),
    ("pin::identity_snat_keeps_the_source_v6", v6),
];

fn rules(family: &str, from: &str) -> String {
    format!(
        "table {family} pin {{ chain post {{ type nat hook postrouting priority 90;
          {family} saddr {from} counter snat to {family} saddr comment \"pin\"; }}
}}
         table {family} others {{ chain post {{ type nat hook postrouting priority 110;
          counter masquerade comment \"nft\"; }}
}}"
    )
}

const MASQUERADE: &str =
    "*nat\n-A POSTROUTING -m comment --comment xtables -j MASQUERADE\nCOMMIT\n";

fn v4() -> Result<()> {
    for program in ["iptables-legacy", "iptables-nft"] {
        let network = router()?;
        network.restore(program, MASQUERADE)?;
        network.nft(&rules("ip", "192.0.2.0/24"))?;
        shoot(&network, "eth0 tcp 192.0.2.7:4000 > 10.9.0.5:80")?
            .ended("eth1 192.0.2.7:4000 > 10.9.0.5:80")?
            .counted(&[("pin", 1), ("xtables", 0), ("nft", 0)])?
            .foreseen()?;
        shoot(&network, "eth0 tcp 198.51.100.7:4000 > 10.9.0.5:80")?
            .ended("eth1 10.1.0.11:4000 > 10.9.0.5:80")?
            .counted(&[("pin", 0), ("xtables", 1), ("nft", 0)])?
            .foreseen()?;
    }
    Ok(())
}

fn v6() -> Result<()> {
    let network = router()?;
    network.restore("ip6tables-nft", MASQUERADE)?;
    network.nft(&rules("ip6", "2001:db8::/64"))?;
    shoot(&network, "eth0 tcp [2001:db8::7]:4000 > [fd00:9::5]:80")?
        .ended("eth1 [2001:db8::7]:4000 > [fd00:9::5]:80")?
        .counted(&[("pin", 1), ("xtables", 0), ("nft", 0)])?
        .foreseen()
}
