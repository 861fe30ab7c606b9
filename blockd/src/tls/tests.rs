use super::*;
use certificates::ClientFiles;
use rustls::ClientConnection;
use rustls_pki_types::ServerName;
use std::path::{Path, PathBuf};

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pem").join(name)
}

fn files(clients: ClientCertificates) -> TlsFiles {
    TlsFiles { certificate: pem("server.pem"), key: pem("server-key.pem"), clients }
}

fn client(has_certificate: bool) -> ClientConnection {
    let identity = has_certificate.then(|| (pem("client.pem"), pem("client-key.pem")));
    let config = ClientFiles { authorities: pem("authority.pem"), identity }.load().unwrap();
    let mut client = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    client.set_buffer_limit(None);
    client
}

/// Shakes hands in memory.
fn connect(clients: ClientCertificates, has_certificate: bool) -> Result<(ClientConnection, Tls), rustls::Error> {
    let mut client = client(has_certificate);
    let mut server = ServerConnection::new(files(clients).load().unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok((client, Tls::new(server)))
}

/// Brings `wire` in and reads everything that comes of it, `out_len` bytes at a time.
fn read_all(tls: &mut Tls, mut wire: &[u8], out_len: usize) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut out = vec![0; out_len];
    loop {
        match tls.read_plain(&mut out).unwrap() {
            Plain::Bytes(len) => plain.extend_from_slice(&out[..len]),
            Plain::NeedBytes if wire.is_empty() => return plain,
            Plain::NeedBytes => {
                let Loan { mut region, range, .. } = tls.lend().unwrap();
                assert!(tls.lend().is_none(), "memory is lent once");
                let count = range.len().min(wire.len()).min(10_000);
                region.as_mut_slice()[..count].copy_from_slice(&wire[..count]);
                wire = &wire[count..];
                tls.take_back(region, count);
            }
            Plain::Closed => return plain,
        }
    }
}

#[test]
fn what_a_client_seals_is_read_whatever_the_division() {
    for out_len in [1000, 16_384, 1 << 20] {
        let (mut client, mut tls) = connect(ClientCertificates::Ignored, false).unwrap();
        let plain: Vec<u8> = (0..300_000_u32).map(|i| (i % 251).to_le_bytes()[0]).collect();
        client.writer().write_all(&plain).unwrap();
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        assert!(read_all(&mut tls, &wire, out_len) == plain);
    }
}

#[test]
fn a_sealed_message_is_what_the_client_reads() {
    let (mut client, mut tls) = connect(ClientCertificates::Ignored, false).unwrap();
    let mut buffers = BufferPool::new(8 << 20);
    let mut message = Message::new();
    message.push_bytes(b"header");
    message.push_region(region_of(Buffer::copy_of(&vec![7; 1_000_000])), 10..900_010);
    message.push_bytes(b"tail");
    let mut sealed = Message::new();
    tls.seal(&message, &mut buffers, &mut sealed);
    // Records of 16 KiB, not one for each piece.
    assert!(sealed.len() < message.len() + 60 * 32, "{}", sealed.len());
    let wire: Vec<u8> = sealed.slices().flatten().copied().collect();
    let mut bytes = wire.as_slice();
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets().unwrap();
        let mut part = [0; 20_000];
        while let Ok(len @ 1..) = client.reader().read(&mut part) {
            plain.extend_from_slice(&part[..len]);
        }
    }
    assert!(plain.starts_with(b"header\x07") && plain.ends_with(b"\x07tail") && plain.len() == message.len());
}

#[test]
fn the_end_of_a_session_is_told_and_heard() {
    let (mut client, mut tls) = connect(ClientCertificates::Ignored, false).unwrap();
    client.send_close_notify();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    assert!(read_all(&mut tls, &wire, 100).is_empty());
    assert_eq!(tls.read_plain(&mut [0; 10]), Ok(Plain::Closed));
    tls.close();
    assert!(tls.wants_write());
}

#[test]
fn what_is_no_record_is_a_fault_that_an_alert_answers() {
    let (_, mut tls) = connect(ClientCertificates::Ignored, false).unwrap();
    let Loan { mut region, .. } = tls.lend().unwrap();
    region.as_mut_slice()[..100].fill(0xff);
    tls.take_back(region, 100);
    tls.read_plain(&mut [0; 10]).unwrap_err();
    assert!(tls.wants_write());
}

#[test]
fn client_certificates_are_asked_for_as_configured() {
    let authority = || pem("authority.pem");
    assert!(connect(ClientCertificates::Required(authority()), true).is_ok());
    assert!(connect(ClientCertificates::Required(authority()), false).is_err());
    assert!(connect(ClientCertificates::Optional(authority()), true).is_ok());
    assert!(connect(ClientCertificates::Optional(authority()), false).is_ok());
    // The server's own certificate has not signed the client's.
    assert!(connect(ClientCertificates::Required(pem("server.pem")), true).is_err());
}

#[test]
fn files_that_make_no_server_are_named() {
    let missing = TlsFiles { certificate: pem("none.pem"), ..files(ClientCertificates::Ignored) };
    assert!(missing.load().unwrap_err().to_string().contains("none.pem"));
    let no_key = TlsFiles { key: pem("server.pem"), ..files(ClientCertificates::Ignored) };
    assert!(no_key.load().unwrap_err().to_string().contains("server.pem"));
    let wrong_key = TlsFiles { key: pem("client-key.pem"), ..files(ClientCertificates::Ignored) };
    assert!(matches!(wrong_key.load(), Err(TlsConfigError::Key(_))));
    let no_authority = files(ClientCertificates::Required(pem("server-key.pem")));
    assert!(no_authority.load().unwrap_err().to_string().contains("server-key.pem"));
}

#[test]
fn files_that_make_no_client_are_named() {
    let client = |authorities: &str, identity: Option<(&str, &str)>| {
        let identity = identity.map(|(certificate, key)| (pem(certificate), pem(key)));
        ClientFiles { authorities: pem(authorities), identity }.load()
    };
    assert!(client("authority.pem", Some(("client.pem", "client-key.pem"))).is_ok());
    for (authorities, identity, named) in [
        ("none.pem", None, "none.pem"),
        ("server-key.pem", None, "server-key.pem"),
        ("authority.pem", Some(("client.pem", "none.pem")), "none.pem"),
        ("authority.pem", Some(("client-key.pem", "client-key.pem")), "client-key.pem"),
        ("authority.pem", Some(("client.pem", "server-key.pem")), "certificate and its key"),
    ] {
        assert!(client(authorities, identity).unwrap_err().to_string().contains(named), "{named}");
    }
}
