//! Rulesets with one form after the other.

use anyhow::{Result, ensure};

use super::check;
use super::trials::Test;

pub(crate) const TESTS: [Test; 1] = [("comparisons", comparisons)];

fn comparisons() -> Result<()> {
    let tables = check(
        r#"table inet t {
  chain c {
    ip saddr 10.0.0.0/8 ip daddr != 10.1.2.3-10.1.2.9 tcp dport { 80, 443, 8000-8100 } accept
    ct state established,related counter accept comment "a # b { c"
    ct state == established,related counter
  }
}"#,
    )?;
    ensure!(tables.len() == 1);
    Ok(())
}
