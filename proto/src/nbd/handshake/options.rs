//! What each option does: judged by its header, then by its data, then by the driver's answer.

use super::super::constants::{client_flag, option_reply};
use super::super::export::{Export, TransmissionFlags};
use super::super::meta_context;
use super::super::option::{self, KnownOption, OptionError, Wanted};
use super::super::reply::ReplyStyle;
use super::{CloseReason, Handshake, Negotiated, Paused, Pending, Refusal, State, TlsPolicy, answer, limit};

/// What becomes of an option whose header has been read.
pub(super) enum Admission {
    Take(KnownOption, usize),
    Refuse(OptionError),
    Close(CloseReason),
}

impl Admission {
    pub(super) const fn refuse(code: u32, message: &'static str) -> Self {
        Self::Refuse(OptionError { code, message })
    }
}

impl Handshake {
    /// Judges an option by its header.
    pub(super) fn admit(&mut self, number: u32, len_bytes: u32) -> Admission {
        let option = KnownOption::from_wire(number);
        if self.client_flags & client_flag::FIXED_NEWSTYLE == 0 && option != Some(KnownOption::ExportName) {
            return Admission::Close(CloseReason::NotFixedNewstyle);
        }
        if option == Some(KnownOption::SetMetaContext) {
            // It replaces the earlier selection even when it fails.
            self.haggled.contexts.clear();
        }
        let tls_missing = self.policy == TlsPolicy::Required && !self.tls;
        if tls_missing && !matches!(option, Some(KnownOption::StartTls | KnownOption::Abort)) {
            return match option {
                Some(KnownOption::ExportName) => Admission::Close(CloseReason::TlsRequired),
                _ => Admission::refuse(option_reply::ERR_TLS_REQD, "TLS must be started first"),
            };
        }
        let Some(option) = option else {
            return Admission::refuse(option_reply::ERR_UNSUP, "the option is not known");
        };
        if option.is_bare() && len_bytes > 0 {
            return Admission::refuse(option_reply::ERR_INVALID, "the option takes no data");
        }
        match usize::try_from(len_bytes) {
            Ok(len) if len_bytes <= limit::OPTION_BYTES_MAX => Admission::Take(option, len),
            _ if option == KnownOption::ExportName => Admission::Close(CloseReason::BadExportName),
            _ => Admission::refuse(option_reply::ERR_TOO_BIG, "the option is too long"),
        }
    }

    pub(super) fn on_export_name(&mut self, data: &[u8]) -> Paused {
        if self.haggled.extended {
            return Some(self.close(CloseReason::ExportNameAfterExtendedHeaders));
        }
        let Ok(name) = option::decode_string(data) else {
            return Some(self.close(CloseReason::BadExportName));
        };
        self.state = State::AskedForExport { name: name.to_owned(), pending: Pending::ExportName };
        None
    }

    pub(super) fn on_option(&mut self, option: KnownOption, data: Vec<u8>) -> Result<State, OptionError> {
        match option {
            KnownOption::Abort => {
                answer::ack(&mut self.output, option);
                Ok(State::Closed(CloseReason::Aborted))
            }
            KnownOption::List => Ok(State::AskedForList),
            KnownOption::StartTls => self.on_start_tls(),
            KnownOption::Info | KnownOption::Go | KnownOption::ExportName => {
                let (name, wanted) = option::decode_info(&data)?;
                Ok(State::AskedForExport { name: name.to_owned(), pending: Pending::Info { option, wanted } })
            }
            KnownOption::StructuredReply => self.on_structured_reply(),
            KnownOption::ExtendedHeaders => self.on_extended_headers(),
            KnownOption::ListMetaContext | KnownOption::SetMetaContext => {
                if self.style() == ReplyStyle::Simple {
                    return Err(invalid("structured replies must be negotiated first"));
                }
                let (name, _) = option::decode_meta_context(&data)?;
                let name = name.to_owned();
                Ok(State::AskedForExport { name, pending: Pending::MetaContext { option, data } })
            }
        }
    }

    fn on_start_tls(&mut self) -> Result<State, OptionError> {
        if self.tls {
            return Err(invalid("TLS has been started already"));
        }
        if self.policy == TlsPolicy::Off {
            return Err(OptionError { code: option_reply::ERR_POLICY, message: "TLS is not offered here" });
        }
        answer::ack(&mut self.output, KnownOption::StartTls);
        Ok(State::AskedForTls)
    }

