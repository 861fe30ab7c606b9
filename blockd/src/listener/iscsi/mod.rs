//! The iSCSI portal: logins on tokio, then each connection to the shard of its session. RFC 7143 6, 7.
//!
//! A session that another one replaces is over, on every shard, before the other one's last login response goes out. Discovery
//! sessions are served here to their end: no volume is touched by them.

mod discovery;
mod registry;

use super::exports::Client;
use super::handshake::{Failure, Stream, Welcomes};
use crate::catalogue::{Catalogue, MappedLun, TargetAccess, TargetRefusal};
use crate::iscsi::{Guard, NewConnection, NewLun, NewSession};
use crate::nbd::Permit;
use proto::iscsi::{Admitted, ChapSecrets, Config, Door, Entry, Login, LoginFailure, LoginStatus, SessionKind, Step};
use registry::{Begun, Registry};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// The one portal group that there is.
const PORTAL_GROUP: u16 = 1;

/// Bytes read at a time.
const READ_BYTES: usize = 4096;

/// Lets initiators in.
#[derive(Debug)]
pub struct Portal {
    catalogue: Arc<Catalogue>,
    registry: Arc<Registry>,
}

impl Portal {
    /// A portal to the targets of a catalogue.
    #[must_use]
    pub fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { catalogue, registry: Arc::default() }
    }

    /// Has sessions follow what the catalogue says of targets, until `stop` is true or its sender is gone.
    pub async fn follow(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut changed = self.catalogue.targets_changed();
        loop {
            self.registry.remap(&self.catalogue);
            tokio::select! {
                () = super::stopped(&mut stop) => break,
                changed = changed.changed() => if changed.is_err() { break },
            }
        }
    }

    /// Moves bytes until an initiator is admitted.
    async fn log_in(
        &self,
        stream: &mut impl Stream,
        client: &Client,
        (login, input): (&mut Login, &mut Vec<u8>),
    ) -> Result<Box<Admitted>, Failure> {
        loop {
            let mut rest = input.as_slice();
            let step = login.advance(&mut rest, &Entrance { catalogue: &self.catalogue, client });
            let used = input.len() - rest.len();
            input.drain(..used);
            stream.write_all(&login.take_output()).await?;
            stream.flush().await?;
            match step {
                Step::NeedBytes => read(stream, input).await?,
                Step::Admitted(admitted) => return Ok(admitted),
                Step::Close(failure) => return Err(Failure::Login(failure)),
            }
        }
    }

    /// Settles which session a connection is of; `Err` refuses it.
    async fn settle(&self, admitted: &Admitted, client: &Client) -> Result<Settled, LoginStatus> {
        let name = admitted.target.as_deref().unwrap_or_default();
        let access = self.catalogue.find_target(name, &admitted.initiator, client).map_err(status_of)?;
        if admitted.tsih != 0 {
            let begun = self.registry.join(admitted, &access.name)?;
            return Ok(Settled { begun, session: None });
        }
        let luns = self.catalogue.luns_of(access.target);
        let shard = luns.first().map_or_else(|| self.catalogue.first_shard(), |lun| lun.shard.clone());
        let shard_number = luns.first().map_or(0, |lun| lun.shard_number);
        let begun = loop {
            self.registry.end(&access.name, &admitted.initiator, admitted.isid).await;
            // Another one may have come meanwhile.
            if let Some(begun) = self.registry.begin(admitted, (&access, client), (shard_number, shard.clone()))? {
                break begun;
            }
        };
        let luns = luns.into_iter().map(|lun| self.new_lun(lun, shard_number)).collect();
        Ok(Settled { begun, session: Some((access, luns)) })
    }

    fn new_lun(&self, mapped: MappedLun, shard_number: usize) -> NewLun {
        registry::new_lun(self.catalogue.pool_id(), mapped, shard_number)
    }
}

/// A connection that knows its session.
struct Settled {
    begun: Begun,
    /// Of one that begins.
    session: Option<(TargetAccess, Vec<NewLun>)>,
}

