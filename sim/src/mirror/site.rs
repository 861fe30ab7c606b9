//! A site: what survives its process, and the process.

use super::log::{Entry, Log};
use replication::{Config, Member, PeerAck, Position, Promise, Role, Start, Why};
use units::{Epoch, Lsn, Monotonic};

/// What a site's disk holds of its promise.
#[derive(Debug, Clone, Default)]
pub(crate) struct PromiseFile {
    /// The promise.
    pub(crate) promise: Promise,
    /// The boot of the machine in which it was written: after another one the log may lack what was appended.
    pub(crate) boot: u64,
}

/// A request of a client, as a site has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// The client.
    pub(super) client: usize,
    /// Which try of its it is.
    pub(super) attempt: u64,
    /// What it wants.
    pub(super) wish: Wish,
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To write a block.
    Write {
        /// Which.
        block: u8,
        /// What.
        value: u64,
    },
    /// To read one.
    Read {
        /// Which.
        block: u8,
    },
    /// To have all that was answered on stable storage.
    Flush,
}

/// Where the sending of the log to the other site is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    /// The connection.
    pub(super) connection: u64,
    /// The epoch that the other one follows in.
    pub(super) epoch: Epoch,
    /// What it is sent next.
    pub(super) next: Lsn,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    /// Its role machine.
    pub(super) member: Member,
    /// The role that the log has taken on, and its number.
    pub(super) role: Role,
    /// See above.
    pub(super) role_number: u64,
    /// The role that it is to take on once what is being appended is.
    pub(super) pending: Option<(u64, Role)>,
    /// Operations that are being appended.
    pub(super) appending: Vec<Entry>,
    /// Requests that wait for a role.
    pub(super) held: Vec<Request>,
    /// Writes that wait to be committed.
    pub(super) writes: Vec<(Request, Lsn)>,
    /// Flushes that wait for it.
    pub(super) flushes: Vec<(Request, Lsn)>,
    /// Reads, and when they came.
    pub(super) reads: Vec<(Request, Monotonic)>,
    /// The sending of the log.
    pub(super) stream: Option<Stream>,
    /// What the other site has said of its log.
    pub(super) ack: Option<PeerAck>,
    /// A sync is under way.
    pub(super) is_syncing: bool,
    /// For how many ticks its log has ended where it does.
    pub(super) quiet_ticks: u64,
    /// Where that is.
    pub(super) quiet_at: Position,
}

/// A site.
#[derive(Debug)]
pub(super) struct Site {
    /// What it is told at each start.
    pub(super) config: Config,
    /// Its log.
    pub(super) log: Log,
    /// Its promise.
    pub(super) file: PromiseFile,
    /// Its process, while there is one.
    pub(super) process: Option<Process>,
    /// Counts processes: what was meant for one is not for the next.
    pub(super) run: u64,
    /// Counts boots of the machine.
    pub(super) boot: u64,
    /// It is stopped until then.
    pub(super) stalled_until: u64,
    /// How fast its clock goes, in thousandths.
    pub(super) rate: u64,
    /// Where its clock began.
    pub(super) offset: u64,
    /// Most nanoseconds that a sync takes.
    pub(super) sync_max: u64,
    /// A power cut took from its log, and it has not been brought up to date since.
    pub(super) has_lost: bool,
}

impl Site {
    /// Its clock.
    #[must_use]
    pub(super) const fn clock(&self, time: u64) -> Monotonic {
        Monotonic(self.offset + time / 1000 * self.rate)
    }

    /// Starts its process; what that wants is in `actions`.
    pub(super) fn start(&mut self, time: u64, actions: &mut Vec<replication::Action>) {
        self.run += 1;
        let is_log_whole = self.file.boot == self.boot;
        let start = Start { promise: self.file.promise.clone(), log: self.log.state(0), is_log_whole };
        self.process = Some(Process {
            member: Member::start(self.config, self.clock(time), start, actions),
            role: Role::Freeze { why: Why::Starting },
            role_number: 0,
            pending: None,
            appending: Vec::new(),
            held: Vec::new(),
            writes: Vec::new(),
            flushes: Vec::new(),
            reads: Vec::new(),
            stream: None,
            ack: None,
            is_syncing: false,
            quiet_ticks: 0,
            quiet_at: Position::ZERO,
        });
    }
}

impl Process {
    /// Every request that has no answer yet, taken away.
    pub(super) fn take_requests(&mut self) -> Vec<Request> {
        let writes = self.writes.drain(..).map(|(request, _)| request);
        let flushes = self.flushes.drain(..).map(|(request, _)| request);
        let reads = self.reads.drain(..).map(|(request, _)| request);
        self.held.drain(..).chain(writes).chain(flushes).chain(reads).collect()
    }

    /// Drops what `client` asked for before: its connection is gone.
    pub(super) fn forget(&mut self, client: usize) {
        self.held.retain(|request| request.client != client);
        self.writes.retain(|(request, _)| request.client != client);
        self.flushes.retain(|(request, _)| request.client != client);
        self.reads.retain(|(request, _)| request.client != client);
    }
}
