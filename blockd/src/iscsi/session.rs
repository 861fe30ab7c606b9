//! A session: its LUNs, its commands under way, and the order in which they came. RFC 7143 4.2.2.1, 4.3.

use super::NewSession;
use crate::payload::ArrivingPayload;
use crate::shard::ShardHandle;
use crate::unit::SessionKey;
use proto::iscsi::{
    Attribute, DataOut, LogoutRequest, NopOut, Parameters, ScsiCommand, TaskManagement, TextRequest, TextResponse,
    Transfer, Window,
};
use proto::scsi::{Command, CopyStatus, Lun, Nexus, Sense, Status};
use std::collections::BTreeMap;
use std::sync::Arc;
use units::VolumeId;

/// Marks tags of a session's own tasks.
pub(crate) const OWN_TAG: u64 = 1 << 63;

/// Numbers that tell tasks of one tag apart.
const SERIALS: u64 = 1 << 31;

/// Most commands of a session under way that take no number.
const IMMEDIATE_MAX: usize = 64;

/// Where the unit of a LUN is.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) volume: VolumeId,
    /// Its shard, when that is another than the session's.
    pub(crate) shard: Option<ShardHandle>,
    pub(crate) naa: [u8; 8],
}

/// What waits for its turn by CmdSN.
#[derive(Debug)]
pub(crate) enum Item {
    Task(u32),
    Management(usize, TaskManagement),
    Nop(usize, NopOut, Vec<u8>),
    Text(usize, TextRequest, Vec<u8>),
    Logout(usize, LogoutRequest),
}

/// What the data that is arriving on a connection belongs to.
#[derive(Debug)]
pub(crate) enum Pending {
    /// A command's immediate data.
    Command(u32),
    /// A Data-Out of the command.
    DataOut(u32),
    Nop(NopOut),
    Text(TextRequest),
    /// Nothing: it is thrown away.
    Nothing,
}

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Data is missing, or a command before it.
    Gathering,
    /// Its unit has it.
    Submitted,
}

/// A command of a session.
#[derive(Debug)]
pub(crate) struct Task {
    /// The connection that it came by, which its answer goes to.
    pub(crate) connection: usize,
    pub(crate) itt: u32,
    /// What its unit knows it by: the initiator task tag below, and above it a number that tells it from others of that tag.
    pub(crate) tag: u64,
    pub(crate) cmd_sn: u32,
    pub(crate) lun: [u8; 8],
    pub(crate) attribute: Attribute,
    pub(crate) command: Result<Command, Sense>,
    pub(crate) expected_bytes: u32,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    /// Bytes that the command takes of those that the initiator sends.
    pub(crate) wanted_bytes: u64,
    pub(crate) payload: ArrivingPayload,
    pub(crate) transfer: Option<Transfer>,
    /// Bytes of its payload that count under the limits.
    pub(crate) held_bytes: u64,
    /// Whether room for all of it is counted: then what is missing may be asked for.
    pub(crate) is_granted: bool,
    pub(crate) stage: Stage,
    /// Whether it has a place of its own in the command window.
    pub(crate) is_numbered: bool,
    /// Whether all commands before it have come.
    pub(crate) is_in_order: bool,
    /// Whether data of it is on its way into the receiver's hands.
    pub(crate) is_arriving: bool,
    /// Whether it takes no data: it has failed, or there is no memory for it, and the initiator tries again.
    pub(crate) is_refused: bool,
    pub(crate) failed: Option<Sense>,
    /// Whether it waits for room before its data is asked for.
    pub(crate) is_waiting: bool,
    /// Its answer is thrown away.
    pub(crate) is_aborted: bool,
}

impl Task {
    pub(crate) fn new(connection: usize, command: &ScsiCommand, decoded: Result<Command, Sense>) -> Self {
        let asked = decoded.as_ref().map_or(0, Command::data_out_bytes);
        let wanted_bytes = if command.writes { asked.min(u64::from(command.expected_bytes)) } else { 0 };
        Self {
            connection,
            itt: command.itt,
            tag: u64::from(command.itt),
            cmd_sn: command.cmd_sn,
            lun: command.lun,
            attribute: command.attribute,
            command: decoded,
            expected_bytes: command.expected_bytes,
            reads: command.reads,
            writes: command.writes,
            wanted_bytes,
            payload: ArrivingPayload::default(),
            transfer: None,
            held_bytes: 0,
            is_granted: false,
            stage: Stage::Gathering,
            is_numbered: !command.immediate,
            is_in_order: false,
            is_arriving: false,
            is_refused: false,
            failed: None,
            is_waiting: false,
            is_aborted: false,
        }
    }

    /// The command; refused when it wants data and does not say that it comes with some. RFC 7143 11.3.1.
    pub(crate) fn as_announced(&self) -> Result<Command, Sense> {
        match self.command {
            Ok(command) if command.data_out_bytes() > 0 && !self.writes => {
                Err(Sense::INVALID_FIELD_IN_INFORMATION_UNIT)
            }
            command => command,
        }
    }

    /// Whether all that the command needs is there.
    pub(crate) fn has_its_data(&self) -> bool {
        // What is refused is answered when its turn comes: the rest of its data is asked of nobody, or thrown away.
        !self.is_arriving && (self.is_refused || self.transfer.as_ref().is_none_or(Transfer::is_complete))
    }
}

