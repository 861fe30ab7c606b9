//! Who may enter a tenant's exports.
//!
//! The default tenant's are for everybody who reaches the daemon. Another tenant's are for nobody until it is said for whom, and
//! any one of these is enough: a client certificate, which the daemon's authority has signed and which is told by the SHA-256 of it; the
//! tenant's own Unix socket, on which the system's permissions decide; an address from which it comes. The daemon's own user, and
//! root, could read the pool itself, and may enter by any Unix socket. To everybody else the exports are as if they were not there.

use super::record::TenantRecord;
use super::shelf::Shelf;
use super::tenants::Made;
use super::{Catalogue, CatalogueError, DEFAULT_TENANT, Tenant};
use crate::listener::{Client, Entrance};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use units::TenantId;

/// Most certificates, and most networks, of a tenant: so many fit in its record.
pub const ACCESS_RULES_MAX: usize = 24;

/// Bytes of a SHA-256.
const FINGERPRINT_BYTES: usize = 32;

/// Bits before an address of IPv4 in one of IPv6. RFC 4291 2.5.5.2.
const MAPPED_PREFIX: u8 = 96;

/// Who may enter a tenant's exports: whom any of these rules lets in. Without any it is nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Access {
    /// Whoever has one of these certificates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Fingerprint>,
    /// Whoever comes from one of these networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// Whoever may open the tenant's socket, when there is to be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<SocketAccess>,
}

/// A tenant's own Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SocketAccess {
    /// The number of the group whose members may open it; without one, that which the system gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

impl SocketAccess {
    /// Whoever may open it: the folder's group where `gid` names none.
    ///
    /// # Errors
    /// The number by which the system leaves a group as it is (chown(2)).
    pub const fn new(gid: Option<u32>) -> Result<Self, InvalidRule> {
        match gid {
            Some(u32::MAX) => Err(InvalidRule::Group),
            gid => Ok(Self { gid }),
        }
    }
}

/// The SHA-256 of a certificate. As text, 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; FINGERPRINT_BYTES]);

/// Addresses that begin alike. As text, `10.0.0.0/8`, or an address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// No fingerprint.
    #[error("{0:?} is no fingerprint: write the SHA-256 of the certificate, 64 hexadecimal digits")]
    Fingerprint(String),
    /// No network.
    #[error("{0:?} is no network: write one such as 10.0.0.0/8 or 2001:db8::/32, or one address")]
    Network(String),
    /// The number that stands for no group.
    #[error("{} is no group: write a smaller number", u32::MAX)]
    Group,
    /// An address of a network is not its first.
    #[error("{0:?} has bits behind its prefix: write {1}")]
    NotFirst(String, Network),
}

impl Fingerprint {
    /// Of a certificate, in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let mut hash = [0; FINGERPRINT_BYTES];
        hash.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate).as_ref());
        Self(hash)
    }
}

/// Reads what `openssl x509 -fingerprint -sha256` shows, with colons or without.
impl FromStr for Fingerprint {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let refused = || InvalidRule::Fingerprint(text.to_owned());
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let mut hash = [0; FINGERPRINT_BYTES];
        if digits.len() != 2 * hash.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(refused());
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refused())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refused())?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Network {
    /// Whether an address is one of it. Those of IPv4 and IPv6 are never alike, but for one of IPv4 in one of IPv6, which is as
    /// that of IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, bits) = number(self.address);
        let (other, other_bits) = number(address.to_canonical());
        let behind = u32::from(bits.saturating_sub(self.prefix));
        bits == other_bits && (own ^ other).checked_shr(behind).unwrap_or(0) == 0
    }

    fn first(self) -> Self {
        let (number, bits) = number(self.address);
        let behind = u32::from(bits.saturating_sub(self.prefix));
        let first = number.checked_shr(behind).and_then(|number| number.checked_shl(behind)).unwrap_or(0);
        let address = match self.address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(first).unwrap_or(0).into()),
            IpAddr::V6(_) => IpAddr::V6(first.into()),
        };
        Self { address, ..self }
    }
}

