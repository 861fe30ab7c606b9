//! The settings of a site of a mirror: all that it needs, or none.

use super::ServeOptions;
use crate::address::Address;
use crate::failure::Failure;
use blockd::mirror::SITE_MAX;
use link::{TlsFiles, Trust};
use std::net::SocketAddr;
use units::SiteId;
use witness::{AddressError, WitnessAddress};

/// What a site of a mirror is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MirrorSettings {
    pub(crate) site: SiteId,
    pub(crate) peer: SiteId,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) peer_address: Option<Address>,
    pub(crate) tls: TlsFiles,
    pub(crate) witness: WitnessAddress,
    pub(crate) passes_on: bool,
}

impl ServeOptions {
    /// The site that this one is to be; nothing where no setting speaks of one.
    pub(super) fn mirror_settings(&self) -> Result<Option<MirrorSettings>, Failure> {
        let Some(site) = self.site else { return self.without_site() };
        let site = site_number("site", site)?;
        let peer = self.peer_site.ok_or_else(|| missing("--peer-site N, the number of the other site"))?;
        let peer = site_number("peer-site", peer)?;
        if site == peer {
            let detail = format!("site and peer-site are both {site}: give each site a number of its own");
            return Err(Failure::usage(detail));
        }
        if self.mirror_listen.is_none() && self.mirror_peer.is_none() {
            let what = "--mirror-listen IP:PORT where the other site can connect to, --mirror-peer HOST:PORT where it \
                        listens, or both";
            return Err(missing(what));
        }
        Ok(Some(MirrorSettings {
            site,
            peer,
            listen: self.mirror_listen.as_deref().map(own_address).transpose()?,
            peer_address: self.mirror_peer.as_deref().map(peer_address).transpose()?,
            tls: self.mirror_tls()?,
            witness: witness_address(self.witness.as_deref())?,
            passes_on: self.mirror_pass_on.unwrap_or(false),
        }))
    }

    /// Refuses what only a site of a mirror can be told.
    fn without_site(&self) -> Result<Option<MirrorSettings>, Failure> {
        let given = [
            ("peer-site", self.peer_site.is_some()),
            ("mirror-listen", self.mirror_listen.is_some()),
            ("mirror-peer", self.mirror_peer.is_some()),
            ("mirror-cert", self.mirror_cert.is_some()),
            ("mirror-key", self.mirror_key.is_some()),
            ("mirror-ca", self.mirror_ca.is_some()),
            ("mirror-pin", self.mirror_pin.is_some()),
            ("mirror-pass-on", self.mirror_pass_on.is_some()),
            ("witness", self.witness.is_some()),
        ];
        let Some((name, _)) = given.into_iter().find(|(_, is_given)| *is_given) else { return Ok(None) };
        let detail = format!("{name} is given without site: say by --site N which site this is, or leave {name} out");
        Err(Failure::usage(detail))
    }

    fn mirror_tls(&self) -> Result<TlsFiles, Failure> {
        let unknown = || missing("--mirror-cert FILE and --mirror-key FILE, which the other site knows this one by");
        let certificate = self.mirror_cert.clone().ok_or_else(unknown)?;
        let key = self.mirror_key.clone().ok_or_else(unknown)?;
        let trust = match (self.mirror_ca.clone(), self.mirror_pin.clone()) {
            (Some(authorities), None) => Trust::Authority(authorities),
            (None, Some(pinned)) => Trust::Pinned(pinned),
            (None, None) => {
                return Err(missing("--mirror-ca FILE or --mirror-pin FILE, which the other site is known by"));
            }
            (Some(_), Some(_)) => {
                let detail = "mirror-ca and mirror-pin are both given: the other site is known by one of them, leave the \
                              other one out";
                return Err(Failure::usage(detail));
            }
        };
        Ok(TlsFiles { certificate, key, trust })
    }
}

/// A setting that a site of a mirror needs.
fn missing(what: &str) -> Failure {
    Failure::usage(format!("site is given, so a setting is missing: add {what}"))
}

fn site_number(name: &str, number: u8) -> Result<SiteId, Failure> {
    if (1..=SITE_MAX).contains(&number) {
        return Ok(SiteId(number));
    }
    Err(Failure::usage(format!("{name} is {number}: it must be 1 to {SITE_MAX}")))
}

fn own_address(text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|_| {
        let detail = format!(
            "mirror-listen is {text:?}: write an address of this machine in numbers and a port, such as 10.0.0.1:9450 or \
             [fd00::1]:9450"
        );
        Failure::usage(detail)
    })
}

fn peer_address(text: &str) -> Result<Address, Failure> {
    match text.parse() {
        Ok(address @ Address::Tcp { port: 1.., .. }) => Ok(address),
        Ok(Address::Tcp { .. } | Address::Unix(_)) | Err(_) => {
            let detail =
                format!("mirror-peer is {text:?}: write HOST:PORT or [IPV6]:PORT, where the other site listens");
            Err(Failure::usage(detail))
        }
    }
}

