//! The handshake as a state machine: fixed newstyle, server side.
//!
//! The driver loops: [`Handshake::advance`] takes what it can use of the bytes received and says what comes next; the
//! driver then sends [`Handshake::take_output`], which may hold bytes after any step, and does what the step asks.
//! Memory and number of steps are bounded by [`limit`]; time is not: the driver sets a deadline.
//!
//! Spec: NBD proto.md, "Handshake", "TLS support", "Option types".

mod answer;
pub mod limit;
mod options;
mod outcome;

pub use outcome::{CloseReason, Negotiated, Purpose, Refusal, Step, TlsPolicy};

use super::constants::{
    CLIENT_FLAGS_BYTES, INIT_MAGIC, OPTION_HEADER_BYTES, OPTION_MAGIC, client_flag, handshake_flag,
};
use super::export::Export;
use super::meta_context::MetaContext;
use super::option::{self, KnownOption, OptionError, Wanted};
use options::Admission;

/// The handshake of one connection.
#[derive(Debug)]
pub struct Handshake {
    policy: TlsPolicy,
    state: State,
    /// Bytes of the flags, header or data being collected; at most [`limit::OPTION_BYTES_MAX`].
    collected: Vec<u8>,
    output: Vec<u8>,
    client_flags: u32,
    options_seen: u32,
    skipped_bytes: u64,
    tls: bool,
    haggled: Haggled,
}

/// What options have settled so far. Starting TLS forgets it.
#[derive(Debug, Default)]
struct Haggled {
    structured: bool,
    extended: bool,
    /// Selected contexts and the export name that they were selected for.
    contexts: Vec<MetaContext>,
    contexts_export: String,
}

#[derive(Debug)]
enum State {
    ClientFlags,
    OptionHeader,
    OptionData {
        option: KnownOption,
        len: usize,
    },
    /// Throws `left` bytes away, then refuses the option.
    Skipping {
        option: u32,
        left: usize,
        error: OptionError,
    },
    AskedForExport {
        name: String,
        pending: Pending,
    },
    AskedForList,
    AskedForTls,
    /// Empty once it has been given out.
    Entering(Option<Box<Negotiated>>),
    Closed(CloseReason),
}

/// The option for which an export is looked up.
#[derive(Debug, Clone)]
enum Pending {
    ExportName,
    Info {
        option: KnownOption,
        wanted: Wanted,
    },
    /// Its data, so that the queries need no copy each.
    MetaContext {
        option: KnownOption,
        data: Vec<u8>,
    },
}

impl Pending {
    const fn purpose(&self) -> Purpose {
        match self {
            Self::ExportName | Self::Info { option: KnownOption::Go, .. } => Purpose::Enter,
            Self::Info { .. } | Self::MetaContext { .. } => Purpose::Describe,
        }
    }

    const fn option(&self) -> KnownOption {
        match self {
            Self::ExportName => KnownOption::ExportName,
            Self::Info { option, .. } | Self::MetaContext { option, .. } => *option,
        }
    }
}

/// `None` when the machine can go on by itself.
type Paused = Option<Step>;

impl Handshake {
    /// Begins a handshake; the greeting is in the output.
    #[must_use]
    pub fn new(policy: TlsPolicy) -> Self {
        let flags = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
        let mut output = Vec::new();
        output.extend_from_slice(&INIT_MAGIC.to_be_bytes());
        output.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        output.extend_from_slice(&flags.to_be_bytes());
        Self {
            policy,
            state: State::ClientFlags,
            collected: Vec::new(),
            output,
            client_flags: 0,
            options_seen: 0,
            skipped_bytes: 0,
            tls: false,
            haggled: Haggled::default(),
        }
    }

    /// Takes off the front of `input` what it can use, and says what comes next.
    ///
    /// What is left of `input` after [`Step::Transmission`] are requests already. After a step that asks, the same step
    /// is returned until the answer is given.
    pub fn advance(&mut self, input: &mut &[u8]) -> Step {
        loop {
            if let Some(step) = self.step(input) {
                return step;
            }
        }
    }

    /// Takes the bytes to be sent, in the order they are to be sent. To be called after every step.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Answers [`Step::FindExport`].
    ///
    /// # Panics
    /// When no export was asked for.
    pub fn answer_export(&mut self, answer: Result<Export, Refusal>) {
        let State::AskedForExport { name, pending } = std::mem::replace(&mut self.state, State::OptionHeader) else {
            panic!("no export was asked for");
        };
        match (pending, answer) {
            (Pending::ExportName, Err(_)) => self.state = State::Closed(CloseReason::ExportRefused),
            (pending, Err(refusal)) => self.refuse(pending.option(), refusal),
            (Pending::ExportName, Ok(export)) => {
                let (flags, no_zeroes) = (self.flags_told(&export), self.no_zeroes());
                answer::export_name(&mut self.output, &export, flags, no_zeroes);
                self.enter(name, export, Wanted::default());
            }
            (Pending::Info { option, wanted }, Ok(export)) => {
                let flags = self.flags_told(&export);
                answer::export(&mut self.output, option, &export, flags, wanted);
                if option == KnownOption::Go {
                    self.enter(name, export, wanted);
                }
            }
            (Pending::MetaContext { option, data }, Ok(export)) => self.answer_contexts(option, name, &data, &export),
        }
    }

