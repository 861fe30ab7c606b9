//! Tells of budgets: every few seconds they are looked at, and what was reached is posted to webhooks, as JSON and signed.
//!
//! Nothing waits for a webhook. A few are posted to at once, each with a limit of time, some tries and longer waits between
//! them; then it is given up, and that is noted. What a restart interrupts is posted again, by the same id.

use crate::data_dir::DataDir;
use crate::failure::Failure;
use anyhow::{Context, bail, ensure};
use aws_lc_rs::{hmac, rand};
use certificates::ClientFiles;
use control::{BudgetWatch, DueAlert, ErrorCode, Service};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use units::TenantId;

/// How often budgets are looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(10);

/// Most alerts that are being posted at once; the others wait for the next look.
const POSTING_MAX: usize = 8;

/// Longest time of a try, most tries, and the wait after the first, which grows fourfold.
const TRY_DURATION_MAX: Duration = Duration::from_secs(10);
const TRIES_MAX: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// What a request is signed in: `t=SECONDS,v1=HEX`.
const SIGNATURE: &str = "x-aljibe-signature";

/// Where systems keep the authorities of the public web, unless `SSL_CERT_FILE` says so.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Who posts.
pub(crate) struct Courier {
    key: hmac::Key,
    tls: Option<Arc<ClientConfig>>,
    first_wait: Duration,
}

impl Courier {
    /// Signs by the key of a data directory, which is made when it is missing.
    pub(crate) fn of(data: &DataDir) -> Result<Self, Failure> {
        let secret = match data.read_webhook_key()? {
            Some(secret) => secret,
            None => {
                let mut bytes = [0; 32];
                rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
                let secret = hex(&bytes);
                data.write_webhook_key(&secret)?;
                secret
            }
        };
        Ok(Self { key: signing_key(&secret), tls: authorities().and_then(|path| tls(&path)), first_wait: FIRST_WAIT })
    }

    /// Posts an alert to every webhook; whether all of them took it.
    async fn deliver(&self, due: &DueAlert) -> bool {
        let mut is_sent = true;
        for webhook in &due.webhooks {
            is_sent &= self.deliver_to(webhook, due).await;
        }
        is_sent
    }

    async fn deliver_to(&self, webhook: &str, due: &DueAlert) -> bool {
        let mut wait = self.first_wait;
        for attempt in 1..=TRIES_MAX {
            let posted = timeout(TRY_DURATION_MAX, self.post(webhook, due)).await;
            let posted = posted.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {TRY_DURATION_MAX:?}")));
            let Err(error) = posted else { return true };
            let error = format!("{error:#}");
            tracing::warn!(webhook, alert = due.alert.id, attempt, error, "a budget's alert could not be posted");
            if attempt < TRIES_MAX {
                sleep(wait).await;
                wait = wait.saturating_mul(4);
            }
        }
        false
    }

    async fn post(&self, webhook: &str, due: &DueAlert) -> anyhow::Result<()> {
        let uri: Uri = webhook.parse().context("it is no address")?;
        let host = uri.host().context("it has no host")?.trim_matches(['[', ']']).to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let request = self.request(&uri, due, Timestamp::now())?;
        let stream = TcpStream::connect((host.as_str(), port)).await.context("no connection")?;
        let status = if is_tls {
            let tls = self.tls.clone().context("no authorities are known: name a file of them by SSL_CERT_FILE")?;
            let name = ServerName::try_from(host).context("it is no name that a certificate could bear")?;
            let stream = TlsConnector::from(tls).connect(name, stream).await.context("TLS fails")?;
            exchange(stream, request).await?
        } else {
            exchange(stream, request).await?
        };
        if status.is_redirection() {
            bail!("it answers {status}: redirects are not followed, name where it leads");
        }
        ensure!(status.is_success(), "it answers {status}");
        Ok(())
    }

    /// Signed is the time and the body, so that nobody replays an old one or changes one.
    fn request(&self, uri: &Uri, due: &DueAlert, at: Timestamp) -> anyhow::Result<Request<Full<Bytes>>> {
        let body = serde_json::to_string(&due.alert)?;
        let seconds = at.as_second();
        let secret = signing_key(&secret_of(&self.key, due.tenant));
        let signature = hmac::sign(&secret, format!("{seconds}.{body}").as_bytes());
        let authority = uri.authority().context("it has no host")?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path)
            .header(header::HOST, authority.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("aljibe/", env!("CARGO_PKG_VERSION")))
            .header(SIGNATURE, format!("t={seconds},v1={}", hex(signature.as_ref())));
        Ok(request.body(Full::new(body.into()))?)
    }
}

