//! How a witness is named on a command line:
//!
//! ```text
//! etcd://HOST[:PORT],HOST[:PORT],.../PREFIX
//! etcds://HOST[:PORT],.../PREFIX?ca=FILE&cert=FILE&key=FILE      over TLS
//! register:/PATH/OF/SOCKET
//! ```

use crate::etcd::{ENDPOINTS_MAX, EtcdConfig, HostPort, PREFIX_BYTES_MAX};
use certificates::ClientFiles;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// The prefix of keys where nothing else is said.
const PREFIX: &str = "aljibe/mirror";

/// The port where nothing else is said.
const PORT: u16 = 2379;

/// Longest name of a host that DNS has.
const HOST_BYTES_MAX: usize = 253;

/// Longest path of a socket that the kernel takes, with its final zero.
const SOCKET_PATH_BYTES_MAX: usize = 108;

/// Which witness is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessAddress {
    /// An etcd cluster.
    Etcd(EtcdConfig),
    /// The socket of a register on this machine.
    Register(PathBuf),
}

/// Why a text names no witness.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is no witness: {reason}; write etcd://HOST:PORT,HOST:PORT/PREFIX, \
     etcds://HOST:PORT,HOST:PORT/PREFIX?ca=FILE&cert=FILE&key=FILE, or register:/PATH/OF/SOCKET"
)]
pub struct AddressError {
    text: String,
    reason: String,
}

impl FromStr for WitnessAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refused = |reason: String| AddressError { text: text.to_owned(), reason };
        let (scheme, rest) = text.split_once(':').ok_or_else(|| refused("it has no scheme".to_owned()))?;
        let etcd = || {
            rest.strip_prefix("//")
                .ok_or_else(|| refused(format!("after {scheme:?} comes :// and the cluster's members")))
        };
        match scheme {
            "register" => socket(rest).map(Self::Register),
            "etcd" => cluster(etcd()?, false).map(Self::Etcd),
            "etcds" => cluster(etcd()?, true).map(Self::Etcd),
            _ => Err(format!("there is no witness of the kind {scheme:?}")),
        }
        .map_err(refused)
    }
}

impl fmt::Display for WitnessAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(path) => write!(f, "register:{}", path.display()),
            Self::Etcd(config) => {
                let endpoints: Vec<String> = config.endpoints.iter().map(ToString::to_string).collect();
                let scheme = if config.tls.is_some() { "etcds" } else { "etcd" };
                write!(f, "{scheme}://{}/{}", endpoints.join(","), config.prefix)?;
                let Some(tls) = &config.tls else { return Ok(()) };
                write!(f, "?ca={}", tls.authorities.display())?;
                match &tls.identity {
                    Some((certificate, key)) => write!(f, "&cert={}&key={}", certificate.display(), key.display()),
                    None => Ok(()),
                }
            }
        }
    }
}

fn socket(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} is not the whole path of a socket, which begins with /"));
    }
    if path.len() >= SOCKET_PATH_BYTES_MAX {
        return Err(format!("a socket's path has less than {SOCKET_PATH_BYTES_MAX} bytes, this one {}", path.len()));
    }
    Ok(path.into())
}

fn cluster(text: &str, is_tls: bool) -> Result<EtcdConfig, String> {
    let (rest, query) = text.split_once('?').map_or((text, None), |(rest, query)| (rest, Some(query)));
    let (members, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let mut endpoints: Vec<HostPort> = Vec::new();
    for member in members.split(',') {
        let endpoint = host_and_port(member)?;
        if endpoints.contains(&endpoint) {
            return Err(format!("{endpoint} is named twice"));
        }
        endpoints.push(endpoint);
    }
    if endpoints.len() > ENDPOINTS_MAX {
        return Err(format!("it names {} members, at most {ENDPOINTS_MAX}", endpoints.len()));
    }
    let tls = tls(query.unwrap_or_default(), is_tls)?;
    Ok(EtcdConfig { endpoints, prefix: prefix_of(prefix)?, tls })
}

/// Characters that mean themselves in a key and on every command line.
fn prefix_of(text: &str) -> Result<String, String> {
    let prefix = text.strip_suffix('/').unwrap_or(text);
    if prefix.is_empty() {
        return Ok(PREFIX.to_owned());
    }
    if prefix.len() > PREFIX_BYTES_MAX {
        return Err(format!("the prefix of keys has at most {PREFIX_BYTES_MAX} bytes"));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if prefix.split('/').any(|part| part.is_empty() || !part.chars().all(is_plain)) {
        return Err(format!(
            "the prefix {prefix:?} is not words of letters, digits, '-', '_' and '.' with '/' between"
        ));
    }
    Ok(prefix.to_owned())
}

fn host_and_port(text: &str) -> Result<HostPort, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(|| format!("{text:?} lacks its ']'"))?;
            let _: std::net::Ipv6Addr = host.parse().map_err(|_| format!("{host:?} is no IPv6 address"))?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or_else(|| format!("after ']' of {text:?} comes :PORT"))?),
            };
            (host, port)
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if host.is_empty() {
        return Err("a member's host is missing".to_owned());
    }
    if host.len() > HOST_BYTES_MAX || !host.chars().all(is_letter) {
        return Err(format!("{host:?} is no name or address of a host"));
    }
    let is_number = |port: &&str| port.chars().all(|c| c.is_ascii_digit());
    let port = match port {
        None => PORT,
        Some(port) => Some(port)
            .filter(is_number)
            .and_then(|port| port.parse().ok())
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("{port:?} is no port of {host}: an IPv6 address stands in brackets"))?,
    };
    Ok(HostPort { host: host.to_ascii_lowercase(), port })
}

