//! `nbd://HOST[:PORT]/EXPORT` and `nbd+unix:///EXPORT?socket=PATH`; `nbds` and `nbds+unix` over TLS. Spec: NBD uri.md.

use proto::nbd::constants::STRING_BYTES_MAX;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port where nothing else is said.
const PORT: u16 = 10809;

/// Where an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NbdUri {
    /// The server.
    pub(crate) host: Host,
    /// The export's name; empty for the server's default one.
    pub(crate) export: String,
    /// The name that the server's certificate must bear, where TLS is spoken.
    pub(crate) tls_name: Option<String>,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name or address without brackets, and a port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

/// Why a text is no such URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an NBD address: {reason}, write nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH, with \
     nbds for TLS"
)]
pub(crate) struct InvalidUri {
    text: String,
    reason: &'static str,
}

impl NbdUri {
    /// Whether `text` means a URI of NBD, right or wrong, and no file.
    pub(crate) fn is_meant(text: &str) -> bool {
        ["nbd:", "nbds:", "nbd+", "nbds+"].iter().any(|scheme| text.starts_with(scheme))
    }
}

impl FromStr for NbdUri {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        let refused = |reason| InvalidUri { text: text.to_owned(), reason };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refused("it has no scheme"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        let export = decoded(export).ok_or_else(|| refused("the export's name is badly escaped"))?;
        if export.len() > STRING_BYTES_MAX {
            return Err(refused("the export's name is longer than 4096 bytes"));
        }
        let parameter = |name: &str| {
            let found = query.split('&').find_map(|parameter| parameter.strip_prefix(name)?.strip_prefix('='));
            found.map(|value| decoded(value).ok_or_else(|| refused("a parameter is badly escaped"))).transpose()
        };
        let (scheme, is_tls) = match scheme.strip_prefix("nbds") {
            Some(rest) => (format!("nbd{rest}"), true),
            None => (scheme.to_owned(), false),
        };
        let host = match (scheme.as_str(), parameter("socket")?) {
            ("nbd+unix", Some(path)) if !path.is_empty() && authority.is_empty() => Host::Unix(path.into()),
            ("nbd+unix", Some(_)) => return Err(refused("the socket's path is missing, or a host is given")),
            ("nbd+unix", None) => return Err(refused("the socket is missing")),
            ("nbd", None) => tcp_host(authority).map_err(refused)?,
            ("nbd", Some(_)) => return Err(refused("a socket wants nbd+unix")),
            _ => return Err(refused("the scheme is another")),
        };
        let tls_name = match parameter("tls-hostname")? {
            Some(name) => Some(name),
            None => Some(host.certified_name().to_owned()),
        };
        Ok(Self { host, export, tls_name: tls_name.filter(|_| is_tls) })
    }
}

impl Host {
    /// What a certificate calls it, unless it is said otherwise.
    fn certified_name(&self) -> &str {
        match self {
            Self::Tcp(host, _) => host,
            Self::Unix(_) => "localhost",
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

fn tcp_host(authority: &str) -> Result<Host, &'static str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or("the bracket is not closed")?,
        None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| "the port is not a number up to 65535")?,
        None if port.is_empty() => PORT,
        None => return Err("something follows the host"),
    };
    if host.is_empty() || host.contains('@') {
        return Err("the host is missing or has a user");
    }
    Ok(Host::Tcp(host.to_owned(), port))
}

/// Takes `%41` for `A`; `None` when an escape is cut short, is no number, or the result is no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, others) = rest.split_at_checked(2)?;
        rest = others;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_specification_is_read() {
        let tcp = |host: &str, port| Host::Tcp(host.to_owned(), port);
        for (text, host, export, tls_name) in [
            ("nbd://storage.example", tcp("storage.example", 10809), "", None),
            ("nbd://storage.example:10810/vm-1", tcp("storage.example", 10810), "vm-1", None),
            ("nbd://[::1]:1/a", tcp("::1", 1), "a", None),
            ("nbd://[::1]/a/b?tls-hostname=x", tcp("::1", 10809), "a/b", None),
            ("nbd+unix:///?socket=/run/nbd.sock", Host::Unix("/run/nbd.sock".into()), "", None),
            ("nbd+unix:///vm%201?socket=/run/a%3Fb", Host::Unix("/run/a?b".into()), "vm 1", None),
            ("nbds://storage.example/a", tcp("storage.example", 10809), "a", Some("storage.example")),
            ("nbds://[::1]/?tls-certificates=/x&tls-hostname=a%2Eb", tcp("::1", 10809), "", Some("a.b")),
            ("nbds+unix:///a?socket=/s", Host::Unix("/s".into()), "a", Some("localhost")),
        ] {
            assert!(NbdUri::is_meant(text));
            let uri = NbdUri { host, export: export.to_owned(), tls_name: tls_name.map(str::to_owned) };
            assert_eq!(text.parse::<NbdUri>(), Ok(uri), "{text}");
        }
    }

    #[test]
    fn a_refused_address_says_what_is_wrong_with_it() {
        for (text, reason) in [
            ("nbd:host:1", "no scheme"),
            ("nbds+unix:///a", "socket is missing"),
            ("nbdss://host/a", "scheme is another"),
            ("nbd+unix:///a", "socket is missing"),
            ("nbd+unix:///a?socket=", "path is missing"),
            ("nbd+unix://host/a?socket=/s", "a host is given"),
            ("nbd://host/a?socket=/s", "wants nbd+unix"),
            ("nbd://host:x/a", "port is not a number"),
            ("nbd://[::1/a", "bracket"),
            ("nbd://[::1]x/a", "follows the host"),
            ("nbd:///a", "host is missing"),
            ("nbd://u@h/a", "user"),
            ("nbd://h/%4", "escaped"),
            ("nbd://h/%+1", "escaped"),
            ("nbd://h/%ff", "escaped"),
            ("nbd+vsock://1/a", "scheme is another"),
            (&format!("nbd://h/{}", "a".repeat(4097)), "longer than 4096"),
        ] {
            let refusal = text.parse::<NbdUri>().unwrap_err().to_string();
            assert!(refusal.contains(reason), "{refusal}");
        }
        assert!(!NbdUri::is_meant("/images/nbd.raw") && !NbdUri::is_meant("nbd.raw"));
    }
}
