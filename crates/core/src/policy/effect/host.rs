//! Hosts: names, addresses and ranges of addresses, each with one canonical form.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::malformed::Malformed;
use super::segments::{Segment, Segments};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host<'a> {
    Every,
    /// Labels of a name, in lower case; `*` and `**` may stand for some of them.
    Name(Segments<'a>),
    Network(Network),
}

/// Addresses with the same first `length` bits. An IPv4 address is the IPv6 address that it is mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) bits: u128,
    pub(super) length: u8,
}

/// `::ffff:0:0/96`, where IPv4 is mapped to.
const MAPPED: u128 = 0xffff << 32;
/// `64:ff9b::/96`, where NAT64 maps IPv4 to.
const NAT64: u128 = 0x0064_ff9b << 96;
/// `::ffff:0:0:0/96`, the IPv4 addresses of stateless translation (RFC 2765).
const TRANSLATED: u128 = 0xffff << 48;

impl Network {
    fn new(bits: u128, length: u8) -> Result<Self, Malformed> {
        let network = Network { bits, length };
        if network.first(length) != bits {
            return Err(Malformed::Network);
        }
        Ok(network)
    }

    fn v4(address: u32, length: u8) -> Result<Self, Malformed> {
        Network::new(MAPPED | u128::from(address), length + 96)
    }

    fn v6(address: Ipv6Addr, length: u8) -> Result<Self, Malformed> {
        let bits = address.to_bits();
        let (prefix, last) = (bits >> 32 << 32, bits as u32);
        // Addresses that stand for one of IPv4. `::` and `::1` do not.
        if length >= 96 && (prefix == NAT64 || prefix == TRANSLATED || (prefix == 0 && last > 1)) {
            return Network::v4(last, length - 96);
        }
        Network::new(bits, length)
    }

    fn is_v4(self) -> bool {
        self.length >= 96 && self.bits >> 32 << 32 == MAPPED
    }

    /// The first `length` bits of the addresses.
    pub(super) fn first(self, length: u8) -> u128 {
        match length {
            0 => 0,
            _ => self.bits & (u128::MAX << (128 - u32::from(length))),
        }
    }

    fn contains(self, other: Network) -> bool {
        self.length <= other.length && other.first(self.length) == self.bits
    }

    /// The IPv4 addresses that these addresses of IPv6 lead to, through tunnels and translators.
    fn carried(self) -> impl Iterator<Item = Network> {
        /// Prefix, its length, where the IPv4 address begins, and what it is XORed with.
        const CARRIERS: [(u128, u8, u8, u32); 4] = [
            // 6to4 (RFC 3056); the server and the client of Teredo (RFC 4380)
            (0x2002 << 112, 16, 16, 0),
            (0x2001 << 112, 32, 32, 0),
            (0x2001 << 112, 32, 96, u32::MAX),
            (NAT64, 96, 96, 0),
        ];
        let carriers = CARRIERS.into_iter().filter(move |(bits, length, ..)| {
            let prefix = Network { bits: *bits, length: *length };
            prefix.contains(self) || self.contains(prefix)
        });
        let isatap = self.length == 128 && matches!((self.bits >> 32) as u32, 0x5efe | 0x0200_5efe);
        carriers
            .map(move |(.., at, mask)| self.ipv4_at(at, mask))
            .chain(isatap.then(|| self.ipv4_at(96, 0)))
            .chain(self.translated_locally().into_iter().flatten())
    }

    /// As [`carried`](Self::carried), by translators with a prefix of 48, 56, 64 or 96 bits below `64:ff9b:1::/48` (RFC 8215),
    /// which put the address around an octet of zeros (RFC 6052).
    fn translated_locally(self) -> Option<[Network; 4]> {
        let local = Network { bits: 0x0064_ff9b_0001 << 80, length: 48 };
        let bits = |at: u8, count: u8| self.bits << at >> 1 >> (127 - count);
        let place = |at: u8| match 64 - at {
            // Of a range nothing is known.
            _ if self.length < 128 => Network { bits: MAPPED, length: 96 },
            before => Network { bits: MAPPED | bits(at, before) << (32 - before) | bits(72, 32 - before), length: 128 },
        };
        local.contains(self).then(|| [place(48), place(56), place(64), self.ipv4_at(96, 0)])
    }