/// Looks at budgets again and again, and has what is due posted.
pub(crate) async fn watch(service: Arc<dyn Service>, courier: Courier) {
    let (watch, courier) = (Arc::new(BudgetWatch::new(&service)), Arc::new(courier));
    let (posting, room) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(Semaphore::new(POSTING_MAX)));
    let mut ticks = interval(LOOK_PERIOD);
    loop {
        ticks.tick().await;
        let due = match watch.round().await {
            Ok(due) => due,
            // There is no ledger, or the daemon stops.
            Err(error) if matches!(error.code, ErrorCode::Unavailable | ErrorCode::ShuttingDown) => continue,
            Err(error) => {
                tracing::warn!(%error, "budgets cannot be looked at");
                continue;
            }
        };
        for due in due {
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { break };
            let id = due.alert.id.clone();
            if !posting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone()) {
                continue;
            }
            let (watch, courier, posting) = (Arc::clone(&watch), Arc::clone(&courier), Arc::clone(&posting));
            tokio::spawn(async move {
                let is_sent = courier.deliver(&due).await;
                if let Err(error) = watch.delivered(&id, is_sent).await {
                    tracing::warn!(alert = id, %error, "whether a budget's alert was posted is not noted: it may come again");
                }
                posting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                drop(permit);
            });
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<StatusCode>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    // What it says besides is not read.
    connection.abort();
    Ok(answer?.status())
}

fn signing_key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

/// A tenant's own, so that none can sign another's: of the provider's and the tenant's number, as 64 hexadecimal digits.
fn secret_of(key: &hmac::Key, tenant: TenantId) -> String {
    hex(hmac::sign(key, tenant.to_string().as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes all");
        text
    })
}

fn authorities() -> Option<PathBuf> {
    let told = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    told.or_else(|| AUTHORITIES.iter().map(Path::new).find(|path| path.exists()).map(Path::to_owned))
}

fn tls(authorities: &Path) -> Option<Arc<ClientConfig>> {
    let loaded = ClientFiles { authorities: authorities.to_owned(), identity: None }.load();
    let warn = |error: &dyn std::fmt::Display| tracing::warn!(%error, "webhooks of https cannot be posted to");
    loaded.inspect_err(|error| warn(error)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::{Basis, BudgetAlert};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn due(webhook: String) -> DueAlert {
        let alert = BudgetAlert {
            id: "5-2025-06-bill-80-of-10".to_owned(),
            tenant: "acme".to_owned(),
            month: "2025-06".to_owned(),
            basis: Basis::Bill,
            percent: 80,
            amount: "10".to_owned(),
            bill: "8.00".to_owned(),
            forecast: None,
            currency: "EUR".to_owned(),
            at: "2025-06-20T00:00:00Z".parse().unwrap(),
        };
        DueAlert { tenant: TenantId(5), alert, webhooks: vec![webhook] }
    }

    fn courier() -> Courier {
        Courier { key: signing_key("secret"), tls: None, first_wait: Duration::from_millis(1) }
    }

    /// Answers requests one after the other; gives what they were.
    async fn answer(listener: TcpListener, answers: &[&str]) -> Vec<String> {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            while !request.ends_with('}') {
                let mut bytes = [0; 4096];
                let count = stream.read(&mut bytes).await.unwrap();
                request.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            }
            requests.push(request);
            stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
        }
        requests
    }

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, format!("http://{address}/hook?a=b"))
    }

    /// P7. An alert is posted until it is taken, signed over its time and body by the tenant's own key.
    #[tokio::test]
    async fn an_alert_is_posted_until_it_is_taken() {
        let (listener, webhook) = listen().await;
        let (courier, due) = (courier(), due(webhook));
        let answers = ["500 Internal Server Error", "429 Too Many Requests", "204 No Content"];
        let (is_sent, requests) = tokio::join!(courier.deliver(&due), answer(listener, &answers));
        assert!(is_sent);
        assert_eq!(requests.len(), 3);
        let (head, body) = requests[2].split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /hook?a=b HTTP/1.1"), "{head}");
        assert_eq!(serde_json::from_str::<BudgetAlert>(body).unwrap(), due.alert);
        let signed = head.lines().find_map(|line| line.strip_prefix("x-aljibe-signature: t=")).unwrap();
        let (seconds, signature) = signed.split_once(",v1=").unwrap();
        let secret = hex(hmac::sign(&signing_key("secret"), b"5").as_ref());
        let wanted = hmac::sign(&signing_key(&secret), format!("{seconds}.{body}").as_bytes());
        assert_eq!(signature, hex(wanted.as_ref()));
    }

    /// P8. A redirect is not followed: it could lead to where only the daemon gets.
    #[tokio::test]
    async fn a_redirect_leads_nowhere() {
        let (listener, webhook) = listen().await;
        let (elsewhere, other) = listen().await;
        let due = due(webhook);
        let redirect = format!("307 Temporary Redirect\r\nlocation: {other}");
        let (courier, answers) = (courier(), [redirect.as_str()]);
        let (posted, _) = tokio::join!(courier.post(&due.webhooks[0], &due), answer(listener, &answers));
        assert!(posted.unwrap_err().to_string().contains("not followed"));
        assert!(timeout(Duration::from_millis(50), elsewhere.accept()).await.is_err());
    }

    /// P8. Where TLS is wanted nothing is said in clear.
    #[tokio::test]
    async fn https_is_not_posted_to_in_clear() {
        let (listener, webhook) = listen().await;
        let due = due(webhook.replace("http:", "https:"));
        assert!(courier().post(&due.webhooks[0], &due).await.is_err());
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        assert!(bytes.is_empty());
    }
}
