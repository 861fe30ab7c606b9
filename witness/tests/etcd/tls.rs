//! A cluster over TLS that wants client certificates, made by GnuTLS's certtool.

use crate::answers::{GROUP, put, record, seen, wait_for_frailty};
use crate::cluster::{Cluster, MemberTls, are_here};
use certificates::{ClientError, ClientFiles, FileError};
use replication::{ReadAnswer, SwapAnswer};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use witness::{ClusterId, Etcd, EtcdConfig, EtcdError, Witness, WitnessAddress};

fn certtool(arguments: &[&str]) {
    let output = Command::new("certtool").args(arguments).output().unwrap();
    assert!(output.status.success(), "certtool {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn at(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An authority of its own: `NAME-key.pem` and `NAME-cert.pem`.
fn make_authority(folder: &Path, name: &str) {
    let [key, cert, info] = files(folder, name);
    fs::write(&info, "cn = authority\nca\ncert_signing_key\n").unwrap();
    certtool(&["--generate-privkey", "--key-type=rsa", "--bits=2048", "--outfile", text(&key)]);
    let template = ["--template", text(&info), "--outfile", text(&cert)];
    certtool(&[&["--generate-self-signed", "--load-privkey", text(&key)][..], &template].concat());
}

fn sign(folder: &Path, authority: &str, name: &str, template: &str) {
    let [key, cert, info] = files(folder, name);
    let [authority_key, authority_cert, _] = files(folder, authority);
    fs::write(&info, template).unwrap();
    certtool(&["--generate-privkey", "--key-type=rsa", "--bits=2048", "--outfile", text(&key)]);
    certtool(&[
        "--generate-certificate",
        "--load-privkey",
        text(&key),
        "--load-ca-certificate",
        text(&authority_cert),
        "--load-ca-privkey",
        text(&authority_key),
        "--template",
        text(&info),
        "--outfile",
        text(&cert),
    ]);
}

fn files(folder: &Path, name: &str) -> [PathBuf; 3] {
    ["-key.pem", "-cert.pem", ".info"].map(|suffix| at(folder, &format!("{name}{suffix}")))
}

/// P4, P8. Over TLS the cluster is believed by its authority's word, and believes who has a certificate; nothing is said in clear.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_over_tls_is_asked() {
    if !are_here("a_cluster_over_tls_is_asked", &["etcd", "certtool"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    make_authority(folder, "ca");
    make_authority(folder, "stranger");
    // The gateway is a client of its own member, with the member's certificate.
    let member = format!(
        "cn = etcd\nip_address = {}\ntls_www_server\ntls_www_client\nsigning_key\nencryption_key\n",
        Cluster::address()
    );
    sign(folder, "ca", "member", &member);
    let client = "cn = client\ntls_www_client\nsigning_key\nencryption_key\n";
    sign(folder, "ca", "client", client);
    sign(folder, "stranger", "other", client);
    let [key, certificate, _] = files(folder, "member");
    let authority = at(folder, "ca-cert.pem");
    let cluster = Cluster::start_with(3, Some(MemberTls { authority: authority.clone(), certificate, key }));

    // By the form of the flag.
    let members: Vec<String> = cluster.endpoints().iter().map(ToString::to_string).collect();
    let [client_key, client_cert, _] = files(folder, "client");
    let (members, ca, cert) = (members.join(","), authority.display(), client_cert.display());
    let flag = format!("etcds://{members}/test/mirror?ca={ca}&cert={cert}&key={}", client_key.display());
    let address: WitnessAddress = flag.parse().unwrap();
    let Witness::Etcd(etcd) = Witness::open(address, None).unwrap() else { panic!("{flag} is etcd") };
    let there = put(&etcd, GROUP, &record(1, 1)).await;
    assert_eq!(seen(&etcd, GROUP).await, Some(there));
    wait_for_frailty(&etcd, false).await;

    let [other_key, other_cert, _] = files(folder, "other");
    let own = Some((client_cert.clone(), client_key));
    for (authorities, identity) in [
        (authority.clone(), None),
        (authority.clone(), Some((other_cert, other_key))),
        (at(folder, "stranger-cert.pem"), own),
    ] {
        let refused = cluster.client_by(cluster.endpoints(), Some(ClientFiles { authorities, identity }));
        assert_eq!(refused.read(GROUP).await, ReadAnswer::Unreachable);
        assert_eq!(refused.swap(GROUP, Some(there.revision), &record(2, 1)).await, SwapAnswer::Unknown);
        assert_eq!(refused.cluster(), None::<ClusterId>);
    }
    assert_eq!(cluster.client().read(GROUP).await, ReadAnswer::Unreachable, "in clear");
    assert_eq!(seen(&etcd, GROUP).await, Some(there), "nothing has changed");

    let broken = |authorities: PathBuf| {
        let tls = Some(ClientFiles { authorities, identity: None });
        Etcd::new(EtcdConfig { endpoints: cluster.endpoints(), prefix: "p".to_owned(), tls }, None).unwrap_err()
    };
    for path in [at(folder, "missing.pem"), at(folder, "ca.info")] {
        let error = broken(path.clone());
        let EtcdError::Tls(ClientError::File(FileError::File { path: told, .. })) = &error else { panic!("{error}") };
        assert_eq!(*told, path);
    }
}