    fn ipv4_at(self, at: u8, mask: u32) -> Network {
        let address = (self.bits >> (96 - at)) as u32 ^ mask;
        let length = 96 + self.length.saturating_sub(at).min(32);
        let bits = Network { bits: MAPPED | u128::from(address), length }.first(length);
        Network { bits, length }
    }
}

impl<'a> Host<'a> {
    pub(super) fn into_owned(self) -> Host<'static> {
        match self {
            Host::Every => Host::Every,
            Host::Name(labels) => Host::Name(labels.into_owned()),
            Host::Network(network) => Host::Network(network),
        }
    }

    /// `host[:port]`
    pub(super) fn parse(text: &'a str) -> Result<(Self, Option<u16>), Malformed> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').ok_or(Malformed::Host)?;
            let (after, port) = split_port(after);
            (Self::bracketed(inside, after)?, port)
        } else {
            let (host, port) = split_port(text);
            (Self::named(host)?, port)
        };
        let port = match port {
            None => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|port| *port != 0).ok_or(Malformed::Host)?)
            }
            Some(_) => return Err(Malformed::Host),
        };
        Ok((host, port))
    }

    /// An IPv6 address, whose length of a range stands within the brackets or after them.
    fn bracketed(inside: &str, after: &str) -> Result<Self, Malformed> {
        let (address, length) = match (inside.split_once('/'), after.strip_prefix('/')) {
            (Some((address, length)), None) if after.is_empty() => (address, Some(length)),
            (None, Some(length)) => (inside, Some(length)),
            (None, None) if after.is_empty() => (inside, None),
            _ => return Err(Malformed::Host),
        };
        let address: Ipv6Addr = address.parse().map_err(|_| Malformed::Host)?;
        Network::v6(address, prefix_length(length, 128)?).map(Host::Network)
    }

    fn named(text: &'a str) -> Result<Self, Malformed> {
        let (name, length) = match text.split_once('/') {
            Some((name, length)) => (name, Some(length)),
            None => (text, None),
        };
        let host = match canonical_name(name)? {
            Cow::Borrowed(name) => Self::labels(name, length)?,
            Cow::Owned(name) => Host::labels(&name, length)?.into_owned(),
        };
        Ok(host)
    }

    fn labels(name: &'a str, length: Option<&str>) -> Result<Self, Malformed> {
        if name == "**" && length.is_none() {
            return Ok(Host::Every);
        }
        if let Some(network) = ipv4(name, length)? {
            return Ok(Host::Network(network));
        }
        if length.is_some() {
            return Err(Malformed::Host);
        }
        let (lead, rest) = match name.strip_prefix("**.") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        Ok(Host::Name(Segments { lead, ..Segments::parse(rest.split('.'))? }))
    }

    /// What a rule that denies means: a `*` at the beginning or the end stands for one label or more.
    pub(super) fn widened(self) -> Self {
        match self {
            Host::Name(labels) if labels.only_wildcards() => Host::Every,
            Host::Name(labels) => {
                let lead = labels.lead || labels.head.first() == Some(&Segment::One);
                let any = labels.any || labels.ends_with_wildcard();
                Host::Name(Segments { lead, any, ..labels })
            }
            other => other,
        }
    }

    pub(super) fn covers(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Host::Every, _) => true,
            (Host::Name(a), Host::Name(b)) => a.covers(b),
            // All of IPv6 is not meant to be IPv4 too.
            (Host::Network(a), Host::Network(b)) => a.is_v4() == b.is_v4() && a.contains(*b),
            _ => false,
        }
    }

    /// `other` is what is asked for: IPv6 that leads to IPv4 meets a rule about that, and not the other way round.
    pub(super) fn overlaps(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Host::Every, _) | (_, Host::Every) => true,
            (Host::Name(a), Host::Name(b)) => a.overlaps(b),
            (Host::Network(a), Host::Network(b)) => {
                a.contains(*b) || b.contains(*a) || (!b.is_v4() && b.carried().any(|b| a.contains(b) || b.contains(*a)))
            }
            // Who asks for `*.*.*.*` may mean addresses.
            (Host::Name(name), Host::Network(_)) | (Host::Network(_), Host::Name(name)) => name.only_wildcards(),
        }
    }
}

fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

/// The number of bits behind the slash; all of them without one.
fn prefix_length(text: Option<&str>, all: u8) -> Result<u8, Malformed> {
    match text {
        None => Ok(all),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0')) => {
            digits.parse().ok().filter(|length| *length <= all).ok_or(Malformed::Network)
        }
        Some(_) => Err(Malformed::Host),
    }
}

/// Lower case, without the root's dot, in the form that is looked up (IDNA).
fn canonical_name(name: &str) -> Result<Cow<'_, str>, Malformed> {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*');
    let has_hyphen = name.bytes().any(|b| b == b'-');
    let name = if name.bytes().all(plain) && !(has_hyphen && name.contains("xn--")) {
        Cow::Borrowed(name)
    } else {
        let ascii = Uts46::new()
            .to_ascii(name.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore)
            .map_err(|_| Malformed::Host)?
            .into_owned();
        if !ascii.bytes().all(plain) {
            return Err(Malformed::Host);
        }
        Cow::Owned(ascii)
    };
    let label = |label: &str| label.len() < 64 && !label.starts_with('-') && !label.ends_with('-');
    if (has_hyphen || matches!(name, Cow::Owned(_)) || name.len() > 63) && !name.split('.').all(label) {
        return Err(Malformed::Host);
    }
    match name.ends_with('.') {
        false if name.is_empty() => Err(Malformed::Host),
        false => Ok(name),
        true => match name {
            Cow::Borrowed(name) => Ok(Cow::Borrowed(&name[..name.len() - 1])),
            Cow::Owned(mut name) => {
                name.pop();
                Ok(Cow::Owned(name))
            }
        },
    }
}

/// The IPv4 address or range that a name is, as programs read it: up to four numbers, decimal or hexadecimal, the last of
/// which fills what is left; or four parts, the last of them `*`.
fn ipv4(name: &str, length: Option<&str>) -> Result<Option<Network>, Malformed> {
    let is_wild = |part: &str| matches!(part, "*" | "**");
    let last = name.rsplit('.').next().unwrap_or_default();
    if !is_number(last) && !is_wild(last) {
        return Ok(None);
    }
    let parts: Vec<&str> = name.split('.').collect();
    let fixed = parts.iter().take_while(|part| is_number(part)).count();
    // A name may end with a wildcard, but not with a number, and numbers with wildcards are not part of a name.
    if is_wild(last)
        && (parts.iter().any(|part| !is_number(part) && !is_wild(part)) || !parts.iter().any(|p| is_number(p)))
    {
        return Ok(None);
    }
    let wild = &parts[fixed..];
    if parts.len() > 4 || wild.iter().any(|part| *part != "*") {
        return Err(Malformed::Address);
    }
    if !wild.is_empty() && (parts.len() != 4 || length.is_some()) {
        return Err(Malformed::Address);
    }
    let mut address: u32 = 0;
    for (i, part) in parts[..fixed].iter().enumerate() {
        let number = number(part)?;
        if i + 1 < parts.len() {
            let octet = u8::try_from(number).map_err(|_| Malformed::Address)?;
            address |= u32::from(octet) << (24 - 8 * i);
        } else if i > 0 && number >> (8 * (4 - i)) != 0 {
            return Err(Malformed::Address);
        } else {
            address |= number;
        }
    }
    let length = match length {
        _ if !wild.is_empty() => 8 * fixed as u8,
        length => prefix_length(length, 32)?,
    };
    Network::v4(address, length).map(Some)
}

fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit()),
    }
}

fn number(label: &str) -> Result<u32, Malformed> {
    match label.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).map_err(|_| Malformed::Address),
        // 010 is 8 to some programs and 10 to others.
        None if label.len() > 1 && label.starts_with('0') => Err(Malformed::LeadingZero),
        None => label.parse().map_err(|_| Malformed::Address),
    }
}
