//! Point 2: of nat chains with equal priority the one that was registered last runs first.

use anyhow::Result;

use crate::trials::Test;
use crate::{router, shoot};

pub(crate) const TESTS: &[Test] = &[
    ("equal_priority::the_last_of_two_nft_chains_runs_first", two_nft),
    ("equal_priority::nft_after_legacy_runs_first", nft_after_legacy),
    ("equal_priority::legacy_after_nft_runs_first", legacy_after_nft),
    ("equal_priority::one_answer_where_both_orders_agree", agreeing),
];

const PROBE: &str = "eth0 tcp 192.0.2.7:4000 > 10.9.0.5:80";

fn chain(table: &str, to: &str) -> String {
    format!(
        "table ip {table} {{ chain post {{ type nat hook postrouting priority 100;
          counter snat to {to} comment \"{table}\"; }}
}}"
    )
}

fn legacy(to: &str) -> String {
    format!("*nat\n-A POSTROUTING -m comment --comment legacy -j SNAT --to-source {to}\nCOMMIT\n")
}

fn two_nft() -> Result<()> {
    for (first, second) in [("a", "b"), ("b", "a")] {
        let network = router()?;
        let address = |table| if table == "a" { "10.1.0.97" } else { "10.1.0.98" };
        network.nft(&chain(first, address(first)))?;
        network.nft(&chain(second, address(second)))?;
        shoot(&network, PROBE)?
            .ended(&format!("eth1 {}:4000 > 10.9.0.5:80", address(second)))?
            .counted(&[(first, 0), (second, 1)])?
            .unknown_because("priority")?;
    }
    Ok(())
}

fn nft_after_legacy() -> Result<()> {
    let network = router()?;
    network.restore("iptables-legacy", &legacy("10.1.0.97"))?;
    network.nft(&chain("native", "10.1.0.98"))?;
    shoot(&network, PROBE)?
        .ended("eth1 10.1.0.98:4000 > 10.9.0.5:80")?
        .counted(&[("legacy", 0), ("native", 1)])?
        .unknown_because("priority")
}

fn legacy_after_nft() -> Result<()> {
    let network = router()?;
    network.nft(&chain("native", "10.1.0.98"))?;
    network.restore("iptables-legacy", &legacy("10.1.0.97"))?;
    shoot(&network, PROBE)?
        .ended("eth1 10.1.0.97:4000 > 10.9.0.5:80")?
        .counted(&[("legacy", 1), ("native", 0)])?
        .unknown_because("priority")
}

fn agreeing() -> Result<()> {
    let network = router()?;
    network.nft(&chain("a", "10.1.0.98"))?;
    network.nft(
        "table ip b { chain post { type nat hook postrouting priority 100;
          ip daddr 10.8.0.0/16 counter snat to 10.1.0.97 comment \"b\"; }
}",
    )?;
    shoot(&network, PROBE)?
        .ended("eth1 10.1.0.98:4000 > 10.9.0.5:80")?
        .counted(&[("a", 1), ("b", 0)])?
        .foreseen()
}
