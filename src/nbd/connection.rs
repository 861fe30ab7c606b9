//! A connection to an export.

use super::dialer::Stream;
use super::pending::{Answer, Pending, Waiting};
use super::{Facts, NbdError};
use proto::nbd::client::{decode_reply, encode_request};
use proto::nbd::constants::{PAYLOAD_BYTES_MAX, command};
use proto::nbd::{Cookie, RequestHeader, StatusExtent};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

type Reader = ReadHalf<Box<dyn Stream>>;
type Writer = WriteHalf<Box<dyn Stream>>;

/// A request that takes longer than so many silences is given up, however much else comes: its server drips.
const SILENCES_MAX: u32 = 10;

/// Longest wait for a server to hang up after it was told goodbye.
const GOODBYE_DURATION_MAX: Duration = Duration::from_secs(5);

/// Bytes received at a time.
const RECEIVE_BYTES: usize = 256 << 10;

/// Most bytes of one status request: below the 32 bits of its length, and aligned to any block.
const STATUS_BYTES_MAX: u64 = 1 << 31;

/// A connection to an export. Requests may be in flight in any number.
pub(crate) struct Connection {
    facts: Facts,
    waiting: Arc<Waiting>,
    writer: Mutex<Writer>,
    receiving: JoinHandle<()>,
    /// Longest silence of a server that owes an answer.
    silence_max: Duration,
}

impl Connection {
    /// A connection whose handshake is over, with what came behind that.
    pub(super) fn new(stream: Box<dyn Stream>, facts: Facts, input: Vec<u8>, silence_max: Duration) -> Self {
        let (reader, writer) = split(stream);
        let waiting = Arc::new(Waiting::default());
        let receiving = tokio::spawn(receive(reader, input, facts, Arc::clone(&waiting)));
        Self { facts, waiting, writer: Mutex::new(writer), receiving, silence_max }
    }

    /// What the server says of the export.
    pub(crate) const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Reads `len` bytes.
    pub(crate) async fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, NbdError> {
        let buffer = vec![0; usize::try_from(len).unwrap_or(0)];
        match self.ask(("read", command::READ), (offset, len), Answer::Data(buffer), &[]).await? {
            Answer::Data(data) => Ok(data),
            Answer::Done | Answer::Extents(_) => Err(NbdError::Protocol("a read brings no data".to_owned())),
        }
    }

    /// Writes `data`.
    pub(crate) async fn write(&self, offset: u64, data: &[u8]) -> Result<(), NbdError> {
        let too_long = |_| NbdError::Protocol("a write is too long".to_owned());
        let len = u32::try_from(data.len()).map_err(too_long)?;
        self.ask(("write", command::WRITE), (offset, len), Answer::Done, data).await.map(drop)
    }

    /// Makes all writes durable that have been answered.
    pub(crate) async fn flush(&self) -> Result<(), NbdError> {
        if !self.facts.has_flush {
            return Ok(());
        }
        self.ask(("flush", command::FLUSH), (0, 0), Answer::Done, &[]).await.map(drop)
    }

    /// What is from `offset` on: at least one extent, none beyond `len` bytes. One of data where the server cannot tell.
    pub(crate) async fn extents(&self, offset: u64, len: u64) -> Result<Vec<StatusExtent>, NbdError> {
        if self.facts.allocation.is_none() {
            return Ok(vec![StatusExtent { len_bytes: len, status: 0 }]);
        }
        let asked = u32::try_from(len.min(STATUS_BYTES_MAX)).unwrap_or(u32::MAX);
        let status = ("tell the extents", command::BLOCK_STATUS);
        let Answer::Extents(mut extents) = self.ask(status, (offset, asked), Answer::Extents(Vec::new()), &[]).await?
        else {
            return Err(NbdError::Protocol("a block status brings no extents".to_owned()));
        };
        // The last extent may reach beyond what was asked for.
        let mut left = len;
        for extent in &mut extents {
            extent.len_bytes = extent.len_bytes.min(left);
            left -= extent.len_bytes;
        }
        extents.retain(|extent| extent.len_bytes > 0);
        Ok(extents)
    }

    /// Says goodbye and waits until the server has hung up, so that it counts no connection any more.
    pub(crate) async fn close(mut self) {
        let mut bye = Vec::new();
        let header = RequestHeader { flags: 0, command: command::DISC, cookie: Cookie(0), offset: 0, length_bytes: 0 };
        encode_request(self.facts.style, &header, &mut bye);
        let writer = self.writer.get_mut();
        let receiving = &mut self.receiving;
        let goodbye = async {
            // A server that has gone needs no goodbye.
            let _ = writer.write_all(&bye).await;
            let _ = writer.shutdown().await;
            let _ = receiving.await;
        };
        let _ = timeout(GOODBYE_DURATION_MAX, goodbye).await;
    }