    fn on_structured_reply(&mut self) -> Result<State, OptionError> {
        if self.haggled.extended {
            let message = "extended headers are in use";
            return Err(OptionError { code: option_reply::ERR_EXT_HEADER_REQD, message });
        }
        if std::mem::replace(&mut self.haggled.structured, true) {
            return Err(invalid("structured replies are in use already"));
        }
        answer::ack(&mut self.output, KnownOption::StructuredReply);
        Ok(State::OptionHeader)
    }

    fn on_extended_headers(&mut self) -> Result<State, OptionError> {
        if std::mem::replace(&mut self.haggled.extended, true) {
            return Err(invalid("extended headers are in use already"));
        }
        answer::ack(&mut self.output, KnownOption::ExtendedHeaders);
        Ok(State::OptionHeader)
    }

    pub(super) fn answer_contexts(&mut self, option: KnownOption, name: String, data: &[u8], export: &Export) {
        let (_, queries) =
            option::decode_meta_context(data).expect("the data was decoded before the export was asked for");
        if option == KnownOption::ListMetaContext {
            let found = meta_context::list(&export.contexts, &queries);
            return answer::contexts(&mut self.output, option, &found);
        }
        let found = meta_context::select(&export.contexts, &queries);
        if found.len() > limit::CONTEXTS_MAX {
            let too_big =
                OptionError { code: option_reply::ERR_TOO_BIG, message: "too many metadata contexts at once" };
            return answer::error(&mut self.output, option.to_wire(), too_big);
        }
        answer::contexts(&mut self.output, option, &found);
        self.haggled.contexts = found;
        self.haggled.contexts_export = name;
    }

    pub(super) fn refuse(&mut self, option: KnownOption, refusal: Refusal) {
        // A server that does not offer TLS, or talks it already, must not ask for it.
        let tls_can_help = self.policy != TlsPolicy::Off && !self.tls;
        let (code, message) = match refusal {
            Refusal::Unknown => (option_reply::ERR_UNKNOWN, "there is no such export"),
            Refusal::TlsRequired if tls_can_help => (option_reply::ERR_TLS_REQD, "the export needs TLS"),
            Refusal::TlsRequired | Refusal::Policy => (option_reply::ERR_POLICY, "that is not permitted here"),
            Refusal::Shutdown => (option_reply::ERR_SHUTDOWN, "the server is shutting down"),
        };
        answer::error(&mut self.output, option.to_wire(), OptionError { code, message });
    }

    pub(super) fn enter(&mut self, name: String, export: Export, wanted: Wanted) {
        let selected = std::mem::take(&mut self.haggled.contexts);
        let same_export = self.haggled.contexts_export == name;
        // The export may have been replaced by another of its name since: ids are places in its list.
        let contexts = selected.into_iter().filter(|context| {
            let place = usize::try_from(context.id).ok().and_then(|place| export.contexts.get(place));
            same_export && place == Some(&context.name)
        });
        self.state = State::Entering(Some(Box::new(Negotiated {
            contexts: contexts.collect(),
            flags: self.flags_told(&export),
            style: self.style(),
            tls: self.tls,
            no_zeroes: self.no_zeroes(),
            block_sizes_asked: wanted.block_size,
            requested_name: name,
            export,
        })));
    }

    /// The export's abilities, less those that need what the client has not negotiated.
    pub(super) fn flags_told(&self, export: &Export) -> TransmissionFlags {
        let mut flags = export.flags;
        if self.style() == ReplyStyle::Simple {
            flags = flags.without(TransmissionFlags::SEND_DF);
        }
        if !flags.contains(TransmissionFlags::SEND_WRITE_ZEROES) {
            flags = flags.without(TransmissionFlags::SEND_FAST_ZERO);
        }
        flags
    }

    const fn style(&self) -> ReplyStyle {
        match (self.haggled.extended, self.haggled.structured) {
            (true, _) => ReplyStyle::Extended,
            (false, true) => ReplyStyle::Structured,
            (false, false) => ReplyStyle::Simple,
        }
    }

    pub(super) const fn no_zeroes(&self) -> bool {
        self.client_flags & client_flag::NO_ZEROES != 0
    }
}

const fn invalid(message: &'static str) -> OptionError {
    OptionError { code: option_reply::ERR_INVALID, message }
}