    /// Answers [`Step::ListExports`] with the exports' names and descriptions (empty for none).
    ///
    /// # Panics
    /// When no list was asked for.
    pub fn answer_list<'a>(&mut self, answer: Result<impl IntoIterator<Item = (&'a str, &'a str)>, Refusal>) {
        assert!(matches!(self.state, State::AskedForList), "no list was asked for");
        self.state = State::OptionHeader;
        match answer {
            Ok(exports) => answer::list(&mut self.output, exports),
            Err(refusal) => self.refuse(KnownOption::List, refusal),
        }
    }

    /// Reports that [`Step::StartTls`] was carried out: from now on all bytes come and go over TLS.
    ///
    /// # Panics
    /// When TLS was not to be started.
    pub fn tls_started(&mut self) {
        assert!(matches!(self.state, State::AskedForTls), "TLS was not to be started");
        self.tls = true;
        // Whatever was said in the clear may have been said by somebody else.
        self.haggled = Haggled::default();
        self.state = State::OptionHeader;
    }

    /// Whether the connection has gone over to TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    fn step(&mut self, input: &mut &[u8]) -> Paused {
        match &mut self.state {
            State::ClientFlags => self.take_client_flags(input),
            State::OptionHeader => self.take_option_header(input),
            State::OptionData { .. } => self.take_option_data(input),
            State::Skipping { option, left, error } => {
                let len = input.len().min(*left);
                *input = input.get(len..).unwrap_or_default();
                *left -= len;
                if *left > 0 {
                    return Some(Step::NeedBytes);
                }
                answer::error(&mut self.output, *option, *error);
                self.state = State::OptionHeader;
                None
            }
            State::AskedForExport { name, pending } => {
                Some(Step::FindExport { name: name.clone(), purpose: pending.purpose() })
            }
            State::AskedForList => Some(Step::ListExports),
            State::AskedForTls if input.is_empty() => Some(Step::StartTls),
            // Bytes sent in the clear behind the option would otherwise be taken for bytes that TLS vouches for.
            State::AskedForTls => Some(self.close(CloseReason::BytesBeforeTls)),
            State::Entering(negotiated) => {
                Some(negotiated.take().map_or(Step::Close(CloseReason::Over), Step::Transmission))
            }
            State::Closed(reason) => Some(Step::Close(*reason)),
        }
    }

    /// Moves bytes from `input` until `len` are collected; returns whether they are.
    fn collect(&mut self, input: &mut &[u8], len: usize) -> bool {
        let wanted = len.saturating_sub(self.collected.len()).min(input.len());
        let (taken, rest) = input.split_at_checked(wanted).unwrap_or((input, &[]));
        self.collected.extend_from_slice(taken);
        *input = rest;
        self.collected.len() >= len
    }

    fn collect_array<const N: usize>(&mut self, input: &mut &[u8]) -> Option<[u8; N]> {
        if !self.collect(input, N) {
            return None;
        }
        let array = self.collected.first_chunk::<N>().copied();
        self.collected.clear();
        array
    }

    fn take_client_flags(&mut self, input: &mut &[u8]) -> Paused {
        let Some(flags) = self.collect_array::<CLIENT_FLAGS_BYTES>(input).map(u32::from_be_bytes) else {
            return Some(Step::NeedBytes);
        };
        if flags & !(client_flag::FIXED_NEWSTYLE | client_flag::NO_ZEROES) != 0 {
            return Some(self.close(CloseReason::UnknownClientFlags));
        }
        self.client_flags = flags;
        self.state = State::OptionHeader;
        None
    }

    fn take_option_header(&mut self, input: &mut &[u8]) -> Paused {
        let Some(header) = self.collect_array::<OPTION_HEADER_BYTES>(input) else {
            return Some(Step::NeedBytes);
        };
        let Some((number, len_bytes)) = option::decode_header(header) else {
            return Some(self.close(CloseReason::BadOptionMagic));
        };
        self.options_seen += 1;
        if self.options_seen > limit::OPTIONS_MAX {
            return Some(self.close(CloseReason::TooManyOptions));
        }
        match self.admit(number, len_bytes) {
            Admission::Take(option, len) => self.state = State::OptionData { option, len },
            Admission::Refuse(error) => return self.skip(number, len_bytes, error),
            Admission::Close(reason) => return Some(self.close(reason)),
        }
        None
    }

    fn skip(&mut self, option: u32, len_bytes: u32, error: OptionError) -> Paused {
        self.skipped_bytes += u64::from(len_bytes);
        let Some(left) = usize::try_from(len_bytes).ok().filter(|_| self.skipped_bytes <= limit::SKIPPED_BYTES_MAX)
        else {
            return Some(self.close(CloseReason::TooMuchSkipped));
        };
        self.state = State::Skipping { option, left, error };
        None
    }

    fn take_option_data(&mut self, input: &mut &[u8]) -> Paused {
        let State::OptionData { option, len } = self.state else {
            return None;
        };
        if !self.collect(input, len) {
            return Some(Step::NeedBytes);
        }
        let data = std::mem::take(&mut self.collected);
        self.state = State::OptionHeader;
        if option == KnownOption::ExportName {
            return self.on_export_name(&data);
        }
        match self.on_option(option, data) {
            Ok(state) => self.state = state,
            Err(error) => answer::error(&mut self.output, option.to_wire(), error),
        }
        None
    }

    fn close(&mut self, reason: CloseReason) -> Step {
        self.state = State::Closed(reason);
        Step::Close(reason)
    }
}