fn witness_address(text: Option<&str>) -> Result<WitnessAddress, Failure> {
    let text = text.ok_or_else(|| missing("--witness URL, which decides which site is primary"))?;
    text.parse().map_err(|error: AddressError| Failure::usage(format!("witness: {error}")))
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::super::tests::{flags, refusal, resolve};
    use super::*;

    /// All that a site needs, but for one setting.
    fn without(left_out: &str) -> String {
        let all = [
            "--site 1",
            "--peer-site 2",
            "--mirror-listen 10.0.0.1:9450",
            "--mirror-peer b.example:9450",
            "--mirror-cert c",
            "--mirror-key k",
            "--mirror-ca a",
            "--witness register:/run/w.sock",
        ];
        let kept = all.into_iter().filter(|flag| flag.split(' ').next() != Some(left_out));
        ["--data /d"].into_iter().chain(kept).collect::<Vec<_>>().join(" ")
    }

    fn mirror(line: &str) -> MirrorSettings {
        Settings::resolve(flags(line)).unwrap().mirror.unwrap()
    }

    #[test]
    fn a_site_is_told_all_that_it_needs() {
        let site = mirror(&without("nothing"));
        assert_eq!((site.site, site.peer), (SiteId(1), SiteId(2)));
        assert_eq!(site.listen, Some("10.0.0.1:9450".parse().unwrap()));
        assert_eq!(site.peer_address.map(|address| address.to_string()), Some("b.example:9450".to_owned()));
        assert_eq!(site.tls.trust, Trust::Authority("a".into()));
        assert_eq!(site.witness, WitnessAddress::Register("/run/w.sock".into()));
        assert_eq!(mirror(&without("--mirror-listen")).listen, None);
        assert_eq!(mirror(&without("--mirror-peer")).peer_address, None);
        let pinned = mirror(&(without("--mirror-ca") + " --mirror-pin p"));
        assert_eq!(pinned.tls.trust, Trust::Pinned("p".into()));
        assert!(!site.passes_on && mirror(&(without("nothing") + " --mirror-pass-on")).passes_on);
    }

    #[test]
    fn a_site_may_be_told_by_the_file() {
        let file = "site = 2\npeer-site = 1\nmirror-listen = '[::1]:1'\nmirror-peer = '[fd00::1]:9450'\nmirror-cert = 'c'\n\
                    mirror-key = 'k'\nmirror-pin = 'p'\nwitness = 'etcd://h1,h2,h3'\n";
        let site = resolve("--data /d --peer-site 3", file).unwrap().mirror.unwrap();
        assert_eq!((site.site, site.peer), (SiteId(2), SiteId(3)));
        assert_eq!(site.peer_address.map(|address| address.to_string()), Some("[fd00::1]:9450".to_owned()));
    }

    #[test]
    fn what_a_site_lacks_is_named() {
        for (left_out, named) in [
            ("--site", "peer-site is given without site"),
            ("--peer-site", "add --peer-site N"),
            ("--mirror-cert", "add --mirror-cert FILE"),
            ("--mirror-key", "--mirror-key FILE"),
            ("--mirror-ca", "--mirror-pin FILE"),
            ("--witness", "--witness URL"),
        ] {
            assert!(refusal(&without(left_out), "").contains(named), "{left_out}");
        }
        let deaf = without("--mirror-listen").replace("--mirror-peer b.example:9450", "");
        assert!(refusal(&deaf, "").contains("--mirror-listen IP:PORT"));
        for alone in [
            "peer-site = 2",
            "mirror-listen = 'x'",
            "mirror-peer = 'x'",
            "mirror-cert = 'x'",
            "mirror-key = 'x'",
            "mirror-ca = 'x'",
            "mirror-pin = 'x'",
            "witness = 'x'",
        ] {
            assert!(refusal("--data /d", alone).contains("--site N"), "{alone}");
        }
    }

    #[test]
    fn what_no_site_can_be_told_is_refused() {
        for (left_out, given, named) in [
            ("--site", "--site 0", "site is 0: it must be 1 to 3"),
            ("--peer-site", "--peer-site 16", "peer-site is 16"),
            ("--peer-site", "--peer-site 1", "a number of its own"),
            ("--mirror-listen", "--mirror-listen localhost:9450", "in numbers"),
            ("--mirror-listen", "--mirror-listen 10.0.0.1", "in numbers"),
            ("--mirror-peer", "--mirror-peer b.example", "HOST:PORT"),
            ("--mirror-peer", "--mirror-peer b.example:0", "HOST:PORT"),
            ("--mirror-peer", "--mirror-peer unix:/s", "HOST:PORT"),
            ("--mirror-pin", "--mirror-pin p", "leave the other one out"),
            ("--witness", "--witness http://h", "etcd://"),
        ] {
            let refused = refusal(&format!("{} {given}", without(left_out)), "");
            assert!(refused.contains(named), "{given}: {refused}");
        }
    }
}
