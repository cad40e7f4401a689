//! What the running kernel has, without asking it in a way that would load a module.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// A part of the kernel that a command talks to over netlink, which would load it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Facility {
    /// nftables.
    NfTables,
    /// xtables extensions in nftables, which iptables-nft asks about each extension it prints.
    NftCompat,
    /// ipset.
    IpSet,
    /// Listing of connections.
    Conntrack,
    /// Listing of IPsec policies.
    Xfrm,
}

impl Facility {
    const ALL: [Facility; 5] = [
        Facility::NfTables,
        Facility::NftCompat,
        Facility::IpSet,
        Facility::Conntrack,
        Facility::Xfrm,
    ];

    /// The module's name.
    pub(super) fn module(self) -> &'static str {
        match self {
            Facility::NfTables => "nf_tables",
            Facility::NftCompat => "nft_compat",
            Facility::IpSet => "ip_set",
            Facility::Conntrack => "nf_conntrack_netlink",
            Facility::Xfrm => "xfrm_user",
        }
    }

    /// How names of functions begin that only it has. Compilers may add to a name, or inline a
    /// function, so that a prefix of several is taken where there is one.
    fn symbol(self) -> &'static str {
        match self {
            Facility::NfTables => "nft_do_chain",
            Facility::NftCompat => "nfnl_compat_get",
            Facility::IpSet => "ip_set_test",
            Facility::Conntrack => "ctnetlink_",
            Facility::Xfrm => "xfrm_user_",
        }
    }
}

/// The names of loaded modules; none in a kernel without modules.
pub(super) fn loaded_modules() -> BTreeSet<String> {
    let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    modules.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// What is known of a facility.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presence {
    /// The kernel has it, built in or loaded.
    Here,
    /// It has not.
    NotHere,
    /// It can't be told.
    Unknown,
}

/// What the kernel has.
#[derive(Debug)]
pub(super) struct Kernel {
    facilities: BTreeSet<Facility>,
    /// Whether what is not among them is not there.
    complete: bool,
    /// The kernel's list of symbols.
    symbols: PathBuf,
}

/// Functions that attach BPF programs to tcx (kernel/bpf/tcx.c), to netkit devices
/// (drivers/net/netkit.c) and to the IP hooks (net/netfilter/nf_bpf_link.c). None of these is ever
/// a module.
const BPF_HOOKS: [&str; 5] = [
    "tcx_prog_attach",
    "tcx_link_attach",
    "netkit_prog_attach",
    "netkit_link_attach",
    "bpf_nf_link_attach",
];

impl Kernel {
    /// Looks at the running kernel.
    pub(super) fn observe() -> Kernel {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let builtin = format!("/lib/modules/{}/modules.builtin", release.trim());
        Kernel::from_files(
            Path::new("/proc/modules"),
            Path::new("/sys/module"),
            Path::new(&builtin),
            Path::new("/proc/kallsyms"),
        )
    }

    /// Whether it has a facility.
    pub(super) fn has(&self, facility: Facility) -> Presence {
        if self.facilities.contains(&facility) {
            Presence::Here
        } else if self.complete {
            Presence::NotHere
        } else {
            Presence::Unknown
        }
    }

    /// Whether BPF programs can be where only bpftool lists them.
    pub(super) fn bpf_hooks(&self) -> Presence {
        let mut found = false;
        let complete = each_symbol(&self.symbols, |name| {
            found |= BPF_HOOKS.iter().any(|hook| name.starts_with(hook.as_bytes()));
        });
        match (found, complete) {
            (true, _) => Presence::Here,
            (false, true) => Presence::NotHere,
            (false, false) => Presence::Unknown,
        }
    }