fn tls(query: &str, is_tls: bool) -> Result<Option<ClientFiles>, String> {
    let (mut ca, mut cert, mut key) = (None, None, None);
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let place = match name {
            "ca" => &mut ca,
            "cert" => &mut cert,
            "key" => &mut key,
            _ => return Err(format!("there is no parameter {name:?}: there are ca, cert and key")),
        };
        if !is_tls {
            return Err(format!("{name} is for TLS: the scheme of that is etcds"));
        }
        if value.is_empty() {
            return Err(format!("{name} names no file"));
        }
        if place.replace(PathBuf::from(value)).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    if !is_tls {
        return Ok(None);
    }
    let authorities = ca.ok_or("etcds wants ca=FILE, the authority of the members' certificates")?;
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => return Err("cert wants key, the key of that certificate".to_owned()),
        (None, Some(_)) => return Err("key wants cert, the certificate of that key".to_owned()),
    };
    Ok(Some(ClientFiles { authorities, identity }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> WitnessAddress {
        text.parse().unwrap()
    }

    fn host(host: &str, port: u16) -> HostPort {
        HostPort { host: host.to_owned(), port }
    }

    /// P4. Each form is read, with what is left out, and shown as what is read again.
    #[test]
    fn each_form_is_read() {
        let plain = read("etcd://h1,h2:1234,[::1],[fd00::2]:99");
        let WitnessAddress::Etcd(config) = &plain else { panic!("{plain}") };
        assert_eq!(config.endpoints, [host("h1", 2379), host("h2", 1234), host("::1", 2379), host("fd00::2", 99)]);
        assert_eq!((config.prefix.as_str(), &config.tls), ("aljibe/mirror", &None));
        let whole = read("etcds://H1:2379/my/place/?ca=/a/ca.pem&key=/a/k&cert=/a/c");
        let WitnessAddress::Etcd(config) = &whole else { panic!("{whole}") };
        assert_eq!((config.endpoints.as_slice(), config.prefix.as_str()), (&[host("h1", 2379)][..], "my/place"));
        let identity = Some(("/a/c".into(), "/a/k".into()));
        assert_eq!(config.tls, Some(ClientFiles { authorities: "/a/ca.pem".into(), identity }));
        assert_eq!(read("register:/run/w.sock"), WitnessAddress::Register("/run/w.sock".into()));
        for address in [plain, whole, read("register:/run/w.sock"), read("etcds://h?ca=c")] {
            assert_eq!(read(&address.to_string()), address);
        }
    }

    /// P4. What is wrong is named.
    #[test]
    fn what_is_wrong_is_named() {
        let long = format!("register:/{}", "x".repeat(108));
        for (text, reason) in [
            ("h1:2379", "no witness of the kind \"h1\""),
            ("etcd", "no scheme"),
            ("http://h1", "no witness of the kind \"http\""),
            ("etcd:h1", "comes ://"),
            ("etcd://", "host is missing"),
            ("etcd://h1,,h2", "host is missing"),
            ("etcd://h1,h1:2379", "h1:2379 is named twice"),
            ("etcd://h1:0", "\"0\" is no port"),
            ("etcd://h1:70000", "\"70000\" is no port"),
            ("etcd://h1:+1", "\"+1\" is no port"),
            ("etcd://fd00::2", "stands in brackets"),
            ("etcd://[fd00::2", "lacks its ']'"),
            ("etcd://[h1]", "no IPv6 address"),
            ("etcd://[::1]x", "comes :PORT"),
            ("etcd://h 1", "no name or address"),
            ("etcd://user@h1", "no name or address"),
            ("etcd://h1/a//b", "the prefix \"a//b\""),
            ("etcd://h1/a b", "the prefix \"a b\""),
            ("etcd://h1?ca=x", "the scheme of that is etcds"),
            ("etcds://h1", "wants ca=FILE"),
            ("etcds://h1?ca", "ca names no file"),
            ("etcds://h1?ca=a&ca=b", "ca is given twice"),
            ("etcds://h1?ca=a&cert=b", "cert wants key"),
            ("etcds://h1?ca=a&key=b", "key wants cert"),
            ("etcds://h1?ca=a&password=b", "no parameter \"password\""),
            ("register:run/w.sock", "begins with /"),
            (long.as_str(), "less than 108 bytes"),
        ] {
            let told = text.parse::<WitnessAddress>().unwrap_err().to_string();
            assert!(told.contains(reason), "{told}");
        }
        let many: Vec<String> = (0..=ENDPOINTS_MAX).map(|number| format!("h{number}")).collect();
        let told = format!("etcd://{}", many.join(",")).parse::<WitnessAddress>().unwrap_err().to_string();
        assert!(told.contains("at most"), "{told}");
    }

    proptest! {
        /// P4. A text of any kind is read or refused; what is read is shown as what is read again.
        #[test]
        fn any_text_is_read_or_refused(text in "(etcds?://|register:)?[a-c:/,?&=.0-9\\[\\]]{0,40}(\\?ca=x)?") {
            if let Ok(address) = text.parse::<WitnessAddress>() {
                prop_assert_eq!(address.to_string().parse::<WitnessAddress>(), Ok(address));
            }
        }
    }
}
