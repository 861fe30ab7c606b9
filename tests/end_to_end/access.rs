//! Who may enter a tenant's exports, with real clients: by address, by certificate, by the tenant's own socket.

use crate::daemon::Daemon;
use crate::tls::folder_with_certificates;
use crate::tool::{self, are_here, fail, json, output_of, run, succeed};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

/// Makes tenants `acme` and `beta`, each with a volume `vm` and its snapshot `a`, and the default one's volume `own`.
fn make_tenants(daemon: &Daemon) {
    daemon.create_volume("own", "1M");
    for tenant in ["acme", "beta"] {
        succeed(&mut daemon.aljibe(&["tenant", "create", tenant]));
        succeed(&mut daemon.aljibe(&["volume", "create", &format!("{tenant}/vm"), "--size", "16M"]));
        succeed(&mut daemon.aljibe(&["snapshot", "create", &format!("{tenant}/vm@a")]));
    }
}

fn allow(daemon: &Daemon, tenant: &str, rules: &[&str]) {
    succeed(daemon.aljibe(&["tenant", "access", tenant]).args(rules));
}

/// Whether a client may enter a tenant's volume, and its snapshot; both or none.
fn may_enter(uri: &dyn Fn(&str) -> String, tenant: &str) -> bool {
    let enters = |export: &str| {
        let is_told = output_of(tool::command("nbdinfo").args(["--size", &uri(export)])).status.success();
        let read = ["-r", "-f", "raw", "-c", "read 0 4k"];
        let is_let_in = output_of(tool::command("qemu-io").args(read).arg(uri(export))).status.success();
        assert_eq!(is_told, is_let_in, "{export}");
        is_let_in
    };
    let (volume, snapshot) = (enters(&format!("{tenant}/vm")), enters(&format!("{tenant}/vm@a")));
    assert_eq!(volume, snapshot, "{tenant}");
    volume
}

