//! Kernel settings.

use std::collections::BTreeMap;

/// Settings by name with dots (`net.ipv4.ip_forward`). Dots inside a device's name are slashes,
/// as sysctl(8) prints them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sysctls(BTreeMap<Box<str>, Box<str>>);

impl Sysctls {
    /// Sets one.
    pub fn insert(&mut self, name: impl Into<Box<str>>, value: impl Into<Box<str>>) {
        self.0.insert(name.into(), value.into());
    }

    /// The value as text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| &**value)
    }

    /// The value as a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.trim().parse().ok()
    }

    /// `net.<family>.conf.<device>.<setting>` as a number.
    pub fn device(&self, family: &str, device: &str, setting: &str) -> Option<i64> {
        let device = device.replace('.', "/");
        self.number(&format!("net.{family}.conf.{device}.{setting}"))
    }
}

impl FromIterator<(Box<str>, Box<str>)> for Sysctls {
    fn from_iter<I: IntoIterator<Item = (Box<str>, Box<str>)>>(iter: I) -> Self {
        Sysctls(iter.into_iter().collect())
    }
}
