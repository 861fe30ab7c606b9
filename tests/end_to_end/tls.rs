//! NBD with TLS: offered, required, and with client certificates, spoken by GnuTLS on the other side.

use crate::daemon::Daemon;
use crate::tool::{self, are_here, fail, noise, run, succeed};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const TOOLS: [&str; 3] = ["certtool", "nbdinfo", "nbdcopy"];
const TCP: [&str; 2] = ["--nbd", "127.0.0.1:0"];
const SERVER: [&str; 4] = ["--tls-cert", "FOLDER/server-cert.pem", "--tls-key", "FOLDER/server-key.pem"];

/// A folder with an authority, a certificate for localhost, two for clients, and one of a stranger.
pub(crate) fn folder_with_certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let authority = "cn = authority\nca\ncert_signing_key\n";
    make_authority(folder.path(), "ca", authority);
    make_authority(folder.path(), "stranger-ca", authority);
    let server =
        "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nsigning_key\nencryption_key\n";
    sign(folder.path(), "ca", "server", server);
    for (authority, name) in [("ca", "client"), ("ca", "second"), ("stranger-ca", "stranger")] {
        sign(folder.path(), authority, name, "cn = client\ntls_www_client\nsigning_key\nencryption_key\n");
        // libnbd wants the three files by these names in one folder.
        fs::create_dir(at(&format!("{name}-pki"))).unwrap();
        fs::copy(at("ca-cert.pem"), at(&format!("{name}-pki/ca-cert.pem"))).unwrap();
        fs::copy(at(&format!("{name}-cert.pem")), at(&format!("{name}-pki/client-cert.pem"))).unwrap();
        fs::copy(at(&format!("{name}-key.pem")), at(&format!("{name}-pki/client-key.pem"))).unwrap();
    }
    fs::create_dir(at("anonymous-pki")).unwrap();
    fs::copy(at("ca-cert.pem"), at("anonymous-pki/ca-cert.pem")).unwrap();
    folder
}

fn make_authority(folder: &Path, name: &str, template: &str) {
    let at = |suffix: &str| folder.join(format!("{name}{suffix}")).to_str().unwrap().to_owned();
    fs::write(at(".info"), template).unwrap();
    run("certtool", ["--generate-privkey", "--key-type=rsa", "--bits=2048", "--outfile", &at("-key.pem")]);
    run(
        "certtool",
        [
            "--generate-self-signed",
            "--load-privkey",
            &at("-key.pem"),
            "--template",
            &at(".info"),
            "--outfile",
            &at("-cert.pem"),
        ],
    );
}

fn sign(folder: &Path, authority: &str, name: &str, template: &str) {
    let at = |name: &str, suffix: &str| folder.join(format!("{name}{suffix}")).to_str().unwrap().to_owned();
    fs::write(at(name, ".info"), template).unwrap();
    run("certtool", ["--generate-privkey", "--key-type=rsa", "--bits=2048", "--outfile", &at(name, "-key.pem")]);
    run(
        "certtool",
        [
            "--generate-certificate",
            "--load-privkey",
            &at(name, "-key.pem"),
            "--load-ca-certificate",
            &at(authority, "-cert.pem"),
            "--load-ca-privkey",
            &at(authority, "-key.pem"),
            "--template",
            &at(name, ".info"),
            "--outfile",
            &at(name, "-cert.pem"),
        ],
    );
}

/// A daemon with a certificate that listens on `nbd`.
pub(crate) fn daemon_with(nbd: &[&str], arguments: &[&str]) -> Daemon {
    let all: Vec<&str> = nbd.iter().chain(&SERVER).chain(arguments).copied().collect();
    let daemon = Daemon::start_in(folder_with_certificates(), &all);
    daemon.create_volume("secret", "32M");
    daemon
}