/// An address as a number of so many bits.
fn number(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

impl FromStr for Network {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let refused = || InvalidRule::Network(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let (_, bits) = number(address);
        let is_number = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = match prefix {
            Some(text) => Some(text).filter(is_number).and_then(|text| text.parse().ok()).ok_or_else(refused)?,
            None => bits,
        };
        let canonical = address.to_canonical();
        let prefix = if canonical == address { Some(prefix) } else { prefix.checked_sub(MAPPED_PREFIX) };
        let network = Self { address: canonical, prefix: prefix.ok_or_else(refused)? };
        if network.prefix > number(canonical).1 {
            return Err(refused());
        }
        let first = network.first();
        if first == network { Ok(network) } else { Err(InvalidRule::NotFirst(text.to_owned(), first)) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = InvalidRule;

    fn try_from(text: String) -> Result<Self, InvalidRule> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for Network {
    type Error = InvalidRule;

    fn try_from(text: String) -> Result<Self, InvalidRule> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl Access {
    /// Whether a client may enter, who has not come by the tenant's own socket.
    fn admits(&self, client: &Client) -> bool {
        let by_address = match client.entrance {
            Entrance::Network(address) => self.networks.iter().any(|network| network.contains(address)),
            Entrance::Socket { is_own_user } => is_own_user,
            Entrance::TenantSocket(_) => false,
        };
        let is_certified = || {
            let certificate = client.certificate.as_ref().map(|certificate| Fingerprint::of(certificate));
            certificate.is_some_and(|certificate| self.certificates.contains(&certificate))
        };
        by_address || is_certified()
    }
}

impl Shelf {
    /// Whether a client may enter the exports of the tenant of that name.
    pub(super) fn admits(&self, tenant: &str, client: &Client) -> bool {
        let record = self.tenants.get(tenant);
        match client.entrance {
            Entrance::TenantSocket(of) => {
                record.is_some_and(|record| record.number == of.0 && record.access.socket.is_some())
            }
            // One whose record has rotted lets in whoever could read the pool.
            Entrance::Network(_) | Entrance::Socket { .. } => {
                let nobody = Access::default();
                tenant == DEFAULT_TENANT || record.map_or(&nobody, |record| &record.access).admits(client)
            }
        }
    }

    /// Tenants that have a socket of their own.
    fn socket_tenants(&self) -> TenantSockets {
        let of = |(name, record): (&String, &TenantRecord)| {
            Some((TenantId(record.number), (name.clone(), record.access.socket?)))
        };
        self.tenants.iter().filter_map(of).collect()
    }
}

/// The tenants that have a socket of their own: their names, and how it is to be.
pub type TenantSockets = BTreeMap<TenantId, (String, SocketAccess)>;

impl Catalogue {
    /// Says who may enter a tenant's exports, in place of what was said before. Who is attached stays so, unless `cuts_off`: then
    /// all of the tenant's clients are cut off, and those who still may come anew.
    ///
    /// # Errors
    /// As of [`Catalogue::set_quota`]; [`CatalogueError::Request`] for more rules than [`ACCESS_RULES_MAX`]. After
    /// [`CatalogueError::Ended`] nobody else is let in, and clients may still be there.
    pub async fn set_access(&self, name: &str, access: Access, cuts_off: bool) -> Result<Tenant, CatalogueError> {
        if access.certificates.len() > ACCESS_RULES_MAX || access.networks.len() > ACCESS_RULES_MAX {
            let detail = format!("a tenant has {ACCESS_RULES_MAX} certificates and as many networks at most");
            return Err(CatalogueError::Request(detail));
        }
        if self.change_tenant(name, |record| record.access = access.clone()).await? == Made::Trial {
            return Ok(Tenant { access, ..self.show_tenant(name)? });
        }
        self.tell_sockets();
        if cuts_off {
            self.cut_off_tenant(name).await?;
        }
        tracing::info!(tenant = name, cuts_off, "said who may enter the exports of a tenant");
        self.show_tenant(name)
    }

    /// Tells which tenants have a socket of their own, whenever that changes.
    #[must_use]
    pub fn tenant_sockets(&self) -> tokio::sync::watch::Receiver<TenantSockets> {
        self.tell_sockets();
        self.sockets.subscribe()
    }

    /// Tells who watches, when there is something new.
    pub(super) fn tell_sockets(&self) {
        self.sockets.send_if_modified(|known| {
            // Looked at while they are locked, so that the last to look tells the newest.
            let now = self.read().socket_tenants();
            let is_new = *known != now;
            *known = now;
            is_new
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    /// P8. A network has the addresses that begin like it, to the bit, and no others.
    #[test]
    fn a_network_has_what_begins_like_it() {
        let contains = |text: &str, address: &str| network(text).contains(address.parse().unwrap());
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.1.2.128/25", "10.1.2.128", "10.1.2.127"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.2"),
            ("0.0.0.0/0", "255.0.0.1", "2001:db8::1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
            ("::1", "::1", "::2"),
            ("::/0", "fe80::1", "10.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::ffff:11.1.1.1"),
            ("::ffff:10.0.0.0/104", "10.1.1.1", "::10.1.1.1"),
            ("::/0", "::10.1.1.1", "::ffff:10.1.1.1"),
        ] {
            assert!(contains(text, inside), "{inside} in {text}");
            assert!(!contains(text, outside), "{outside} in {text}");
        }
    }

    #[test]
    fn rules_are_read_as_they_are_shown() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::/0", "10.1.2.3/32"] {
            assert_eq!(network(text).to_string(), text);
        }
        assert_eq!(network("::ffff:10.0.0.0/104").to_string(), "10.0.0.0/8");
        let fingerprint: Fingerprint = DIGITS.parse().unwrap();
        assert_eq!(fingerprint.to_string(), DIGITS);
        let pairs: Vec<String> =
            DIGITS.to_uppercase().as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into()).collect();
        assert_eq!(pairs.join(":").parse(), Ok(fingerprint));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "::ffff:0:0/95",
            "host",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(text.parse::<Network>(), Err(InvalidRule::Network(text.to_owned())), "{text}");
        }
        let told = "10.0.0.1/8".parse::<Network>().unwrap_err().to_string();
        assert!(told.ends_with("write 10.0.0.0/8"), "{told}");
        assert!("2001:db8::1/0".parse::<Network>().unwrap_err().to_string().ends_with("write ::/0"));
        for text in ["", &DIGITS[1..], &DIGITS.replace('a', "x"), &format!("{DIGITS}00"), "\u{e9}"] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