impl Welcomes for Portal {
    async fn welcome<S: Stream>(&self, mut stream: S, client: Client, permit: Permit) -> Result<(), Failure> {
        let address = stream.local_address().map(|address| format!("{address},{PORTAL_GROUP}")).unwrap_or_default();
        let mut challenge = [0; 32];
        aws_lc_rs::rand::fill(&mut challenge).map_err(io::Error::other)?;
        let mut login = Login::new(Config { challenge, portal_group: PORTAL_GROUP });
        let mut input = Vec::new();
        let admitted = self.log_in(&mut stream, &client, (&mut login, &mut input)).await?;
        if admitted.kind == SessionKind::Discovery {
            login.finish(Ok(1));
            stream.write_all(&login.take_output()).await?;
            let discovery = discovery::Discovery::new(&self.catalogue, (&client, &admitted), address, login.stat_sn());
            return discovery.serve(stream, input).await;
        }
        let settled = self.settle(&admitted, &client).await;
        let tsih = settled.as_ref().map(|settled| settled.begun.tsih).map_err(|status| *status);
        let (first, last) = match &settled {
            Ok(settled) if settled.session.is_some() => {
                (admitted.cmd_sn, admitted.cmd_sn.wrapping_add(crate::iscsi::WINDOW - 1))
            }
            // The session's window is told by its shard: a closed one is not heeded. RFC 7143 4.2.2.1.
            Ok(_) | Err(_) => (admitted.cmd_sn, admitted.cmd_sn.wrapping_sub(1)),
        };
        login.set_window(first, last);
        login.finish(tsih);
        let greeting = login.take_output();
        let Settled { begun, session } = match settled {
            Ok(settled) => settled,
            Err(status) => {
                stream.write_all(&greeting).await?;
                stream.flush().await?;
                return Err(Failure::Login(LoginFailure::Refused(status)));
            }
        };
        tracing::debug!(client = %client.peer, initiator = admitted.initiator, target = ?admitted.target, "logged in");
        let begins = session.map(|(access, luns)| {
            Box::new(NewSession {
                initiator: admitted.initiator.to_ascii_lowercase(),
                isid: admitted.isid,
                target: access.name.as_str().into(),
                address,
                port: access.port,
                cmd_sn: admitted.cmd_sn,
                luns,
                guard: Guard::new((begun.guard, access.sessions)),
            })
        });
        let new = NewConnection {
            socket: stream.into_socket()?,
            session: begun.key,
            cid: admitted.cid,
            parameters: admitted.parameters,
            greeting,
            stat_sn: login.stat_sn(),
            leftover: input,
            begins,
            permit: Permit::new((permit, begun.place)),
        };
        begun.shard.connect(new)?;
        // What was said of the target since it was looked up.
        self.registry.remap_one(&self.catalogue, begun.key);
        Ok(())
    }
}

async fn read(stream: &mut impl Stream, input: &mut Vec<u8>) -> Result<(), Failure> {
    let mut bytes = [0; READ_BYTES];
    match stream.read(&mut bytes).await? {
        0 => Err(Failure::Socket(io::ErrorKind::UnexpectedEof.into())),
        len => {
            input.extend_from_slice(bytes.get(..len).unwrap_or_default());
            Ok(())
        }
    }
}

/// Who may log in, as the catalogue says.
struct Entrance<'a> {
    catalogue: &'a Catalogue,
    client: &'a Client,
}

impl Door for Entrance<'_> {
    fn enter(&self, target: Option<&str>, initiator: &str) -> Result<Entry, LoginStatus> {
        // A discovery shows each initiator the targets that it may enter, and nothing else.
        let Some(target) = target else { return Ok(Entry::default()) };
        let access = self.catalogue.find_target(target, initiator, self.client).map_err(status_of)?;
        let chap = access.chap.map(|chap| ChapSecrets { user: chap.user, secret: chap.secret, mutual: chap.mutual });
        Ok(Entry { chap })
    }
}

const fn status_of(refusal: TargetRefusal) -> LoginStatus {
    match refusal {
        TargetRefusal::Unknown => LoginStatus::NOT_FOUND,
        TargetRefusal::NotAllowed => LoginStatus::FORBIDDEN,
        TargetRefusal::Suspended | TargetRefusal::Stopping => LoginStatus::UNAVAILABLE,
    }
}