/// The exports that a client is told of.
fn listed(uri: &str) -> Vec<String> {
    let told = run("nbdinfo", ["--list", "--json", uri]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let exports = told["exports"].as_array().into_iter().flatten();
    exports.map(|export| export["export-name"].as_str().unwrap().to_owned()).collect()
}

/// P8. Over the network nobody is let into a tenant's exports, or told of them, until their address is allowed; one of IPv4 on a
/// socket of IPv6 is one of IPv4. A restart forgets no rule.
#[test]
fn addresses_are_let_in_by_network() {
    if !are_here("addresses_are_let_in_by_network", &["nbdinfo", "qemu-io"]) {
        return;
    }
    if TcpListener::bind("[::1]:0").is_err() {
        tool::announce("addresses_are_let_in_by_network: SKIPPED: there is no IPv6 here");
        return;
    }
    let mut daemon = Daemon::start_with(&["--nbd", "[::]:0"]);
    make_tenants(&daemon);
    let (v4, v6) = (uri_at(&daemon, "127.0.0.1"), uri_at(&daemon, "[::1]"));
    assert_eq!(listed(&v4("")), ["own"]);
    assert!(!may_enter(&v4, "acme") && !may_enter(&v6, "acme"));
    run("nbdinfo", ["--size", &v4("own")]);

    allow(&daemon, "acme", &["--allow-cidr", "127.0.0.0/8"]);
    assert!(may_enter(&v4, "acme") && !may_enter(&v6, "acme") && !may_enter(&v4, "beta"));
    assert_eq!(listed(&v4("")), ["acme/vm", "acme/vm@a", "own"]);
    assert_eq!(listed(&v6("")), ["own"]);
    allow(&daemon, "acme", &["--allow-cidr", "::1", "--allow-cidr", "10.0.0.0/8"]);
    daemon.stop_without_complaint();
    daemon.restart();
    let (v4, v6) = (uri_at(&daemon, "127.0.0.1"), uri_at(&daemon, "[::1]"));
    assert!(!may_enter(&v4, "acme") && may_enter(&v6, "acme"));
    let shown = json(&mut daemon.aljibe(&["tenant", "show", "acme"]));
    assert_eq!(shown["access"]["networks"], serde_json::json!(["::1/128", "10.0.0.0/8"]));
    allow(&daemon, "acme", &["--nobody"]);
    assert!(!may_enter(&v6, "acme"));
    assert!(
        fail(&mut daemon.aljibe(&["tenant", "access", "acme", "--allow-cidr", "10.0.0.1/8"])).contains("10.0.0.0/8")
    );
    daemon.stop_without_complaint();
}

fn uri_at(daemon: &Daemon, host: &'static str) -> impl Fn(&str) -> String + use<> {
    let port = daemon.nbd_port();
    move |export| format!("nbd://{host}:{port}/{export}")
}

/// P8. Of two hosts with certificates of one authority, each enters the exports of the tenant that its own is allowed for.
#[test]
fn certificates_of_one_authority_are_told_apart() {
    if !are_here("certificates_of_one_authority_are_told_apart", &["certtool", "nbdinfo"]) {
        return;
    }
    let tls = ["--tls-cert", "FOLDER/server-cert.pem", "--tls-key", "FOLDER/server-key.pem", "--tls-client-ca"];
    let arguments: Vec<&str> =
        ["--nbd", "127.0.0.1:0"].iter().chain(&tls).chain(&["FOLDER/ca-cert.pem"]).copied().collect();
    let daemon = Daemon::start_in(folder_with_certificates(), &arguments);
    make_tenants(&daemon);
    for (tenant, host) in [("acme", "client"), ("beta", "second")] {
        let file = daemon.folder().join(format!("{host}-cert.pem"));
        let fingerprint = run("certtool", ["--fingerprint", "--hash=sha256", "--infile", file.to_str().unwrap()]);
        allow(&daemon, tenant, &["--certificate", fingerprint.trim()]);
    }
    let enters = |host: &str, export: &str| {
        let pki = daemon.folder().join(format!("{host}-pki"));
        let uri = format!("nbds://localhost:{}/{export}?tls-certificates={}", daemon.nbd_port(), pki.display());
        output_of(tool::command("nbdinfo").args(["--size", &uri])).status.success()
    };
    for (host, is_acmes, is_betas) in [("client", true, false), ("second", false, true)] {
        for export in ["vm", "vm@a"] {
            assert_eq!(enters(host, &format!("acme/{export}")), is_acmes, "{host}");
            assert_eq!(enters(host, &format!("beta/{export}")), is_betas, "{host}");
        }
        assert!(enters(host, "own"), "{host}");
    }
    assert!(!enters("stranger", "own") && !enters("anonymous", "acme/vm"));
}

/// P8. By a tenant's own socket one comes to what is that tenant's, and to nothing else. It is there while it is wanted, for its
/// group alone, and after a kill.
#[test]
fn a_tenants_own_socket_leads_to_its_exports_alone() {
    if !are_here("a_tenants_own_socket_leads_to_its_exports_alone", &["nbdinfo", "qemu-io"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let sockets = folder.path().join("sockets");
    fs::create_dir(&sockets).unwrap();
    let mut daemon = Daemon::start_in(folder, &["--nbd-tenant-sockets", sockets.to_str().unwrap()]);
    make_tenants(&daemon);
    let path = |tenant: &str| sockets.join(format!("{tenant}.sock"));
    let there = || fs::read_dir(&sockets).unwrap().count();
    assert_eq!(there(), 0);
    let gid = fs::metadata(&sockets).unwrap().gid();
    allow(&daemon, "acme", &["--socket", "--socket-group", &gid.to_string()]);
    wait_for(&path("acme"), true);
    let metadata = fs::metadata(path("acme")).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.gid()), (0o660, gid));
    let socket = path("acme");
    let by_acmes = move |export: &str| format!("nbd+unix:///{export}?socket={}", socket.display());
    assert!(may_enter(&by_acmes, "acme") && !may_enter(&by_acmes, "beta"));
    fail(tool::command("nbdinfo").args(["--size", &by_acmes("own")]));
    assert_eq!(listed(&by_acmes("")), ["acme/vm", "acme/vm@a"]);

    daemon.kill9();
    daemon.restart();
    wait_for(&path("acme"), true);
    assert!(may_enter(&by_acmes, "acme"));
    allow(&daemon, "beta", &["--socket"]);
    wait_for(&path("beta"), true);
    allow(&daemon, "acme", &["--nobody"]);
    wait_for(&path("acme"), false);
    assert_eq!(there(), 1);
    daemon.stop_without_complaint();
    assert_eq!(there(), 0);
}

fn wait_for(path: &Path, is_there: bool) {
    tool::wait_until("a tenant's socket comes or goes", || path.exists() == is_there);
}

/// P8. Who is attached stays when rules are taken away, unless it is said that all are cut off.
#[test]
fn clients_are_cut_off_when_that_is_asked_for() {
    if !are_here("clients_are_cut_off_when_that_is_asked_for", &["qemu-io"]) {
        return;
    }
    let daemon = Daemon::start_with(&["--nbd", "127.0.0.1:0"]);
    make_tenants(&daemon);
    allow(&daemon, "acme", &["--allow-cidr", "127.0.0.1"]);
    let mut attached = tool::command("qemu-io");
    let uri = uri_at(&daemon, "127.0.0.1");
    attached.args(["-f", "raw", &uri("acme/vm")]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut attached = attached.spawn().unwrap();
    let clients = || json(&mut daemon.aljibe(&["volume", "show", "acme/vm"]))["connections"].as_u64().unwrap();
    tool::wait_until("a client is attached", || clients() == 1);
    allow(&daemon, "acme", &["--nobody"]);
    assert_eq!(clients(), 1);
    allow(&daemon, "acme", &["--nobody", "--cut-off"]);
    tool::wait_until("the client is cut off", || clients() == 0);
    drop(attached.stdin.take());
    attached.wait().unwrap();
    fail(tool::command("nbdinfo").arg(uri("acme/vm")));
}
