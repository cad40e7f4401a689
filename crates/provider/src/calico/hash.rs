//! The hashes in Felix's comments and chain names.
//!
//! In: a chain's name and its rules' text. Out: sixteen characters for each rule. Felix finds out
//! by them whether the kernel still has what it wrote, so a rule's hash also covers the rules
//! before it. Not for any other use of SHA-2.

/// The part of a rule's text for which `cali:…` stands (felix/generictables/rules.go, RuleHashes).
pub(super) fn rules(chain: &str, texts: &[String]) -> Vec<String> {
    let mut hash = sha224(chain.as_bytes());
    let mut hashes = Vec::new();
    for text in texts {
        let mut message = hash;
        message.extend_from_slice(format!("-A {chain} HASH {text}").as_bytes());
        hash = sha224(&message);
        hashes.push(base64(&hash).chars().take(16).collect());
    }
    hashes
}

/// The longest name that iptables takes (felix/iptables/table.go, MaxChainNameLength).
const MAX_CHAIN_NAME: usize = 28;

/// A chain's name, or if that is too long, a hash of its end (felix/hashutils/id.go).
pub(super) fn chain_name(prefix: &str, name: &str) -> String {
    let length = prefix.len() + name.len();
    if length < MAX_CHAIN_NAME || (length == MAX_CHAIN_NAME && !name.starts_with('_')) {
        return format!("{prefix}{name}");
    }
    let left = MAX_CHAIN_NAME.saturating_sub(1 + prefix.len());
    let hash: String = base64(&sha256(name.as_bytes())).chars().take(left).collect();
    format!("{prefix}_{hash}")
}

/// FIPS 180-4, 6.3.
fn sha224(message: &[u8]) -> Vec<u8> {
    let start = [
        0xc105_9ed8,
        0x367c_d507,
        0x3070_dd17,
        0xf70e_5939,
        0xffc0_0b31,
        0x6858_1511,
        0x64f9_8fa7,
        0xbefa_4fa4,
    ];
    let mut hash = sha2(start, message);
    hash.truncate(28);
    hash
}

/// FIPS 180-4, 6.2.
fn sha256(message: &[u8]) -> Vec<u8> {
    let start = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];
    sha2(start, message)
}

fn sha2(start: [u32; 8], message: &[u8]) -> Vec<u8> {
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - message.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let bits = (message.len() as u64).wrapping_mul(8).to_be_bytes();
    let end = padded.len() - bits.len();
    padded[end..].copy_from_slice(&bits);
    let state = padded.chunks_exact(64).fold(start, compress);
    state.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn compress(state: [u32; 8], block: &[u8]) -> [u32; 8] {
    let mut schedule = [0u32; 64];
    for (word, bytes) in schedule.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    for at in 16..64 {
        let (near, far) = (schedule[at - 2], schedule[at - 15]);
        let low = far.rotate_right(7) ^ far.rotate_right(18) ^ far >> 3;
        let high = near.rotate_right(17) ^ near.rotate_right(19) ^ near >> 10;
        schedule[at] =
            schedule[at - 16].wrapping_add(low).wrapping_add(schedule[at - 7]).wrapping_add(high);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    for (word, constant) in schedule.iter().zip(CONSTANTS) {
        let high = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let first = h
            .wrapping_add(high)
            .wrapping_add(e & f ^ !e & g)
            .wrapping_add(constant)
            .wrapping_add(*word);
        let low = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let second = low.wrapping_add(a & b ^ a & c ^ b & c);
        (h, g, f, e) = (g, f, e, d.wrapping_add(first));
        (d, c, b, a) = (c, b, a, first.wrapping_add(second));
    }
    let mut sum = state;
    for (word, more) in sum.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(more);
    }
    sum
}

#[rustfmt::skip]
const CONSTANTS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// The alphabet for URLs, without padding (RFC 4648, 5).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - three.len()));
        for at in 0..=three.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * at) & 0x3f) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// NIST's examples for FIPS 180-4, and lengths around the padding's edge.
    #[test]
    fn digests() {
        assert_eq!(
            hex(&sha224(b"abc")),
            "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"
        );
        assert_eq!(
            hex(&sha256(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(
            hex(&sha224(two_blocks)),
            "75388b16512776cc5dba5da1fd890150b0c6455cb4f58b1952522525"
        );
        assert_eq!(
            hex(&sha256(two_blocks)),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
        assert_eq!(
            hex(&sha256(b"")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    /// RFC 4648, 10, and the two characters that differ from the plain alphabet.
    #[test]
    fn base64_for_urls() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg"),
            (b"fooba", "Zm9vYmE"),
            (b"foobar", "Zm9vYmFy"),
            (&[0xfb, 0xff], "-_8"),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }

    /// A workload's chain as a node had it (spidernet-io/egressgateway issue 1863).
    #[test]
    fn hashes_of_a_real_chain() {
        let accepted = "-m mark --mark 0x10000/0x10000 --jump RETURN";
        let returns = format!("-m comment --comment \"Return if profile accepted\" {accepted}");
        let drops = |what: &str, rest: &str| {
            format!(
                "-m comment --comment \"Drop {what} encapped packets originating in workloads\" \
                 {rest} --jump DROP"
            )
        };
        let texts = [
            "-m conntrack --ctstate RELATED,ESTABLISHED --jump ACCEPT".into(),
            "-m conntrack --ctstate INVALID --jump DROP".into(),
            "--jump MARK --set-mark 0/0x30000".into(),
            drops("VXLAN", "-p 17 -m multiport --destination-ports 4789"),
            drops("IPinIP", "-p 4"),
            "--jump cali-pro-kns.kube-system".into(),
            returns.clone(),
            "--jump cali-pro-_GyLFhtf5u9n-v9Ckd7".into(),
            returns,
            "-m comment --comment \"Drop if no profiles matched\" --jump DROP".into(),
        ];
        let expected = [
            "ySzkd1VAHUDerKcY",
            "aMiWovnar4-W2K98",
            "C3WzUi97pbkkT5Ea",
            "YB5E-WSYMmL3TtQl",
            "qJKkTWFLSv8g7EBD",
            "9X0aFX7mmfq8XnRR",
            "sUZOlOXbn2mCFZwM",
            "CJGSolnMCLZiwgxe",
            "4Up-mK5VmG6Nd8D3",
            "16WCJOamRtLR1rtA",
        ];
        assert_eq!(rules("cali-fw-cali97f907a8190", &texts), expected);
    }

    /// The long name is of projectcalico/calico issue 3835.
    #[test]
    fn names_of_chains() {
        for (prefix, name, chain) in [
            ("cali-pro-", "kns.kube-system", "cali-pro-kns.kube-system"),
            ("cali-pro-", "ksa.kube-system.coredns", "cali-pro-_u2Tn2rSoAPffvE7JO6"),
            // As long as a name may be.
            ("cali-pro-", "kns.nineteen-chars1", "cali-pro-kns.nineteen-chars1"),
        ] {
            assert_eq!(chain_name(prefix, name), chain);
            assert!(chain.len() <= MAX_CHAIN_NAME);
        }
        // It could be taken for a shortened one.
        assert_ne!(chain_name("cali-pro-", "_ns.nineteen-chars1"), "cali-pro-_ns.nineteen-chars1");
    }
}