    /// Asks, and gives the connection up when the server says nothing for too long, or too little.
    async fn ask(
        &self,
        command: (&'static str, u16),
        range: (u64, u32),
        answer: Answer,
        payload: &[u8],
    ) -> Result<Answer, NbdError> {
        let begin = Instant::now();
        let end = begin + self.silence_max * SILENCES_MAX;
        let mut asked = pin!(self.ask_patiently(command, range, answer, payload));
        let mut silent_since = begin;
        loop {
            if let Ok(answer) = timeout_at((silent_since + self.silence_max).min(end), &mut asked).await {
                return answer;
            }
            let is_end = Instant::now() >= end;
            match self.waiting.heard_at().filter(|at| *at > silent_since && !is_end) {
                Some(heard_at) => silent_since = heard_at,
                None => {
                    let waited = self.silence_max * if is_end { SILENCES_MAX } else { 1 };
                    let silent = NbdError::Silent { command: command.0, waited };
                    self.waiting.fail(&silent);
                    return Err(silent);
                }
            }
        }
    }

    async fn ask_patiently(
        &self,
        (name, number): (&'static str, u16),
        (offset, len): (u64, u32),
        answer: Answer,
        payload: &[u8],
    ) -> Result<Answer, NbdError> {
        let (done, answered) = oneshot::channel();
        let pending = Pending::new((name, offset), answer, done);
        let mut out = Vec::new();
        let mut writer = self.writer.lock().await;
        let cookie = self.waiting.add(pending)?;
        let header = RequestHeader { flags: 0, command: number, cookie, offset, length_bytes: len.into() };
        encode_request(self.facts.style, &header, &mut out);
        let mut sent = writer.write_all(&out).await;
        if sent.is_ok() && !payload.is_empty() {
            sent = writer.write_all(payload).await;
        }
        if sent.is_ok() {
            sent = writer.flush().await;
        }
        drop(writer);
        if let Err(error) = sent {
            self.waiting.fail(&NbdError::Lost(error.to_string()));
        }
        answered.await.unwrap_or_else(|_| Err(NbdError::Lost("it was given up".to_owned())))
    }
}

/// Takes replies until the connection ends; then fails every request that is left.
async fn receive(mut reader: Reader, mut input: Vec<u8>, facts: Facts, waiting: Arc<Waiting>) {
    let failure = loop {
        if let Err(error) = take_replies(&mut input, &facts, &waiting) {
            break error;
        }
        input.reserve(RECEIVE_BYTES);
        match reader.read_buf(&mut input).await {
            Ok(0) => break NbdError::Lost("the server hung up".to_owned()),
            Ok(_) => waiting.hear(),
            Err(error) => break NbdError::Lost(error.to_string()),
        }
    };
    waiting.fail(&failure);
}

fn take_replies(input: &mut Vec<u8>, facts: &Facts, waiting: &Waiting) -> Result<(), NbdError> {
    let mut rest = input.as_slice();
    loop {
        let reply = decode_reply(facts.style, |cookie| waiting.data_len(cookie), &mut rest);
        match reply.map_err(|error| NbdError::Protocol(error.to_string()))? {
            Some(reply) => waiting.take(reply, facts.allocation)?,
            None => break,
        }
    }
    let used = input.len() - rest.len();
    input.drain(..used);
    // The decoder refuses longer messages, so that this only holds it to its word.
    if input.len() > 2 * PAYLOAD_BYTES_MAX as usize {
        return Err(NbdError::Protocol("a reply is too long".to_owned()));
    }
    Ok(())
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::nbd::ReplyStyle;
    use tokio::io::{DuplexStream, duplex};
    use tokio::time::sleep;

    const SILENCE_MAX: Duration = Duration::from_millis(50);

    fn connection() -> (Connection, DuplexStream) {
        let (ours, theirs) = duplex(1024);
        let facts = Facts {
            size_bytes: 1 << 30,
            is_read_only: false,
            has_flush: true,
            payload_bytes_max: None,
            alignment: 1,
            style: ReplyStyle::Simple,
            allocation: None,
        };
        (Connection::new(Box::new(ours), facts, Vec::new(), SILENCE_MAX), theirs)
    }

    /// P6. No server keeps a request waiting for ever: neither by silence, nor by taking nothing in, nor by a byte now and
    /// then. What is asked later fails at once.
    #[tokio::test]
    async fn a_server_that_never_comes_to_an_answer_is_given_up() {
        let (silent, _theirs) = connection();
        let error = silent.read(0, 4096).await.unwrap_err();
        assert_eq!(error, NbdError::Silent { command: "read", waited: SILENCE_MAX });
        assert_eq!(silent.flush().await.unwrap_err(), error);

        let (deaf, _theirs) = connection();
        let error = deaf.write(0, &[1; 1 << 20]).await.unwrap_err();
        assert_eq!(error, NbdError::Silent { command: "write", waited: SILENCE_MAX });
        timeout(2 * GOODBYE_DURATION_MAX, deaf.close()).await.expect("it hears no goodbye");

        let (dripping, mut theirs) = connection();
        let server = tokio::spawn(async move {
            // A simple reply to the first request, and then its data.
            let mut bytes = [&[0x67, 0x44, 0x66, 0x98][..], &[0; 12]].concat();
            while theirs.write_all(&bytes).await.is_ok() {
                bytes = vec![0];
                sleep(SILENCE_MAX / 10).await;
            }
        });
        let error = dripping.read(0, 1 << 20).await.unwrap_err();
        assert!(matches!(error, NbdError::Silent { command: "read", .. }), "{error}");
        drop(dripping);
        server.await.unwrap();
    }
}