/// The URI of the volume for a client with the certificates of one folder.
fn tls_uri(daemon: &Daemon, who: &str) -> String {
    let pki = daemon.folder().join(format!("{who}-pki"));
    format!("nbds://localhost:{}/secret?tls-certificates={}", daemon.nbd_port(), pki.display())
}

fn plain_uri(daemon: &Daemon) -> String {
    format!("nbd://127.0.0.1:{}/secret", daemon.nbd_port())
}

fn nbdinfo(uri: &str) -> std::process::Command {
    let mut command = tool::command("nbdinfo");
    command.args(["--size", uri]);
    command
}

/// P2. What went in through TLS comes out through TLS and in clear, byte for byte.
#[test]
fn optional_tls_serves_both_kinds_of_clients() {
    if !are_here("optional_tls_serves_both_kinds_of_clients", &TOOLS) {
        return;
    }
    let mut daemon = daemon_with(&TCP, &["--tls", "optional"]);
    let (source, back) = (daemon.folder().join("source"), daemon.folder().join("back"));
    fs::write(&source, noise(5, 32 << 20)).unwrap();
    let (source, back) = (source.to_str().unwrap(), back.to_str().unwrap());
    run("nbdcopy", ["--connections=4", "--flush", source, &tls_uri(&daemon, "anonymous")]);
    for uri in [tls_uri(&daemon, "anonymous"), plain_uri(&daemon)] {
        run("nbdcopy", ["--connections=4", &uri, back]);
        run("cmp", [source, back]);
    }
    daemon.stop_without_complaint();
}

#[test]
fn required_tls_refuses_clients_in_clear() {
    if !are_here("required_tls_refuses_clients_in_clear", &TOOLS) {
        return;
    }
    let daemon = daemon_with(&TCP, &["--tls", "required"]);
    let said = fail(&mut nbdinfo(&plain_uri(&daemon)));
    assert!(said.to_ascii_lowercase().contains("tls") || said.contains("policy"), "{said}");
    // Not even the names of volumes are told.
    let mut list = tool::command("nbdinfo");
    let said = fail(list.args(["--list", &format!("nbd://127.0.0.1:{}", daemon.nbd_port())]));
    assert!(!said.contains("secret"), "{said}");
    assert_eq!(succeed(&mut nbdinfo(&tls_uri(&daemon, "anonymous"))).trim(), (32 << 20).to_string());
}

#[test]
fn client_certificates_decide_who_is_served() {
    if !are_here("client_certificates_decide_who_is_served", &TOOLS) {
        return;
    }
    let daemon = daemon_with(&TCP, &["--tls", "required", "--tls-client-ca", "FOLDER/ca-cert.pem"]);
    assert_eq!(succeed(&mut nbdinfo(&tls_uri(&daemon, "client"))).trim(), (32 << 20).to_string());
    for who in ["anonymous", "stranger"] {
        fail(&mut nbdinfo(&tls_uri(&daemon, who)));
    }
    fail(&mut nbdinfo(&plain_uri(&daemon)));
}

#[test]
fn qemu_speaks_tls_too() {
    if !are_here("qemu_speaks_tls_too", &["certtool", "qemu-io"]) {
        return;
    }
    let daemon = daemon_with(&TCP, &["--tls", "required", "--tls-client-ca", "FOLDER/ca-cert.pem"]);
    let pki = daemon.folder().join("client-pki");
    let credentials = format!("tls-creds-x509,id=tls0,endpoint=client,dir={}", pki.display());
    let options = format!(
        "driver=nbd,host=localhost,port={},export=secret,tls-creds=tls0,tls-hostname=localhost",
        daemon.nbd_port()
    );
    let mut client = tool::command("qemu-io");
    client.args(["--object", &credentials, "-c", "write -P 5 0 1M", "-c", "flush", "-c", "read -P 5 0 1M"]);
    let output = succeed(client.args(["--image-opts", &options]));
    assert!(!output.contains("Pattern verification failed"), "{output}");
}