/// A management function that waits for its units.
#[derive(Debug)]
pub(crate) struct Management {
    pub(crate) connection: usize,
    /// Units that have not answered.
    pub(crate) open: usize,
    /// Whether the session ends with its answer.
    pub(crate) ends_session: bool,
}

/// A session.
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    pub(crate) nexus: Nexus,
    pub(crate) target: Arc<str>,
    pub(crate) address: String,
    pub(crate) parameters: Parameters,
    pub(crate) window: Window<Item>,
    /// Places of its connections in the shard.
    pub(crate) connections: Vec<usize>,
    pub(crate) luns: BTreeMap<u16, Route>,
    pub(crate) tasks: BTreeMap<u32, Task>,
    /// Commands that no unit has, in the order of their CmdSNs, by whichever connection they came.
    pub(crate) gathering: Vec<u32>,
    /// By their initiator task tags.
    pub(crate) management: BTreeMap<u32, Management>,
    pub(crate) copies: BTreeMap<u32, super::CopyJob>,
    /// What became of copies, by their list identifiers.
    pub(crate) copy_results: BTreeMap<u8, (CopyStatus, Option<(Status, Sense)>)>,
    last_serial: u64,
    pub(crate) next_ttt: u32,
    /// Dropped last, wherever.
    pub(crate) guard: super::Guard,
}

impl Session {
    pub(crate) fn new(key: SessionKey, parameters: Parameters, new: NewSession) -> Self {
        let NewSession { initiator, isid, target, address, port, cmd_sn, guard, .. } = new;
        Self {
            key,
            nexus: Nexus { initiator, isid, port },
            target,
            address,
            parameters,
            window: Window::new(cmd_sn, super::WINDOW),
            connections: Vec::new(),
            luns: BTreeMap::new(),
            tasks: BTreeMap::new(),
            gathering: Vec::new(),
            management: BTreeMap::new(),
            copies: BTreeMap::new(),
            copy_results: BTreeMap::new(),
            last_serial: 0,
            next_ttt: 1,
            guard,
        }
    }

    /// Where the unit of a LUN is, as PDUs name that.
    pub(crate) fn route(&self, lun: [u8; 8]) -> Option<&Route> {
        self.luns.get(&Lun::decode(lun)?.0)
    }

    /// ExpCmdSN and MaxCmdSN.
    pub(crate) fn numbers(&self) -> (u32, u32) {
        (self.window.exp_cmd_sn(), self.window.max_cmd_sn())
    }

    /// A target transfer tag that is not the reserved one.
    pub(crate) fn take_ttt(&mut self) -> u32 {
        let ttt = self.next_ttt;
        self.next_ttt = if ttt == u32::MAX - 1 { 1 } else { ttt + 1 };
        ttt
    }

    /// A tag for a task of the session's own, which no initiator's is.
    pub(crate) fn take_tag(&mut self) -> u64 {
        OWN_TAG | self.take_serial()
    }

    fn take_serial(&mut self) -> u64 {
        self.last_serial = (self.last_serial + 1) % SERIALS;
        self.last_serial
    }

    /// The initiator task tag of the command that a unit knows by this tag, if it is still there.
    pub(crate) fn itt_of(&self, tag: u64) -> Option<u32> {
        let itt = u32::try_from(tag & u64::from(u32::MAX)).ok()?;
        self.tasks.get(&itt).filter(|task| task.tag == tag).map(|task| task.itt)
    }

    /// Takes a command in.
    pub(crate) fn gather(&mut self, mut task: Task) {
        task.tag |= self.take_serial() << 32;
        let is_before = |itt: &u32| self.tasks.get(itt).is_some_and(|other| !is_behind(task.cmd_sn, other.cmd_sn));
        let place = self.gathering.partition_point(is_before);
        self.gathering.insert(place, task.itt);
        self.tasks.insert(task.itt, task);
    }

    /// Has a command that is over be waited for no more: it gives its place in the window back, or what was held for it.
    pub(crate) fn leave_order(&mut self, task: &Task) {
        if task.stage == Stage::Gathering {
            self.gathering.retain(|other| *other != task.itt);
        }
        if task.is_numbered && task.is_in_order {
            self.window.release();
        } else if task.is_numbered {
            self.window.take_held(|item| matches!(item, Item::Task(itt) if *itt == task.itt));
        }
    }

    /// Whether it has as many immediate commands as it may: the window bounds the others only. RFC 7143 11.17.1.
    pub(crate) fn has_many_immediate(&self) -> bool {
        let immediate = self.tasks.values().filter(|task| !task.is_numbered).count();
        immediate + self.management.len() >= IMMEDIATE_MAX
    }

    /// The task that a Data-Out belongs to.
    pub(crate) fn task_of(&mut self, data: &DataOut, connection: usize) -> Option<&mut Task> {
        let task = self.tasks.get_mut(&data.itt)?;
        (task.connection == connection && task.stage == Stage::Gathering && !task.is_aborted).then_some(task)
    }
}

/// Asks for the rest of a text.
pub(crate) const fn go_on(text: &TextRequest, ttt: u32) -> TextResponse {
    TextResponse { is_final: false, is_continued: false, lun: text.lun, itt: text.itt, ttt, data_bytes: 0 }
}

/// Whether a number comes behind another one. RFC 1982.
pub(crate) const fn is_behind(before: u32, number: u32) -> bool {
    let distance = number.wrapping_sub(before);
    distance > 0 && distance < 1 << 31
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:?}, {} at {}, {} tasks)", self.key, self.nexus.initiator, self.target, self.tasks.len())
    }
}