    /// Loaded modules are in /proc/modules, which a kernel without modules doesn't have. Built-in
    /// ones are in modules.builtin, which containers often lack, and in /sys/module if they have
    /// parameters. The kernel's list of symbols has all of either kind, but is longer to read.
    fn from_files(modules: &Path, sys: &Path, builtin: &Path, symbols: &Path) -> Kernel {
        let modules = std::fs::read_to_string(modules);
        let builtin = std::fs::read_to_string(builtin);
        let is_listed = |facility: &Facility| {
            let module = facility.module();
            let loaded =
                |text: &str| text.lines().any(|line| line.split(' ').next() == Some(module));
            let built_in = |text: &str| {
                let file = format!("/{module}.ko");
                text.lines().any(|line| line.ends_with(&file))
            };
            modules.as_deref().is_ok_and(loaded)
                || builtin.as_deref().is_ok_and(built_in)
                || sys.join(module).exists()
        };
        let mut facilities: BTreeSet<Facility> =
            Facility::ALL.into_iter().filter(is_listed).collect();
        let mut complete = modules.is_ok() && builtin.is_ok();
        if !complete && facilities.len() < Facility::ALL.len() {
            complete = each_symbol(symbols, |name| {
                let named = |facility: &Facility| name.starts_with(facility.symbol().as_bytes());
                facilities.extend(Facility::ALL.into_iter().filter(named));
            });
        }
        Kernel { facilities, complete, symbols: symbols.to_owned() }
    }
}

/// Lines are `address type name`, and `[module]` for those of modules. Whether the list could be
/// read to its end.
fn each_symbol(path: &Path, mut take: impl FnMut(&[u8])) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    let mut lines = 0_u32;
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => return lines > 0,
            Ok(_) => lines += 1,
            Err(_) => return false,
        }
        if let Some(name) = line.split(|byte| *byte == b' ').nth(2) {
            take(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn facilities_by_what_the_kernel_shows() {
        use Facility::{Conntrack, IpSet, NfTables, NftCompat, Xfrm};
        let place = tempfile::tempdir().unwrap();
        let [modules, sys, builtin, symbols] =
            ["modules", "sys", "builtin", "symbols"].map(|name| place.path().join(name));
        let check = |expected: [(Facility, Presence); 5]| {
            let kernel = Kernel::from_files(&modules, &sys, &builtin, &symbols);
            for (facility, presence) in expected {
                assert_eq!(kernel.has(facility), presence, "{facility:?}");
            }
        };
        let all = |presence: Presence| Facility::ALL.map(|f| (f, presence.clone()));
        let bpf_hooks = || Kernel::from_files(&modules, &sys, &builtin, &symbols).bpf_hooks();

        check(all(Presence::Unknown));
        assert_eq!(bpf_hooks(), Presence::Unknown);
        fs::write(&symbols, "").unwrap();
        check(all(Presence::Unknown));
        assert_eq!(bpf_hooks(), Presence::Unknown);
        for symbol in ["tcx_prog_attach", "netkit_link_attach.cfi", "bpf_nf_link_attach"] {
            fs::write(&symbols, format!("0 T start\n0 t {symbol}\n")).unwrap();
            assert_eq!(bpf_hooks(), Presence::Here, "{symbol}");
        }

        fs::write(
            &symbols,
            "0000000000000000 T nft_do_chain\n\
             0000000000000000 t ctnetlink_dump_acct.isra.0\t[nf_conntrack_netlink]\n\
             0000000000000000 t my_ip_set_test\n\
             0000000000000000 T netkit_peer_dev\n",
        )
        .unwrap();
        assert_eq!(bpf_hooks(), Presence::NotHere);
        let (here, not) = (Presence::Here, Presence::NotHere);
        check([
            (NfTables, here.clone()),
            (Conntrack, here.clone()),
            (NftCompat, not.clone()),
            (IpSet, not.clone()),
            (Xfrm, not.clone()),
        ]);

        fs::write(&modules, "ip_set_hash_ip 49152 0 - Live 0x0\nnft_compat 20480 9 - Live 0x0\n")
            .unwrap();
        fs::create_dir_all(sys.join("xfrm_user")).unwrap();
        fs::write(&builtin, "kernel/net/netfilter/nf_tables.ko\n").unwrap();
        check([
            (NfTables, here.clone()),
            (NftCompat, here.clone()),
            (Xfrm, here),
            (Conntrack, not.clone()),
            (IpSet, not),
        ]);
    }
}
